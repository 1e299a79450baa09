"""Patching: one layer's output in the run of one caption is replaced by that of another caption's run. Does the clip turn?

    "a red 3 moving left"    z ─► … ─ layer ─ … ─► v        sampled step by step
                                        ▲
    "a blue 7 moving right"  z' ─► … ─ layer ─ …            `of_run`: at the same step of the other's own run, z' ≠ z
                                                            `of_words`: the other caption on the same z: what words alone do

Patched everywhere with its own features, a run stays as it is; with the other's `output`, it becomes the other. The image
net's guidance is left out, for it acts beside the layers. After Meng et al. 2022 (causal tracing) for the idea; our choice.
`evaluation/inside.py` has the judge read the clips. Used in notebook 10.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.config import Scale
from minilumiere.model.text import tokenise
from minilumiere.torch_state import pinned
from minilumiere.viz.clips import new_figure
from minilumiere.viz.features import part_of, record_features
from minilumiere.viz.panels import Panel
from minilumiere.viz.path import Patch, Step, as_clips, sampling_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Options = Mapping[str, list[int] | Tensor | None]  # `frames` and `region` of `part_of`


def of_run(path: list[Step], layers: list[str], part: Options | None = None) -> Patch:
    """A patch for `sampling_path`: these layers as they were at the same step of another run, which kept them."""

    def patch(number: int, noisy: Tensor, log_snr: Tensor) -> Mapping:
        return {layer: part_of(path[number].features[layer], **(part or {})) for layer in layers}

    return patch


def of_words(stunet: nn.Module, captions: list[str], layers: list[str], part: Options | None = None) -> Patch:
    """A patch for `sampling_path`: these layers as they would be with other captions, on the same noisy clips."""
    tokens = tokenise(captions)

    def patch(number: int, noisy: Tensor, log_snr: Tensor) -> Mapping:
        with record_features(stunet) as features:
            stunet(noisy, log_snr, tokens.to(noisy.device))
        return {layer: part_of(features[layer], **(part or {})) for layer in layers}

    return patch


@pinned()
@torch.no_grad()
def patched_clips(
    stunet: nn.Module,
    captions: list[str],
    seeds: list[int],
    scale: Scale,
    patch: Patch | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    frames: int | None = None,
) -> Float[Tensor, "b t 3 h w"]:
    """Base clips in [0, 1] of a patched run, or of an unpatched one; see `sampling_path`."""
    options = {"steps": steps, "guidance": guidance, "frames": frames, "layers": [], "patch": patch}
    path = sampling_path(stunet, captions, seeds, without_image_guidance(scale), **options)
    return as_clips(path[-1].clean)


def without_image_guidance(scale: Scale) -> Scale:
    """The scale, but for the image net's guidance, whose captions no layer's output could exchange."""
    return replace(scale, image_share=0.0)


@pinned()
def render_patched(
    clips: Mapping[str, Float[Tensor, "t 3 h w"]], frame: int | None = None, title: str = "", width: float = 1.6
) -> "Figure":
    """Clips side by side, each a frame (the middle one) and its slices x–t and y–t of the brightest of all rows or columns.

    `width` of each, in inches.
    """
    figure = new_figure(width * len(clips) + 0.4, 5.3, dpi=80, layout=None)
    left, top = 0.35 / figure.get_figwidth(), 0.8 if title else 0.86
    grid = figure.add_gridspec(3, len(clips), left=left, bottom=0.03, right=0.99, top=top, wspace=0.1, hspace=0.1)
    for column, (name, clip) in enumerate(clips.items()):
        number = len(clip) // 2 if frame is None else frame
        pictures = (clip[number].permute(1, 2, 0), clip.amax(2).permute(0, 2, 1), clip.amax(3).permute(0, 2, 1))
        sides = (f"frame {number}", "x →, ← t", "y →, ← t") if column == 0 else ("", "", "")
        for line, (picture, side) in enumerate(zip(pictures, sides, strict=True)):
            Panel(grid[line, column], picture, name if line == 0 else "", "", side)
    figure.suptitle(title, fontsize=12)
    return figure
