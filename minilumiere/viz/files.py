"""Clips and images as files: which names, what of a clip is kept, and how a picture is read.

    clip in [0, 1] ──► bytes, each pixel `zoom` times ──► .gif 256 colours  .png .webp all  .mp4 H.264 ──► written atomically

All that can be told before there is a clip is told by `check_output`: sampling takes longer than looking. Our choice.
"""

import errno
import subprocess
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from minilumiere.validate import check_number, check_path, check_video
from minilumiere.viz.animation import MAX_FPS, encode
from minilumiere.weights.checkpoint import check_writable, write_atomically

FORMATS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".mp4": "MP4"}
COLOURS = 256  # of a GIF


def check_format(path: str | Path, fps: float = 16) -> str:
    """The format that a file name asks for. Raises `ValueError` naming the known ones, or what a format lacks."""
    path = check_path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot save a video as {str(path)!r}: the name must end in one of {' '.join(FORMATS)}")
    kind, most = FORMATS[path.suffix.lower()], MAX_FPS.get(FORMATS[path.suffix.lower()], 100)
    if check_number(fps, "fps", 0.1, 100) > most:
        raise ValueError(f"{path.suffix} shows at most {most} frames a second, got fps {fps:g}: .png, .webp and .mp4 show more")
    if kind == "MP4":
        _ffmpeg()
    return kind


def check_output(path: str | Path, fps: float = 16, zoom: int = 1) -> Path:
    """All of `save_video`'s arguments but the video. Raises what it raises."""
    check_format(path, fps)
    check_number(zoom, "zoom", 1, 64, int)
    check_writable(check_path(path))
    return check_path(path)


def to_pixels(video: Float[Tensor, "t 3 h w"], zoom: int) -> UInt8[Tensor, "t H W 3"]:
    """Bytes 0 to 255, each pixel `zoom` times as large. Raises `ValueError` for a bad video or zoom."""
    video, zoom = check_video(video, "video", (None, 3, None, None)), check_number(zoom, "zoom", 1, 64, int)
    pixels = (video.cpu() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2).contiguous()


def encode_video(
    video: Float[Tensor, "t 3 h w"], kind: str, fps: float = 16, zoom: int = 1, colours: int | None = None
) -> bytes:
    """A video in [0, 1] as the bytes of a looping "GIF", (animated) "PNG" or "WEBP", or an "MP4", which is lossy.

    `colours` of one palette over all frames, which makes a PNG small and keeps it from flickering; default: 256 for a GIF,
    all for the others, which are lossless.
    """
    fps = check_number(fps, "fps", 0.1, 100)
    pixels, zoom = to_pixels(video, zoom), int(zoom)
    if kind == "MP4":
        return _mp4(pixels.numpy(), fps)
    if kind not in MAX_FPS:
        raise ValueError(f"unknown format {kind!r}: choose one of {', '.join([*MAX_FPS, 'MP4'])}")
    frames = [Image.fromarray(frame.numpy()) for frame in pixels]
    if colours or kind == "GIF":
        once = Image.fromarray(pixels[:, ::zoom, ::zoom].flatten(0, 1).numpy())
        palette = once.quantize(colours or COLOURS, Image.Quantize.MEDIANCUT)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    return encode(frames, kind, fps)


def save_video(video: Float[Tensor, "t 3 h w"], path: str | Path, fps: float = 16, zoom: int = 1) -> Path:
    """Save a video in [0, 1]: .gif (256 colours, up to 50 frames a second), .png or .apng, .webp (both lossless), or .mp4.

    Every frame is written; folders are made. `.mp4` needs `pip install 'minilumiere[video]'`, and is lossy. `fps` from 0.1 to
    100; `zoom`, 1 to 64, enlarges each pixel. Raises `ValueError` for another ending, a bad video or a number out of its range,
    `TypeError` for another type, `OSError` where the file cannot be written; what was there before then survives.
    """
    kind = check_format(path, fps)
    write_atomically(check_path(path), encode_video(video, kind, fps, zoom))
    return check_path(path)


def _ffmpeg() -> str:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:  # not installed; installed without its binary
        raise ValueError("saving .mp4 needs the extra: pip install 'minilumiere[video]'; .gif needs nothing") from error


def _mp4(pixels: UInt8[np.ndarray, "t H W 3"], fps: float) -> bytes:
    """H.264, padded to even sides. Raises `OSError` with the last words of a failing encoder."""
    _, height, width, _ = pixels.shape
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps}", "-i", "-"]
    wanted = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        command = [_ffmpeg(), "-loglevel", "error", *given, *wanted, "-movflags", "+faststart", str(path)]
        done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=False)
        content = path.read_bytes() if path.is_file() else b""
    if done.returncode or b"moov" not in content:  # without its table of contents it cannot be played
        words = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise OSError(errno.EIO, f"ffmpeg could not encode the video (exit code {done.returncode}): {words}")
    return content


def read_image(path: str | Path, sides: tuple[int, ...] = ()) -> Float[Tensor, "3 h w"]:
    """An image file as a tensor in [0, 1], as a person sees it: upright, of any depth and mode, transparency over black.

    Args: `sides` in pixels of the squares that are accepted (default: any size), asked of the file's header. Raises
    `ValueError` for a file that is no image, or damaged, or of another size, `OSError` where there is none.
    """
    path = check_path(path, "image")
    wanted = " or ".join(f"{side}x{side}" for side in sides) or "a smaller one"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if sides and (image.width != image.height or image.width not in sides):
                raise ValueError(f"it has {image.width}x{image.height} pixels; wanted {wanted}")
            return torch.from_numpy(_as_seen(image)).permute(2, 0, 1).contiguous()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"image {path} is far too large; wanted {wanted}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that can be read") from error
    except Exception as error:  # a damaged file is an OSError, SyntaxError, struct.error, zlib.error ... of its reader
        if isinstance(error, OSError) and error.errno:  # of the system, and names the file
            raise
        raise ValueError(f"image {path} cannot be used: {error}") from error


def _as_seen(image: Image.Image) -> Float[np.ndarray, "h w 3"]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # grey, 16 bits of it; or a measurement, which has no white
        grey = np.asarray(image if image.mode == "F" else image.convert("I"), dtype=np.float32)
        white = 1.0 if image.mode == "F" else 65_535.0
        if not (grey.min() >= 0 and grey.max() <= white):
            raise ValueError(f"its values go from {grey.min():g} to {grey.max():g}; wanted 0 to {white:g}")
        grey = np.where(grey == image.info.get("transparency", -1), 0, grey / white)
        return np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    return pixels[..., :3] * pixels[..., 3:]
