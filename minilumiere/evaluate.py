"""Measure a scale: the judge on real and on generated clips of the same captions, and the joins of super-resolution.

The captions are drawn from seeds that training never uses; real clips are drawn with the test glyphs.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from minilumiere.captions import format_caption, parse_caption
from minilumiere.judge import assess
from minilumiere.moving_digits import draw_scenes, random_subjects
from minilumiere.multidiffusion import temporal_windows
from minilumiere.pipeline import Pipeline

EVALUATION_SEED = 2**40  # far from the seeds of training steps
BATCH = 8


def evaluation_captions(n: int, objects: int, seed: int = 0) -> list[str]:
    """`n` captions of one or two objects, motion and speed given."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED + 2 * seed + objects)
    return [format_caption(random_subjects(generator, two=objects - 1)) for _ in range(n)]


def batches(captions: list[str], what: str) -> Iterator[slice]:
    """Slices of so many captions as go through the model at once, with a progress bar."""
    for i in tqdm(range(0, len(captions), BATCH), what, leave=False):
        yield slice(i, i + BATCH)


def generate_clips(pipe: Pipeline, captions: list[str], seed: int = 0, **options) -> Float[Tensor, "n t 3 h w"]:
    """Generated clips of all captions, in batches, with a progress bar."""
    parts = batches(captions, "generating")
    clips = [pipe.generate(captions[part], seed=EVALUATION_SEED + 1000 * seed + part.start, **options) for part in parts]
    return torch.cat(clips).cpu()


def real_clips(pipe: Pipeline, captions: list[str], seed: int = 0) -> Float[Tensor, "n t 3 h w"]:
    """Ground truth of all captions with test glyphs, at the output size."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED + seed)
    size, subjects = pipe.scale.output_size, [parse_caption(caption) for caption in captions]
    return draw_scenes(subjects, generator, pipe.scale.frames, size, size, "test")[0]


def score(clips: Float[Tensor, "n t 3 h w"], captions: list[str]) -> dict[str, float]:
    """Shares in [0, 1] of clips for which all objects of the caption are right, and the mean distance to the ideal path."""
    rows = [assess(clip, caption)["objects"] for clip, caption in zip(clips, captions, strict=True)]

    def share(right: Callable[[dict], bool]) -> float:
        return sum(all(right(thing) for thing in row) for row in rows) / len(rows)

    scores = {key: share(lambda thing, key=key: thing["agrees"][key]) for key in ("digit", "colour", "motion", "speed")}
    scores["colour and motion"] = share(lambda thing: thing["agrees"]["colour"] and thing["agrees"]["motion"])
    scores["same digit first and last"] = share(lambda thing: thing["same_digit"])
    scores["everything"] = share(lambda thing: all(thing["agrees"].values()) and thing["same_digit"])
    scores["path error (units of 32)"] = sum(thing["path_rms"] for row in rows for thing in row) / sum(map(len, rows))
    return scores


def join_ratio(clips: Float[Tensor, "n t 3 h w"], joins: list[int]) -> float:
    """Mean difference of adjacent frames where a window begins or ends, over that elsewhere."""
    difference = (clips[:, 1:] - clips[:, :-1]).abs().mean((0, 2, 3, 4))  # between frame i and i + 1
    at_join = torch.zeros(len(difference), dtype=torch.bool)
    at_join[[join - 1 for join in joins]] = True
    return float(difference[at_join].mean() / difference[~at_join].mean())


def compare_joins(pipe: Pipeline, captions: list[str]) -> dict[str, float]:
    """The join ratio with MultiDiffusion, and with windows enlarged on their own and put end to end."""
    low = generate_clips(pipe, captions, super_resolution=False).to(pipe.device)
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


def evaluate(pipe: Pipeline, samples: int = 128, seed: int = 0) -> str:
    """One table, real beside generated: `samples` one-object captions, half as many of two objects, joins on an eighth."""
    lines = [f"{pipe.scale.name}: judged at {pipe.scale.output_size} pixels, {pipe.scale.frames} frames, seed {seed}"]
    for objects, count in ((1, samples), (2, max(1, samples // 2))):
        captions = evaluation_captions(count, objects, seed)
        real = score(real_clips(pipe, captions, seed), captions)
        generated = score(generate_clips(pipe, captions, seed), captions)
        lines += ["", f"{f'{count} captions of {objects} object(s)':<34}{'real':>10}{'generated':>12}"]
        for key, value in real.items():
            text = "{:.2f}" if "error" in key else "{:.1%}"
            lines.append(f"  {key:<32}{text.format(value):>10}{text.format(generated[key]):>12}")
    joins = compare_joins(pipe, evaluation_captions(max(1, samples // 8), 1, seed + 1))
    lines += ["", "adjacent-frame difference at window joins, relative to elsewhere"]
    return "\n".join([*lines, *(f"  {key:<32}{value:>22.3f}" for key, value in joins.items())])
