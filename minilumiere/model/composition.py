"""Captions of two objects: each alone while noise hides where they are, then both together.

    z₁ ── "a red 3 moving left" ──► x̂₁ ┐ the first in front
                                        ├────────────► x̂ + noise of both ── "a red 3 moving left and a blue 7 …" ──► clip
    z₂ ── "a blue 7 moving up"  ──► x̂₂ ┘
          log-SNR below TOGETHER                       log-SNR above

Why: the net learns early which words move an object, and late which of two objects they belong to. Taken apart, a caption
has nothing to confuse. What is left for the whole caption is what one object does to the other: which is in front.

Three times as many clips are right in all that they say as with both together from the start (docs/results.md); where they
are put together, and how, is measured in docs/experiments.md.

After composable diffusion (Liu et al. 2022), which adds up predictions for one and the same noisy clip; there, both objects
read the same noise and land in the same place. Our choice: the paper is silent. Only where no pixel is given.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.dataset.captions import parse_caption
from minilumiere.model.diffusion import Denoiser, alpha_sigma, denoise_along

TOGETHER = -1.0  # log-SNR


def take_apart(captions: list[str], wanted: list[bool]) -> tuple[list[str], Int[Tensor, " m"]]:
    """A caption for each object of the captions where that is wanted; and for each part, the number of its caption."""
    parts, owner = [], []
    for number, (caption, apart) in enumerate(zip(captions, wanted, strict=True)):
        mine = [str(subject) for subject in parse_caption(caption)] if apart else [caption]
        parts += mine
        owner += [number] * len(mine)
    return parts, torch.tensor(owner)


def sample_captions(
    denoiser: Callable[[list[str], Int[Tensor, " m"]], Denoiser],
    noisy: Float[Tensor, "b ..."],
    captions: list[str],
    apart: list[bool],
    levels: Float[Tensor, " steps+1"],
    order: int = 1,
    progress: str = "",
) -> Float[Tensor, "b ..."]:
    """Clean data in [-1, 1] of b captions, those of two objects with `sample_apart` where `apart` says so.

    `denoiser(parts, owner)` makes the denoiser of m captions, of which part i belongs to clip `owner[i]`.
    """
    parts, owner = take_apart(captions, apart)
    whole = denoiser(captions, torch.arange(len(captions)))
    if len(parts) == len(captions):
        return denoise_along(whole, noisy, levels, order=order, progress=progress)[1]
    return sample_apart(denoiser(parts, owner), whole, noisy, owner, levels, order, progress)


def sample_apart(
    each: Denoiser,
    whole: Denoiser,
    noise: Float[Tensor, "b ..."],
    owner: Int[Tensor, " m"],
    levels: Float[Tensor, " steps+1"],
    order: int = 1,
    progress: str = "",
) -> Float[Tensor, "b ..."]:
    """Clean data in [-1, 1] from `noise`, along the `levels` of a `schedule`.

    `each` denoises m parts, `whole` the b clips that they make up; part i belongs to clip `owner[i]`, every clip has one,
    and the parts of a clip stand together. Clips of one part are sampled as ever. `order`: see `denoise_along`.
    """
    apart = max(1, min(int((levels < TOGETHER).sum()), len(levels) - 2))  # steps; the last is together
    noisy, clean = denoise_along(each, noise_of_parts(noise, owner), levels[: apart + 1], order=order, progress=progress)
    return denoise_along(whole, put_together(noisy, clean, owner, levels[apart]), levels[apart:], order=order)[1]


def noise_of_parts(noise: Float[Tensor, "b ..."], owner: Int[Tensor, " m"]) -> Float[Tensor, "m ..."]:
    """The first part of a clip begins with the clip's noise, the second with the same, its frames turned upside down.

    The net reads places off the noise: the turned noise puts the second object opposite the first, out of its way.
    """
    second = owner == owner.roll(1)
    second[0] = False
    parts = noise[owner]
    parts[second] = parts[second].flip(-1, -2)
    return parts


def put_together(
    noisy: Float[Tensor, "m c ..."], clean: Float[Tensor, "m c ..."], owner: Int[Tensor, " m"], log_snr: Float[Tensor, ""]
) -> Float[Tensor, "b ..."]:
    """Noisy clips of their parts: x̂ of the first in front of the second's, on black, and the noise of both, of variance 1."""
    alpha, sigma = alpha_sigma(log_snr.to(noisy), noisy)
    noise, ink = (noisy - alpha * clean) / sigma, (clean + 1) / 2
    clips = []
    for clip in owner.unique():
        mine = owner == clip
        scene = torch.zeros_like(ink[0])
        for part in ink[mine].flip(0):  # from the back
            scene = part + (1 - part.amax(0, keepdim=True)) * scene  # what is bright covers
        clips.append(alpha[0] * (2 * scene - 1) + sigma[0] * noise[mine].sum(0) / mine.sum().sqrt())
    return torch.stack(clips)
