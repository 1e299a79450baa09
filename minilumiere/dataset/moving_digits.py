"""Captioned moving digits: the videos, and the truth about them.

    caption ──► subjects ──► paths (centres per frame) ──► ink × colour, the first object in front ──► video

Digits are 14 units tall on a canvas of 32 (see `paths`). Scenes are drawn at the scale's output resolution; a smaller clip
is the exact area average of the larger one. All scenes of a batch are drawn at once, on the device: no loop over clips or
objects, and the host waits for nothing. Our choice throughout (the paper trains on 30 million closed videos). Notebook 01.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from minilumiere.config import get_scale
from minilumiere.dataset.captions import COLOURS, format_caption, parse_caption
from minilumiere.dataset.chance import pick, uniform
from minilumiere.dataset.glyphs import drawings, trim
from minilumiere.dataset.paths import CANVAS, random_paths
from minilumiere.dataset.styles import styled
from minilumiere.dataset.subjects import Subjects, fill_in, random_subjects, subjects_of
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number

DIGIT_HEIGHT = 14.0  # units
GRID = 2**14  # places a pixel at which a digit can be: all that is made of them then has no rounding error, up to 512 pixels
CHUNK = {"cpu": 64, "cuda": 4096}  # frames drawn at once: of a CPU's cache, of a GPU's memory


@dataclass(frozen=True)
class ObjectTruth:
    """What is true of one object of a clip."""

    digit: int
    colour: str
    motion: str  # one of captions.MOTIONS
    speed: str  # one of captions.SPEEDS; "" for an object that stands still
    centres: Float[Tensor, "t 2"]  # x, y in pixels of the clip


@dataclass(frozen=True)
class Truth:
    """What is true of n scenes."""

    subjects: Subjects
    centres: Float[Tensor, "n 2 t 2"]  # x, y in pixels of the clip, of both objects

    def objects(self) -> list[list[ObjectTruth]]:
        """The same object by object."""
        return [
            [ObjectTruth(s.digit, s.colour, s.motion, s.speed, path) for s, path in zip(scene, paths.cpu(), strict=False)]
            for scene, paths in zip(self.subjects.words(), self.centres, strict=True)
        ]


@dataclass(frozen=True)
class Batch:
    """Captioned clips: `video` (N, T, 3, H, W) in [0, 1], a caption each, and the objects of each (front one first)."""

    video: Float[Tensor, "n t 3 h w"]
    captions: list[str]
    objects: list[list[ObjectTruth]]


@pinned()
def sample_batch(
    n: int,
    scale: str = "tiny",
    seed: int = 0,
    *,
    captions: list[str] | None = None,
    size: int | None = None,
    frames: int | None = None,
    split: str = "test",
    glyphs: str = "strokes",
) -> Batch:
    """Draw `n` captioned clips with their truth.

    Args: `captions` asks for `n` given ones (what a caption leaves open is drawn at random); `size` is a divisor of the
    scale's output size (default: the base size) and `frames` any positive number (default: the scale's); `split` is
    "train" or "test" glyphs; `glyphs` is "strokes" or "mnist". The same seed gives the same scene at every size.

    Raises `ValueError` for a bad count, size, split, caption or number of captions, `TypeError` for a caption that is
    no string or a number that is no integer.
    """
    preset = get_scale(scale)
    size = preset.size if size is None else check_number(size, "size", 8, preset.output_size, int)
    frames = preset.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
    n, seed = check_number(n, "n", 1, 10**6, int), check_number(seed, "seed", 0, 2**60, int)
    if captions is not None and (not isinstance(captions, list | tuple) or len(captions) != n):
        raise ValueError(f"captions must be a list of n = {n} captions, got {captions!r:.80}")
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")
    if glyphs not in ("strokes", "mnist"):
        raise ValueError(f"unknown glyphs {glyphs!r}: choose 'strokes' or 'mnist'")
    generator = torch.Generator().manual_seed(seed)
    asked = random_subjects(n, generator) if captions is None else subjects_of([parse_caption(c) for c in captions])
    video, truth = draw_scenes(asked, generator, frames, size, preset.output_size, split, glyphs)
    return Batch(video, [format_caption(subjects) for subjects in asked.words()], truth.objects())


def draw_scenes(
    asked: Subjects,
    generator: torch.Generator,
    frames: int,
    size: int,
    draw_size: int,
    split: str,
    glyphs: str = "strokes",
    still: bool = False,
    style: str = "",
    spread: float = 1.0,
    shown: Int[Tensor, "n t"] | None = None,
) -> tuple[Float[Tensor, "n t 3 h w"], Truth]:
    """Draw the scenes that are `asked` for at `draw_size` pixels, then average them down to `size` (a divisor).

    They are drawn on the device of `asked`. `still` draws one frame only, a random one of each clip; `shown` are the numbers
    of those to draw of each clip, else all. `style`: one of `styles.STYLES`, or plain. `spread`: see `random_paths`. Raises
    `ValueError` for a size that is no divisor.
    """
    if size < 8 or draw_size % size:
        raise ValueError(f"size must divide the output size {draw_size} and be at least 8, got {size}")
    n, device = len(asked), asked.colour.device
    known = fill_in(asked, generator)
    centres = random_paths(known, generator, frames, spread)  # n 2 t 2
    if still:
        shown = pick(uniform((n,), generator, device), frames)[:, None]
    if shown is not None:
        centres = centres.gather(2, shown[:, None, :, None].expand(-1, 2, -1, 2))
    height = draw_size * DIGIT_HEIGHT / CANVAS
    ink, glyph_digit = drawings(glyphs, split, height, str(device))
    ink = ink[random_glyphs(glyph_digit, known.digit, generator)]  # n 2 p p
    if glyphs == "strokes" and not style:  # else the margin is painted on
        ink = trim(ink, height).contiguous()
    video = render(ink, centres * draw_size / CANVAS, known, draw_size, size, style)
    return video, Truth(known, centres * size / CANVAS)


def random_glyphs(glyph_digit: Tensor, digit: Tensor, generator: torch.Generator) -> Tensor:
    """For each `digit` asked for, the number of a glyph that shows it (`glyph_digit`: what each glyph shows)."""
    count = glyph_digit.bincount(minlength=10)
    order, count, first = (x.to(digit.device) for x in (glyph_digit.argsort(stable=True), count, count.cumsum(0) - count))
    return order[first[digit] + pick(uniform(tuple(digit.shape), generator, digit.device), count[digit])]


def render(
    ink: Float[Tensor, "n 2 p p"],
    centres: Float[Tensor, "n 2 t 2"],
    subjects: Subjects,
    draw_size: int,
    size: int,
    style: str = "",
) -> Float[Tensor, "n t 3 h w"]:
    """Patches of ink at centres (in pixels of `draw_size`), in their colours on black, averaged down to `size`.

        frame = paint₁ colour₁ + (1 − cover₁) paint₂ colour₂        of plain digits cover and paint are the ink

    The area average of one object alone is linear in its ink, so it is placed in the small frame directly. What a second
    object loses behind the first is a product: it is drawn large, on a window around that object, which is then placed.
    """
    n, _, frames, _ = centres.shape
    factor, device = draw_size // size, ink.device
    cover, paint = (
        (ink, ink) if not style else (x.unflatten(0, (n, 2)) for x in styled(ink.flatten(0, 1), style, draw_size / CANVAS))
    )
    colour = _palette(str(device))[subjects.colour][..., None, None]  # n 2 3 1 1
    centres = (centres * GRID).round() / GRID
    side, video = paint.shape[-1], ink.new_empty(n, frames, 3, size, size)
    for scenes in torch.arange(n).split(max(1, CHUNK[device.type] // frames)):
        here = slice(int(scenes[0]), int(scenes[-1]) + 1)
        picture = place(paint[here, 0], centres[here, 0], draw_size, factor)  # m t h w
        torch.mul(picture[:, :, None], colour[here, None, 0], out=video[here])
        two = scenes[subjects.two[here]].to(device)  # found on the host, so that it need not wait
        if len(two):
            first, second = centres[two].unbind(1)  # k t 2
            corner = (second - side / 2).floor()  # of a window of one pixel more than the patch
            seen = nudge(paint[two, 1], second - side / 2 - corner)  # k t side+1 side+1
            seen *= 1 - place(cover[two, 0], first - corner, side + 1)
            middle = (corner + (side + 1) / 2).flatten(0, 1)[:, None]
            seen = place(seen.flatten(0, 1), middle, draw_size, factor).view(len(two), frames, 1, size, size)
            video.index_add_(0, two, seen * colour[two, None, 1])
    return video.clamp_(0, 1)  # the weights of a mean may add up to a little more than 1


def place(ink: Float[Tensor, "m p p"], centres: Float[Tensor, "m t 2"], size: int, factor: int = 1) -> Float[Tensor, "m t h w"]:
    """Put patches of ink on canvases of `size` pixels, bilinearly at sub-pixel centres; then the mean of `factor`² pixels.

    Two matrix products: of rows and of columns.
    """
    down, across = (_shares(centres[..., axis], ink.shape[-1], size, factor) for axis in (1, 0))  # m t h p, m t w p
    placed = (down.flatten(1, 2) @ ink).unflatten(1, down.shape[1:3]) @ across.mT
    return placed if factor == 1 else placed / factor**2


def nudge(ink: Float[Tensor, "m p p"], shift: Float[Tensor, "m t 2"]) -> Float[Tensor, "m t p+1 p+1"]:
    """`place`, on a canvas that is one pixel larger and by shifts within [0, 1] only, which is quicker."""
    x, y = shift[..., None, None].unbind(2)  # m t 1 1
    rows = pad(ink, (1, 1, 1, 1))[:, None]
    rows = rows[:, :, 1:].lerp(rows[:, :, :-1], y)
    return rows[..., 1:].lerp(rows[..., :-1], x)


def _shares(centre: Float[Tensor, "m t"], side: int, size: int, factor: int) -> Float[Tensor, "m t size/factor side"]:
    """How much of each of the `side` pixels of a patch lies on each `factor` pixels of a canvas, along one axis.

        edges of the canvas   0    1    2    3    4        a pixel of the patch, from 1.3 to 2.3
        of it, before these   0    0   0.7   1    1        on the pixels between:  0  0.7  0.3  0

    Without rounding error where the centres are on the `GRID`.
    """
    start = centre[..., None] + torch.arange(side, device=centre.device) - side / 2  # m t side
    edge = torch.arange(0, size + 1, factor, device=centre.device, dtype=centre.dtype)
    return (edge[:, None] - start[..., None, :]).clamp_(0, 1).diff(dim=-2)


@cache
def _palette(device: str) -> Float[Tensor, "colours 3"]:
    return torch.tensor(list(COLOURS.values()), device=device)
