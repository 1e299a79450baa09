"""Every stage of a scale by one command: `minilumiere train all --ship`. A plan first, a table last.

    judge ─► t2i ─► base ─► conditioned ─► ssr-image ─► ssr ─► style-*        each is shipped before the next begins

A stage is built on the shipped weights of those before it, so that nothing can be trained without shipping. Killed at any
moment, the same command goes on where it was: finished stages are left alone, the one that was cut off is resumed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from minilumiere.config import STAGES, get_scale
from minilumiere.training.loop import TrainOptions, train
from minilumiere.training.stages import get_stage
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.shipped import read_manifest, ship, weights_path


@dataclass(frozen=True)
class Planned:
    """One stage of the plan."""

    stage: str
    options: TrainOptions
    done: bool  # trained to its end, and shipped


def plan(options: TrainOptions) -> list[Planned]:
    """The stages in their order, each with its share of `options.minutes` (0: the stage's own number of steps).

    `options.run` is the folder in which every stage has its own (default: `runs`); `options.stage` does not matter.
    """
    scale, whole = get_scale(options.scale), sum(get_stage(stage).minutes for stage in STAGES)
    rows = []
    for stage in STAGES:
        minutes = options.minutes * get_stage(stage).minutes / whole
        folder = Path(options.run or "runs") / f"{scale.name}-{stage}"
        own = replace(options, stage=stage, minutes=minutes, run=folder)
        path = folder / "checkpoint.safetensors"
        metadata = read_checkpoint(path, stage=stage, scale=scale.name)[1] if path.is_file() else {}
        finished = bool(metadata) and metadata["step"] == metadata["steps"]
        rows.append(Planned(stage, own, finished and (folder / "shipped").is_file()))
    return rows


def train_all(options: TrainOptions) -> Iterator[str]:
    """Train and ship every stage. Yields lines to print: the plan, a line for each stage, a table of what is shipped.

    Stops after the stage that `options.stop_minutes` cuts off; the same call goes on from there.
    """
    scale, rows = get_scale(options.scale), plan(options)
    yield f"{'stage':<14}{'planned':>18}"
    for row in rows:
        steps = (
            f"{row.options.minutes:.1f} minutes"
            if options.minutes
            else f"{options.steps or get_stage(row.stage).steps[scale.name]} steps"
        )
        yield f"{row.stage:<14}{'done' if row.done else steps:>18}"
    for row in rows:
        if row.done:
            continue
        if train(row.options) is None:
            yield f"{row.stage}: stopped; the same command resumes it"
            return
        path = ship(row.options.folder, row.stage, scale)
        (row.options.folder / "shipped").touch()
        yield f"{row.stage}: finished, shipped as {path}"
    yield f"{'weights':<30}{'steps':>8}{'batch':>7}{'minutes':>9}{'loss':>9}  device"
    for name, entry in read_manifest(weights_path("t2i", scale).parent.parent).items():
        if name.startswith(f"{scale.name}/"):
            facts = f"{entry['step']:>8}{entry['batch']:>7}{entry['minutes']:>9.1f}{entry['loss']:>9.4f}"
            yield f"{name:<30}{facts}  {entry['device']}"
