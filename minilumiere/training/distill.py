"""A student of few steps: one step of it does what two guided steps of its teacher do. Stage `fast`.

    teacher   z ── guided, 2 or 4 calls of nets ──► z' ── guided, 2 or 4 calls ──► z''
    student   z ──────────────────────── one call of a net ──────────────────────► z''

Progressive distillation (Salimans and Ho 2022) of a guided sampler (Meng et al. 2023): the teacher is the base net with
captions' guidance and the image net's (`appearance`), the student a net of the same kind, which begins with the teacher's
weights. Real clips get the noise at which one of the student's steps begins. The teacher takes two steps of DDIM from
there; what x̂ one step would need to arrive at the same place is the student's target:

    z'' = α'' x̂ + σ'' (z − α x̂) / σ        ⇒        x̂ = (z'' − z σ''/σ) / (α'' − α σ''/σ)

Its loss is that of v, like its teacher's. One step of the student is one segment of the schedule: it knows where the step
ends from where it begins. Shape is what it loses; some of the image net's guidance in its last step gives part of that back
(`Scale.few_steps`), and the step after it, in which the image net draws alone: that one is not distilled. Two objects are
sampled apart (`composition`) unless pixels are given; only then does a clip of a batch have two. In use, the student's
first step goes farther from its teacher than this training takes it (`weights.nets.student`). The paper samples with many
steps: all of this is our choice.
"""

from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.dataset.chance import normal, pick, uniform
from minilumiere.model.appearance import image_share, with_image_net
from minilumiere.model.conditioning import given_pixels, random_masks
from minilumiere.model.diffusion import Denoiser, add_noise, alpha_sigma, denoise_along, guided, schedule
from minilumiere.model.stunet import STUNet
from minilumiere.model.text import null_tokens, tokens_of
from minilumiere.training.clips import Batch, draw_clips
from minilumiere.weights.nets import build, trained
from minilumiere.weights.shipped import weights_path

SUBSTEPS = 2  # of the teacher, in one step of the student
MASKED = 0.5  # share of the batches with given pixels (of which some give none, see `conditioning.MIXTURE`)
TWO_OBJECTS = 0.5  # share of clips with two, where pixels are given


def draw_segments(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Clips at the start of one of the student's steps, and the v that takes them where the teacher goes.

    A batch is of one length and of one segment. Every caption is there: without one the student is never asked.
    """
    few = scale.few_steps()
    coins = uniform((2,), generator)  # on the host
    masked, segment = bool(coins[0] < MASKED), int(pick(coins[1:], few.steps))
    asked, clean, _ = draw_clips(scale, n, generator, device, two=TWO_OBJECTS if masked else 0.0)
    masks = random_masks(clean, generator)[0] if masked else torch.zeros_like(clean[:, :1])
    clean, tokens = clean * 2 - 1, tokens_of(asked).to(device)
    given = given_pixels(clean, masks)
    levels = schedule(few.steps * SUBSTEPS, scale.shift_of(clean.shape[2]), power=few.power)
    levels = levels[segment * SUBSTEPS :][: SUBSTEPS + 1].to(device)
    noisy = add_noise(clean, normal(tuple(clean.shape), generator, clean.device), levels[:1])
    denoise = guided_teacher(teacher(scale, device), scale, tokens, given, ~asked.two)
    with torch.no_grad(), torch.autocast(clean.device.type, torch.bfloat16, enabled=clean.is_cuda):
        after, _ = denoise_along(denoise, noisy, levels)
    now = levels[:1].expand(len(clean))
    v = velocity_between(noisy, after, now, levels[-1:].expand(len(clean)))
    return {"noisy": noisy, "v": v, "log_snr": now, "tokens": tokens, "given": given}


def teacher(scale: Scale, device: str) -> STUNet:
    """The shipped base net, on a device. Where there is none that fits, a fresh one: to be timed, for `train` has refused."""
    path = weights_path("base", scale)
    return _teacher(scale, device, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=1)
def _teacher(scale: Scale, device: str, written: int) -> STUNet:
    """`written`: when the weights were, so that new ones are read."""
    try:
        net = trained("base", scale)
    except (FileNotFoundError, ValueError):
        net = build("base", scale, untrained=True)
    return net.to(device).eval().requires_grad_(False)


def guided_teacher(net: STUNet, scale: Scale, tokens: Tensor, given: Tensor, single: Tensor) -> Denoiser:
    """The denoiser that the student learns from: `Pipeline`'s own, of clips of one level, but the image net never draws."""

    def call(words: Tensor, noisy: Tensor, log_snr: Tensor) -> Tensor:
        return net(noisy, log_snr, words, given=given)

    nothing = null_tokens(len(tokens)).to(tokens)
    denoise = guided(partial(call, tokens), partial(call, nothing), scale.guidance)
    return with_image_net(denoise, net.t2i, tokens, single * image_share(scale.guidance, scale), scale, draws=False)


def velocity_between(
    noisy: Float[Tensor, "b ..."], after: Float[Tensor, "b ..."], now: Float[Tensor, " b"], then: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """The v with which one step of DDIM leads from `noisy`, at log-SNR `now`, to `after`, at the larger `then`."""
    (alpha, sigma), (alpha_then, sigma_then) = alpha_sigma(now, noisy), alpha_sigma(then, noisy)
    shrink = sigma_then / sigma
    clean = (after - shrink * noisy) / (alpha_then - shrink * alpha)
    return (alpha * noisy - clean) / sigma
