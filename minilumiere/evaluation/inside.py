"""What the layers of the base net hold, in numbers: the judge reads the path of sampling, and clips of patched runs.

    settling    x̂ at every step ─► judge ─► does it read as in the end?      motion, colour, digit: which settles first?
    patching    "a red 3 moving left", one layer taken from "a blue 7 moving right" ─► judge ─► what turned, what was kept?

The other numbers of notebook 10 need no judge: `viz.compare.parting`, `viz.correspondence.correspondence`. Captions are of one
object, from seeds that training never uses; clips are of the base size. Our choice.
"""

from dataclasses import dataclass

import torch

from minilumiere.dataset.captions import COLOURS, MOTIONS, Subject, parse_caption
from minilumiere.evaluation.judge import load_judge, read
from minilumiere.evaluation.quality import BATCH, EVALUATION_SEED, evaluation_captions, wilson
from minilumiere.pipeline import Pipeline
from minilumiere.viz.compare import OPPOSITE
from minilumiere.viz.patching import of_run, of_words, patched_clips, without_image_guidance
from minilumiere.viz.path import as_clips, sampling_path

ATTRIBUTES = ("motion", "colour", "digit")
Attributes = tuple[str, str, int]  # motion, colour, digit


def contrary_captions(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """`n` pairs of captions that differ in colour and digit and are opposite in motion; every motion in turn."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED + seed)
    pairs = []
    for number in range(n):
        (one, other), digits = (torch.randperm(k, generator=generator)[:2].tolist() for k in (len(COLOURS), 10))
        motion = MOTIONS[1 + number % 6]
        names = list(COLOURS)
        first, second = Subject(names[one], digits[0], motion), Subject(names[other], digits[1], OPPOSITE[motion])
        pairs.append((str(first), str(second)))
    return pairs


def attributes(clip: torch.Tensor) -> Attributes:
    """What the judge reads of a clip (t 3 h w) in [0, 1] of one object."""
    reading = read(clip, load_judge(str(clip.device)))[0]
    return reading.motion, reading.colour, reading.digit


@dataclass(frozen=True)
class Settling:
    """Of n clips, how many read as in the end, at every step."""

    n: int
    log_snrs: list[float]
    alike: dict[str, list[int]]  # {attribute: for each step}

    def shares(self) -> dict[str, list[tuple[float, float, float]]]:
        """Shares with their 95 % intervals, as `viz.path.plot_settling` draws them."""
        return {name: [(k / self.n, *wilson(k / self.n, self.n)) for k in counts] for name, counts in self.alike.items()}

    def settled(self, name: str) -> float:
        """The mean number of the step from which on a clip reads as in the end, if steps were never to be taken back."""
        return sum(1 - share for share, _, _ in self.shares()[name])


def settling(pipe: Pipeline, samples: int, seed: int = 0, steps: int | None = None) -> Settling:
    """The judge on x̂ at every step of sampling `samples` clips, with the scale's guidance."""
    captions = evaluation_captions(samples, 1, seed + 20)
    alike: dict[str, list[int]] = {}
    size = BATCH[pipe.device.type]
    for start in range(0, samples, size):
        part = captions[start : start + size]
        seeds = [EVALUATION_SEED + start + i for i in range(len(part))]
        path = sampling_path(pipe.base, part, seeds, pipe.scale, steps=steps, layers=[])
        for clip in range(len(part)):
            said = [attributes(as_clips(step.clean)[clip]) for step in path]
            for number, name in enumerate(ATTRIBUTES):
                same = [int(each[number] == said[-1][number]) for each in said]
                alike[name] = [a + b for a, b in zip(alike.get(name, [0] * len(path)), same, strict=True)]
    return Settling(samples, [step.log_snr for step in path], alike)


Counts = dict[str, dict[str, dict[str, int]]]  # {layer: {attribute: {"turned": of the clips, "kept": of the clips}}}


def patching(
    pipe: Pipeline, pairs: list[tuple[str, str]], seeds: list[int], layers: list[str], *, words: bool, steps: int
) -> Counts:
    """How many clips read as the other caption's run (turned), how many as their own (kept), for each patched layer.

    Each layer is patched by itself, at every step, on all frames. `words`: from the other caption on the same noisy clip;
    else from the other's own run. A row "none" is of no patch, for comparison. With the scale's guidance, without the image
    net's. Turned and kept are of what the captions say: a clip that reads as neither counts in none.
    """
    one, other = ([pair[i] for pair in pairs] for i in (0, 1))
    scale = without_image_guidance(pipe.scale)
    donor = None if words else sampling_path(pipe.base, other, seeds, scale, steps=steps, layers=layers)
    asked = [[said_of(caption) for caption in captions] for captions in (one, other)]
    counts: Counts = {}
    for layer in ["none", *layers]:
        of_layer = of_words(pipe.base, other, [layer]) if words else of_run(donor, [layer])
        patch = None if layer == "none" else of_layer
        read_off = [attributes(clip) for clip in patched_clips(pipe.base, one, seeds, scale, patch, steps=steps)]
        counts[layer] = {
            name: {
                what: sum(said[i] == wanted[i] for said, wanted in zip(read_off, truth, strict=True))
                for what, truth in (("turned", asked[1]), ("kept", asked[0]))
            }
            for i, name in enumerate(ATTRIBUTES)
        }
    return counts


def said_of(caption: str) -> Attributes:
    """The attributes that a caption of one object asks for."""
    subject = parse_caption(caption)[0]
    return subject.motion, subject.colour, subject.digit


def added(one: Counts, other: Counts) -> Counts:
    """The counts of two sets of pairs together."""
    return {
        layer: {name: {what: n + other[layer][name][what] for what, n in row.items()} for name, row in rows.items()}
        for layer, rows in one.items()
    }
