"""The laboratory: what does a metric of videos see? Real clips are spoiled by degrees, and every metric reads them.

    real clips ──► 50 draws of `CLIPS` ──► every metric ──► its spread ─┐
    one draw ──► corrupted, 8 ways × 4 strengths ──► every metric ──────┴► outside the spread? then it notices

A metric notices a corruption from the strength on at which its value, and that of every stronger one, lies outside the
range of all draws of real clips, widened by a quarter on both sides. The clips that are spoiled are one of the draws: what
changes nothing is never noticed.
The metrics are the judge's shares (`judge`), two Fréchet distances (`frechet`) and six formulas (`formulas`). Notebook 13.
"""

import math
import sys
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from minilumiere.config import SCALES, get_scale
from minilumiere.evaluation.corruption import CORRUPTIONS, Scenes, corrupt, real_scenes
from minilumiere.evaluation.formulas import FORMULAS, formulas
from minilumiere.evaluation.frechet import frechet_distance, heaviest_path, motion_features, video_features
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions, judge_all, score
from minilumiere.pipeline import load
from minilumiere.torch_state import pinned
from minilumiere.weights.shipped import weights_path

CLIPS = 128  # of a set
TWO_OBJECTS = 4  # one clip of so many shows two objects
REFERENCE = 512  # real clips that the Fréchet distances are from
POOL = 1024  # other real clips, from which sets are drawn
DRAWS = 50
AT_ONCE = 8  # clips that are generated together
JUDGED = ("digit", "colour", "motion", "speed", "same digit on all frames", "path error (units of 32)")
DISTANCES = ("toy Fréchet video distance", "Fréchet distance of motion")
METRICS = (*(f"judge: {name}" for name in JUDGED), *DISTANCES, *FORMULAS)
NOTE = "not comparable with published FVD or FVMD: another net, other clips, fewer of them"
Values = dict[str, float | None]  # by metric; None where nothing is to be measured


@dataclass(frozen=True)
class Reference:
    """What the Fréchet distances are from: features of n real clips."""

    appearance: Float[Tensor, "n f"]
    motion: Float[Tensor, "n 16"]


@dataclass(frozen=True)
class Readings(Reference):
    """What every metric needs of n clips: read once, summed up over any of them."""

    judged: list[list[dict]]
    formulas: Float[Tensor, "n 6"]

    def at(self, clips: list[int]) -> "Readings":
        """Those of some of the clips."""
        return Readings(self.appearance[clips], self.motion[clips], [self.judged[i] for i in clips], self.formulas[clips])


@pinned()
def read_reference(clips: Float[Tensor, "n t 3 h w"]) -> Reference:
    """Read clips in [0, 1], of which no captions are needed. Raises what `frechet.video_features` raises."""
    paths = torch.stack([motion_features(heaviest_path(clip)) for clip in clips])
    return Reference(video_features(clips), paths.cpu())


@pinned()
def read_clips(clips: Float[Tensor, "n t 3 h w"], captions: list[str]) -> Readings:
    """Read clips in [0, 1] of two frames or more. Raises what `judge.assess` and `frechet.video_features` raise."""
    rows = [list(formulas(clip, caption).values()) for clip, caption in zip(clips, captions, strict=True)]
    features = read_reference(clips)
    return Readings(features.appearance, features.motion, judge_all(clips, captions), torch.tensor(rows))


def sum_up(readings: Readings, real: Reference) -> Values:
    """The value of every metric, to four decimals; `real` is what the Fréchet distances are from."""
    scores = score(readings.judged)
    values = [scores[name] for name in JUDGED]
    values += [frechet_distance(getattr(readings, kind), getattr(real, kind)) for kind in ("appearance", "motion")]
    values += readings.formulas.nanmean(0).tolist()
    return {name: None if math.isnan(value) else round(value, 4) for name, value in zip(METRICS, values, strict=True)}


@pinned()
def read_all(clips: Float[Tensor, "n t 3 h w"], captions: list[str], real: Float[Tensor, "m t 3 h w"]) -> dict:
    """Every metric of clips in [0, 1] against `real` ones of the same frames and size: `values`, and what they depend on.

    Raises `ValueError` where frames or sizes differ.
    """
    if clips.shape[1:] != real.shape[1:]:
        raise ValueError(f"clips {tuple(clips.shape)} and real ones {tuple(real.shape)} differ in frames or size")
    return {"values": sum_up(read_clips(clips, captions), read_reference(real)), **described(clips, len(real))}


def described(clips: Tensor, reference: int) -> dict:
    """What a Fréchet distance must not be printed without."""
    n, frames, _, height, width = clips.shape
    return {"clips": n, "reference": reference, "frames": frames, "resolution": f"{height}x{width}", "note": NOTE}


def mixed_captions(n: int, seed: int = 0) -> list[str]:
    """`n` captions, every fourth of them of two objects."""
    two = n // TWO_OBJECTS
    one = evaluation_captions(n - two, 1, seed)
    pairs = evaluation_captions(two, 2, seed)
    return [pairs[i // TWO_OBJECTS] if i % TWO_OBJECTS == TWO_OBJECTS - 1 else one[i - i // TWO_OBJECTS] for i in range(n)]


def draws(pool: int, n: int, count: int, seed: int = 0) -> list[list[int]]:
    """`count` times `n` of `pool` clips, without replacement, every fourth of two objects; the first draw is the first `n`."""
    generator, number = torch.Generator().manual_seed(seed), torch.arange(pool)
    two = number % TWO_OBJECTS == TWO_OBJECTS - 1
    sets = [list(range(n))]
    for _ in range(count - 1):
        kinds = ((number[~two], n - n // TWO_OBJECTS), (number[two], n // TWO_OBJECTS))
        sets.append([int(i) for kind, m in kinds for i in kind[torch.randperm(len(kind), generator=generator)[:m]]])
    return sets


def noticed(values: list[float | None], strengths: tuple[float, ...], low: float, high: float) -> float | None:
    """The least strength from which on all values lie outside [low, high]; None if there is none."""
    found = None
    for value, strength in zip(reversed(values), reversed(strengths), strict=True):
        if value is None or low <= value <= high:
            break
        found = strength
    return found


@pinned()
def laboratory(progress: bool = True, clips: int = CLIPS, generated: bool = True, seed: int = 0) -> dict:
    """Spoil, read, compare; then read generated clips of the same captions. JSON-able; a few minutes of one CPU core.

    Returns `real` (metric → [low, high] over the draws), `values` (metric → corruption → four values), `notices` (metric →
    corruption → the strength from which on, or None), `generated` (scale → metric → value) and `settings`. `clips`: of a set,
    a multiple of `TWO_OBJECTS`; the pool and the reference shrink along.
    """
    first, reference, pool = EVALUATION_SEED + 10 * seed, REFERENCE * clips // CLIPS, POOL * clips // CLIPS
    known = read_reference(real_scenes(mixed_captions(reference, 10 * seed + 1), first + 1).clips)
    scenes = real_scenes(mixed_captions(pool, 10 * seed + 2), first + 2)
    rest, spoiled = read_clips(scenes.clips, scenes.captions), scenes.first(clips)
    rows = [sum_up(rest.at(chosen), known) for chosen in draws(pool, clips, DRAWS, seed)]
    real = {name: spread([row[name] for row in rows]) for name in METRICS}
    values: dict[str, dict[str, list]] = {name: {} for name in METRICS}
    todo = [(name, strength) for name, corruption in CORRUPTIONS.items() for strength in corruption.strengths]
    for corruption, strength in tqdm(todo, "corruptions", leave=False, disable=not progress or sys.stderr is None):
        found = sum_up(read_clips(corrupt(spoiled, corruption, strength, seed), spoiled.captions), known)
        for name, value in found.items():
            values[name].setdefault(corruption, []).append(value)
    strengths = {name: corruption.strengths for name, corruption in CORRUPTIONS.items()}
    notices = {
        name: {what: noticed(row[what], strengths[what], *widened(*real[name])) for what in row} for name, row in values.items()
    }
    made = {}
    for scale in SCALES if generated else ():
        if weights_path("base", get_scale(scale)).is_file():
            made[scale] = sum_up(read_clips(generate(scale, spoiled, progress), spoiled.captions), known)
    settings = described(spoiled.clips, reference) | {"pool": pool, "draws": DRAWS, "seed": seed}
    settings |= {"strengths": {name: list(row) for name, row in strengths.items()}}
    settings |= {"units": {name: corruption.unit for name, corruption in CORRUPTIONS.items()}}
    return {"settings": settings, "real": real, "values": values, "notices": notices, "generated": made}


def spread(values: list[float | None]) -> tuple[float, float]:
    """The least and the greatest; nothing is outside of what could not be measured."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else (-math.inf, math.inf)


def widened(low: float, high: float, share: float = 0.25) -> tuple[float, float]:
    """A range, longer by a share of its length on both sides: a draw may be an extreme one."""
    return low - share * (high - low), high + share * (high - low)


def generate(scale: str, scenes: Scenes, progress: bool) -> Float[Tensor, "n t 3 h w"]:
    """Base clips of a scale, of the captions, length and size of real ones."""
    pipe, parts, n = load(scale), [], len(scenes.captions)
    options = {"frames": scenes.clips.shape[1], "super_resolution": False}
    for first in tqdm(range(0, n, AT_ONCE), f"{scale}: generating", leave=False, disable=not progress or sys.stderr is None):
        captions = scenes.captions[first : first + AT_ONCE]
        parts.append(pipe.generate(captions, EVALUATION_SEED + first, **options).cpu())
    return torch.cat(parts)


def tables(results: dict) -> str:
    """What `laboratory` returns, as two tables of Markdown: what is noticed, and what generated clips score."""
    settings, names = results["settings"], list(results["settings"]["strengths"])
    facts = "{clips} clips of {frames} frames at {resolution}, {reference} real ones as reference, {draws} draws".format(
        **settings
    )
    lines = [f"{facts}; {settings['note']}.", "", f"| metric | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for metric, row in results["notices"].items():
        cells = ("–" if row[name] is None else f"{row[name]:g}" for name in names)
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    lines += ["", f"| metric | real | {' | '.join(results['generated'])} |", "|---|---|" + "---|" * len(results["generated"])]
    for metric, (low, high) in results["real"].items():
        cells = (shown(row[metric]) for row in results["generated"].values())
        lines.append(f"| {metric} | {shown(low)} … {shown(high)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """Three digits, and a dash for nothing."""
    return "–" if value is None else f"{value:.3g}"
