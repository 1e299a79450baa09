"""A student of few steps: one step of it does what three guided steps of its teacher do. Stages `fast` and `on-policy`.

    teacher   z₀ ── 2 or 4 calls of nets ──► z₁ ── 2 or 4 calls ──► z₂ ── 2 or 4 calls ──► z₃
    student   z₀ ──────────────────────────── one call of a net ─────────────────────────► z₃

Progressive distillation (Salimans and Ho 2022) of a guided sampler (Meng et al. 2023): the teacher is the base net with
captions' guidance and the image net's (`appearance`), the student a net of the same kind, which begins with the teacher's
weights. The teacher takes steps of DDIM from where one of the student's steps begins to where it ends; what x̂ one step would
need to arrive at the same place is the student's target:

    z₃ = α₃ x̂ + σ₃ (z₀ − α₀ x̂) / σ₀        ⇒        x̂ = (z₃ − z₀ σ₃/σ₀) / (α₃ − α₀ σ₃/σ₀)

Its loss is that of v, like its teacher's. One step of the student is one segment of the schedule: it knows where the step
ends from where it begins. Where does z₀ come from? In `fast` from a real clip and noise. In `on-policy`, which goes on from
there, from the steps that the student itself takes from pure noise: it is trained on what it will meet in use, its own
mistakes included (Agarwal et al. 2024, of language models; Kohler et al. 2024, of image diffusion).

In use a share of the noise is drawn anew after the student's later steps (`Scale.few_steps`), as if each had gone on to weaker
noise and been noised back. So the teacher leads on to there, and z₃ is what it has there.

In the weak noise at the end the image net draws alone (`appearance`): that step is not distilled. Two objects are sampled
apart (`composition`) unless pixels are given; only then does a clip of a batch have two. In use, the student's first step
goes farther from its teacher than this training takes it (`weights.nets.student`). The paper samples with many steps: all of
this is our choice.
"""

from functools import lru_cache, partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.dataset.chance import normal, pick, uniform
from minilumiere.model.appearance import image_share, with_drawing, with_image_net
from minilumiere.model.conditioning import given_pixels
from minilumiere.model.diffusion import Denoiser, add_noise, alpha_sigma, beyond, denoise_along, guided, schedule
from minilumiere.model.stunet import STUNet
from minilumiere.model.text import null_tokens, tokens_of
from minilumiere.training.clips import Batch, draw_clips
from minilumiere.training.masks import random_masks
from minilumiere.weights.nets import build, student, trained
from minilumiere.weights.shipped import weights_path

SUBSTEPS = 3  # of the teacher, in one step of the student
MASKED = 0.5  # share of the batches with given pixels (of which some give none, see `masks.MIXTURE`)
TWO_OBJECTS = 0.5  # share of clips with two, where pixels are given


def draw_segments(scale: Scale, n: int, generator: torch.Generator, device: str, own: bool = False) -> Batch:
    """Clips at the start of one of the student's steps, and the v that takes them where the teacher goes.

    A batch is of one length and of one segment. Every caption is there: without one the student is never asked. `own`: clips
    come there from pure noise in the steps of the student that is shipped; else they are real ones with noise.
    """
    few = scale.few_steps()
    coins = uniform((2,), generator)  # on the host
    masked = bool(coins[0] < MASKED)
    asked, clean, _ = draw_clips(scale, n, generator, device, two=TWO_OBJECTS if masked else 0.0)
    masks = random_masks(clean, generator)[0] if masked else torch.zeros_like(clean[:, :1])
    clean, tokens = clean * 2 - 1, tokens_of(asked).to(device)
    given = given_pixels(clean, masks)
    segments = [levels.to(device) for levels in segments_of(scale, clean.shape[2])]
    segment = int(pick(coins[1:], len(segments) if masked else len(segments) - 1))  # the last is the image net's
    begins = segments[0][:1] if own else segments[segment][:1]
    noisy = add_noise(clean, normal(tuple(clean.shape), generator, clean.device), begins)
    denoise = guided_denoiser(teacher(scale, device), scale, tokens, given, ~asked.two)
    with torch.no_grad(), torch.autocast(clean.device.type, torch.bfloat16, enabled=clean.is_cuda):
        if own:
            led = guided_denoiser(leader(scale, device), few, tokens, given, ~asked.two)
            path = torch.stack([levels[0] for levels in segments[: segment + 1]])
            fresh = (normal(tuple(noisy.shape), generator, noisy.device) for _ in path)
            noisy, _ = denoise_along(led, noisy, path, fresh=fresh, **few.sampler_of(clean.shape[2]))
        after, _ = denoise_along(denoise, noisy, segments[segment])
    now, then = (segments[segment][i].expand(len(clean)) for i in (0, -1))
    v = velocity_between(noisy, after, now, then)
    return {"noisy": noisy, "v": v, "log_snr": now, "tokens": tokens, "given": given}


def segments_of(scale: Scale, frames: int) -> list[Float[Tensor, " levels"]]:
    """The log-SNRs that the teacher goes through in each step of the student, which goes from the first to the last of them.

    Where noise is drawn anew, the last is that of what is left without it. In the last step the image net draws alone, where
    it has a word (see `appearance`).
    """
    few = scale.few_steps()
    fine = schedule(few.steps * SUBSTEPS, scale.shift_of(frames), power=few.power)
    *segments, last = (fine[i : i + SUBSTEPS + 1] for i in range(0, len(fine) - 1, SUBSTEPS))
    ends = pairwise(with_drawing(last[[0, -1]]).tolist())
    segments += [torch.linspace(begin, end, SUBSTEPS + 1) for begin, end in ends]
    sampler = few.sampler_of(frames)
    farther = torch.linspace(0, beyond(sampler["renewed"]), SUBSTEPS + 1)
    return [levels + farther * (levels[-1] > sampler["renewed_from"]) for levels in segments]


def teacher(scale: Scale, device: str) -> STUNet:
    """The shipped base net, on a device. Where there is none that fits, a fresh one: to be timed, for `train` has refused."""
    return _shipped("base", scale, device, _written("base", scale))


def leader(scale: Scale, device: str) -> STUNet:
    """The shipped student as it is used, on a device; else a fresh one, as above."""
    return _shipped("fast", scale, device, max(_written("base", scale), _written("fast", scale)))


def _written(stage: str, scale: Scale) -> int:
    path = weights_path(stage, scale)
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=2)
def _shipped(stage: str, scale: Scale, device: str, written: int) -> STUNet:
    """`written`: when the weights were, so that new ones are read."""
    try:
        net = student(scale) if stage == "fast" else trained(stage, scale)
    except (FileNotFoundError, ValueError):
        net = build(stage, scale, untrained=True)
    return net.to(device).eval().requires_grad_(False)


def guided_denoiser(net: STUNet, scale: Scale, tokens: Tensor, given: Tensor, single: Tensor) -> Denoiser:
    """`Pipeline`'s own, of clips of one level, but the image net never draws. `scale`: how it is guided."""

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
