"""Measure a scale: the judge on real and on generated clips of the same captions, and the joins of super-resolution.

The captions are drawn from seeds that training never uses; real clips are drawn with the test glyphs. Whether a video model
composes is asked with captions of `UNSEEN_PAIRS`, whether it goes on in time with clips longer than those of its training.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from minilumiere.dataset.captions import Subject, format_caption, parse_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import UNSEEN_PAIRS, random_subjects, subjects_of
from minilumiere.evaluation.judge import assess
from minilumiere.model.multidiffusion import temporal_windows
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number

EVALUATION_SEED = 2**40  # far from the seeds of training steps
BATCH = {"cpu": 8, "cuda": 64}  # clips that go through the model at once
IMAGES = 256  # of the image net, of one object and of two
AT_JOINS = 16  # clips at most, whose joins are looked at
Judged = list[list[dict]]  # of each clip, what the judge says of each object: `objects` of `judge.assess`


def evaluation_captions(n: int, objects: int, seed: int = 0) -> list[str]:
    """`n` captions of one or two objects, motion and speed given."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED + 2 * seed + objects)
    return [format_caption(subjects) for subjects in random_subjects(n, generator, two=objects - 1).words()]


def of_unseen_pairs(captions: list[str]) -> list[str]:
    """Captions of one object with other digits and colours: the `UNSEEN_PAIRS` in turn. Motion and speed stay."""
    pairs = zip(captions, cycle(UNSEEN_PAIRS), strict=False)
    return [str(replace(parse_caption(caption)[0], colour=colour, digit=digit)) for caption, (colour, digit) in pairs]


def is_seen(caption: str) -> bool:
    """Can every object's colour and digit be in a training video?"""
    return all((subject.colour, subject.digit) not in UNSEEN_PAIRS for subject in parse_caption(caption))


def batches(pipe: Pipeline, captions: list[str], what: str) -> Iterator[slice]:
    """Slices of so many captions as go through the model at once, with a progress bar."""
    size = BATCH[pipe.device.type]
    for i in tqdm(range(0, len(captions), size), what, leave=False, disable=sys.stderr is None):
        yield slice(i, i + size)


def real_clips(
    pipe: Pipeline, captions: list[str], seed: int = 0, frames: int | None = None, large: bool = True
) -> Float[Tensor, "n t 3 h w"]:
    """Ground truth of all captions with test glyphs, at the output size, or at the base size if not `large`."""
    generator, subjects = torch.Generator().manual_seed(EVALUATION_SEED + seed), subjects_of(list(map(parse_caption, captions)))
    size = pipe.scale.output_size if large else pipe.scale.size
    return draw_scenes(subjects, generator, frames or pipe.scale.frames, size, pipe.scale.output_size, "test")[0]


def judge_all(clips: Float[Tensor, "n t 3 h w"], captions: list[str]) -> Judged:
    """What the judge says of every clip."""
    return [assess(clip, caption)["objects"] for clip, caption in zip(clips, captions, strict=True)]


def judge_real(pipe: Pipeline, captions: list[str], seed: int = 0, frames: int | None = None, large: bool = True) -> Judged:
    """The judge on ground truth, in batches: no more clips are in memory at once."""
    judged = []
    for part in batches(pipe, captions, "drawing"):
        clips = real_clips(pipe, captions[part], seed + part.start, frames, large)
        judged += judge_all(clips.to(pipe.device), captions[part])
    return judged


def judge_generated(
    pipe: Pipeline, captions: list[str], seed: int = 0, frames: int | None = None, large: bool = True
) -> Judged:
    """The judge on generated clips, in batches. The i-th caption's noise is the same for all lists of captions."""
    judged = []
    for part in batches(pipe, captions, "generating"):
        options = {"frames": frames, "super_resolution": large}
        clips = pipe.generate(captions[part], EVALUATION_SEED + 1000 * seed + part.start, **options)
        judged += judge_all(clips, captions[part])
    return judged


def judge_images(pipe: Pipeline, captions: list[str], seed: int = 0) -> Judged:
    """The judge on images of the image net alone, of the base size. Of the captions, colour and digit are asked for."""
    judged = []
    for part in batches(pipe, captions, "images"):
        subjects = [parse_caption(caption) for caption in captions[part]]
        bare = [format_caption(tuple(Subject(thing.colour, thing.digit) for thing in scene)) for scene in subjects]
        judged += judge_all(pipe.generate_image(bare, EVALUATION_SEED + 1000 * seed + part.start)[:, None], bare)
    return judged


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share measured on n cases (Wilson 1927)."""
    z = 1.96
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    return min(max(0.0, low), share), max(min(1.0, high), share)  # but for rounding they are so


def score(judged: Judged) -> dict[str, float]:
    """Shares in [0, 1] of clips for which all objects of the caption are right, and the mean distance to the ideal path.

    That is of the objects that there are; NaN if there are none.
    """

    def share(right: Callable[[dict], bool]) -> float:
        return sum(all(right(thing) for thing in things) for things in judged) / len(judged)

    scores = {key: share(lambda thing, key=key: thing["agrees"][key]) for key in ("digit", "colour", "motion", "speed")}
    scores["colour and motion"] = share(lambda thing: thing["agrees"]["colour"] and thing["agrees"]["motion"])
    scores["all four"] = share(lambda thing: all(thing["agrees"].values()))
    scores["same digit first and last"] = share(lambda thing: thing["same_digit"])
    scores["same digit on all frames"] = share(lambda thing: thing["constant_digit"] == 1)
    scores["everything"] = share(lambda thing: all(thing["agrees"].values()) and thing["constant_digit"] == 1)
    paths = [thing["path_rms"] for things in judged for thing in things if thing["colour"]]
    scores["path error (units of 32)"] = sum(paths) / len(paths) if paths else math.nan
    return scores


def table(title: str, columns: dict[str, Judged]) -> list[str]:
    """The scores as lines, a column each."""
    scores = {name: score(judged) for name, judged in columns.items()}
    lines = ["", f"{title:<34}" + "".join(f"{name:>20}" for name in scores)]
    for key in next(iter(scores.values())):
        shown = [
            f"{column[key]:.2f}" if "error" in key else with_interval(column[key], len(columns[name]))
            for name, column in scores.items()
        ]
        lines.append(f"  {key:<32}" + "".join(f"{text:>20}" for text in shown))
    return lines


def with_interval(share: float, n: int) -> str:
    """A share in per cent, with its 95 % interval."""
    low, high = wilson(share, n)
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def join_ratio(clips: Float[Tensor, "n t 3 h w"], joins: list[int]) -> float:
    """Mean difference of adjacent frames where a window begins or ends, over that elsewhere."""
    difference = (clips[:, 1:] - clips[:, :-1]).abs().mean((0, 2, 3, 4))  # between frame i and i + 1
    at_join = torch.zeros(len(difference), dtype=torch.bool)
    at_join[[join - 1 for join in joins]] = True
    return float(difference[at_join].mean() / difference[~at_join].mean())


def compare_joins(pipe: Pipeline, captions: list[str], frames: int | None = None) -> dict[str, float]:
    """The join ratio with MultiDiffusion, and with windows enlarged on their own and put end to end."""
    parts = batches(pipe, captions, "generating")
    options = {"frames": frames, "super_resolution": False}
    low = torch.cat([pipe.generate(captions[part], EVALUATION_SEED + part.start, **options) for part in parts])
    windows = temporal_windows(low.shape[1], pipe.scale.window, pipe.scale.overlap)
    joins = sorted({edge for window in windows for edge in (window.start, window.stop)} - {0, low.shape[1]})
    joint, apart = [], []
    for i, (clip, caption) in enumerate(zip(tqdm(low, "enlarging", leave=False), captions, strict=True)):
        joint.append(pipe.upscale(clip, caption, seed=i).cpu())
        parts = [pipe.upscale(clip[w], caption, seed=1000 * (i + 1) + number).cpu() for number, w in enumerate(windows)]
        starts = [0, *(window.stop for window in windows)]  # each frame from the first window that holds it
        apart.append(torch.cat([part[start - w.start :] for part, w, start in zip(parts, windows, starts, strict=False)]))
    ends = [window.stop for window in windows[:-1]]
    return {"with MultiDiffusion": join_ratio(torch.stack(joint), joins), "without": join_ratio(torch.stack(apart), ends)}


def of_whom(pipe: Pipeline) -> str:
    """What the first line of a table says: the scale, and whether it is the few-step student that is judged."""
    return f"{pipe.scale.name}, few-step student" if pipe.student else pipe.scale.name


@pinned()
def evaluate(pipe: Pipeline, samples: int = 128, seed: int = 0, frames: int | None = None, large: bool = True) -> str:
    """Tables, real beside generated: `samples` captions of one object, half as many of two, joins on an eighth or `AT_JOINS`.

    The captions of one object are asked once more with a digit and a colour that are in no training video together;
    motions, speeds and noise are the same. `frames`: as of `Pipeline.generate`. Not `large`: the base clips are judged, and no
    joins are looked at.
    """
    samples, seed = check_number(samples, "samples", 1, 100_000, int), check_number(seed, "seed", 0, 2**60, int)
    one, two = evaluation_captions(samples, 1, seed), evaluation_captions(max(1, samples // 2), 2, seed)
    generated, unseen = (judge_generated(pipe, captions, seed, frames, large) for captions in (one, of_unseen_pairs(one)))
    seen = [things for things, caption in zip(generated, one, strict=True) if is_seen(caption)]
    columns = {"real": judge_real(pipe, one, seed, frames, large), "generated": generated}
    columns |= {"seen pairs": seen, "unseen": unseen} if seen else {"unseen": unseen}
    pair = {
        name: judge(pipe, two, seed, frames, large) for name, judge in (("real", judge_real), ("generated", judge_generated))
    }
    joins, size = [], pipe.scale.output_size if large else pipe.scale.size
    if large:
        ratios = compare_joins(pipe, evaluation_captions(max(1, min(samples // 8, AT_JOINS)), 1, seed + 1), frames)
        joins = ["", "adjacent-frame difference at window joins, relative to elsewhere"]
        joins += [f"  {key:<32}{value:>20.3f}" for key, value in ratios.items()]
    images = [judge_images(pipe, evaluation_captions(IMAGES, objects, seed + 2), seed) for objects in (1, 2)]
    return "\n".join(
        [
            f"{of_whom(pipe)}: judged at {size} pixels, {frames or pipe.scale.frames} frames, seed {seed}",
            *table(f"captions of one object: {samples}", columns),
            f"  seen: {len(seen)} of the captions, whose (colour, digit) occurs in training videos; unseen: all, with others",
            *table(f"captions of two objects: {len(two)}", pair),
            "",
            f"the image net alone, digit and colour right in {IMAGES} images, per cent [95 % interval]",
            *(
                f"  {name:<32}{with_interval(score(judged)['all four'], IMAGES):>20}"
                for name, judged in zip(("one object", "two objects"), images, strict=True)
            ),
            *joins,
        ]
    )
