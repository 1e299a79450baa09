"""Captioned moving digits: the videos, and the truth about them.

    caption ──► subjects ──► paths (centres per frame) ──► ink × colour, the first object in front ──► video

A scene lives on a canvas of 32 units (the pixels of a base frame). A centre of (16, 16) is the middle of the canvas;
x grows to the right, y downwards. Digits are 14 units tall; centres stay within [8, 24], where walls reflect them.
Scenes are drawn at the scale's output resolution; a smaller clip is the exact area average of the larger one.

| motion   | slowly | (nothing) | quickly |                                                          |
| moving   | 0.5    | 1         | 2       | units a frame, ± 10 %; starts in the half it moves away from |
| circling | 32     | 16        | 8       | frames a turn, ± 12 %; radius 4 to 6 units                   |

Our choice throughout (the paper trains on 30 million closed videos). Built in notebook 01.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from minilumiere.config import get_scale
from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, Subject, format_caption, parse_caption
from minilumiere.dataset.glyphs import bitmaps
from minilumiere.dataset.styles import styled
from minilumiere.validate import check_number

CANVAS = 32.0  # units
DIGIT_HEIGHT = 14.0  # units
WALLS = (8.0, 24.0)  # of the centres
UNITS_PER_FRAME = {"slowly": 0.5, "": 1.0, "quickly": 2.0}
FRAMES_PER_TURN = {"slowly": 32.0, "": 16.0, "quickly": 8.0}
RADIUS = (4.0, 6.0)

# In the images of the text-to-image training set, in no video training set: does a video model compose?
UNSEEN_PAIRS = (
    ("red", 2), ("red", 7), ("green", 1), ("green", 6), ("blue", 4), ("blue", 9),
    ("yellow", 0), ("yellow", 3), ("purple", 5), ("cyan", 8), ("cyan", 5), ("white", 2),
)  # fmt: skip


@dataclass(frozen=True)
class ObjectTruth:
    """What is true of one object of a clip."""

    digit: int
    colour: str
    motion: str  # one of captions.MOTIONS
    speed: str  # one of captions.SPEEDS; "" for an object that stands still
    centres: Float[Tensor, "t 2"]  # x, y in pixels of the clip


@dataclass(frozen=True)
class Batch:
    """Captioned clips: `video` (N, T, 3, H, W) in [0, 1], a caption each, and the objects of each (front one first)."""

    video: Float[Tensor, "n t 3 h w"]
    captions: list[str]
    objects: list[list[ObjectTruth]]


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
    no string.
    """
    preset = get_scale(scale)
    size = preset.size if size is None else check_number(size, "size", 8, preset.output_size, int)
    frames = preset.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
    check_number(n, "n", 1, 10**6, int)
    check_number(seed, "seed", 0, 2**60, int)
    if captions is not None and (not isinstance(captions, list | tuple) or len(captions) != n):
        raise ValueError(f"captions must be a list of n = {n} captions, got {captions!r}")
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")
    generator = torch.Generator().manual_seed(seed)
    asked = [random_subjects(generator) for _ in range(n)] if captions is None else [parse_caption(c) for c in captions]
    video, objects = draw_scenes(asked, generator, frames, size, preset.output_size, split, glyphs)
    return Batch(video, [format_caption(subjects) for subjects in asked], objects)


def random_subjects(
    generator: torch.Generator, *, two: float = 0.5, unseen: bool = True, bare: float = 0.0, motions: Sequence[str] = MOTIONS
) -> tuple[Subject, ...]:
    """Draw what a caption says: two objects with probability `two`, always of different colours.

    `unseen=False` leaves the `UNSEEN_PAIRS` out. Motion and speed are left out with probability `bare`; else the motion is
    one of `motions`, any as likely as the others.
    """

    def choose(options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    subjects: list[Subject] = []
    for _ in range(2 if chance() < two else 1):
        taken = [subject.colour for subject in subjects]
        colour = choose([colour for colour in COLOURS if colour not in taken])
        digit = choose([digit for digit in range(10) if unseen or (colour, digit) not in UNSEEN_PAIRS])
        motion = choose(motions)
        speed = "" if motion == "standing still" else choose(SPEEDS)
        subjects.append(Subject(colour, digit, motion, speed))
    if chance() < bare:
        subjects = [Subject(subject.colour, subject.digit) for subject in subjects]
    return tuple(subjects)


def draw_scenes(
    asked: list[tuple[Subject, ...]],
    generator: torch.Generator,
    frames: int,
    size: int,
    draw_size: int,
    split: str,
    glyphs: str = "strokes",
    device: str = "cpu",
    still: bool = False,
    style: str = "",
    spread: float = 1.0,
) -> tuple[Float[Tensor, "n t 3 h w"], list[list[ObjectTruth]]]:
    """Draw the scenes that are `asked` for at `draw_size` pixels, then average them down to `size` (a divisor).

    `still` draws one frame only, a random one of each clip. `style`: one of `styles.STYLES`, or plain. `spread`: see
    `random_paths`.
    """
    if size < 8 or draw_size % size:
        raise ValueError(f"size must divide the output size {draw_size} and be at least 8, got {size}")
    known = [[_fill_in(subject, generator) for subject in subjects] for subjects in asked]
    flat = [(scene, subject) for scene, subjects in enumerate(known) for subject in subjects]
    centres = random_paths([subject for _, subject in flat], generator, frames, spread)  # m t 2
    # A second object takes, of six paths, the one that keeps farthest from the first: overlap hides what is asked for.
    second = [i for i in range(1, len(flat)) if flat[i][0] == flat[i - 1][0]]
    if second:
        options = torch.stack([random_paths([flat[i][1] for i in second], generator, frames, spread) for _ in range(6)])
        distance = (options - centres[[i - 1 for i in second]]).norm(dim=-1)  # 6 m t
        best = (distance.mean(-1) + distance.amin(-1)).argmax(0)
        centres[second] = options[best, torch.arange(len(second))]
    if still:
        frame = torch.randint(frames, (len(asked),), generator=generator)[[scene for scene, _ in flat]]
        centres, frames = centres[torch.arange(len(flat)), frame][:, None], 1

    ink, glyph_digit = bitmaps(glyphs, split, draw_size * DIGIT_HEIGHT / CANVAS, device)
    pick = torch.rand(len(flat), generator=generator)
    chosen = []
    for (_, subject), share in zip(flat, pick.tolist(), strict=True):
        candidates = (glyph_digit == subject.digit).nonzero()[:, 0]
        chosen.append(candidates[int(share * len(candidates))])
    ink, centres_drawn = ink[torch.stack(chosen).to(device)], centres.to(device) * draw_size / CANVAS
    cover, paint = (ink, ink) if not style else styled(ink, style, draw_size / CANVAS)
    cover = place(cover, centres_drawn, draw_size)  # m t h w
    paint = place(paint, centres_drawn, draw_size) if style else cover
    colour = torch.tensor([COLOURS[subject.colour] for _, subject in flat], device=device)
    video = torch.zeros(len(asked), frames, 3, draw_size, draw_size, device=device)
    for i in reversed(range(len(flat))):  # the first object is drawn last: it is in front
        scene = video[flat[i][0]]
        scene.mul_(1 - cover[i, :, None]).add_(paint[i, :, None] * colour[i, :, None, None])  # t c h w
    video = avg_pool2d(video.flatten(0, 1), draw_size // size).unflatten(0, (len(asked), frames))

    objects: list[list[ObjectTruth]] = [[] for _ in asked]
    for (scene, subject), path in zip(flat, centres * size / CANVAS, strict=True):
        objects[scene].append(ObjectTruth(subject.digit, subject.colour, subject.motion, subject.speed, path))
    return video, objects


def random_paths(
    subjects: list[Subject], generator: torch.Generator, frames: int, spread: float = 1.0
) -> Float[Tensor, "m t 2"]:
    """Centres in canvas units of objects that move as `subjects` say (motion and speed given).

    Circles start anywhere; with `spread` below 1, within that share of the circle about its left end (for training, see
    `training_clips.spread_at`).
    """
    low, high = WALLS
    random = torch.rand(len(subjects), 5, generator=generator, dtype=torch.float64)
    paths = []
    for subject, (x, y, pace, phase, radius) in zip(subjects, random.tolist(), strict=True):
        time = torch.arange(frames, dtype=torch.float64)
        start = torch.tensor([low + x * (high - low), low + y * (high - low)], dtype=torch.float64)
        verb, way = subject.motion.split()
        if verb == "circling":
            r = RADIUS[0] + radius * (RADIUS[1] - RADIUS[0])
            middle = low + r + (start - low) * (high - low - 2 * r) / (high - low)
            turn = 1 if way == "clockwise" else -1  # y points down: a growing angle looks clockwise
            turns = turn * time / (FRAMES_PER_TURN[subject.speed] * (0.88 + 0.24 * pace))
            angle = 2 * math.pi * (0.5 + spread * (phase - 0.5) + turns)
            paths.append(middle + r * torch.stack([angle.cos(), angle.sin()], dim=-1))
        else:
            step = torch.tensor({"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}[way])
            halved = low + (start - low) / 2  # in the half away from the wall ahead
            start = torch.where(step > 0, halved, torch.where(step < 0, low + high - halved, start))
            speed = UNITS_PER_FRAME[subject.speed] * (0.9 + 0.2 * pace)
            paths.append(reflect(start + step * speed * time[:, None]))
    return torch.stack(paths).float()


def reflect(position: Tensor) -> Tensor:
    """Fold positions back between the walls, as elastic reflection does: a triangle wave."""
    low, high = WALLS
    length = high - low
    return low + length - ((position - low) % (2 * length) - length).abs()


def place(ink: Float[Tensor, "m p p"], centres: Float[Tensor, "m t 2"], size: int) -> Float[Tensor, "m t h w"]:
    """Put patches of ink on canvases of `size` pixels, bilinearly at sub-pixel centres: two matrix products."""
    side = ink.shape[-1]
    canvas = torch.arange(size, device=ink.device) + 0.5
    patch = torch.arange(side, device=ink.device) + 0.5 - side / 2
    tent = (1 - (canvas[:, None] - patch - centres[..., None, None]).abs()).clamp(min=0)  # m t 2 size p
    return tent[:, :, 1] @ ink[:, None] @ tent[:, :, 0].mT


def _fill_in(subject: Subject, generator: torch.Generator) -> Subject:
    """Draw what the caption leaves open: any motion, and the plain speed."""
    if subject.motion:
        return Subject(
            subject.colour, subject.digit, subject.motion, "" if subject.motion == "standing still" else subject.speed
        )
    options = MOTIONS[1:] if subject.speed else MOTIONS
    motion = options[int(torch.randint(len(options), (), generator=generator))]
    return Subject(subject.colour, subject.digit, motion, subject.speed)
