"""Pictures with titles and named sides, straight on a figure: an axes for each would take most of the time to draw it.

    figure = new_figure(10.2, 5.7, dpi=80, layout=None)
    grid = figure.add_gridspec(2, 4, left=0.05, right=0.98)
    panel = Panel(grid[0, 1], picture, "channel 3, t = 4", "x →", "← y")
    panel.line([2, 5], [1, 1], color="white")         from column 2 to column 5 along row 1

Our choice.
"""

import textwrap
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.gridspec import GridSpec, SubplotSpec

Range = tuple[float, float, float, float]


class Panel:
    """A picture (rows, columns) or (rows, columns, 3) that fills a cell of a grid; `cmap`, `vmin` and `vmax` as in `imshow`.

    What is put on it is placed in its columns and rows, or in units of `extent`: (left, right, bottom, top).
    """

    def __init__(
        self,
        cell: "SubplotSpec",
        picture: Tensor,
        title: str = "",
        across: str = "",
        down: str = "",
        *,
        extent: Range | None = None,
        cmap: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
    ):
        from matplotlib.image import BboxImage
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import Bbox, BboxTransform, TransformedBbox

        figure = self.figure = cell.get_gridspec().figure
        rows, columns = picture.shape[:2]
        left, right, bottom, top = self.extent = extent or (-0.5, columns - 0.5, rows - 0.5, -0.5)
        box = cell.get_position(figure)
        self.units = BboxTransform(Bbox([[left, bottom], [right, top]]), box) + figure.transFigure
        image = BboxImage(TransformedBbox(box, figure.transFigure), cmap=cmap, interpolation="nearest")
        image.set_data(picture.cpu().numpy())
        image.set_clim(vmin, vmax)
        figure.add_artist(image)
        figure.add_artist(Rectangle(box.p0, box.width, box.height, fill=False, linewidth=0.8))

        letters = int(box.width * figure.get_figwidth() * 15)  # that fit into a line
        title = "\n".join(textwrap.fill(line, letters) for line in title.split("\n"))
        self.text((left + right) / 2, top, title, up=6, va="baseline")
        self.text((left + right) / 2, bottom, across, up=-4, va="top")
        self.text(left, (bottom + top) / 2, down, right=-4, rotation=90, ha="right", va="center")

    def text(self, x: float, y: float, words: str, *, right: float = 0, up: float = 0, **style) -> None:
        """Words at a place, moved by a few points (1/72 inch)."""
        from matplotlib.transforms import ScaledTranslation

        if words:
            moved = self.units + ScaledTranslation(right / 72, up / 72, self.figure.dpi_scale_trans)
            self.figure.text(x, y, words, transform=moved, **{"ha": "center", "fontsize": 10} | style)

    def line(self, x, y, **style) -> None:
        """A line, or markers, through places; `style` as in `plot`."""
        from matplotlib.lines import Line2D

        self.figure.add_artist(Line2D(x, y, transform=self.units, **style))


def draw_clip(grid: "GridSpec", column: int, title: str, clip: Tensor, frame: int, row: int, **colours) -> None:
    """A frame and, below it, the row's slice x–t of (t h w [3]); dashes in each say where the other is.

    Columns share their sides: the first one names y and t, and x is named below.
    """
    y, t = ("← y", "← t") if column == 0 else ("", "")
    when = f"t = {frame}".replace(" ", "\N{NO-BREAK SPACE}")  # stays on one line
    image = Panel(grid[0, column], clip[frame], f"{title}, {when}", "", y, **colours)
    slice_ = Panel(grid[1, column], clip[:, row], f"x–t at y = {row}", "x →", t, **colours)
    for panel, place in ((image, row), (slice_, frame)):
        panel.line(panel.extent[:2], [place, place], color="white", linewidth=1, linestyle=(0, (4, 4)))
