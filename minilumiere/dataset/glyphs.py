"""Procedural handwritten digits: skeletons of splines, jittered, slanted and drawn by distance to the curve.

    control points ──► jitter ──► Catmull-Rom ──► slant, aspect, turn ──► distance of each pixel ──► ink in [0, 1]
    (a skeleton)      (per glyph)  (a matrix!)     (per glyph)             to the nearest segment

A glyph is stored as line segments, so it can be drawn at any resolution on any device. The bank in `data/` holds
seeded glyphs, those for training and those for testing apart. Data of our own making: the paper's 30 million videos
are closed. Built in notebook 01.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minilumiere.config import DATA

SEGMENTS = 40  # line segments a glyph
PATCH = 1.25  # side of the square patch that a glyph is drawn on, in digit heights
PIXELS = {"cpu": 2**16, "cuda": 2**22}  # of the glyphs that are drawn at once: of a CPU's cache, of a GPU's memory

# Skeletons, several a digit: strokes divided by |, control points x,y in hundredths of the unit box, y down.
# Strokes that meet share a point; the jitter is a function of the place, so that they still meet afterwards.
SKELETONS = {
    0: [
        "50,0 17,14 2,50 17,86 50,100 83,86 98,50 83,14 50,0",
        "50,0 24,14 12,50 24,86 50,100 76,86 88,50 76,14 50,0",
    ],
    1: [
        "50,0 50,50 50,100",
        "28,22 42,13 55,0 | 55,0 55,50 55,100",
        "28,20 52,0 | 52,0 52,100 | 25,100 52,100 78,100",
    ],
    2: [
        "5,25 25,3 60,0 88,22 75,52 5,100 | 5,100 50,100 97,98",
        "10,20 45,0 88,20 70,58 30,95 8,90 22,76 50,90 75,100 100,90",
    ],
    3: [
        "8,12 40,0 82,10 82,36 35,47 | 35,47 85,56 92,82 50,100 4,88",
        "10,0 45,0 85,0 | 85,0 45,40 | 45,40 80,46 95,70 75,96 35,100 5,90",
    ],
    4: [
        "20,0 12,30 8,58 | 8,58 50,60 95,56 | 76,5 74,50 72,100",
        "68,0 35,36 2,68 | 2,68 50,68 98,68 | 68,0 68,50 68,100",
    ],
    5: ["88,0 50,0 20,2 | 20,2 17,22 12,43 | 12,43 50,36 88,52 90,82 50,100 6,90"],
    6: [
        "78,0 42,16 12,50 10,82 42,100 82,90 88,65 60,50 28,56 10,76",
        "62,0 30,28 10,64 22,94 55,100 88,84 80,58 48,53 14,70",
    ],
    7: [
        "5,2 50,0 95,0 | 95,0 62,45 40,100",
        "5,2 50,0 95,0 | 95,0 62,45 40,100 | 30,52 60,50 88,50",
    ],
    8: [
        "50,46 18,34 20,8 50,0 80,8 82,34 50,46 | 50,46 10,62 12,90 50,100 88,90 90,62 50,46",
        "85,12 50,0 16,14 30,40 75,60 88,84 50,100 12,84 25,60 70,38 85,12",
    ],
    9: [
        "86,28 70,4 36,0 10,22 20,46 55,50 86,28 | 86,28 85,60 78,100",
        "86,26 70,4 36,0 10,22 20,46 55,50 86,26 | 86,26 90,60 76,92 45,100 18,92",
    ],
}

Stroke = list[tuple[float, float]]


def parse_skeleton(text: str) -> list[Stroke]:
    """The strokes of a skeleton, as lists of control points in the unit box."""
    return [[tuple(int(number) / 100 for number in point.split(",")) for point in stroke.split()] for stroke in text.split("|")]


@dataclass(frozen=True)
class Glyphs:
    """Glyphs as drawing instructions; x, y in digit heights from the digit's centre, y down."""

    segments: Float[Tensor, "n segments 4"]  # x0, y0, x1, y1
    half_width: Float[Tensor, " n"]  # of the stroke
    digit: Int[Tensor, " n"]

    def draw(self, height: float, indices: Tensor | None = None) -> Float[Tensor, "n p p"]:
        """Ink in [0, 1] on square patches; a digit is `height` pixels tall, a patch `patch_size(height)` pixels.

        The ink is 1 inside the stroke and falls to 0 over one pixel: a soft edge, as area coverage has. A glyph has the same
        bits in any company.
        """
        which = torch.arange(len(self.digit)) if indices is None else indices
        at_once = max(1, PIXELS[self.segments.device.type] // patch_size(height) ** 2)
        return torch.cat([self._draw_chunk(height, chunk) for chunk in which.split(at_once)])

    def _draw_chunk(self, height: float, which: Tensor) -> Tensor:
        side = patch_size(height)
        axis = (torch.arange(side, device=self.segments.device) + 0.5 - side / 2) / height
        start, end = self.segments[which].float().chunk(2, dim=-1)  # n s 2
        along = end - start
        offset = axis - start[..., None]  # n s 2 p
        part = offset * (along / along.square().sum(-1, keepdim=True).clamp(min=1e-9))[..., None]
        nearest = offset.new_full((len(which), side, side), torch.inf)  # squared distance of each pixel
        for s in range(start.shape[1]):  # a segment at a time keeps the memory small
            share = (part[:, s, 0, None, :] + part[:, s, 1, :, None]).clamp_(0, 1)  # nearest point of the segment
            x = offset[:, s, 0, None, :] - share * along[:, s, 0, None, None]
            y = offset[:, s, 1, :, None] - share * along[:, s, 1, None, None]
            torch.minimum(nearest, x.square_().add_(y.square_()), out=nearest)
        return ((self.half_width[which].float()[:, None, None] - nearest.sqrt_()) * height + 0.5).clamp_(0, 1)


def patch_size(height: float) -> int:
    """Side in pixels of the patch around a digit `height` pixels tall; even, so that its centre is a pixel corner."""
    return 2 * round(height * PATCH / 2)


def trim(ink: Float[Tensor, "*n p p"], height: float) -> Float[Tensor, "*n q q"]:
    """Patches without the margin, on which no glyph of the bank has ink: a soft edge reaches half a pixel out of the digit."""
    side = ink.shape[-1]
    margin = (side - 2 * math.ceil(height / 2 + 0.5)) // 2
    return ink[..., margin : side - margin, margin : side - margin]


def spline_matrix(strokes: list[Stroke], samples: list[int]) -> tuple[Tensor, Tensor]:
    """Catmull-Rom interpolation as two matrices: control points (p, 2) -> starts and ends of all segments (s, 2).

    A spline is linear in its control points, so one matrix product draws every glyph of a skeleton at once.
    """
    total = sum(len(stroke) for stroke in strokes)
    starts, ends, first = [], [], 0
    for stroke, count in zip(strokes, samples, strict=True):
        last = len(stroke) - 1
        position = torch.linspace(0, last, count + 1, dtype=torch.float64)
        left = position.floor().clamp(max=last - 1).long()
        u = position - left
        basis = torch.stack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], 1) / 2
        rows = torch.zeros(count + 1, total, dtype=torch.float64)
        closed = stroke[0] == stroke[-1]
        for tap in range(4):
            point = left + tap - 1
            point = torch.where(point < 0, last - 1 if closed else 0, torch.where(point > last, 1 if closed else last, point))
            rows[torch.arange(count + 1), first + point] += basis[:, tap]
        starts.append(rows[:-1])
        ends.append(rows[1:])
        first += len(stroke)
    return torch.cat(starts).float(), torch.cat(ends).float()


def make_glyphs(per_digit: int, seed: int) -> Glyphs:
    """Draw `per_digit` new glyphs of each digit from the skeletons. The same seed gives the same glyphs."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    segments, digits = [], []
    for digit, skeletons in SKELETONS.items():
        for number, skeleton in enumerate(skeletons):
            strokes = parse_skeleton(skeleton)
            count = per_digit * (number + 1) // len(skeletons) - per_digit * number // len(skeletons)
            control = torch.tensor([point for stroke in strokes for point in stroke])  # p 2
            lengths = [sum(torch.dist(torch.tensor(a), torch.tensor(b)) for a, b in pairwise(s)) for s in strokes]
            samples = [max(2, int(SEGMENTS * length / sum(lengths))) for length in lengths]
            samples[lengths.index(max(lengths))] += SEGMENTS - sum(samples)
            start, end = spline_matrix(strokes, samples)
            # Jitter: a smooth random displacement of the plane (waves of about one digit), the same where strokes meet.
            wave, phase = normal(count, 4, 2) * 3.5, normal(count, 4, 1) * 3
            amount = normal(count, 4, 2) * 0.035
            waves = torch.sin(wave @ control.T + phase)  # n 4 p
            points = control + torch.einsum("nwp,nwd->npd", waves, amount) - 0.5
            # Hand: aspect, slant, turn.
            aspect = (0.72 + 0.08 * normal(count)).clamp(0.55, 0.95)
            slant, turn = 0.1 + 0.12 * normal(count), 0.06 * normal(count)
            x = points[..., 0] * aspect[:, None] - points[..., 1] * slant[:, None]
            y = points[..., 1]
            x, y = x * turn.cos()[:, None] - y * turn.sin()[:, None], x * turn.sin()[:, None] + y * turn.cos()[:, None]
            curve = torch.stack([x, y], dim=-1)  # n p 2
            segments.append(torch.cat([start @ curve, end @ curve], dim=-1))
            digits.append(torch.full((count,), digit))
    segments, digit = torch.cat(segments), torch.cat(digits)
    half_width = (0.068 + 0.01 * normal(len(digit))).clamp(0.05, 0.088)
    # Normalise: centre the ink's box and make it one digit height tall (or wide, whichever is larger).
    ends = segments.unflatten(-1, (2, 2)).flatten(1, 2)  # n 2s 2
    low, high = ends.amin(1), ends.amax(1)
    scale = (1 - 2 * half_width) / (high - low).amax(-1)
    centred = (segments - (low + high).repeat(1, 2)[:, None] / 2) * scale[:, None, None]
    return Glyphs(centred, half_width, digit)


@cache
def load_bank(split: str) -> Glyphs:
    """The committed glyphs of `split` ("train" or "test"); never the same glyph in both.

    Raises `FileNotFoundError` where there are none, `ValueError` where the file is damaged.
    """
    path = DATA / "glyphs.safetensors"
    try:
        tensors = load_file(path)
        return Glyphs(tensors[f"{split}.segments"], tensors[f"{split}.half_width"].float(), tensors[f"{split}.digit"].long())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no glyphs {path}: draw them with 'python -m minilumiere.dataset.glyphs'") from error
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


@cache
def bitmaps(source: str, split: str, height: float, device: str) -> tuple[Float[Tensor, "n p p"], Int[Tensor, " n"]]:
    """All glyphs of a split drawn `height` pixels tall, and their digits; drawn once a process and device.

    `source` is "strokes" (the bank) or "mnist" (real digits through torchvision, read from `data/mnist`).
    """
    ink, digit = drawings(source, split, height, device)
    return ink[torch.arange(len(digit))] if isinstance(ink, DrawnWhenAsked) else ink, digit


class DrawnWhenAsked:
    """The glyphs of a bank, `height` pixels tall, for a CPU: `ink[numbers]` draws those that nobody has asked for yet."""

    def __init__(self, glyphs: Glyphs, height: float):
        self.glyphs, self.height = glyphs, height
        self.ink = torch.empty(len(glyphs.digit), patch_size(height), patch_size(height))
        self.drawn = torch.zeros(len(glyphs.digit), dtype=torch.bool)

    def __getitem__(self, numbers: Int[Tensor, "*n"]) -> Float[Tensor, "*n p p"]:
        new = numbers[~self.drawn[numbers]].unique()
        if len(new):
            self.ink[new] = self.glyphs.draw(self.height, new)
            self.drawn[new] = True
        return self.ink[numbers]


@cache
def drawings(source: str, split: str, height: float, device: str) -> tuple[Tensor | DrawnWhenAsked, Int[Tensor, " n"]]:
    """As `bitmaps`, but on a CPU a glyph is drawn when `ink[numbers]` first asks for it: a few clips need a few glyphs."""
    if source == "mnist":
        return _mnist(split, height, device)
    if source != "strokes":
        raise ValueError(f"unknown glyphs {source!r}: choose 'strokes' or 'mnist'")
    bank = load_bank(split)
    if device == "cpu":
        return DrawnWhenAsked(bank, height), bank.digit
    return Glyphs(bank.segments.to(device), bank.half_width.to(device), bank.digit.to(device)).draw(height), bank.digit


def _mnist(split: str, height: float, device: str) -> tuple[Tensor, Tensor]:
    try:  # imported here: torchvision is optional, and a build that does not match torch fails on import
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"glyphs='mnist' needs a working torchvision ({error}): pip install 'minilumiere[mnist]'") from error
    try:
        dataset = MNIST(DATA / "mnist", train=split == "train")
    except RuntimeError as error:
        how = f"torchvision.datasets.MNIST({str(DATA / 'mnist')!r}, download=True)"
        raise ValueError(f"MNIST is not in {DATA / 'mnist'}: fetch it once with {how}") from error
    side = patch_size(height)
    digit_box = round(28 * height / 20)  # MNIST digits are 20 of 28 pixels tall
    ink = torch.nn.functional.interpolate(
        dataset.data[:, None].float() / 255, (digit_box, digit_box), mode="bilinear", antialias=True
    )
    margin = (side - digit_box) // 2
    return torch.nn.functional.pad(ink[:, 0], [margin, side - digit_box - margin] * 2).to(device), dataset.targets


def save_bank(path: Path) -> None:
    """Write the bank: 300 training and 100 test glyphs a digit. `python -m minilumiere.dataset.glyphs` makes `data/`'s."""
    from safetensors.torch import save_file

    tensors = {}
    for split, per_digit, seed in (("train", 300, 1), ("test", 100, 2)):
        glyphs = make_glyphs(per_digit, seed)
        tensors |= {f"{split}.segments": glyphs.segments.half(), f"{split}.half_width": glyphs.half_width.half()}
        tensors[f"{split}.digit"] = glyphs.digit.to(torch.uint8)
    save_file(tensors, path)


if __name__ == "__main__":
    save_bank(DATA / "glyphs.safetensors")
