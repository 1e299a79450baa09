"""What many scenes show, as numbers: drawn at random all at once, without a loop over scenes.

    caption  ◄──► tuple of `Subject`s (words)  ◄──► `Subjects` (numbers, n scenes)  ──► paths, pixels, tokens

A scene has one object or two of different colours; the first is in front. Our choice: the paper trains on real videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, Subject
from minilumiere.dataset.chance import pick, uniform

# In the images that the text-to-image net is trained on, in no video of a generating net: does a video model compose?
UNSEEN_PAIRS = (
    ("red", 2), ("red", 7), ("green", 1), ("green", 6), ("blue", 4), ("blue", 9),
    ("yellow", 0), ("yellow", 3), ("purple", 5), ("cyan", 8), ("cyan", 5), ("white", 2),
)  # fmt: skip
OPEN = -1  # a motion that the caption leaves open
STILL, PLAIN = MOTIONS.index("standing still"), SPEEDS.index("")


@dataclass(frozen=True)
class Subjects:
    """Of n scenes and their two objects (of which the second may not be there): indices into the words of `captions`."""

    colour: Int[Tensor, "n 2"]
    digit: Int[Tensor, "n 2"]
    motion: Int[Tensor, "n 2"]  # or `OPEN`
    speed: Int[Tensor, "n 2"]
    two: Bool[Tensor, " n"]  # is there a second object? On the host, always: it decides how much is drawn

    def __len__(self) -> int:
        return len(self.two)

    def at(self, scenes: Int[Tensor, " m"]) -> "Subjects":
        """Those of the given scenes (numbers on the host)."""
        there = scenes.to(self.colour.device)
        return Subjects(self.colour[there], self.digit[there], self.motion[there], self.speed[there], self.two[scenes])

    def words(self) -> list[tuple[Subject, ...]]:
        """The same as tuples of `Subject`s, as captions are made of."""
        numbers = torch.stack([self.colour, self.digit, self.motion, self.speed], dim=-1).tolist()  # n 2 4
        motions = (*MOTIONS, "")  # the last is `OPEN`'s
        return [
            tuple(Subject(list(COLOURS)[c], d, motions[m], SPEEDS[s]) for c, d, m, s in row[: 1 + second])
            for row, second in zip(numbers, self.two.tolist(), strict=True)
        ]


def subjects_of(asked: Sequence[tuple[Subject, ...]], device="cpu") -> Subjects:
    """The inverse of `Subjects.words`."""
    rows = []
    for scene in asked:
        numbers = [
            (
                list(COLOURS).index(subject.colour),
                subject.digit,
                MOTIONS.index(subject.motion) if subject.motion else OPEN,
                SPEEDS.index(subject.speed),
            )
            for subject in scene
        ]
        rows.append(numbers * 2 if len(numbers) == 1 else numbers)
    columns = torch.tensor(rows, device=device).unbind(-1)  # 4 of (n, 2)
    return Subjects(*columns, torch.tensor([len(scene) == 2 for scene in asked]))


@cache
def _allowed(unseen: bool, device: str) -> tuple[Int[Tensor, "colours 10"], Int[Tensor, " colours"]]:
    """The digits of each colour, the allowed ones first, and how many those are."""
    table = [[digit for digit in range(10) if unseen or (colour, digit) not in UNSEEN_PAIRS] for colour in COLOURS]
    padded = [digits + [0] * (10 - len(digits)) for digits in table]
    return torch.tensor(padded, device=device), torch.tensor([len(digits) for digits in table], device=device)


def random_subjects(
    n: int,
    generator: torch.Generator,
    *,
    two: float = 0.5,
    unseen: bool = True,
    bare: float = 0.0,
    motions: Sequence[str] = MOTIONS,
    device: str = "cpu",
) -> Subjects:
    """Draw what `n` captions say: two objects with probability `two`, always of different colours.

    `unseen=False` leaves the `UNSEEN_PAIRS` out. Motion and speed of a whole scene are left open with probability `bare`;
    else a motion is one of `motions`, any as likely as the others, and so is the speed of what moves.
    """
    second = uniform((n,), generator) < two  # on the host
    share = uniform((5, n, 2), generator, device)
    first = pick(share[0, :, 0], len(COLOURS))
    other = (first + 1 + pick(share[0, :, 1], len(COLOURS) - 1)) % len(COLOURS)
    colour = torch.stack([first, other], dim=1)
    digits, count = _allowed(unseen, str(device))
    digit = digits[colour, pick(share[1], count[colour])]
    motion = _numbers(tuple(MOTIONS.index(motion) for motion in motions), str(device))[pick(share[2], len(motions))]
    motion = torch.where(share[4, :, :1] < bare, OPEN, motion)
    speed = torch.where((motion == STILL) | (motion == OPEN), PLAIN, pick(share[3], len(SPEEDS)))
    return Subjects(colour, digit, motion, speed, second)


def fill_in(subjects: Subjects, generator: torch.Generator) -> Subjects:
    """Draw what captions leave open: any motion; of an object with a speed, any but standing still, which has none."""
    device = subjects.motion.device
    share = uniform(tuple(subjects.motion.shape), generator, device)
    moving = 1 + pick(share, len(MOTIONS) - 1)  # `STILL` is the first
    drawn = torch.where(subjects.speed == PLAIN, pick(share, len(MOTIONS)), moving)
    motion = torch.where(subjects.motion == OPEN, drawn, subjects.motion)
    return replace(subjects, motion=motion, speed=torch.where(motion == STILL, PLAIN, subjects.speed))


@cache
def _numbers(values: tuple[int, ...], device: str) -> Int[Tensor, " n"]:
    """A tensor of whole numbers, copied to a device once."""
    return torch.tensor(values, device=device)
