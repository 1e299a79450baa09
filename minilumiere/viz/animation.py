"""Animated GIF, PNG and WebP with every frame and its duration: Pillow encodes pictures, the containers are put together here.

    header, [palette], loop, then for each frame:   where, how large, how long  +  what changed since the frame before

Pillow's own writers (and libwebp's) drop a frame that looks like the one before, and cut a GIF's durations: a clip of a digit
that stands still was a single picture, one of 16 frames a second ran at 16.7. Our choice throughout.
"""

import io
import struct
import zlib
from fractions import Fraction
from itertools import pairwise

from PIL import GifImagePlugin, Image, ImageChops

MAX_FPS = {"GIF": 50, "PNG": 100, "WEBP": 100}  # a GIF counts in 10 ms, and viewers slow a frame of 10 ms down
MAX_SIDE = {"GIF": 65_535, "PNG": 2**31 - 1, "WEBP": 16_383}  # pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom


def encode(frames: list[Image.Image], kind: str, fps: float) -> bytes:
    """Frames of one size as a file that loops. A GIF's share one palette; the others are kept as they are.

    Raises `ValueError` for more frames a second, or larger ones, than the format has.
    """
    if fps > MAX_FPS[kind]:
        raise ValueError(f"a {kind} shows at most {MAX_FPS[kind]} frames a second, not {fps:g}")
    if max(frames[0].size) > MAX_SIDE[kind]:
        raise ValueError(f"a {kind} has at most {MAX_SIDE[kind]} pixels a side, not {max(frames[0].size)}")
    boxes = [(0, 0, *frames[0].size), *map(_changed, frames[:-1], frames[1:])]
    return {"GIF": _gif, "PNG": _png, "WEBP": _webp}[kind](frames, boxes, fps)


def durations(count: int, fps: float, unit: Fraction) -> list[int]:
    """Of each frame, in whole units of so many seconds, so that every frame begins as near to its time as they allow."""
    begins = [round(Fraction(i) / Fraction(fps) / unit) for i in range(count + 1)]
    return [after - now for now, after in pairwise(begins)]


def _changed(before: Image.Image, after: Image.Image) -> Box:
    """Where a frame differs from the one before; one pixel if it does not. Its corner has even numbers, as WebP wants."""
    left, top, right, bottom = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox() or (0, 0, 1, 1)
    return left & ~1, top & ~1, right, bottom


def _gif(frames: list[Image.Image], boxes: list[Box], fps: float) -> bytes:
    parts = list(GifImagePlugin.getheader(frames[0], info={"loop": 0})[0])
    for frame, box, hundredths in zip(frames, boxes, durations(len(frames), fps, Fraction(1, 100)), strict=True):
        parts += GifImagePlugin.getdata(frame.crop(box), box[:2], duration=10 * hundredths)
    return b"".join([*parts, b";"])


def _png(frames: list[Image.Image], boxes: list[Box], fps: float) -> bytes:
    """https://www.w3.org/TR/png-3/, animation: the first frame's data are the image's, the others' have numbers."""
    delay = (1 / Fraction(fps)).limit_denominator(65_535)
    parts, number = [b"\x89PNG\r\n\x1a\n"], 0
    for frame, box in zip(frames, boxes, strict=True):
        chunks = _png_chunks(frame.crop(box))
        if not number:
            parts += [_chunk(b"IHDR", chunks[b"IHDR"]), _chunk(b"acTL", struct.pack(">II", len(frames), 0))]
            parts += [_chunk(name, chunks[name]) for name in (b"PLTE",) if name in chunks]
        left, top, right, bottom = box
        where = struct.pack(">IIIII", number, right - left, bottom - top, left, top)
        parts.append(_chunk(b"fcTL", where + struct.pack(">HHBB", delay.numerator, delay.denominator, 0, 0)))
        data = chunks[b"IDAT"]
        parts.append(_chunk(b"IDAT", data) if not number else _chunk(b"fdAT", struct.pack(">I", number + 1) + data))
        number += 2 if number else 1
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _png_chunks(image: Image.Image) -> dict[bytes, bytes]:
    """The chunks of an image's PNG by name; those of one name joined."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    content, place, chunks = buffer.getvalue(), 8, {}
    while place < len(content):
        (length,), name = struct.unpack_from(">I", content, place), content[place + 4 : place + 8]
        chunks[name] = chunks.get(name, b"") + content[place + 8 : place + 8 + length]
        place += 12 + length
    return chunks


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _webp(frames: list[Image.Image], boxes: list[Box], fps: float) -> bytes:
    """https://developers.google.com/speed/webp/docs/riff_container: lossless frames, each drawn over those before."""
    width, height = frames[0].size
    parts = [b"WEBP", _riff(b"VP8X", b"\x02\0\0\0" + _three(width - 1) + _three(height - 1)), _riff(b"ANIM", bytes(6))]
    for frame, box, milliseconds in zip(frames, boxes, durations(len(frames), fps, Fraction(1, 1000)), strict=True):
        buffer = io.BytesIO()
        frame.crop(box).save(buffer, "WEBP", lossless=True, quality=80)  # of lossless files: how hard to try
        left, top, right, bottom = box
        where = [left // 2, top // 2, right - left - 1, bottom - top - 1, milliseconds]
        parts.append(_riff(b"ANMF", b"".join(map(_three, where)) + b"\x02" + buffer.getvalue()[12:]))
    return _riff(b"RIFF", b"".join(parts))


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")
