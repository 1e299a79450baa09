"""How fast a scale trains and samples on this machine, beside what the machine can do.

    ceilings   a large matrix product (bfloat16 on a GPU, float32 on a CPU) and a copy within the device's memory
    training   every stage as the loop runs it (on a GPU: autocast, a step as one CUDA graph): ms a step, drawing its data
               included, milliseconds of drawing alone, operations, and their rate as a share of the matrix product's
    sampling   clips of several lengths with the scale's steps, without and with super-resolution: seconds, peak memory

Time does not depend on what a net has learnt, so the nets are fresh: no trained weights are needed. Operations are those
of matrix products and convolutions, forward and backward, as torch counts them. Compilation is not timed. `--graphs`
samples with CUDA graphs, too: on a GPU a small net's kernels take less time than starting them one by one.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minilumiere.config import SCALES, Scale
from minilumiere.pipeline import Pipeline
from minilumiere.training import get_stage
from minilumiere.training.device import GraphedStep, device_name, synchronise
from minilumiere.training.loop import adam, learn, seconds_a_step, step_generator
from minilumiere.weights import build

CAPTION = "a red 3 moving right"
STAGES = ("t2i", "base", "conditioned", "ssr-image", "ssr")


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of `work`, after one call that warms up."""
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        begun = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def peak_gib(device: torch.device) -> float:
    """Peak memory so far: of the GPU since the last reset, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ceilings(device: torch.device, repeats: int) -> tuple[float, float]:
    """Operations a second of a matrix product, bytes a second (read and written) of a copy."""
    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 2048
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    source = torch.empty(2**30 if on_gpu else 2**26, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = 2 * side**3 / seconds(lambda: a @ a, device, repeats)
    return product, 2 * len(source) / seconds(lambda: target.copy_(source), device, repeats)


def training(
    name: str, scale: Scale, device: torch.device, batch: int, repeats: int, compiled: bool
) -> tuple[float, float, float]:
    """Seconds of a step, seconds of drawing its data alone, operations of the net in it."""
    torch.manual_seed(0)
    stage, net = get_stage(name), build(name, scale, untrained=True).to(device)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def draw(step: int) -> dict:
        return stage.draw_at(1.0, scale, batch, step_generator(0, step), str(device))

    with FlopCounterMode(display=False) as counter:
        learn(stage, net, trainable, adam(stage, trainable), draw(0), 1.0)
    drawing = seconds(lambda: [draw(step) for step in range(repeats)], device, 1) / repeats
    step = seconds_a_step(stage, net, lambda step, _: draw(step), device, timed=repeats, compiled=compiled)
    return step, drawing, counter.get_total_flops()


def graphed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A net's forward, recorded as a CUDA graph for each set of shapes, as a step of training is."""
    record = GraphedStep(lambda batch: forward(**batch), list)  # nothing is changed by it

    def call(noisy: Tensor, log_snr: Tensor, tokens: Tensor, given: Tensor | None = None) -> Tensor:
        batch = {"noisy": noisy, "log_snr": log_snr, "tokens": tokens}
        return record(batch if given is None else batch | {"given": given})

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES, help="default: all that diffuse")
    parser.add_argument("--batch", type=int, default=0, help="default: each stage's own")
    parser.add_argument("--frames", type=int, nargs="*", default=[80, 160, 320], help="of sampled clips (default 80 160 320)")
    parser.add_argument("--repeats", type=int, default=10, help="of training steps and ceilings; clips are sampled twice")
    parser.add_argument("--compile", action="store_true", help="train compiled nets")
    parser.add_argument("--graphs", action="store_true", help="sample with nets recorded as CUDA graphs, too")
    options = parser.parse_args()
    scale, device = SCALES[options.scale], torch.device(options.device)
    if any(count < 1 or count % scale.temporal_factor for count in options.frames) or options.repeats < 1 or options.batch < 0:
        parser.error(f"--repeats from 1, --batch from 0, --frames multiples of {scale.temporal_factor}")
    torch.set_float32_matmul_precision("high")
    product, copy = ceilings(device, options.repeats)
    print(f"{scale.name}, {device_name(device)}, torch {torch.__version__}")
    print(f"matrix product {product / 1e12:.2f} TFLOP/s, copy {copy / 1e9:.0f} GB/s\n")
    columns = f"{'ms a step':>11}{'drawing':>9}{'TFLOP':>8}{'TFLOP/s':>9}{'of ceiling':>12}{'peak GiB':>10}"
    print(f"{'training':<14}{'batch':>6}{columns}")
    for name in options.stages:
        batch = options.batch or get_stage(name).default_batch(scale, device.type)
        step, drawing, work = training(name, scale, device, batch, options.repeats, options.compile)
        row = f"{name:<14}{batch:>6}{step * 1e3:>11.1f}{drawing * 1e3:>9.1f}{work / 1e12:>8.2f}{work / step / 1e12:>9.2f}"
        print(f"{row}{work / step / product:>12.1%}{peak_gib(device):>10.2f}", flush=True)
    print(f"\n{'sampling':<14}{'frames':>6}{'base s':>11}{'with SSR s':>12}{'peak GiB':>10}")
    pipe = Pipeline(scale, *(build(stage, scale, untrained=True) for stage in ("base", "ssr")), device)
    for recorded in (False, True)[: 1 + options.graphs]:
        if recorded:
            for net in (pipe.base, pipe.t2i, pipe.ssr):
                net.forward = graphed(net.forward)
        for frames in options.frames:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            times = [
                seconds(lambda n=frames, large=large: pipe.generate(CAPTION, frames=n, super_resolution=large), device, 1)
                for large in (False, True)
            ]
            name = "as graphs" if recorded else ""
            print(f"{name:<14}{frames:>6}{times[0]:>11.2f}{times[1]:>12.2f}{peak_gib(device):>10.2f}", flush=True)
    if device.type == "cpu":
        print("peak memory on a CPU is that of the whole process so far: run what matters alone", file=sys.stderr)


if __name__ == "__main__":
    main()
