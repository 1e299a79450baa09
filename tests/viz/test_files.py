"""Clips as files: every frame, at its time, as exact as the format is. Pictures as a person sees them."""

import errno
import importlib.util
import io
import os
import stat
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import minilumiere as ml
from minilumiere.viz.animation import durations
from minilumiere.viz.files import check_output, encode_video, read_image

LOOPING = ["gif", "png", "apng", "webp"]


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return ml.sample_batch(1, captions=["a red 3 moving right"], size=64, seed=0).video[0]


@pytest.fixture(scope="module")
def still() -> torch.Tensor:
    return ml.sample_batch(1, captions=["a red 3 standing still"], size=64, seed=0).video[0]


def read_back(path: Path) -> tuple[list[np.ndarray], list[float], int]:
    """Frames, durations in milliseconds, and how often it is shown (0: for ever)."""
    frames, times = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            frames.append(np.asarray(image.convert("RGB")))
            times.append(image.info["duration"])
        return frames, times, image.info["loop"]


def pixels(video: torch.Tensor) -> np.ndarray:
    return (video * 255).round().byte().permute(0, 2, 3, 1).numpy()


# What is written


@pytest.mark.parametrize("ending", LOOPING)
@pytest.mark.parametrize("clip", ["still", "video", "black", "two equal", "comes back", "noise"])
def test_what_is_read_back_has_every_frame_and_its_time(still, video, tmp_path, ending, clip):
    clips = {
        "still": still,
        "video": video,
        "black": torch.zeros(5, 3, 8, 10),
        "two equal": video[[0, 0, 1]],
        "comes back": video[[0, 5, 0, 5]],
        "noise": torch.rand(4, 3, 17, 13),
    }
    given = clips[clip]
    frames, times, loop = read_back(ml.save_video(given, tmp_path / f"out.{ending}"))
    assert len(frames) == len(given) and loop == 0
    assert sum(times) == pytest.approx(1000 * len(given) / 16, abs=5 if ending == "gif" else 0.6)
    if ending != "gif":  # lossless
        assert np.array_equal(np.stack(frames), pixels(given))
    elif clip != "noise":  # 256 colours
        assert np.abs(np.stack(frames) / 255 - pixels(given) / 255).max() < 0.3


@pytest.mark.parametrize("ending", LOOPING)
@pytest.mark.parametrize("fps", [0.5, 7, 15, 16, 23.976, 24, 25, 30, 48, 50])
def test_the_whole_clip_lasts_as_long_as_it_should(video, tmp_path, ending, fps):
    clip = torch.cat([video] * 5)
    _, times, _ = read_back(ml.save_video(clip, tmp_path / f"out.{ending}", fps=fps))
    assert sum(times) == pytest.approx(1000 * len(clip) / fps, abs=5)  # half of a GIF's unit
    assert max(times) - min(times) <= 10 and min(times) >= 20


@pytest.mark.parametrize("fps", [50.5, 60, 100])
def test_a_gif_shows_no_more_than_50_frames_a_second(video, tmp_path, fps):
    with pytest.raises(ValueError, match="50 frames a second"):
        ml.save_video(video, tmp_path / "out.gif", fps=fps)
    with pytest.raises(ValueError, match="50 frames a second"):
        check_output(tmp_path / "out.gif", fps)
    assert read_back(ml.save_video(video, tmp_path / "out.webp", fps=fps))[1][:2] == pytest.approx([1000 / fps] * 2, abs=1)


def test_frames_begin_when_they_should():
    from fractions import Fraction

    assert durations(8, 30, Fraction(1, 100)) == [3, 4, 3, 3, 4, 3, 3, 4]
    assert sum(durations(1000, 29.97, Fraction(1, 1000))) == round(1000 / 29.97 * 1000)


@pytest.mark.parametrize(
    ("path", "fps", "zoom", "says"),
    [
        ("out.avi", 16, 1, r"\.gif \.png"),
        ("out", 16, 1, r"\.gif \.png"),
        ("", 16, 1, "empty"),
        ("out.gif", 0, 1, "fps"),
        ("out.gif", float("nan"), 1, "fps"),
        ("out.png", 101, 1, "fps"),
        ("out.png", 16, 0, "zoom"),
        ("out.png", 16, 65, "zoom"),
        ("out.png", 16, 1.5, "zoom"),
        (3, 16, 1, "path"),
        ("a\0.gif", 16, 1, "null byte"),
    ],
)
def test_what_can_be_checked_is_checked_before_there_is_a_clip(tmp_path, monkeypatch, path, fps, zoom, says):
    monkeypatch.chdir(tmp_path)
    for use in (lambda: check_output(path, fps, zoom), lambda: ml.save_video(torch.zeros(2, 3, 8, 8), path, fps, zoom)):
        with pytest.raises((ValueError, TypeError), match=says):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/dev/null/out.gif", "/proc/nowhere/out.png", "folder.gif", "file/out.gif"])
def test_an_output_that_cannot_be_written_is_found_before_there_is_a_clip(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("folder.gif").mkdir()
    Path("file").write_text("")
    with pytest.raises(OSError, match=Path(path).name):
        check_output(path)


def test_folders_are_made_and_a_tilde_is_the_home_folder(still, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    check_output("~/new/folder/out.gif")
    assert not list(tmp_path.iterdir())  # by saving, not by looking
    assert ml.save_video(still, "~/new/folder/out.gif") == tmp_path / "new" / "folder" / "out.gif"
    assert ml.save_video(still[:1], "~/new/folder/out.png").is_file()
    assert read_image("~/new/folder/out.png").shape == (3, 64, 64)


def test_a_file_has_the_rights_that_others_have(still, tmp_path):
    (tmp_path / "plain").write_text("")
    path = ml.save_video(still, tmp_path / "out.gif")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("ending", LOOPING)
def test_threads_may_save_one_name_at_once(video, tmp_path, ending):
    path, errors = tmp_path / f"out.{ending}", []

    def save() -> None:
        try:
            for _ in range(10):
                ml.save_video(video[:4], path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(read_back(path)[0]) == 4 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_accepted_with_or_without_gradient(video, tmp_path, dtype):
    given = video[:2].to(dtype).requires_grad_()
    frames = np.stack(read_back(ml.save_video(given, tmp_path / "out.png"))[0])
    assert np.abs(frames.astype(int) - pixels(video[:2])).max() <= (2 if dtype == torch.bfloat16 else 1)


def test_unknown_kinds_and_too_large_frames():
    with pytest.raises(ValueError, match="GIF, PNG, WEBP, MP4"):
        encode_video(torch.zeros(2, 3, 8, 8), "AVI")
    with pytest.raises(ValueError, match="16383 pixels"):
        encode_video(torch.zeros(1, 3, 1, 300), "WEBP", zoom=64)


# A child process


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A function that lets a shell script be the ffmpeg of the extra."""

    def use(script: str) -> None:
        path = tmp_path / "ffmpeg"
        path.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
        path.chmod(0o755)
        fake = types.SimpleNamespace(get_ffmpeg_exe=lambda: str(path))
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", fake)

    return use


@pytest.mark.parametrize(
    "script",
    [
        "cat > /dev/null; echo No space left on device >&2; exit 1",
        'cat > /dev/null; echo half > "$last"; echo No space left on device >&2; exit 228',
        "exit 1",  # without reading
        'cat > /dev/null; echo half > "$last"',  # exit code 0, but no table of contents
        "cat > /dev/null",
        "kill -9 $$",
    ],
)
def test_a_child_that_fails_is_an_error_and_leaves_the_old_file(video, tmp_path, ffmpeg, script):
    ffmpeg(script)
    path = tmp_path / "folder" / "out.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="ffmpeg"):
        ml.save_video(video, path)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_an_mp4_goes_through_the_common_writer(video, tmp_path, ffmpeg, monkeypatch):
    ffmpeg('cat > "$last"; echo moov >> "$last"')
    path = ml.save_video(video, tmp_path / "new" / "out.mp4")
    assert path.read_bytes() == pixels(video).tobytes() + b"moov\n"

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="untouched"):
        ml.save_video(1 - video, path)
    assert path.read_bytes().startswith(pixels(video).tobytes()) and list(path.parent.iterdir()) == [path]


def test_without_the_extra_that_is_said_before_there_is_a_clip(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"minilumiere\[video\]"):
        check_output(tmp_path / "out.mp4")

    def missing():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", types.SimpleNamespace(get_ffmpeg_exe=missing))
    with pytest.raises(ValueError, match=r"minilumiere\[video\]"):
        check_output(tmp_path / "out.mp4")


@pytest.mark.skipif(not importlib.util.find_spec("imageio_ffmpeg"), reason="needs the extra `video`")
def test_an_mp4_has_every_frame(still, tmp_path):
    from imageio_ffmpeg import count_frames_and_secs

    path = ml.save_video(still[:, :, :61, :63], tmp_path / "out.mp4")
    assert count_frames_and_secs(str(path)) == (16, pytest.approx(1.0, abs=0.07))


# What is read


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
GREY16 = RNG.integers(0, 65_536, (12, 12), dtype=np.uint16)
COLOURS = RGB / 255
GREYS = np.repeat(RGB[..., :1], 3, 2) / 255
DEEP = np.repeat(GREY16[..., None], 3, 2) / 65_535
OVER_BLACK = ALPHA[..., None] / 255
PALETTE = Image.fromarray(RGB).quantize(16)
IN_PALETTE = np.asarray(PALETTE.convert("RGB")) / 255
GREY = Image.fromarray(RGB[..., 0])
BITS = GREY.convert("1")


@pytest.mark.parametrize(
    ("name", "image", "options", "seen"),
    [
        ("rgb.png", Image.fromarray(RGB), {}, COLOURS),
        ("rgb.tif", Image.fromarray(RGB), {}, COLOURS),
        ("rgba.png", Image.fromarray(np.dstack([RGB, ALPHA])), {}, COLOURS * OVER_BLACK),
        ("rgba.webp", Image.fromarray(np.dstack([RGB, ALPHA])), {"lossless": True, "exact": True}, COLOURS * OVER_BLACK),
        ("grey.png", GREY, {}, GREYS),
        ("grey alpha.png", Image.merge("LA", [GREY, Image.fromarray(ALPHA)]), {}, GREYS * OVER_BLACK),
        ("16 bits.png", Image.fromarray(GREY16), {}, DEEP),
        ("16 bits.tif", Image.fromarray(GREY16), {}, DEEP),
        ("32 bits.tif", Image.fromarray(GREY16.astype(np.int32)), {}, DEEP),
        ("float.tif", Image.fromarray(DEEP[..., 0].astype(np.float32)), {}, DEEP),
        ("1 bit.png", BITS, {}, np.repeat(np.asarray(BITS)[..., None], 3, 2).astype(float)),
        ("palette.png", PALETTE, {}, IN_PALETTE),
        ("palette.gif", PALETTE, {}, IN_PALETTE),
        ("hole.png", PALETTE, {"transparency": 3}, np.where(np.asarray(PALETTE)[..., None] == 3, 0, IN_PALETTE)),
        ("holes.png", PALETTE, {"transparency": bytes(range(0, 256, 16))},
         IN_PALETTE * np.asarray(PALETTE)[..., None] * 16 / 255),
        ("grey hole.png", GREY, {"transparency": int(RGB[0, 0, 0])}, np.where(RGB[..., :1] == RGB[0, 0, 0], 0, GREYS)),
        ("16 bits hole.png", Image.fromarray(GREY16), {"transparency": int(GREY16[0, 0])},
         np.where(GREY16[..., None] == GREY16[0, 0], 0, DEEP)),
        ("cmyk.tif", Image.fromarray(RGB).convert("CMYK"), {}, COLOURS),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_a_picture_is_read_as_a_person_sees_it(tmp_path, name, image, options, seen):
    image.save(tmp_path / name, **options)
    read = read_image(tmp_path / name, (12, 64))
    assert read.dtype == torch.float32 and read.shape == (3, 12, 12)
    assert np.abs(read.permute(1, 2, 0).numpy() - seen).max() < 1e-6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_picture_is_read_upright(tmp_path, orientation, ending):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(picture).save(path, exif=exif, **{"lossless": True} if ending == "webp" else {"quality": 100})
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer))) / 255
    assert np.abs(read_image(path).permute(1, 2, 0).numpy() - upright).max() < 0.05


@pytest.mark.parametrize("values", [-1.0, 2.0, float("nan")])
def test_a_measurement_without_a_white_is_a_clear_error(tmp_path, values):
    Image.fromarray(np.full((8, 8), values, np.float32)).save(tmp_path / "measured.tif")
    with pytest.raises(ValueError, match=r"measured\.tif.*wanted 0 to 1"):
        read_image(tmp_path / "measured.tif")


@pytest.mark.parametrize("side", [10_000, 14_000, 20_000])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_by_its_header(tmp_path, monkeypatch, side):
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"huge\.png.*wanted 128x128 or 32x32"):
        read_image(tmp_path / "huge.png", (128, 32))


def test_another_size_names_those_that_are_accepted(tmp_path, monkeypatch):
    Image.new("RGB", (100, 80)).save(tmp_path / "other.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"other\.png.*100x80 pixels; wanted 128x128 or 32x32"):
        read_image(tmp_path / "other.png", (128, 32))


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7])
def test_a_damaged_file_is_named(tmp_path, ending, share):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, Image.registered_extensions()[f".{ending}"])
    content = buffer.getvalue()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"cut\.{ending}"):
        read_image(path)


def test_no_file_and_no_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(OSError, match=tmp_path.name):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        read_image("")
    with pytest.raises(TypeError, match="string or a path"):
        read_image(b"a.png")
