"""Look at videos: clips, filmstrips, and slices through space-time.

A slice x-t (one row of pixels, over time) shows motion at a glance: rest is vertical, a line slants, a circle waves.
Figures are made without pyplot: a cell shows the one that it ends with, and no other is kept open.
"""

import io
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.torch_state import pinned
from minilumiere.validate import check_number, check_video
from minilumiere.viz.files import encode_video

if TYPE_CHECKING:  # matplotlib takes 0.4 s to import: only what draws a figure imports it
    from matplotlib.figure import Figure

PALETTE = 64  # colours of a clip in a notebook: small, and a clip of a few digits has hardly more


def show_video(video: Float[Tensor, "t 3 h w"], fps: float = 16, zoom: int = 4) -> None:
    """Show a video in [0, 1] inline in Jupyter, as an animated PNG of 64 colours. `fps`, `zoom` and errors: `save_video`.

    Needs `pip install 'minilumiere[notebooks]'`, else `ImportError`.
    """
    try:
        from IPython.display import Image as Inline
        from IPython.display import display
    except ImportError as error:
        raise ImportError("show_video needs the extra: pip install 'minilumiere[notebooks]'") from error
    display(Inline(data=encode_video(video, "PNG", fps, zoom, PALETTE), format="png"))


@pinned()
def filmstrip(video: Float[Tensor, "t 3 h w"], frames: int = 8, title: str = "") -> "Figure":
    """`frames` frames, 1 to 100, evenly spaced from first to last, side by side. Raises `ValueError` or `TypeError`."""
    video, frames = check_video(video, "video", (None, 3, None, None)), check_number(frames, "frames", 1, 100, int)
    chosen = torch.linspace(0, len(video) - 1, min(frames, len(video))).round().long().tolist()
    figure = new_figure(1.3 * len(chosen), 1.7)
    for axis, frame in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        axis.imshow(video[frame].cpu().permute(1, 2, 0).clamp(0, 1).numpy())
        axis.set(xticks=[], yticks=[], xlabel=f"t = {frame}")
    figure.suptitle(title, fontsize="medium")
    return figure


@pinned()
def space_time_slice(
    video: Float[Tensor, "t 3 h w"], row: int | None = None, column: int | None = None, title: str = ""
) -> "Figure":
    """Slices through space-time: x-t (the brightest of all rows, or one `row`) and y-t (of all columns, or one `column`).

    Rows and columns are pixels from 0. Raises `ValueError` for one that is not there or a bad video, `TypeError` otherwise.
    """
    video = check_video(video, "video", (None, 3, None, None)).cpu().clamp(0, 1)
    row = None if row is None else check_number(row, "row", 0, video.shape[2] - 1, int)
    column = None if column is None else check_number(column, "column", 0, video.shape[3] - 1, int)
    x_t = video.amax(dim=2) if row is None else video[:, :, row]  # t 3 w
    y_t = video.amax(dim=3) if column is None else video[:, :, :, column]  # t 3 h
    figure = new_figure(6, 3)
    axes = figure.subplots(1, 2)
    axes[0].imshow(x_t.permute(0, 2, 1).numpy(), aspect="auto", interpolation="nearest")
    axes[0].set(xlabel="x →", ylabel="← t", title="x–t" if row is None else f"x–t at y = {row}")
    axes[1].imshow(y_t.permute(2, 0, 1).numpy(), aspect="auto", interpolation="nearest")
    axes[1].set(xlabel="t →", ylabel="← y", title="y–t" if column is None else f"y–t at x = {column}")
    figure.suptitle(title, fontsize="medium")
    return figure


def new_figure(width: float, height: float, **options) -> "Figure":
    """An empty figure, in inches, that pyplot does not know of, and that Jupyter shows whether or not pyplot is imported."""
    return _figure_class()(figsize=(width, height), **{"layout": "constrained"} | options)


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, bytes]:
            return {"image/png": to_png(self)}  # before what pyplot registers, for which a figure without axes is empty

    return ShownFigure


def to_png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
