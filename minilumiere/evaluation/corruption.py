"""Real clips, spoiled by degrees: each corruption changes one thing, so that it can be seen which metric notices it.

    captions ─► ink, paths ─► clips ─┬► blur, frame shuffle, freeze, wrong direction, flicker, speckle    of the pixels
                    └────────────────┴► wrong speed, digit exchanged                         of the scene: drawn once more

A strength of 0 changes nothing. What chance decides does not depend on the strength: what a weak corruption spoils, a
stronger one spoils, too. Our choice throughout. Notebook 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from minilumiere.config import get_scale
from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.chance import pick, uniform
from minilumiere.dataset.glyphs import drawings, trim
from minilumiere.dataset.moving_digits import DIGIT_HEIGHT, random_glyphs, render
from minilumiere.dataset.paths import CANVAS, random_paths
from minilumiere.dataset.subjects import Subjects, fill_in, subjects_of
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number


@dataclass(frozen=True)
class Scenes:
    """Real clips of captions, and what they are drawn from."""

    captions: list[str]
    clips: Float[Tensor, "n t 3 h w"]  # in [0, 1]
    subjects: Subjects
    ink: Float[Tensor, "n 2 p p"]  # of both objects
    other: Float[Tensor, "n 2 p p"]  # of other digits
    centres: Float[Tensor, "n 2 t 2"]  # x, y in units of the canvas
    draw_size: int  # pixels

    def draw(self, ink: Tensor, centres: Tensor) -> Float[Tensor, "n t 3 h w"]:
        """The same scenes with other ink or on other paths."""
        return render(ink, centres * self.draw_size / CANVAS, self.subjects, self.draw_size, self.clips.shape[-1])

    def first(self, n: int) -> "Scenes":
        """The first `n` of them."""
        parts = (self.ink[:n], self.other[:n], self.centres[:n])
        return Scenes(self.captions[:n], self.clips[:n], self.subjects.at(torch.arange(n)), *parts, self.draw_size)


@pinned()
def real_scenes(captions: list[str], seed: int = 0, frames: int | None = None, scale: str = "tiny") -> Scenes:
    """Scenes of captions at a scale's base size, with test glyphs. Raises `ValueError` for a bad caption, seed or number."""
    preset, generator = get_scale(scale), torch.Generator().manual_seed(check_number(seed, "seed", 0, 2**60, int))
    frames = preset.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
    known = fill_in(subjects_of([parse_caption(caption) for caption in captions]), generator)
    centres = random_paths(known, generator, frames)
    height = preset.output_size * DIGIT_HEIGHT / CANVAS
    bank, shows = drawings("strokes", "test", height, "cpu")
    another = (known.digit + 1 + pick(uniform(tuple(known.digit.shape), generator), 9)) % 10
    ink, other = (trim(bank[random_glyphs(shows, digit, generator)], height).contiguous() for digit in (known.digit, another))
    clips = render(ink, centres * preset.output_size / CANVAS, known, preset.output_size, preset.size)
    return Scenes(list(captions), clips, known, ink, other, centres, preset.output_size)


def blur(scenes: Scenes, sigma: float, generator: torch.Generator) -> Tensor:
    """Every frame through a Gaussian of `sigma` pixels."""
    reach = torch.arange(-int(3 * sigma + 1), int(3 * sigma + 1) + 1)
    kernel = (-reach.square() / (2 * max(sigma, 1e-6) ** 2)).exp()
    kernel, half = kernel / kernel.sum(), len(reach) // 2
    pixels = scenes.clips.flatten(0, 2)[:, None]  # (n t 3) 1 h w
    pixels = F.conv2d(
        F.conv2d(pixels, kernel.view(1, 1, -1, 1), padding=(half, 0)), kernel.view(1, 1, 1, -1), padding=(0, half)
    )
    return pixels.view_as(scenes.clips)


def shuffle(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """A share of the frames of a clip change places, each with another of them: a random cycle."""
    n, frames = scenes.clips.shape[:2]
    moved = uniform((n, frames), generator).argsort(1)[:, : round(share * frames)]
    source = torch.arange(frames).repeat(n, 1).scatter_(1, moved, moved.roll(1, 1))
    return scenes.clips[torch.arange(n)[:, None], source]


def freeze(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """The last share of the frames show the one before them; with all of them, the first."""
    frames = scenes.clips.shape[1]
    return scenes.clips[:, torch.arange(frames).clamp(max=max(frames - 1 - round(share * frames), 0))]


def slow_down(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """Everything moves (1 − share) times as fast. Between two frames a path is straight."""
    frames = scenes.clips.shape[1]
    moment = torch.arange(frames) * (1 - share)
    before = moment.long()
    after = (before + 1).clamp(max=frames - 1)
    between = (moment - before)[:, None]
    return scenes.draw(scenes.ink, scenes.centres[:, :, before].lerp(scenes.centres[:, :, after], between))


def turn_back(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """A share of the clips run backwards."""
    n = len(scenes.clips)
    back = uniform((n,), generator).argsort()[: round(share * n)]
    clips = scenes.clips.clone()
    clips[back] = scenes.clips[back].flip(1)
    return clips


def exchange(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """On the last share of the frames every object is another digit, of the same colour on the same path."""
    last = round(share * scenes.clips.shape[1])
    clips = scenes.clips.clone()
    if last:
        clips[:, -last:] = scenes.draw(scenes.other, scenes.centres[:, :, -last:])
    return clips


def flicker(scenes: Scenes, depth: float, generator: torch.Generator) -> Tensor:
    """Every frame is dimmed by a random part of `depth`."""
    n, frames = scenes.clips.shape[:2]
    return scenes.clips * (1 - depth * uniform((n, frames, 1, 1, 1), generator))


def speckle(scenes: Scenes, share: float, generator: torch.Generator) -> Tensor:
    """A share of the pixels, others on each frame, have random colours."""
    n, frames, _, height, width = scenes.clips.shape
    hit = uniform((n, frames, 1, height, width), generator) < share
    return torch.where(hit, uniform(tuple(scenes.clips.shape), generator), scenes.clips)


@dataclass(frozen=True)
class Corruption:
    """A way to spoil clips, and four strengths of it."""

    spoil: Callable[[Scenes, float, torch.Generator], Tensor]
    strengths: tuple[float, float, float, float]
    unit: str  # of the strength


CORRUPTIONS = {
    "blur": Corruption(blur, (0.5, 1.0, 2.0, 4.0), "σ in pixels of 32"),
    "frame shuffle": Corruption(shuffle, (0.125, 0.25, 0.5, 1.0), "share of the frames"),
    "freeze": Corruption(freeze, (0.125, 0.25, 0.5, 1.0), "share of the frames, the last ones"),
    "wrong speed": Corruption(slow_down, (0.1, 0.2, 0.4, 0.8), "share of the speed that is lost"),
    "wrong direction": Corruption(turn_back, (0.125, 0.25, 0.5, 1.0), "share of the clips that run backwards"),
    "digit exchanged": Corruption(exchange, (0.0625, 0.125, 0.25, 0.5), "share of the frames, the last ones"),
    "flicker": Corruption(flicker, (0.1, 0.2, 0.4, 0.8), "depth of the dimming"),
    "speckle": Corruption(speckle, (0.001, 0.005, 0.02, 0.08), "share of the pixels"),
}


@pinned()
def corrupt(scenes: Scenes, name: str, strength: float, seed: int = 0) -> Float[Tensor, "n t 3 h w"]:
    """The clips of `scenes`, spoiled. Raises `ValueError` for an unknown corruption or a strength outside its range."""
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}")
    corruption = CORRUPTIONS[name]
    strength = check_number(strength, "strength", 0, max(1.0, corruption.strengths[-1]))
    return corruption.spoil(scenes, strength, torch.Generator().manual_seed(seed))
