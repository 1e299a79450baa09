"""How objects move: straight lines that walls reflect, and circles. Built in notebook 01.

A scene lives on a canvas of 32 units (the pixels of a base frame). A centre of (16, 16) is the middle of the canvas;
x grows to the right, y downwards. Centres stay within [8, 24], where walls reflect them.

| motion   | slowly | (nothing) | quickly |                                                          |
| moving   | 0.5    | 1         | 2       | units a frame, ± 10 %; starts in the half it moves away from |
| circling | 32     | 16        | 8       | frames a turn, ± 12 %; radius 4 to 6 units                   |
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.dataset.captions import MOTIONS, SPEEDS
from minilumiere.dataset.chance import uniform
from minilumiere.dataset.subjects import Subjects

CANVAS = 32.0  # units
WALLS = (8.0, 24.0)  # of the centres
UNITS_PER_FRAME = {"slowly": 0.5, "": 1.0, "quickly": 2.0}
FRAMES_PER_TURN = {"slowly": 32.0, "": 16.0, "quickly": 8.0}
RADIUS = (4.0, 6.0)
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # of x, y
CHANCES = 5  # random numbers of a path: start x and y, pace, phase, radius
OPTIONS = 6  # paths from which a second object takes one


def random_paths(subjects: Subjects, generator: torch.Generator, frames: int, spread: float = 1.0) -> Float[Tensor, "n 2 t 2"]:
    """Centres in canvas units of the two objects of n scenes, which move as `subjects` say (no motion open).

    Of `OPTIONS` paths the second object takes the one that keeps farthest from the first: overlap hides what is asked for.
    Circles start anywhere; with `spread` below 1, within that share of the circle about its left end (for training, see
    `training.clips.spread_at`).
    """
    n, device = len(subjects), subjects.motion.device
    chance = uniform((n, 1 + OPTIONS, CHANCES), generator, device, torch.float64)
    first = paths(subjects.motion[:, :1], subjects.speed[:, :1], chance[:, :1], frames, spread)  # n 1 t 2
    options = paths(subjects.motion[:, 1:], subjects.speed[:, 1:], chance[:, 1:], frames, spread)  # n options t 2
    distance = (options - first).norm(dim=-1)  # n options t
    best = (distance.mean(-1) + distance.amin(-1)).argmax(1)  # n
    second = options.gather(1, best[:, None, None, None].expand(-1, 1, frames, 2))
    return torch.cat([first, second], dim=1)


def paths(motion: Tensor, speed: Tensor, chance: Float[Tensor, "*n 5"], frames: int, spread: float = 1.0) -> Tensor:
    """Centres (*n, t, 2) in canvas units, given the indices of motions and speeds (*n) and `CHANCES` numbers in [0, 1)."""
    low, high = WALLS
    table, pace_table = _motions(str(motion.device)), _paces(str(motion.device))
    step, turn = table[motion].split([2, 1], dim=-1)  # of a line; 1 clockwise, -1 anticlockwise, 0 no circle
    step, turn = (part.unsqueeze(-2).expand(*chance.shape[:-1], 1, -1) for part in (step, turn))
    units, turns = pace_table[speed].unbind(-1)  # a frame
    x_y, pace, phase, radius = chance.unsqueeze(-2).split([2, 1, 1, 1], dim=-1)
    time = torch.arange(frames, device=motion.device, dtype=torch.float64)[:, None]  # t 1
    start = low + x_y * (high - low)
    # Circles. y points down: a growing angle looks clockwise.
    r = RADIUS[0] + radius * (RADIUS[1] - RADIUS[0])
    middle = low + r + (start - low) * (high - low - 2 * r) / (high - low)
    done = turn * time * turns[..., None, None] / (0.88 + 0.24 * pace)
    angle = 2 * math.pi * (0.5 + spread * (phase - 0.5) + done)
    circle = middle + r * torch.cat([angle.cos(), angle.sin()], dim=-1)
    # Lines, from the half away from the wall ahead.
    halved = low + (start - low) / 2
    start = torch.where(step > 0, halved, torch.where(step < 0, low + high - halved, start))
    line = reflect(start + step * units[..., None, None] * (0.9 + 0.2 * pace) * time)
    return torch.where(turn != 0, circle, line).float()


def reflect(position: Tensor) -> Tensor:
    """Fold positions back between the walls, as elastic reflection does: a triangle wave."""
    low, high = WALLS
    length = high - low
    return low + length - ((position - low) % (2 * length) - length).abs()


@cache
def _motions(device: str) -> Float[Tensor, "motions 3"]:
    """Of each motion: its step in x and y, and its sense of turning."""
    rows = []
    for motion in MOTIONS:
        verb, way = motion.split()
        turn = {"clockwise": 1, "anticlockwise": -1}[way] if verb == "circling" else 0
        rows.append((*STEPS.get(way, (0, 0)), turn))
    return torch.tensor(rows, device=device, dtype=torch.float64)


@cache
def _paces(device: str) -> Float[Tensor, "speeds 2"]:
    """Of each speed: units a frame, and turns a frame."""
    rows = [(UNITS_PER_FRAME[speed], 1 / FRAMES_PER_TURN[speed]) for speed in SPEEDS]
    return torch.tensor(rows, device=device, dtype=torch.float64)
