"""One training loop for all stages: AdamW, warm-up and cosine decay, clipping, EMA, a log, checkpoints, resuming.

    for each step:  seed(seed, step) ──► draw a batch ──► loss ──► backward ──► clip ──► AdamW ──► EMA
    every N minutes and at the end:      checkpoint (model, EMA, optimiser, step), written atomically

On one GPU: bfloat16 autocast and `torch.compile`. On several: `torchrun --nproc-per-node=N -m minilumiere train STAGE`;
each process draws the whole batch and takes its share, so that N processes do what one does. Built in notebook 06.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from minilumiere.config import architecture, get_scale, smoke
from minilumiere.training.stages import Batch, get_stage
from minilumiere.validate import check_number
from minilumiere.weights.checkpoint import load_weights, matching, read_checkpoint, write_atomically, write_checkpoint
from minilumiere.weights.nets import load_shipped
from minilumiere.weights.shipped import SHIPPED_AS, built_on

WARM_UP = 100  # steps
LOG_EVERY = 20  # steps; also how often the loss is looked at (a look makes a GPU wait)
EMA_DECAY = 0.999
CLIP = 1.0  # of the gradient's norm


@dataclass(frozen=True)
class TrainOptions:
    """How to train one stage. 0 means the stage's own number of steps or batch size."""

    stage: str
    scale: str = "tiny"
    steps: int = 0
    batch: int = 0
    seed: int = 0
    from_shipped: bool = False  # go on from the stage's weights in data/weights, instead of fresh ones
    run: Path | None = None  # folder of checkpoint and log; default runs/SCALE-STAGE
    device: str = ""  # default: cuda where there is one, else cpu
    save_minutes: float = 3.0  # minutes between checkpoints
    stop_minutes: float = math.inf  # stop (and save) after so long; the next call resumes
    progress: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.run or Path("runs") / f"{self.scale}-{self.stage}")


class Divergence(ArithmeticError):
    """The loss became NaN or infinite."""


def train(options: TrainOptions) -> nn.Module | None:
    """Train a stage, resuming from its last checkpoint if there is one. Returns the EMA model; None if stopped early.

    Raises `ValueError` for unknown names or a checkpoint of another run, `Divergence` where the loss is not finite
    (the last good checkpoint stays).
    """
    scale, stage = get_scale(options.scale), get_stage(options.stage)
    check_number(options.steps, "steps", 0, 10**9, int)
    check_number(options.batch, "batch", 0, 10**6, int)
    check_number(options.seed, "seed", 0, 2**40 - 1, int)
    steps = smoke(options.steps or stage.steps[scale.name])
    batch_size = options.batch or stage.batch[scale.name]
    rank, world, device = start_processes(options.device)
    if batch_size % world:
        raise ValueError(f"a batch of {batch_size} cannot be shared equally by {world} processes")
    torch.manual_seed(options.seed)
    model = stage.build(scale)
    identity = {"stage": options.stage, "scale": scale.name, "config": architecture(options.stage, scale)}
    identity |= {"steps": steps, "batch": batch_size, "seed": options.seed, "from": None} | built_on(options.stage, scale)
    if options.from_shipped or options.stage in SHIPPED_AS:
        identity["from"] = load_shipped(model, options.stage, scale)["sha256"]
    model.to(device)
    ema = deepcopy(model)
    trainable, averaged = ([p for p in net.parameters() if p.requires_grad] for net in (model, ema))
    optimiser = torch.optim.AdamW(trainable, lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    path = options.folder / "checkpoint.safetensors"
    step, minutes_before = resume(path, identity, model, ema, optimiser) if path.is_file() else (0, 0.0)
    if rank == 0:
        trim_log(options.folder / "log.jsonl", step)

    network = model
    if device.type == "cuda":
        network = torch.compile(network)
    if world > 1:
        network = DistributedDataParallel(network, broadcast_buffers=False)
    running, looked = torch.zeros((), device=device), step  # the loss since the step of the last look
    begun = saved = time.monotonic()
    bar = tqdm(
        initial=step, total=steps, desc=f"{scale.name} {options.stage}", disable=rank > 0 or not options.progress, mininterval=2
    )

    def draw(step: int) -> Batch:
        return stage.draw_at(step / steps, scale, batch_size, step_generator(options.seed, step), str(device))

    for batch in drawn_aside(draw, range(step, steps), device):
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        batch = share(batch, rank, world)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            loss = stage.loss(network, batch)
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trainable, CLIP)
        optimiser.step()
        ema_update(averaged, trainable, step)
        running += loss.detach() + 0 * norm  # not finite if either is not
        step += 1
        bar.update()
        elapsed = agree((time.monotonic() - begun) / 60, device)
        due = (time.monotonic() - saved) / 60 >= options.save_minutes or elapsed >= options.stop_minutes or step == steps
        if step % LOG_EVERY == 0 or due:
            mean = float(running) / (step - looked)
            looked = step
            running.zero_()
            if not math.isfinite(mean):
                raise Divergence(
                    f"the loss is {mean} at step {step}; {path} keeps the last good state: lower the learning rate"
                )
            if rank == 0:
                bar.set_postfix(loss=f"{mean:.4f}")
                log(options.folder / "log.jsonl", step=step, loss=mean, minutes=minutes_before + elapsed, device=device.type)
        if due:
            saved = time.monotonic()
            if rank == 0:
                facts = {"step": step, "minutes": round(minutes_before + elapsed, 2), "device": device_name(device)}
                save(path, identity | facts, model, ema, optimiser)
            if elapsed >= options.stop_minutes:
                break
    bar.close()
    if world > 1:
        distributed.barrier()
    return ema if step == steps else None


def drawn_aside(draw: Callable[[int], Batch], steps: range, device: torch.device) -> Iterator[Batch]:
    """The batches of the steps. A GPU draws them on a stream of its own, where it is still busy with the step before.

    Copies from the host's memory, and counts that the host must know, make the host wait for that stream alone.
    """
    if device.type != "cuda":
        yield from map(draw, steps)
        return
    aside, training = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for step in steps:
        with torch.cuda.stream(aside):
            batch = draw(step)
        training.wait_stream(aside)
        for tensor in batch.values():
            tensor.record_stream(training)  # its memory is not given away before training is done with it
        yield batch


def start_processes(device: str) -> tuple[int, int, torch.device]:
    """This process's rank, the number of processes (as torchrun says), and the device that it trains on."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.set_float32_matmul_precision("high")
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return rank, world, chosen


def agree(value: float, device: torch.device) -> float:
    """The largest of all processes' values, so that all of them stop after the same step."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return float(shared)


def device_name(device: torch.device) -> str:
    """The device in words, for the log of what was trained where."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def share(batch: Batch, rank: int, world: int) -> Batch:
    """This process's equal part of a batch."""
    return {key: value.chunk(world)[rank] for key, value in batch.items()}


@torch.no_grad()
def ema_update(averaged: list[torch.Tensor], current: list[torch.Tensor], step: int) -> None:
    """Exponential moving average that forgets its first steps faster.

    In place of `torch.optim.swa_utils.AveragedModel`, which counts in a tensor and makes a GPU wait at every step.
    """
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(averaged, current, 1 - decay)


def save(path: Path, metadata: dict, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The whole training state: model, EMA and Adam's moments of every trainable parameter, and the step."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    tensors = {}
    for prefix, module in (("model.", model), ("ema.", ema)):
        parameters = dict(module.named_parameters())
        tensors |= {prefix + name: parameters[name] for name in names}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{key}.{names[index]}": value for key, value in moments.items() if key != "step"}
    write_checkpoint(path, tensors, metadata)


def resume(path: Path, identity: dict, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Restore what `save` wrote. Returns the step to go on from, and the minutes trained so far."""
    tensors, metadata = read_checkpoint(path, **identity)
    step = metadata["step"]
    load_weights(model, tensors, "model.")
    load_weights(ema, tensors, "ema.")
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    moments = {key: matching(tensors, f"{key}.", trainable) for key in ("exp_avg", "exp_avg_sq")}
    state = {}
    for index, (name, parameter) in enumerate(trainable.items()):
        # In the parameter's memory layout (channels_last, say): fused AdamW pairs the elements by address.
        copies = {key: torch.empty_like(parameter).copy_(moment[name]).detach() for key, moment in moments.items()}
        state[index] = copies | {"step": torch.tensor(float(step))}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return step, metadata["minutes"]


def log(path: Path, **values) -> None:
    """Append one JSON line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(values) + "\n")


def trim_log(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again, and one that was cut off when the run was killed."""
    if path.is_file():
        whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
