"""Every stage of a scale by one command: `minilumiere train all --ship`. A plan first, a table last.

    judge ─► t2i ─► base ─► conditioned ─► fast ─► on-policy ─► ssr-image ─► ssr ─► style-* ─► video-features

A stage is built on the shipped weights of those before it, so that nothing can be trained without shipping. Killed at any
moment, the same command goes on where it was: finished stages are left alone, the one that was cut off is resumed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import distributed

from minilumiere.config import STAGES, get_scale, smoke
from minilumiere.torch_state import global_generator, pinned
from minilumiere.training.device import start_processes
from minilumiere.training.loop import TrainOptions, drawer, seconds_a_step, steps_in, train
from minilumiere.training.stages import get_stage
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.nets import build
from minilumiere.weights.shipped import read_manifest, ship, weights_path


@dataclass(frozen=True)
class Planned:
    """One stage of the plan."""

    stage: str
    options: TrainOptions
    steps: int  # 0: not known yet
    minutes: float  # expected on this machine; 0: not known
    trained: bool  # to its end
    done: bool  # and shipped


@pinned()
def plan(options: TrainOptions) -> list[Planned]:
    """The stages in their order, each with its share of `options.minutes` (0: the stage's own number of steps).

    `options.run` is the folder in which every stage has its own (default: `runs`); `options.stage` does not matter.
    """
    options = replace(options, stage=STAGES[0]).checked()
    scale, whole = get_scale(options.scale), sum(get_stage(stage).minutes for stage in STAGES)
    device = start_processes(options.device)[2]
    rows = []
    for stage in STAGES:
        minutes = options.minutes * get_stage(stage).minutes / whole
        folder = (Path("runs") if options.run is None else options.folder) / f"{scale.name}-{stage}"
        own = replace(options, stage=stage, minutes=minutes, run=folder)
        path = folder / "checkpoint.safetensors"
        metadata = read_checkpoint(path, stage=stage, scale=scale.name)[1] if path.is_file() else {}
        finished = bool(metadata) and metadata["step"] == metadata["steps"] >= options.steps  # asked for more, it goes on
        done = finished and (folder / "shipped").is_file()
        steps = max(metadata.get("steps", 0), options.steps) or (
            0 if minutes else smoke(options.steps or get_stage(stage).steps[scale.name])
        )
        if device.type == "cpu" and not done:  # on a GPU, to record the steps of every stage would take longer than it is worth
            seconds = seconds_of(own, device)
            steps = steps or steps_in(minutes, seconds)
            minutes = (steps - metadata.get("step", 0)) * seconds / 60
        rows.append(Planned(stage, own, steps, minutes, finished, done))
    return rows


def seconds_of(options: TrainOptions, device: torch.device) -> float:
    """Seconds that a step of a stage takes here: a few are timed, of nets without trained weights."""
    with global_generator(options.seed):
        net = build(options.stage, get_scale(options.scale), untrained=True).to(device)
    return seconds_a_step(get_stage(options.stage), net, drawer(options, device), device, timed=3)


def train_all(options: TrainOptions) -> Iterator[str]:
    """Train and ship every stage. Yields lines to print: the plan, a line for each stage, a table of what is shipped.

    Stops after the stage that `options.stop_minutes` cuts off; the same call goes on from there.
    """
    scale, rows, rank = get_scale(options.scale), plan(options), int(os.environ.get("RANK", 0))
    yield f"{'stage':<14}{'steps':>8}{'minutes':>9}"
    for row in rows:
        known = (f"{row.steps or '':>8}", f"{row.minutes:>9.1f}" if row.minutes else "")
        yield f"{row.stage:<14}" + (f"{'done':>17}" if row.done else "".join(known))
    for row in rows:
        if row.done:
            continue
        # One that was killed before it was shipped is not asked again: `conditioned` may have taken the place of its start.
        if not row.trained and train(row.options) is None:
            yield f"{row.stage}: stopped; the same command resumes it"
            return
        if rank == 0:
            path = ship(row.options.folder, row.stage, scale)
            (row.options.folder / "shipped").touch()
            yield f"{row.stage}: finished, shipped as {path}"
        if distributed.is_initialized():
            distributed.barrier()  # the next stage is built on what was shipped
    yield f"{'weights':<30}{'steps':>8}{'batch':>7}{'minutes':>9}{'loss':>9}  device"
    for name, entry in read_manifest(weights_path("t2i", scale).parent.parent).items():
        if name.startswith(f"{scale.name}/"):
            facts = f"{entry['step']:>8}{entry['batch']:>7}{entry['minutes']:>9.1f}{entry['loss']:>9.4f}"
            yield f"{name:<30}{facts}  {entry['device']}"
