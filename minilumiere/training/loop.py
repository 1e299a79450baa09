"""One training loop for all stages: AdamW, warm-up and cosine decay, clipping, EMA, a log, checkpoints, resuming.

    for each step:  seed(seed, step) ──► draw a batch ──► loss ──► backward ──► clip ──► AdamW ──► EMA
    every N minutes and at the end:      checkpoint (model, EMA, optimiser, step), written atomically

With `minutes`, the first steps are timed on copies, and the number of steps is fixed from that: the learning rate is down to
zero when the time is up. The number is stored, so that a resumed run is the same bit for bit.

On one GPU: bfloat16 autocast and larger batches. On several: `torchrun --nproc-per-node=N -m minilumiere train STAGE`;
each process draws the whole batch and takes its share, so that N processes do what one does. Built in notebook 06.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from minilumiere.config import architecture, get_scale, smoke
from minilumiere.torch_state import global_generator, pinned
from minilumiere.training.device import (
    GraphedStep,
    agree,
    average,
    device_name,
    drawn_aside,
    start_processes,
    synchronise,
)
from minilumiere.training.interrupt import finishing_steps
from minilumiere.training.stages import Batch, Stage, get_stage
from minilumiere.training.state import check_steps, read_state, restore, save
from minilumiere.validate import check_flag, check_number, check_path
from minilumiere.weights.nets import load_shipped
from minilumiere.weights.run_folder import held, log, trim_log
from minilumiere.weights.shipped import BEGINS_WITH, built_on

WARM_UP = 100  # steps
LOG_EVERY = 20  # steps; also how often the loss is looked at (a look makes a GPU wait)
EMA_DECAY = 0.999
CLIP = 1.0  # of the gradient's norm
TIMED = 12  # steps that are timed for `minutes`, after as many as that to warm up
FOR_TRAINING = 0.96  # of the minutes; the rest is for checkpoints, and for having timed


@dataclass(frozen=True)
class TrainOptions:
    """How to train one stage. 0 means the stage's own number of steps or batch size."""

    stage: str
    scale: str = "tiny"
    steps: int = 0  # 0 for a run that is resumed: its own number
    minutes: float = 0.0  # instead of steps: as many as take so long
    batch: int = 0
    seed: int = 0
    from_shipped: bool = False  # go on from the stage's weights in data/weights, instead of fresh ones
    run: Path | None = None  # folder of checkpoint and log; default runs/SCALE-STAGE
    device: str | torch.device | None = None  # default: cuda where there is one, else cpu
    save_minutes: float = 3.0  # minutes between checkpoints
    stop_minutes: float = math.inf  # stop (and save) after so long; the next call resumes
    compile: bool = False  # the net first, by torch.compile: minutes once, then faster steps on a GPU
    progress: bool = True

    @property
    def folder(self) -> Path:
        return Path("runs") / f"{self.scale}-{self.stage}" if self.run is None else check_path(self.run, "folder")

    def checked(self) -> "TrainOptions":
        """The same with Python's own numbers. Raises `ValueError` or `TypeError` for anything that makes no sense."""
        get_scale(self.scale), get_stage(self.stage), check_path(self.folder)
        if self.minutes and self.steps:
            raise ValueError("give the number of steps or of minutes, not both")
        return replace(
            self,
            steps=check_number(self.steps, "steps", 0, 10**9, int),
            batch=check_number(self.batch, "batch", 0, 10**6, int),
            seed=check_number(self.seed, "seed", 0, 2**40 - 1, int),
            minutes=check_number(self.minutes, "minutes", 0, 10**6),
            save_minutes=check_number(self.save_minutes, "save_minutes", 0, math.inf),
            stop_minutes=check_number(self.stop_minutes, "stop_minutes", 0, math.inf),
            from_shipped=check_flag(self.from_shipped, "from_shipped"),
            compile=check_flag(self.compile, "compile"),
            progress=check_flag(self.progress, "progress"),
        )


class Divergence(ArithmeticError):
    """The loss became NaN or infinite."""


@pinned()
@torch.enable_grad()
def train(options: TrainOptions) -> nn.Module | None:
    """Train a stage, resuming from its last checkpoint if there is one. Returns the EMA model; None if stopped early.

    Raises `ValueError` for unknown names, a checkpoint of another run or a folder in use, `Divergence` where the loss is not
    finite (the last good checkpoint stays), `Interrupted`, a `KeyboardInterrupt`, after a step that was finished and saved.
    """
    options = options.checked()
    scale, stage = get_scale(options.scale), get_stage(options.stage)
    rank, world, device = start_processes(options.device)
    batch_size = options.batch or stage.default_batch(scale, device.type)
    with global_generator(options.seed):
        model = stage.build(scale)
    identity = {"stage": options.stage, "scale": scale.name, "config": architecture(options.stage, scale)}
    identity |= {"batch": batch_size, "seed": options.seed, "from": None} | built_on(options.stage, scale)
    begins_with = options.stage if options.from_shipped else BEGINS_WITH.get(options.stage)
    if begins_with:
        identity["from"] = load_shipped(model, begins_with, scale)["sha256"]
    model.to(device)

    with held(options.folder) if rank == 0 else nullcontext():
        return run(options, stage, model, drawer(options, device), identity, rank, world, device)


def drawer(options: TrainOptions, device: torch.device) -> Callable[[int, int], Batch]:
    """What draws the batch of a step, given its number and that of all steps."""
    scale, stage = get_scale(options.scale), get_stage(options.stage)
    size = options.batch or stage.default_batch(scale, device.type)
    return lambda step, steps: stage.draw_at(step / steps, scale, size, step_generator(options.seed, step), str(device))


def run(
    options: TrainOptions,
    stage: Stage,
    model: nn.Module,
    draw: Callable[[int, int], Batch],
    identity: dict,
    rank: int,
    world: int,
    device: torch.device,
) -> nn.Module | None:
    """The loop of `train`, in a folder that is this run's own."""
    path, progress = options.folder / "checkpoint.safetensors", options.progress and rank == 0 and sys.stderr is not None
    stored = read_state(path, identity) if path.is_file() else None
    if stored and not options.steps:
        steps = stored[1]["steps"]
    elif options.minutes:
        steps = steps_in(options.minutes, seconds_a_step(stage, model, draw, device, rank, world, compiled=options.compile))
    else:
        steps = smoke(options.steps or stage.steps[options.scale])
        note = check_steps(path, stored[1], steps) if stored else ""
        if note and progress:
            tqdm.write(note, file=sys.stderr)
    identity = identity | {"steps": steps}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ema = deepcopy(model)
    averaged = [parameter for parameter in ema.parameters() if parameter.requires_grad]
    optimiser = adam(stage, trainable)
    step, minutes_before = restore(*stored, model, ema, optimiser) if stored else (0, 0.0)
    if rank == 0:
        trim_log(options.folder / "log.jsonl", step)
        if options.minutes and not stored:  # keep the number of steps
            save(path, identity | {"step": 0, "minutes": 0.0, "device": device_name(device)}, model, ema, optimiser)
    del stored

    network = model
    if world > 1:
        network = DistributedDataParallel(network)
    launch = launcher(stage, network, trainable, optimiser, world, options.compile)
    running, looked = torch.zeros((), device=device), step  # the loss since the step of the last look
    begun = saved = time.monotonic()
    bar = tqdm(initial=step, total=steps, desc=f"{options.scale} {options.stage}", disable=not progress, mininterval=2)
    with finishing_steps() as asked, bar:
        for batch in drawn_aside(lambda step: draw(step, steps), range(step, steps), device):
            set_rate(optimiser, stage.rate * min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
            running += launch(*share(batch, rank, world))
            ema_update(averaged, trainable, step)
            step += 1
            bar.update()
            now = time.monotonic()
            elapsed, unsaved, signal = agree([(now - begun) / 60, (now - saved) / 60, float(asked.signal)], device)
            stop = signal > 0 or elapsed >= options.stop_minutes
            due = stop or unsaved >= options.save_minutes or step == steps
            if step % LOG_EVERY == 0 or due:
                mean = average(running, world) / (step - looked)
                looked = step
                running.zero_()
                if not math.isfinite(mean):
                    raise Divergence(
                        f"the loss is {mean} at step {step}; {path} keeps the last good state: lower the learning rate"
                    )
                if rank == 0:
                    bar.set_postfix(loss=f"{mean:.4f}")
                    minutes = minutes_before + elapsed
                    log(options.folder / "log.jsonl", step=step, loss=mean, minutes=minutes, device=device.type)
            if due:
                saved = time.monotonic()
                if rank == 0:
                    facts = {"step": step, "minutes": round(minutes_before + elapsed, 2), "device": device_name(device)}
                    save(path, identity | facts, model, ema, optimiser)
                if stop:
                    break
        if world > 1:
            distributed.barrier()
    return ema if step == steps else None


def adam(stage: Stage, trainable: list[nn.Parameter]) -> torch.optim.AdamW:
    """The optimiser of a stage. On a GPU its learning rate is a tensor there: a recorded step reads it anew each time."""
    on_gpu = trainable[0].is_cuda
    rate = torch.tensor(stage.rate, device=trainable[0].device) if on_gpu else stage.rate
    return torch.optim.AdamW(trainable, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True, capturable=on_gpu)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate, in place where it is a tensor."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def launcher(
    stage: Stage,
    network: nn.Module,
    trainable: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    world: int,
    compiled: bool = False,
) -> Callable[[Batch, float], Tensor]:
    """What does a step of a batch: `learn`, of a `compiled` net if asked; on a GPU as a CUDA graph."""
    if compiled:
        network = torch.compile(network, dynamic=False)  # anew for each length of clips
    step = partial(learn, stage, network, trainable, optimiser)
    if not trainable[0].is_cuda or world > 1:
        return step

    def state() -> list[Tensor]:
        return [*trainable, *(tensor for moments in optimiser.state.values() for tensor in moments.values())]

    graphed = GraphedStep(lambda batch: step(batch, 1.0), state)
    return lambda batch, weight: graphed(batch)


def learn(
    stage: Stage,
    network: nn.Module,
    trainable: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    weight: float,
) -> Float[Tensor, ""]:
    """One step. Returns the loss, without waiting for it: not finite if the loss or the gradient is not."""
    device = trainable[0].device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        loss = weight * stage.loss(network, batch)
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(trainable, CLIP)
    optimiser.step()
    return loss.detach() + 0 * norm


def steps_in(minutes: float, seconds: float) -> int:
    """How many steps of so many seconds take so many minutes?"""
    return smoke(max(1, int(60 * FOR_TRAINING * minutes / seconds)))


def seconds_a_step(
    stage: Stage,
    model: nn.Module,
    draw: Callable[[int, int], Batch],
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    timed: int = TIMED,
    compiled: bool = False,
) -> float:
    """How long is a step? Some are timed, from all over the training; the model stays as it is."""
    copy = deepcopy(model)
    trainable = [parameter for parameter in copy.parameters() if parameter.requires_grad]
    launch, begun = launcher(stage, copy, trainable, adam(stage, trainable), world, compiled), 0.0
    for number, batch in enumerate(drawn_aside(lambda step: draw(step % timed, timed), range(2 * timed), device)):
        if number == timed:
            synchronise(device)
            begun = time.monotonic()
        launch(*share(batch, rank, world))
    synchronise(device)
    return agree(time.monotonic() - begun, device) / timed


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def share(batch: Batch, rank: int, world: int) -> tuple[Batch, float]:
    """This process's part of a batch, and what its mean loss counts for: parts may differ by one clip.

    Where there are more processes than clips, the last ones get a clip that counts for nothing.
    """
    whole = len(next(iter(batch.values())))
    part = {key: value.tensor_split(world)[rank] for key, value in batch.items()}
    own = len(next(iter(part.values())))
    return part if own else {key: value[:1] for key, value in batch.items()}, world * own / whole


@torch.no_grad()
def ema_update(averaged: list[torch.Tensor], current: list[torch.Tensor], step: int) -> None:
    """Exponential moving average that forgets its first steps faster.

    In place of `torch.optim.swa_utils.AveragedModel`, which counts in a tensor and makes a GPU wait at every step.
    """
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(averaged, current, 1 - decay)
