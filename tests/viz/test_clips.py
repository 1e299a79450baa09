"""Drawing figures of clips, and showing clips in a notebook."""

import sys
import warnings

import matplotlib
import nbformat
import pytest
import torch
from nbclient import NotebookClient

import minilumiere as ml
from minilumiere.viz import filmstrip, space_time_slice
from minilumiere.viz.clips import encode_video, new_figure, to_png

matplotlib.use("Agg")


@pytest.fixture
def video():
    return ml.sample_batch(1, captions=["a red 3 moving right"], size=64, seed=0).video[0]


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.full((2, 3, 8, 8), 3.0), torch.full((2, 3, 8, 8), float("nan"))])
def test_bad_videos(bad, tmp_path):
    for use in (lambda: ml.save_video(bad, tmp_path / "out.gif"), lambda: filmstrip(bad), lambda: space_time_slice(bad)):
        with pytest.raises(ValueError, match="wanted"):
            use()


@pytest.mark.parametrize("frames", [0, -1, 101, 2.5, "8", None, True])
def test_a_bad_number_of_frames_names_the_range(video, frames):
    with pytest.raises((ValueError, TypeError), match=r"frames must be .*from 1 to 100"):
        filmstrip(video, frames=frames)


def test_filmstrip_shows_first_and_last_frame(video):
    figure = filmstrip(video, frames=4)
    assert [axis.get_xlabel() for axis in figure.axes] == ["t = 0", "t = 5", "t = 10", "t = 15"]
    assert torch.allclose(torch.tensor(figure.axes[-1].images[0].get_array()), video[15].permute(1, 2, 0))


def test_space_time_slice_shows_the_motion(video):
    """Of a 3 that moves to the right, the x-t slice's bright stripe moves right with t; the y-t slice's stays."""
    figure = space_time_slice(video)
    x_t, y_t = (torch.as_tensor(axis.images[0].get_array()).float().mean(-1) for axis in figure.axes)  # (t, x), (y, t)
    place = lambda weight: (weight * torch.arange(64)).sum(-1) / weight.sum(-1)  # noqa: E731
    assert place(x_t[8]) > place(x_t[0]) + 4
    assert (place(y_t.T[8]) - place(y_t.T[0])).abs() < 1
    assert figure.axes[0].get_xlabel() == "x →" and "t" in figure.axes[0].get_ylabel()
    with pytest.raises(ValueError, match="row"):
        space_time_slice(video, row=64)


def test_a_palette_keeps_a_clip_small(video):
    assert len(encode_video(video, "PNG", colours=64)) < 20_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_figures_take_every_float_type_without_a_warning(video, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw in (filmstrip, space_time_slice):
            to_png(draw(video.to(dtype).requires_grad_()))


def test_a_figure_without_axes_is_shown_where_pyplot_is_imported():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats

    shell = InteractiveShell()
    select_figure_formats(shell, {"png"})  # as importing pyplot does: it takes a figure without axes for an empty one
    figure = new_figure(2, 1)
    figure.text(0.5, 0.5, "drawn straight on it")
    assert shell.display_formatter.format(figure)[0]["image/png"] == to_png(figure)


def test_figures_leave_pyplot_alone(video):
    import matplotlib.pyplot as plt

    plt.close("all")
    mine = plt.figure()
    for _ in range(3):
        filmstrip(video), space_time_slice(video)
    assert plt.get_fignums() == [mine.number] and plt.gcf() is mine
    plt.close(mine)


CELLS = {
    "last line": ("filmstrip(video)", 1),
    "last line, slices": ("space_time_slice(video)", 1),
    "displayed": ("display(filmstrip(video))", 1),
    "two": ("display(filmstrip(video))\nspace_time_slice(video)", 2),
    "kept": ("kept = filmstrip(video)", 0),
    "beside pyplot's own": ("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nfilmstrip(video)", 2),
}


def test_a_cell_shows_a_figure_once_with_and_without_pyplot():
    """In a real kernel, first without pyplot, then with it."""
    begin = "import torch, sys\nfrom minilumiere.viz import filmstrip, space_time_slice\nvideo = torch.rand(4, 3, 8, 8)"
    without = "assert 'matplotlib.pyplot' not in sys.modules"
    sources = [begin, *(source for source, _ in CELLS.values()), *(source for source, _ in list(CELLS.values())[:5])]
    sources.insert(6, without)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    counts = []
    for cell in notebook.cells:
        data = [output["data"] for output in cell.outputs if output.output_type in ("display_data", "execute_result")]
        counts.append(sum("image/png" in shown for shown in data))
        assert not any(output.output_type == "stream" for output in cell.outputs)
    expected = [count for _, count in CELLS.values()]
    assert counts == [0, *expected[:5], 0, expected[5], *expected[:5]]


def test_without_ipython_the_error_says_what_to_install(video, monkeypatch):
    for name in ("IPython", "IPython.display"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"minilumiere\[notebooks\]"):
        ml.show_video(video)


@pytest.mark.parametrize("option", [{"fps": 0}, {"zoom": 0}, {"fps": "16"}])
def test_bad_options_of_show_video(video, option):
    with pytest.raises((ValueError, TypeError), match=next(iter(option))):
        ml.show_video(video, **option)
