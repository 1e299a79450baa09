"""The clips that the base STUNet is trained on, as batches: captions, noise, v, given pixels. The curriculum is here.

    draw_hidden_videos ─── one object, the strongest noise
    draw_narrow_videos ─── everything, but circles start near one place
    draw_turning_videos ── circles only, from farther and farther away
    draw_videos ────────── everything

Every batch holds clips of one length, drawn from the scale's `lengths`; the longer they are, the fewer, and the stronger the
noise. All of a batch is drawn at once on the device, and the host never waits for it: what it must know, it draws itself.
What is taught first and why was found by training at `tiny`; our choice: the paper is silent. Notebook 06.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.dataset.captions import MOTIONS
from minilumiere.dataset.chance import normal, pick, uniform
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import Subjects, random_subjects
from minilumiere.model.conditioning import given_pixels
from minilumiere.model.diffusion import (
    add_noise,
    alpha_sigma,
    clean_and_noise,
    expected_clean,
    log_snr_at,
    stratified_times,
    velocity,
)
from minilumiere.model.text import null_tokens, tokens_of
from minilumiere.training.masks import random_masks

Batch = dict[str, Tensor]
NO_CAPTION = 0.1  # share of captions replaced by "no caption", for classifier-free guidance
STABLE_BELOW = -6.5  # log-SNR below which training targets of clips of 16 frames are averaged; of longer ones, `deeper`
STABLE_SCENES = 16  # over so many scenes
BARE = 0.1  # share of video captions that leave motion and speed open
CIRCLING = tuple(motion for motion in MOTIONS if "circling" in motion)
OFTEN_CIRCLING = MOTIONS + CIRCLING  # circles are drawn twice as often as each other motion
HIDDEN, NARROWLY, TURNING = 0.03, 0.25, 0.35  # until which shares of the steps the base sees what; see above
HIDDEN_SHIFT = -12.0  # of that noise, of 16 frames
BAND = (-6.5, -3.5)  # log-SNR of `draw_turning_videos`, of 16 frames
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

    `n` clips of the scale's default length, or as many longer ones as have as many frames in all. `two`: share of clips with
    two objects; `bare`: of captions that leave motion open; `motions` to draw from; `shift` of the noise schedule (default:
    the scale's) or `band` of log-SNR to draw from, both of 16 frames; `spread`: see `spread_at`.
    """
    asked, clean, draw = draw_clips(scale, n, generator, device, two, motions, bare, spread)
    deeper = math.log(clean.shape[2] / 16)
    levels = random_levels(len(clean), scale.video_shift if shift is None else shift, generator, band) - deeper
    batch = with_noise(clean, tokens_of(asked), levels, generator)
    masks, given = torch.zeros_like(clean[:, :1]), torch.zeros(len(clean), dtype=torch.bool)
    if masked:
        masks, given = random_masks(clean, generator)
    batch["given"] = given_pixels(clean * 2 - 1, masks)
    hidden = ((levels < STABLE_BELOW - deeper) & ~given).nonzero()[:, 0]
    return with_stable_targets(batch, hidden, asked, partial(draw, size=scale.size))  # noise hides how finely they are drawn


def draw_clips(
    scale: Scale,
    n: int,
    generator: torch.Generator,
    device: str,
    two: float,
    motions: tuple[str, ...] = MOTIONS,
    bare: float = BARE,
    spread: float = 1.0,
) -> tuple[Subjects, Float[Tensor, "n 3 t h w"], Callable]:
    """What clips of one length show, the clips in [0, 1], and what draws more of them: `draw(subjects, size)`."""
    frames = scale.lengths[int(pick(uniform((1,), generator), len(scale.lengths)))]
    n = max(1, n * scale.frames // frames)
    asked = random_subjects(n, generator, two=two, unseen=False, bare=bare, motions=motions, device=device)

    def draw(subjects: Subjects, size: int) -> Float[Tensor, "n 3 t h w"]:
        videos, _ = draw_scenes(subjects, generator, frames, scale.size, size, "train", spread=spread)
        return videos.transpose(1, 2)

    return asked, draw(asked, scale.output_size), draw


def draw_hidden_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """What the base begins with: one object in noise so strong that only the caption says where things are.

    Among all noise levels, what is easy to see in weaker noise drowns the words of motion (docs/experiments.md).
    """
    return draw_videos(scale, n, generator, device, two=0.0, shift=HIDDEN_SHIFT, spread=NARROW)


def draw_narrow_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """Then everything, but circles start near their left end: there "clockwise" means "up", and is as easily learnt."""
    return draw_videos(scale, n, generator, device, spread=NARROW)


def draw_turning_videos(scale: Scale, n: int, generator: torch.Generator, device: str, progress: float) -> Batch:
    """Then circles only, in noise in which their directions matter, while their starts spread.

    Only a net that follows objects through noise has a use for directions: so it comes after `draw_narrow_videos`, not before
    (docs/experiments.md).
    """
    spread = spread_at(progress)
    return draw_videos(scale, n, generator, device, two=0.0, motions=CIRCLING, bare=0.0, band=BAND, spread=spread)


def spread_at(progress: float) -> float:
    """Within what share of the circle do circles start, once this share of the steps is done?

    Over all starts the mean clip is the same clockwise and anticlockwise: only together with a place does the direction
    say anything (docs/experiments.md). Starts near one place make the two words matter at once; what is learnt there is kept
    as they spread.
    """
    share = (progress - NARROWLY) / (TURNING - NARROWLY)  # of the steps of `draw_turning_videos`
    return min(1.0, NARROW + (1 - NARROW) * max(0.0, share - 0.08) / 0.6)


def with_stable_targets(batch: Batch, hidden: Int[Tensor, " k"], asked: Subjects, draw) -> Batch:
    """Where a clip is hidden by noise, let the target be the mean of many clips of that caption (see `expected_clean`).

    `hidden` are the numbers of those clips, on the host; `draw` makes clips in [0, 1] of `Subjects`. One clip says little
    about its caption, as all else about it is random. Measured at `tiny`, one object, pure noise, 200 steps of 8 clips: with
    1 scene a target no word of motion is learnt; with 16 they are in use after 50 to 150.
    """
    if len(hidden):
        there = hidden.to(batch["v"].device)
        noisy, v, log_snr = (batch[key][there] for key in ("noisy", "v", "log_snr"))
        others = draw(asked.at(hidden.repeat(STABLE_SCENES - 1))) * 2 - 1
        candidates = torch.cat([clean_and_noise(noisy, v, log_snr)[0], others]).unflatten(0, (STABLE_SCENES, -1))
        clean = expected_clean(noisy, candidates, log_snr)
        alpha, sigma = alpha_sigma(log_snr, clean)
        batch["v"][there] = (alpha * noisy - clean) / sigma  # x = α z − σ v
    return batch


def random_levels(
    n: int, shift: float, generator: torch.Generator, band: tuple[float, float] | None = None
) -> Float[Tensor, " n"]:
    """Log-SNRs of all of the schedule, evenly spread over its times, or of a `band`; on the host."""
    times = stratified_times(n, generator)
    return torch.lerp(*torch.tensor(band), times) if band else log_snr_at(times, shift)


def with_noise(
    clean: Float[Tensor, "n ..."], tokens: Int[Tensor, "n words"], log_snr: Float[Tensor, " n"], generator: torch.Generator
) -> Batch:
    """Add noise at given log-SNRs to images or videos in [0, 1]; drop some captions."""
    device = clean.device
    dropped = uniform((len(clean), 1), generator, device) < NO_CAPTION
    clean, log_snr = clean * 2 - 1, log_snr.to(device)
    noise = normal(tuple(clean.shape), generator, device)
    return {
        "noisy": add_noise(clean, noise, log_snr),
        "v": velocity(clean, noise, log_snr),
        "log_snr": log_snr,
        "tokens": torch.where(dropped, null_tokens(1).to(device), tokens.to(device)),
    }
