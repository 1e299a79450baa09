"""Small training runs for the tests, in this process or in children that are killed, starved of disk or distributed.

Children are forked from a server that has imported this module: torch's start-up is paid once, not once a child.
"""

import contextlib
import itertools
import os
import signal
import time
from dataclasses import replace
from datetime import timedelta
from inspect import isfunction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from minilumiere import config
from minilumiere.config import SCALES, JudgeConfig, Scale, UNetConfig
from minilumiere.dataset.glyphs import bitmaps
from minilumiere.dataset.moving_digits import CANVAS, DIGIT_HEIGHT
from minilumiere.training import TrainOptions, loop, stages
from minilumiere.weights import shipped
from minilumiere.weights.checkpoint import read_checkpoint, write_checkpoint

_NET = UNetConfig(channels=(8, 16), attention=(False, True), heads=2, embedding=16, text_width=8, text_layers=1)
_SSR = replace(_NET, in_channels=6, noise_levels=2, attention=(False, False))
SMALL = replace(
    SCALES["tiny"],
    frames=4,
    lengths=(4, 8),
    size=16,
    window=3,
    halvings=1,
    t2i=_NET,
    ssr=_SSR,
    judge=JudgeConfig(channels=(4, 8)),
)
REGISTERED = dict(stages.RECIPES)


def warm_up() -> None:
    """Pay now for what torch imports late, and for drawing the glyphs."""
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    bitmaps("strokes", "train", SMALL.output_size * DIGIT_HEIGHT / CANVAS, "cpu")


if os.environ.get("MINILUMIERE_TEST_SERVER"):
    warm_up()


def use_small(patch: pytest.MonkeyPatch, folder: Path) -> Scale:
    """Let `tiny` mean a far smaller model, and the shipped weights lie in `folder`."""
    patch.delenv("MINILUMIERE_SMOKE", raising=False)
    patch.setitem(config.SCALES, "tiny", SMALL)
    for function in filter(isfunction, vars(shipped).values()):
        defaults = tuple(folder if value == shipped.WEIGHTS else value for value in function.__defaults__ or ())
        patch.setattr(function, "__defaults__", defaults)
    patch.setattr(shipped, "WEIGHTS", folder)
    return SMALL


def go(run: Path, stage: str = "judge", **options) -> nn.Module:
    """Train a few steps on the CPU."""
    options = {"stage": stage, "steps": 4, "batch": 4, "run": run, "device": "cpu", "progress": False} | options
    return loop.train(TrainOptions(**options))


def step_by_step(run: Path, stage: str = "judge", **options) -> list[dict[str, torch.Tensor]]:
    """Train, interrupted and resumed after every step. Returns the checkpoint's tensors after each."""
    states, steps = [], options.get("steps", 4)
    for step in range(1, steps + 1):
        go(run, stage, stop_minutes=0.0, **options)
        tensors, metadata = read_checkpoint(run / "checkpoint.safetensors")
        assert metadata["step"] == step
        states.append(tensors)
    return states


def stage_with_loss(loss, **more) -> stages.Stage:
    """A stage of one weight and no data to speak of, with a `loss(weight, call)`; `call` counts from 1."""
    calls = itertools.count(1)
    return replace(
        REGISTERED["judge"],
        build=lambda scale: nn.Linear(1, 1, bias=False),
        draw=lambda scale, n, generator, device: {"x": torch.randn(n, 1, generator=generator)},
        loss=lambda model, batch: loss(model(batch["x"]), next(calls)),
        **more,
    )


# Children: run in processes forked from the server


def train_child(folder: Path, run: Path, stage: str, options: dict, die: tuple[str, int] | None = None) -> None:
    """Train; die of SIGKILL at the n-th time that something is called."""
    torch.set_num_threads(1)
    use_small(pytest.MonkeyPatch(), folder)
    die_at(*die or ("", 0))
    go(run, stage, **options)


def write_child(path: Path, start: int, die: tuple[str, int] | None = None) -> None:
    """Write one checkpoint after another, each full of its number, until killed."""
    die_at(*die or ("", 0))
    for step in itertools.count(start):
        write_checkpoint(path, {"w": torch.full((50_000,), float(step))}, {"step": step})


def die_at(where: str, nth: int) -> None:
    """Let this process kill itself: before the n-th `write`, `fsync` or `replace`, or after it (`replaced`)."""
    name, after = ("replace", True) if where == "replaced" else (where, False)
    if not name:
        return
    original, calls = getattr(os, name), itertools.count(1)

    def dying(*arguments, **more):
        fatal = next(calls) == nth
        if fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **more)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, name, dying)


def rank_child(rank: int, port: int, folder: Path, jobs: list[dict], trouble: str = "") -> None:
    """One of two processes of a distributed training: the jobs, one after the other."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    use_small(patch, folder)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if trouble:  # a process that waits in vain for the other one shall fail some time
        distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    if trouble == "clocks":  # the clock of rank 0 races, that of rank 1 has stopped
        clock = itertools.count(0, 600) if rank == 0 else itertools.repeat(0)
        patch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    if trouble == "nan":  # in the third step, and in the half of the batch that rank 1 has

        def loss(y, call):
            return (y - 1).square().mean() * (float("nan") if rank == 1 and call == 3 else 1.0)

        patch.setitem(stages.RECIPES, "judge", stage_with_loss(loss))
    for job in jobs:
        try:
            go(**job)
        except Exception as error:
            (job["run"].parent / f"error-{rank}.txt").write_text(repr(error))
            raise
    if distributed.is_initialized():
        distributed.destroy_process_group()


def wait_for_change(path: Path, process, before: tuple | None) -> None:
    """Wait until `path` is another file than `before` (see `identity`), or the process has ended."""
    deadline = time.monotonic() + 300
    while process.is_alive() and identity(path) in (None, before):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.001)


def identity(path: Path) -> tuple | None:
    """Tells a file from the one that replaces it."""
    with contextlib.suppress(FileNotFoundError):
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns
    return None
