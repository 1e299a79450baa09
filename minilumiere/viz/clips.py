"""Look at videos: clips, filmstrips, and slices through space-time.

A slice x-t (one row of pixels, over time) shows motion at a glance: rest is vertical, a line slants, a circle waves.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from minilumiere.validate import check_number, check_video
from minilumiere.weights.checkpoint import write_atomically

if TYPE_CHECKING:  # matplotlib takes 0.4 s to import: only what draws a figure imports it
    from matplotlib.figure import Figure

FORMATS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".mp4": "MP4"}


def check_format(path: str | Path) -> str:
    """The format that a file name asks for. Raises `ValueError` naming the known ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot save a video as {str(path)!r}: the name must end in one of {' '.join(FORMATS)}")
    return FORMATS[suffix]


def to_pixels(video: Float[Tensor, "t 3 h w"], fps: float, zoom: int) -> UInt8[Tensor, "t H W 3"]:
    """Bytes 0 to 255, each pixel `zoom` times as large. Raises `ValueError` for a bad video, fps or zoom."""
    check_video(video, "video", (None, 3, None, None))
    check_number(fps, "fps", 0.1, 100)
    check_number(zoom, "zoom", 1, 64, int)
    pixels = (video.detach().float().cpu() * 255).round().byte().permute(0, 2, 3, 1)
    return pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2).contiguous()


def encode_video(video: Float[Tensor, "t 3 h w"], kind: str, fps: float = 16, zoom: int = 1) -> bytes:
    """A video in [0, 1] as the bytes of a looping GIF, (animated) PNG or WEBP, each pixel `zoom` times as large.

    GIF and PNG share one palette of 64 colours over all frames, which makes them small and keeps them from flickering.
    """
    pixels = to_pixels(video, fps, zoom)
    frames = [Image.fromarray(frame.numpy()) for frame in pixels]
    if kind != "WEBP":
        palette = Image.fromarray(pixels[:, ::zoom, ::zoom].flatten(0, 1).numpy()).quantize(64, Image.Quantize.MEDIANCUT)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=1000 / fps, loop=0)
    return buffer.getvalue()


def save_video(video: Float[Tensor, "t 3 h w"], path: str | Path, fps: float = 16, zoom: int = 1) -> Path:
    """Save a video in [0, 1] as .gif, .png or .apng, .webp, or .mp4 (needs `pip install 'minilumiere[video]'`).

    Raises `ValueError` for another ending or a bad video, `OSError` where the file cannot be written; what was there
    before then survives.
    """
    path, kind = Path(path), check_format(path)
    if kind == "MP4":
        _save_mp4(to_pixels(video, fps, zoom).numpy(), path, fps)
    else:
        write_atomically(path, encode_video(video, kind, fps, zoom))
    return path


def read_image(path: str | Path) -> Float[Tensor, "3 h w"]:
    """An image file as a tensor in [0, 1]. Raises `ValueError` for a file that is no image, `OSError` where there is none."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def _save_mp4(pixels: np.ndarray, path: Path, fps: float) -> None:
    try:
        from imageio_ffmpeg import write_frames
    except ImportError as error:
        raise ValueError("saving .mp4 needs the extra: pip install 'minilumiere[video]'; .gif needs nothing") from error
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        writer = write_frames(str(temporary), pixels.shape[2:0:-1], fps=fps, macro_block_size=2)
        writer.send(None)
        for frame in pixels:
            writer.send(frame)
        writer.close()
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path} ({error}); what was there before is untouched") from error
    finally:
        temporary.unlink(missing_ok=True)


def show_video(video: Float[Tensor, "t 3 h w"], fps: float = 16, zoom: int = 4) -> None:
    """Show a video in [0, 1] inline in Jupyter, as an animated PNG."""
    from IPython.display import Image as Inline
    from IPython.display import display

    display(Inline(data=encode_video(video, "PNG", fps, zoom), format="png"))


def filmstrip(video: Float[Tensor, "t 3 h w"], frames: int = 8, title: str = "") -> "Figure":
    """`frames` frames, evenly spaced from first to last, side by side."""
    import matplotlib.pyplot as plt

    check_video(video, "video", (None, 3, None, None))
    chosen = torch.linspace(0, len(video) - 1, min(frames, len(video))).round().long().tolist()
    figure, axes = plt.subplots(1, len(chosen), figsize=(1.3 * len(chosen), 1.7), layout="constrained", squeeze=False)
    for axis, frame in zip(axes[0], chosen, strict=True):
        axis.imshow(video[frame].cpu().permute(1, 2, 0).clamp(0, 1))
        axis.set(xticks=[], yticks=[], xlabel=f"t = {frame}")
    figure.suptitle(title, fontsize="medium")
    return figure


def space_time_slice(
    video: Float[Tensor, "t 3 h w"], row: int | None = None, column: int | None = None, title: str = ""
) -> "Figure":
    """Slices through space-time: x-t (the brightest of all rows, or one `row`) and y-t (of all columns, or one `column`)."""
    import matplotlib.pyplot as plt

    check_video(video, "video", (None, 3, None, None))
    for name, place, length in (("row", row, video.shape[2]), ("column", column, video.shape[3])):
        if place is not None:
            check_number(place, name, 0, length - 1, int)
    x_t = video.amax(dim=2) if row is None else video[:, :, row]  # t 3 w
    y_t = video.amax(dim=3) if column is None else video[:, :, :, column]  # t 3 h
    figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
    axes[0].imshow(x_t.cpu().permute(0, 2, 1), aspect="auto", interpolation="nearest")
    axes[0].set(xlabel="x →", ylabel="← t", title="x–t" if row is None else f"x–t at y = {row}")
    axes[1].imshow(y_t.cpu().permute(2, 0, 1), aspect="auto", interpolation="nearest")
    axes[1].set(xlabel="t →", ylabel="← y", title="y–t" if column is None else f"y–t at x = {column}")
    figure.suptitle(title, fontsize="medium")
    return figure
