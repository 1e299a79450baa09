"""Captions of two objects: each is sampled alone, and enlarged, then the first is put in front of the second.

    z₁ ── "a red 3 moving left" ──► x̂₁ ──► super-resolution ┐ the first in front
                                                             ├────────────────────► clip
    z₂ ── "a blue 7 moving up"  ──► x̂₂ ──► super-resolution ┘

Why: the net learns early which words move an object, and late which of two objects they belong to. Taken apart, a caption
has nothing to confuse. Far more clips are right in all that they say than with both together from the start
(docs/results.md). To go on with the whole caption after that makes them worse, wherever it begins. So does enlarging both at
once: where they meet, super-resolution mixes them up (docs/experiments.md).

What it cannot do: objects that answer each other, such as one that pushes the other away. Nor is it used where pixels are
given: both objects may be on them.

After composable diffusion (Liu et al. 2022), which adds up predictions for one and the same noisy clip; there, both objects
read the same noise and land in the same place. Our choice: the paper is silent.
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.dataset.captions import parse_caption
from minilumiere.model.diffusion import Denoiser, denoise_along


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
    finish: Callable[[Tensor, list[str], Int[Tensor, " m"]], Tensor] | None = None,
    fresh: Iterable[Float[Tensor, "b ..."]] = (),
    **options,
) -> Float[Tensor, "b ..."]:
    """Clean data in [-1, 1] of b captions, along the `levels` of a `schedule`; the objects of each alone where `apart` says so.

    `denoiser(parts, owner)` makes the denoiser of m captions, of which part i belongs to clip `owner[i]`.
    `finish(clean, parts, owner)` is what becomes of the sampled parts before they are put together. `fresh`
    noise (b ...) for each step, and `options`: see `denoise_along`.
    """
    parts, owner = take_apart(captions, apart)
    noisy, fresh = noise_of_parts(noisy, owner), (noise_of_parts(noise, owner) for noise in fresh)
    _, clean = denoise_along(denoiser(parts, owner), noisy, levels, fresh=fresh, **options)
    return put_together(finish(clean, parts, owner) if finish else clean, owner)


def noise_of_parts(noise: Float[Tensor, "b ..."], owner: Int[Tensor, " m"]) -> Float[Tensor, "m ..."]:
    """The first part of a clip begins with the clip's noise, the second with the same, its frames turned upside down.

    The net reads places off the noise: the turned noise puts the second object opposite the first, out of its way.
    """
    second = owner == owner.roll(1)
    second[0] = False
    parts = noise[owner]
    parts[second] = parts[second].flip(-1, -2)
    return parts


def put_together(clean: Float[Tensor, "m c ..."], owner: Int[Tensor, " m"]) -> Float[Tensor, "b c ..."]:
    """The clips of their parts, all in [-1, 1]: the first in front, on black. The parts of a clip stand together."""
    clips = []
    for clip in owner.unique():
        front, *others = clean[owner == clip]
        for behind in others:
            light = (front.amax(0, keepdim=True) + 1) / 2
            front = front + (1 - light) * (behind + 1)  # what is bright covers
        clips.append(front)
    return torch.stack(clips)
