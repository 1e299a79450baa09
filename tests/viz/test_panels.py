"""Panels: pictures, lines and words are where their rows and columns say, at any resolution."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D

from minilumiere.viz.clips import new_figure
from minilumiere.viz.panels import Panel, draw_clip

COLOURS = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]])  # 2 rows, 3 columns


def grid(width: float = 3, height: float = 2, rows: int = 1, columns: int = 1):
    figure = new_figure(width, height, dpi=100, layout=None)
    return figure.add_gridspec(rows, columns, left=0, bottom=0, right=1, top=1)


def pixels(figure) -> torch.Tensor:
    """What is drawn: h w 3 in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba()))[..., :3] / 255


@pytest.mark.parametrize("dpi", [100, 60])
def test_a_picture_fills_its_cell(dpi):
    cells = grid(columns=2)
    Panel(cells[0], COLOURS)
    Panel(cells[1], COLOURS[:1, :1], extent=(0, 32, 32, 0))
    cells.figure.set_dpi(dpi)
    drawn = pixels(cells.figure)
    assert drawn.shape == (2 * dpi, 3 * dpi, 3)
    box = cells[0].get_position(cells.figure)
    rows, columns = (torch.arange(n) * 2 + 1 for n in (2, 3))
    there = drawn[rows * dpi // 2][:, (columns * box.width * 3 * dpi / 6).long()]  # the middle of each place
    assert torch.equal(there, COLOURS)
    assert torch.equal(drawn[dpi, -dpi // 2], COLOURS[0, 0])


def test_a_number_s_colour_is_that_of_its_limits():
    cells = grid()
    Panel(cells[0], torch.tensor([[0.0, 1.0, torch.nan]]), cmap="gray", vmin=-1, vmax=1)
    drawn = pixels(cells.figure)[100, [50, 150, 250], 0]
    assert drawn[0] == pytest.approx(0.5, abs=0.01) and drawn[1:].tolist() == [1, 1]  # what is no number is left white


def test_lines_are_placed_in_rows_and_columns_or_in_units():
    for extent, place, scale in ((None, 1, 1), ((0, 30, 20, 0), 15, 10)):
        cells = grid()
        Panel(cells[0], COLOURS, extent=extent).line([place] * 2, [-0.5 * scale, 2 * scale], color="white", linewidth=3)
        drawn = pixels(cells.figure)
        assert (drawn[2:-2, 150] == 1).all() and torch.equal(drawn[50, 130], COLOURS[0, 1])


def test_words_are_placed_around_it_and_long_titles_are_broken_into_lines():
    figure = new_figure(2, 2, dpi=100, layout=None)
    cell = figure.add_gridspec(1, 1, left=0.3, bottom=0.3, right=0.9, top=0.7)[0]
    Panel(cell, COLOURS, "one line is too short\nfor it", "across", "down").text(1, 1, "here", right=36)
    title, across, down, here = figure.texts
    assert title.get_text() == "one line is too\nshort\nfor it" and down.get_rotation() == 90
    pixels(figure)
    above, below, left, inside = (text.get_window_extent() for text in (title, across, down, here))
    assert above.y0 > 140 > 60 > below.y1 and left.x1 < 60  # of 200 pixels
    assert (inside.x0 + inside.x1) / 2 == pytest.approx(120 + 50, abs=1) and (inside.y0 + inside.y1) / 2 < 100


def test_a_clip_is_a_frame_above_a_slice_and_each_says_where_the_other_is(pictures):
    clip = torch.rand(8, 6, 5)  # t h w
    cells = grid(rows=2, columns=2)
    for column in (0, 1):
        draw_clip(cells, column, "clip", clip, frame=3, row=4)
    image, slice_, *_ = pictures(cells.figure)
    assert torch.equal(image, clip[3]) and torch.equal(slice_, clip[:, 4])
    assert [line.get_xydata().tolist() for line in cells.figure.findobj(Line2D)[:2]] == [
        [[-0.5, 4], [4.5, 4]],
        [[-0.5, 3], [4.5, 3]],
    ]
    words = [text.get_text() for text in cells.figure.texts]
    assert [words.count(each) for each in ("← y", "← t", "x →")] == [1, 1, 2]
