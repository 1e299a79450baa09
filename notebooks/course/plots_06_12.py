"""Drawing that notebooks 06 to 12 share: clips that move side by side, rows of images, slices x-t."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image as Inline
from IPython.display import display
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minilumiere.evaluation.quality import wilson
from minilumiere.viz.files import encode_video

ORANGE, BLUE, GREEN, GREY = "#E69F00", "#0072B2", "#009E73", "#8c8c8c"  # told apart by colour-blind readers too
STRIP, GAP = 16, 6  # pixels above each clip for its name; between clips
LEVELS = 12  # of brightness in a moving picture


def moving(clips: dict[str, Tensor], side: int = 128, fps: float = 8) -> None:
    """Show clips (t 3 h w) in [0, 1] side by side in one moving picture, each below its name."""
    columns = []
    for name, clip in clips.items():
        zoom = max(1, side // clip.shape[-1])
        coarse = (clip.detach().clamp(0, 1) * LEVELS).round() / LEVELS  # faint speckle costs more bytes than the digits
        large = coarse.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)  # t 3 H W
        title = Image.new("RGB", (large.shape[-1], STRIP))
        ImageDraw.Draw(title).text((2, 1), name, fill="white", font=ImageFont.load_default(11))
        strip = torch.from_numpy(np.array(title)).permute(2, 0, 1) / 255
        columns.append(torch.cat([strip.expand(len(large), -1, -1, -1), large], dim=2))
    frames = min(map(len, columns))
    gap = torch.full((frames, 3, columns[0].shape[2], GAP), 0.35)
    parts = [part for column in columns for part in (gap, column[:frames])][1:]
    display(Inline(data=encode_video(torch.cat(parts, dim=3), "PNG", fps, colours=64), format="png"))


def show_rows(rows: list[Tensor], names: list[str], titles: list[str] | None = None, size: float = 1.15) -> None:
    """Images (3 h w) in [0, 1] in rows, a name before each row and a title above each column."""
    _, axes = plt.subplots(
        len(rows),
        len(rows[0]),
        figsize=(size * len(rows[0]) + 0.3, 1.04 * size * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for line, images, name in zip(axes, rows, names, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.detach().permute(1, 2, 0).clamp(0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize="small")
    plt.show()


def x_t(clip: Tensor) -> Tensor:
    """The slice x-t of a clip (t 3 h w) in [0, 1]: the brightest of all rows, as an image t w 3."""
    return clip.detach().amax(2).permute(0, 2, 1).clamp(0, 1)


def show_slices(clips: dict[str, Tensor], height: float = 2.2, note: str = "") -> None:
    """The slice x-t of each clip, below its name; `note` above all of them."""
    figure, axes = plt.subplots(1, len(clips), figsize=(1.75 * len(clips) + 0.4, height), layout="constrained", sharey=True)
    for axis, (name, clip) in zip(np.atleast_1d(axes), clips.items(), strict=True):
        axis.imshow(x_t(clip), interpolation="nearest", aspect="auto")
        axis.set(xlabel="x →", xticks=[], yticks=[])
        axis.set_title(name, fontsize="small")
    np.atleast_1d(axes)[0].set_ylabel("← t")
    if note:
        figure.suptitle(note, fontsize="medium")
    plt.show()


def bars_with_intervals(axis, names: list[str], right: dict[str, list[int]], n: int, colours: list[str]) -> None:
    """Shares of n clips as bars, with their 95 % Wilson intervals: a group of bars for each name, a colour for each series."""
    width = 0.8 / len(right)
    for number, ((label, counts), colour) in enumerate(zip(right.items(), colours, strict=True)):
        shares = np.array(counts) / n
        low, high = np.array([wilson(share, n) for share in shares]).T
        places = np.arange(len(names)) + (number - (len(right) - 1) / 2) * width
        reach = np.maximum([shares - low, high - shares], 0)
        axis.bar(places, shares, 0.9 * width, color=colour, yerr=reach, capsize=3, ecolor="0.25", label=label)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylim=(0, 1.05))


def show_patching(counts: dict[str, dict[str, dict[str, int]]], pairs: int, title: str = "") -> None:
    """For each patched layer and attribute: of how many clips it turned to the other caption's, and of how many it was kept.

    Orange to the right: turned; blue: kept; grey is neither. With the 95 % intervals of what turned.
    """
    names, layers = list(next(iter(counts.values()))), list(counts)
    figure, axes = plt.subplots(1, len(names), figsize=(8.2, 0.27 * len(layers) + 0.7), layout="constrained", sharey=True)
    places = np.arange(len(layers))
    for axis, name in zip(axes, names, strict=True):
        turned, kept = (np.array([counts[layer][name][what] / pairs for layer in layers]) for what in ("turned", "kept"))
        low, high = np.array([wilson(share, pairs) for share in turned]).T
        axis.barh(places, 1.0, color="0.9")
        axis.barh(
            places, turned, color=ORANGE, xerr=np.maximum([turned - low, high - turned], 0), ecolor="0.35", label="turned"
        )
        axis.barh(places, kept, left=1 - kept, color=BLUE, label="kept")
        axis.set(xlim=(0, 1), title=name, xticks=[0, 0.5, 1])
    axes[0].set_yticks(places, layers, fontsize=8)
    axes[0].invert_yaxis()
    axes[-1].legend(fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize="medium")
    plt.show()
