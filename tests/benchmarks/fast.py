"""The few-step student beside its teacher: what fewer steps cost in quality and in variety, and what they bring in time.

    python tests/benchmarks/fast.py --samples 128 --frames 16     # 1, 2, 4 and 8 steps of each, then the teacher's own number
    python tests/benchmarks/fast.py --samples 128 --frames 80 --steps 4
    python tests/benchmarks/fast.py --json notebooks/course/fast.json     # the rows that notebook 14 shows: those it lacks
    python tests/benchmarks/fast.py --time                        # on an idle machine: caption to tensor, 128x128

Base clips of one object, of the same captions and seeds in every row; every caption is sampled with two seeds. Variety is the
standard deviation over seeds of where a clip begins (units of 32), of its pace (units a frame, of what moves) and of its glyph
(grey values of a centred crop of the first frame).
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from minilumiere.config import SCALES
from minilumiere.dataset.captions import COLOURS, parse_caption
from minilumiere.evaluation.judge import judge_crops
from minilumiere.evaluation.quality import (
    EVALUATION_SEED,
    Judged,
    batches,
    evaluation_captions,
    judge_all,
    real_clips,
    score,
    with_interval,
)
from minilumiere.evaluation.tasks import centres
from minilumiere.pipeline import Pipeline, load
from minilumiere.weights.shipped import read_manifest

COLUMNS = ("digit", "colour", "motion", "speed", "all four", "same digit on all frames", "path error (units of 32)")
VARIETY = ("start", "pace", "glyph")
SEEDS = 2  # for each caption
MADE_WITH = {"real": {"judge"}, "teacher": {"base", "judge"}, "student": {"base", "fast", "judge"}}  # rows, by whose they are


def looks(clips: Tensor, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Where each clip (n t 3 h w) begins (n 2), its pace (n 1; not a number where it stands still), its glyph (n pixels)."""
    colours = [parse_caption(caption)[0].colour for caption in captions]
    paths = torch.stack([centres(clip, colour) for clip, colour in zip(clips, colours, strict=True)])  # n t 2
    pace = paths.diff(dim=1).norm(dim=-1).median(1).values[:, None]
    still = torch.tensor(["standing" in caption for caption in captions])
    numbers = torch.tensor([list(COLOURS).index(colour) for colour in colours])
    return paths[:, 0], pace.masked_fill(still[:, None], float("nan")), judge_crops(clips[:, 0], numbers, 28).flatten(1)


def spread(seeds: list[Tensor]) -> float:
    """The standard deviation over seeds of values (n k), over captions and coordinates; what is no number is left out."""
    variance = torch.stack(seeds).var(0)
    return float(variance.nanmean().sqrt())


def measure(pipe: Pipeline, make, captions: list[str], progress: str) -> tuple[Judged, list[float]]:
    """What the judge says of `make(captions, first)`, clips of captions with seeds from `first` on, and their variety."""
    judged, seen = [], []
    for seed in range(SEEDS):
        rows = []
        for part in batches(pipe, captions, progress):
            clips = make(captions[part], EVALUATION_SEED + 1000 * seed + part.start).cpu()
            judged += judge_all(clips, captions[part])
            rows.append(looks(clips, captions[part]))
        seen.append([torch.cat(column) for column in zip(*rows, strict=True)])
    return judged, [spread(list(column)) for column in zip(*seen, strict=True)]


def seconds(pipe: Pipeline, frames: int, repeats: int) -> float:
    """The fastest of some runs, caption to tensor; the first does not count."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        pipe.generate("a red 3 moving right", frames=frames)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def compare_times(teacher: Pipeline, student: Pipeline, repeats: int) -> None:
    side = teacher.scale.output_size
    print(f"caption to tensor, {side}x{side}, {torch.get_num_threads()} threads of {teacher.device}; 80 frames last 5 s")
    print(f"{'frames':>8}{'teacher s':>12}{'student s':>12}{'times faster':>14}{'of real time':>14}")
    for frames in (16, 80):
        slow, fast = seconds(teacher, frames, repeats), seconds(student, frames, repeats)
        print(
            f"{frames:>8}{slow:>12.2f}{fast:>12.2f}{slow / fast:>14.1f}{fast * teacher.scale.fps / frames:>14.2f}", flush=True
        )


def rows_of_these_weights(path: Path, facts: dict) -> dict[str, dict]:
    """The rows of a file, by name, of the same captions, weights and sampling: a new student leaves its teacher's rows."""
    stored = json.loads(path.read_text())
    if any(stored[key] != facts[key] for key in ("captions", "seeds", "frames")):
        return {}
    changed = {Path(name).stem for name, checksum in facts["weights"].items() if stored["weights"].get(name) != checksum}
    same = {who for who, nets in MADE_WITH.items() if not nets & changed and stored.get(who) == facts.get(who)}
    return {row["name"]: row for row in stored["rows"] if row["name"].split(",")[0] in same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--time", action="store_true", help="time both, and nothing else")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="a file of rows: those of the same weights are kept in it")
    options = parser.parse_args()
    teacher, student = load(options.scale), load(options.scale, fast=True)
    if options.time:
        return compare_times(teacher, student, options.repeats)
    captions, n = evaluation_captions(options.samples, 1), SEEDS * options.samples
    print(
        f"{options.samples} captions of one object, {SEEDS} seeds each, {options.frames} frames; shares of {n} clips, per cent"
    )
    print(f"{'':<18}" + "".join(f"{key[:18]:>20}" for key in (*COLUMNS, *VARIETY)), flush=True)

    used = [f"{options.scale}/{stage}.safetensors" for stage in ("base", "fast", "judge")]
    weights = {name: entry["sha256"] for name, entry in read_manifest().items() if name in used}
    facts = {"captions": options.samples, "seeds": SEEDS, "frames": options.frames, "weights": weights}
    patient, few = asdict(teacher.scale), asdict(teacher.scale.few_steps())
    facts["student"] = {key: value for key, value in few.items() if value != patient[key]}  # how it is sampled
    facts["teacher"] = {key: patient[key] for key in facts["student"]}
    known = rows_of_these_weights(options.json, facts) if options.json and options.json.is_file() else {}
    rows: list[dict] = []

    def row(name: str, make) -> None:
        if name not in known:
            judged, variety = measure(teacher, make, captions, name)
            known[name] = {"name": name, "n": n, "scores": score(judged), "variety": dict(zip(VARIETY, variety, strict=True))}
        scores = known[name]["scores"]
        shown = [f"{scores[key]:.2f}" if "error" in key else with_interval(scores[key], n) for key in COLUMNS]
        shown += [f"{value:.3f}" for value in known[name]["variety"].values()]
        print(f"{name:<18}" + "".join(f"{text:>20}" for text in shown), flush=True)
        rows.append(known[name])
        if options.json:
            options.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")

    def sampled(pipe: Pipeline, steps: int):
        how = {"steps": steps, "frames": options.frames, "super_resolution": False}
        return lambda some, first: pipe.generate(some, first, **how)

    row("real", lambda some, first: real_clips(teacher, some, first - EVALUATION_SEED, options.frames, large=False))
    for steps in options.steps:
        row(f"teacher, {steps}", sampled(teacher, steps))
        row(f"student, {steps}", sampled(student, steps))
    if teacher.scale.steps not in options.steps:
        row(f"teacher, {teacher.scale.steps}", sampled(teacher, teacher.scale.steps))


if __name__ == "__main__":
    main()
