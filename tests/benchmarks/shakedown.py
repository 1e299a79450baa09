"""Two minutes on a new machine: does every stage train there, how fast, and does it compute what the CPU computes?

    python tests/benchmarks/shakedown.py --scale tiny

For every stage, with fresh nets moved a little at random: milliseconds of a step and of drawing its batch, peak memory, and the
loss of one batch on this device beside that on the CPU in float32. Nothing is shipped. With `--compile FOLDER` the net is then
compiled: seconds until its first step is there, milliseconds of a step, its loss, and in that folder how much it gains.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from scales import ceilings, peak_gib
from torch import nn

from minilumiere.config import SCALES, STAGES
from minilumiere.training.device import device_name, drawn_aside, synchronise
from minilumiere.training.loop import adam, launcher, learn, step_generator
from minilumiere.training.stages import get_stage
from minilumiere.weights.nets import build

CHECKED = [stage for stage in STAGES if not stage.startswith(("style-", "video-"))]  # unless asked for others


def row(name: str, scale, device: torch.device, steps: int, batch: int, profiled: bool, folder: str) -> str:
    stage = get_stage(name)
    torch.manual_seed(0)
    net = build(name, scale, untrained=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    sample = stage.draw(scale, 2, step_generator(0, 0), "cpu")
    expected = float(stage.loss(deepcopy(net), sample).detach())
    net.to(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        found = float(stage.loss(net, {key: value.to(device) for key, value in sample.items()}))
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = adam(stage, trainable)
    launch = launcher(stage, net, trainable, optimiser, 1)

    def draw(step: int):
        return stage.draw_at(1.0, scale, batch, step_generator(0, step), str(device))

    draw(0)
    synchronise(device)
    begun = time.perf_counter()
    for step in range(steps):
        draw(step)
    synchronise(device)
    drawing = (time.perf_counter() - begun) / steps
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole, host, loss = timed(launch, draw, steps, device)
    times = f"{whole * 1e3:>9.1f}{host * 1e3:>9.1f}{drawing * 1e3:>9.1f}{peak_gib(device):>8.2f}"
    if profiled and not folder:
        profile(partial(learn, stage, net, trainable, optimiser), draw, device)
    line = f"{name:<14}{batch:>7}{times}{expected:>11.4f}{found:>10.4f}{float(loss):>10.4f}"
    return line + (compiled_row(name, net, draw, steps, device, whole, Path(folder), profiled) if folder else "")


def profile(launch: Callable, draw: Callable, device: torch.device) -> None:
    """Which kernels three steps spend their time in, those that draw the batches included."""
    activity = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as found:
        for step in range(3):
            launch(draw(step), 1.0)
        synchronise(device)
    print(found.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=40, max_name_column_width=90))


def timed(launch: Callable, draw: Callable, steps: int, device: torch.device) -> tuple[float, float, torch.Tensor]:
    """Seconds of a step, seconds until the host has launched it, the last loss."""
    numbers = [step % steps for step in range(2 * steps)]  # the same lengths of clips again, recorded by then
    for step, data in enumerate(drawn_aside(draw, numbers, device)):
        if step == steps:
            synchronise(device)
            begun = time.perf_counter()
        loss = launch(data, 1.0)
    host = (time.perf_counter() - begun) / steps
    synchronise(device)
    return (time.perf_counter() - begun) / steps, host, loss


def compiled_row(
    name: str, net: nn.Module, draw: Callable, steps: int, device: torch.device, eager: float, folder: Path, profiled: bool
) -> str:
    stage, begun = get_stage(name), time.perf_counter()
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        expected = float(stage.loss(net, draw(0)))
    launch = launcher(stage, net, trainable, adam(stage, trainable), 1, compiled=True)
    loss = float(launch(draw(0), 1.0))
    until = time.perf_counter() - begun
    seconds = timed(launch, draw, steps, device)[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{eager / seconds:.3f}\n")
    if profiled:
        profile(launch, draw, device)
    return f"\n{name:<14}compiled in {until:.1f} s, {seconds * 1e3:.1f} ms a step, loss {loss:.4f}, eager {expected:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=CHECKED)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--times", type=int, default=1, help="so many times the default batch")
    parser.add_argument("--profile", default="", help="a stage whose kernels are listed, by their time; compiled if it is")
    parser.add_argument("--compile", metavar="FOLDER", default="", help="the nets, too")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # as in training
    scale, device = SCALES[options.scale], torch.device(options.device)
    product, copy = ceilings(device, 3)
    print(f"{device_name(device)}, torch {torch.__version__}: {product / 1e12:.1f} TFLOP/s, {copy / 1e9:.0f} GB/s")
    print(f"{'stage':<14}{'batch':>7}{'ms':>9}{'host':>9}{'drawing':>9}{'GiB':>8}{'CPU loss':>11}{'here':>10}{'last':>10}")
    for name in options.stages:
        batch = options.batch or options.times * get_stage(name).default_batch(scale, device.type)
        print(row(name, scale, device, options.steps, batch, name == options.profile, options.compile), flush=True)


if __name__ == "__main__":
    main()
