"""The clips that the base STUNet is trained on, as batches: captions, noise, v, given pixels. The curriculum is here.

    draw_hidden_videos ─── 5 % of the steps: one object, the strongest noise
    draw_narrow_videos ─── to 50 %: everything, but circles start near one place
    draw_turning_videos ── to 65 %: circles only, from farther and farther away
    draw_videos ────────── everything

What is taught first and why was found by training at `tiny`; our choice: the paper is silent. Notebook 06.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.dataset.captions import MOTIONS, format_caption
from minilumiere.dataset.moving_digits import draw_scenes, random_subjects
from minilumiere.model.conditioning import given_pixels, random_masks
from minilumiere.model.diffusion import (
    add_noise,
    alpha_sigma,
    clean_and_noise,
    expected_clean,
    log_snr_at,
    stratified_times,
    velocity,
)
from minilumiere.model.text import null_tokens, tokenise

Batch = dict[str, Tensor]
NO_CAPTION = 0.1  # share of captions replaced by "no caption", for classifier-free guidance
STABLE_BELOW = -6.5  # log-SNR below which training targets of videos are averaged
STABLE_SCENES = 16  # over so many scenes
BARE = 0.1  # share of video captions that leave motion and speed open
CIRCLING = tuple(motion for motion in MOTIONS if "circling" in motion)
HIDDEN, NARROWLY, TURNING = 0.05, 0.5, 0.65  # until which shares of the steps the base sees what; see above
HIDDEN_SHIFT = -12.0  # of that noise
NARROW = 0.1  # share of the circle about its left end in which circles start at first


def draw_videos(
    scale: Scale,
    n: int,
    generator: torch.Generator,
    device: str,
    two: float = 0.5,
    shift: float | None = None,
    masked: bool = False,
    motions: tuple[str, ...] = MOTIONS,
    bare: float = BARE,
    band: tuple[float, float] | None = None,
    spread: float = 1.0,
) -> Batch:
    """Captioned clips with noise, for the base STUNet; some of their pixels given if `masked`. No `UNSEEN_PAIRS` occur.

    `two`: share of clips with two objects; `bare`: of captions that leave motion open; `motions` to draw from; `band` of
    log-SNR (default: all levels of the schedule); `spread`: see `spread_at`.
    """
    asked = [random_subjects(generator, two=two, unseen=False, bare=bare, motions=motions) for _ in range(n)]

    def draw(subjects: list, size: int) -> Tensor:
        videos, _ = draw_scenes(subjects, generator, scale.frames, scale.size, size, "train", device=device, spread=spread)
        return videos.transpose(1, 2)

    clean = draw(asked, scale.output_size)
    batch = with_noise(clean, asked, scale.video_shift if shift is None else shift, generator, band)
    masks = random_masks(clean, generator) if masked else torch.zeros_like(clean[:, :1])
    batch["given"] = given_pixels(clean * 2 - 1, masks)
    hidden = (batch["log_snr"] < STABLE_BELOW) & (masks.flatten(1).amax(1) == 0)
    return with_stable_targets(batch, hidden, asked, partial(draw, size=scale.size))  # noise hides how finely they are drawn


def draw_hidden_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """What the base begins with: one object in noise so strong that only the caption says where things are.

    With all noise levels from the start it had not learnt one word of motion after 1,679 steps: what is easy to see in
    weaker noise drowned them.
    """
    return draw_videos(scale, n, generator, device, two=0.0, shift=HIDDEN_SHIFT, spread=NARROW)


def draw_narrow_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """Then everything, but circles start near their left end: there "clockwise" means "up", and is as easily learnt."""
    return draw_videos(scale, n, generator, device, spread=NARROW)


def draw_turning_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """Then circles only, in noise in which their directions matter, while their starts spread.

    Only a net that follows objects through noise has a use for directions. With this right after `draw_hidden_videos`, `tiny`
    knew no direction at all after 700 steps of 8 clips; where it is now, it knew all of them (`data/README.md`).
    """
    spread = spread_at(progress)
    return draw_videos(scale, n, generator, device, two=0.0, motions=CIRCLING, bare=0.0, band=(-6.5, -3.5), spread=spread)


def spread_at(progress: float) -> float:
    """Within what share of the circle do circles start, once this share of the steps is done?

    Over all starts the mean clip is the same clockwise and anticlockwise: only together with a place does the direction
    say anything, and `tiny` had learnt neither word after 23,000 steps. Starts near one place make them matter at once;
    what is learnt there is kept, at times hanging by a thread, as they spread (notebook 06).
    """
    share = (progress - NARROWLY) / (TURNING - NARROWLY)  # of the steps of `draw_turning_videos`
    return min(1.0, NARROW + (1 - NARROW) * max(0.0, share - 0.08) / 0.6)


def with_stable_targets(batch: Batch, hidden: Tensor, asked: list, draw: Callable[[list], Tensor]) -> Batch:
    """Where a clip is `hidden` by noise, let the target be the mean of many clips of that caption (see `expected_clean`).

    One clip says little about its caption, as all else about it is random. Measured at `tiny`, one object, pure noise,
    200 steps of 8 clips: with 1 scene a target no word of motion is learnt; with 16 they are in use after 50 to 150.
    """
    where = hidden.nonzero()[:, 0].tolist()
    if where:
        noisy, v, log_snr = (batch[key][where] for key in ("noisy", "v", "log_snr"))
        others = draw([asked[i] for _ in range(STABLE_SCENES - 1) for i in where]) * 2 - 1
        candidates = torch.cat([clean_and_noise(noisy, v, log_snr)[0], others]).unflatten(0, (STABLE_SCENES, -1))
        clean = expected_clean(noisy, candidates, log_snr)
        alpha, sigma = alpha_sigma(log_snr, clean)
        batch["v"][where] = (alpha * noisy - clean) / sigma  # x = α z − σ v
    return batch


def with_noise(
    clean: Tensor, asked: list, shift: float, generator: torch.Generator, band: tuple[float, float] | None = None
) -> Batch:
    """Add noise at stratified times to images or videos in [0, 1], or at log-SNRs of a `band`; drop some captions."""
    n, device = len(clean), clean.device
    tokens = tokenise([format_caption(subjects) for subjects in asked])
    dropped = torch.rand(n, generator=generator) < NO_CAPTION
    tokens[dropped] = null_tokens(int(dropped.sum()))
    times = stratified_times(n, generator)
    log_snr = (torch.lerp(*torch.tensor(band), times) if band else log_snr_at(times, shift)).to(device)
    clean = clean * 2 - 1
    noise = random_normal(clean.shape, generator, device)
    return {
        "noisy": add_noise(clean, noise, log_snr),
        "v": velocity(clean, noise, log_snr),
        "log_snr": log_snr,
        "tokens": tokens.to(device),
    }


def random_normal(shape, generator: torch.Generator, device) -> Tensor:
    """Normal noise drawn on `device`, determined by the (CPU) generator."""
    on_device = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(shape, generator=on_device, device=device)
