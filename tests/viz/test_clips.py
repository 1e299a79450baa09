"""Saving clips and drawing figures."""

import errno
import importlib.util

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

import minilumiere as ml
from minilumiere.viz import filmstrip, space_time_slice
from minilumiere.viz.clips import encode_video

matplotlib.use("Agg")


@pytest.fixture
def video():
    return ml.sample_batch(1, captions=["a red 3 moving right"], size=64, seed=0).video[0]


@pytest.mark.parametrize("ending", ["gif", "png", "apng", "webp", "GIF"])
def test_saved_clips_have_all_frames_at_their_size_and_speed(video, tmp_path, ending):
    path = ml.save_video(video, tmp_path / f"out.{ending}", fps=16)
    with Image.open(path) as image:
        assert image.n_frames == 16 and image.size == (64, 64)
        image.seek(5)
        shown = torch.tensor(
            list(
                image.convert("RGB").get_flattened_data()
                if hasattr(image, "get_flattened_data")
                else image.convert("RGB").getdata()
            )
        )
        assert 50 <= image.info["duration"] <= 70  # milliseconds; 16 frames a second are 62.5, GIF counts in tens
    difference = (shown.reshape(64, 64, 3).permute(2, 0, 1) / 255 - video[5]).abs()
    assert difference.mean() < 0.02 and difference.max() < 0.4


def test_zoom_repeats_pixels(video, tmp_path):
    with Image.open(ml.save_video(video, tmp_path / "out.gif", zoom=3)) as image:
        assert image.size == (192, 192)


@pytest.mark.parametrize("zoom", [0, -1, 65, 1.5, "4"])
def test_a_bad_zoom_names_the_range(video, tmp_path, zoom):
    with pytest.raises((ValueError, TypeError), match=r"zoom must be .*from 1 to 64"):
        ml.save_video(video, tmp_path / "out.gif", zoom=zoom)
    assert not list(tmp_path.iterdir())


def test_mp4_works_with_the_extra_and_is_a_clear_error_without(video, tmp_path):
    if importlib.util.find_spec("imageio_ffmpeg"):
        assert ml.save_video(video, tmp_path / "out.mp4").stat().st_size > 500
    else:
        with pytest.raises(ValueError, match=r"minilumiere\[video\]"):
            ml.save_video(video, tmp_path / "out.mp4")
        assert not list(tmp_path.iterdir())


def test_unknown_ending(video, tmp_path):
    with pytest.raises(ValueError, match=r"\.gif \.png"):
        ml.save_video(video, tmp_path / "out.avi")


def test_a_full_disk_leaves_the_old_file(video, tmp_path, monkeypatch):
    path = ml.save_video(video, tmp_path / "out.gif")
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="untouched"):
        ml.save_video(1 - video, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.full((2, 3, 8, 8), 3.0), torch.full((2, 3, 8, 8), float("nan"))])
def test_bad_videos(bad, tmp_path):
    for use in (lambda: ml.save_video(bad, tmp_path / "out.gif"), lambda: filmstrip(bad), lambda: space_time_slice(bad)):
        with pytest.raises(ValueError, match="wanted"):
            use()


def test_filmstrip_shows_first_and_last_frame(video):
    figure = filmstrip(video, frames=4)
    assert [axis.get_xlabel() for axis in figure.axes] == ["t = 0", "t = 5", "t = 10", "t = 15"]
    assert torch.allclose(torch.tensor(figure.axes[-1].images[0].get_array()), video[15].permute(1, 2, 0))
    plt.close(figure)


def test_space_time_slice_shows_the_motion(video):
    """Of a 3 that moves to the right, the x-t slice's bright stripe moves right with t; the y-t slice's stays."""
    figure = space_time_slice(video)
    x_t, y_t = (torch.as_tensor(axis.images[0].get_array()).float().mean(-1) for axis in figure.axes)  # (t, x), (y, t)
    place = lambda weight: (weight * torch.arange(64)).sum(-1) / weight.sum(-1)  # noqa: E731
    assert place(x_t[8]) > place(x_t[0]) + 4
    assert (place(y_t.T[8]) - place(y_t.T[0])).abs() < 1
    assert figure.axes[0].get_xlabel() == "x →" and "t" in figure.axes[0].get_ylabel()
    plt.close(figure)
    with pytest.raises(ValueError, match="row"):
        space_time_slice(video, row=64)


def test_the_palette_keeps_a_clip_small(video):
    assert len(encode_video(video, "PNG")) < 40_000
