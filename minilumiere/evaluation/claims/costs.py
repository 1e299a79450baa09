"""Claims 2b, 3 and 4: what things cost. Operations are counted, so exact; seconds are of one CPU thread; no weights are needed.

2b  one inflation block, factorised, beside one with full 3-D convolutions of the same width
3   one temporal attention block, over the number of frames: a + b T + c T², and how time grows in each range of T
4   the whole STUNet with and without temporal resampling, from 16 to 320 frames
"""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from minilumiere.config import Scale, get_scale
from minilumiere.evaluation.claims.meters import flops, peak_bytes, seconds
from minilumiere.evaluation.claims.variants import FULL_3D, ONE_D, channels_last, exchange_convs
from minilumiere.evaluation.claims.verdicts import FAILS, HOLDS, above, below, interval, together
from minilumiere.model.blocks import Context
from minilumiere.model.stunet import STUNet
from minilumiere.model.temporal import SpaceTimeConv, TemporalAttention
from minilumiere.model.text import null_tokens
from minilumiere.model.unet import UNet
from minilumiere.torch_state import global_generator, pinned

RANGES = ((16, 128), (128, 512), (512, 2048))  # frames T between whose ends an exponent is fitted
LENGTHS = (16, 32, 80, 160, 320)  # frames of claim 4
COMMAND = "minilumiere claims --only {}"
DEVICE = "CPU, 1 thread"


def context(frames: int, embedding: int = 128, text_width: int = 96, words: int = 14) -> Context:
    """What a block looks at, without content."""
    here = torch.zeros(1, 1, 1, embedding)
    return Context(torch.zeros(1, frames, embedding), torch.zeros(1, words, text_width), torch.ones(1, words).bool(), here)


@pinned()
@torch.no_grad()
def measure_factorisation(run_folder: Path, progress: bool = False, repeats: int = 7) -> dict:
    """Claim 2b: the finest level's block of `tiny` (64 channels, 16x16 places), 16 frames."""
    channels, frames, side = 64, 16, 16

    def block(kind: str = "") -> SpaceTimeConv:
        fresh = SpaceTimeConv(channels, 128)
        return channels_last(exchange_convs(fresh, kind, channels) if kind else fresh)

    def run(net: nn.Module) -> Tensor:
        return net(torch.zeros(1, channels, frames, side, side), context(frames))

    with global_generator(0):
        blocks = {"factorised": block(), FULL_3D: block(FULL_3D), ONE_D: block(ONE_D)}
    counted = {name: flops(partial(_on_meta, net, run)) for name, net in blocks.items()}
    taken = {name: seconds(partial(run, net), repeats) for name, net in blocks.items()}
    ratio = interval(full / both for full, both in zip(taken[FULL_3D], taken["factorised"], strict=True))
    more = counted[FULL_3D] / counted["factorised"]
    return {
        "claim": "factorised convolution costs less than full 3-D convolution",
        "paper": "said, not measured",
        "measured": f"full 3-D of the same width takes {more:.2f} times the operations and {ratio.mean:.2f} times the time; "
        f"1-D alone {counted[ONE_D] / counted['factorised']:.2f} times the operations",
        "spread": f"time {ratio.show()}; operations exact",
        "n": repeats,
        "verdict": together(HOLDS if more > 1 else FAILS, above(ratio, 1)),
        "command": COMMAND.format("2b"),
        "settings": {
            "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in blocks.items()},
            "steps": 0,
            "batch": f"1 clip of {frames} frames, {side}x{side} places, {channels} channels",
            "seeds": [0],
            "device": DEVICE,
        },
        "values": {"gflop": {name: count / 1e9 for name, count in counted.items()}, "seconds": taken},
    }


def _on_meta(net: nn.Module, run: Callable[[nn.Module], object]) -> None:
    """Run a copy of a net that has shapes only."""
    run(deepcopy(net).to("meta"))


@pinned()
@torch.no_grad()
def measure_attention(run_folder: Path, progress: bool = False, ranges=RANGES, repeats: int = 7) -> dict:
    """Claim 3: a block of 64 channels on the 4x4 places of the coarsest level."""
    channels, side, frames = 64, 4, sorted({t for both in ranges for t in both})
    with global_generator(0):
        block = TemporalAttention(channels, 128, 96)

    def run(net: nn.Module, t: int) -> Tensor:
        return net(torch.zeros(1, channels, t, side, side), context(t))

    counted = {t: flops(partial(_on_meta, block, partial(run, t=t))) for t in frames}
    a, b, c, exact = parabola(counted)
    taken = {t: seconds(partial(run, block, t), repeats) for t in frames}
    exponents = {
        f"{low}-{high}": interval(
            math.log(after / before) / math.log(high / low) for before, after in zip(taken[low], taken[high], strict=True)
        )
        for low, high in ranges
    }
    by_count = {f"{low}-{high}": math.log(counted[high] / counted[low]) / math.log(high / low) for low, high in ranges}
    last = list(exponents.values())[-1]
    shown = ", ".join(f"{value.mean:.2f} for T = {name.replace('-', ' to ')}" for name, value in exponents.items())
    return {
        "claim": "temporal attention is quadratic in T, not quartic",
        "paper": "said: quadratic",
        "measured": f"operations are exactly {a:,.0f} + {b:,.0f} T + {c:,.0f} T²; time grows with the power {shown}",
        "spread": "; ".join(f"{name}: {value.show()}" for name, value in exponents.items()),
        "n": repeats,
        # Exactly a parabola; and in the last range, time grows faster than T, and nearer to T² than to T⁴.
        "verdict": together(HOLDS if exact and c > 0 else FAILS, above(last, 1), below(last, 3)),
        "command": COMMAND.format(3),
        "settings": {
            "parameters": sum(p.numel() for p in block.parameters()),
            "steps": 0,
            "batch": f"1 clip, {side}x{side} places, {channels} channels, T = {', '.join(map(str, frames))}",
            "seeds": [0],
            "device": DEVICE,
        },
        "values": {
            "flops": {str(t): count for t, count in counted.items()},
            "seconds": {str(t): values for t, values in taken.items()},
            "exponent_of_flops": by_count,
        },
    }


def parabola(counted: dict[int, int]) -> tuple[float, float, float, bool]:
    """a, b, c of a + b T + c T² through the first three of counts by T, and whether it goes exactly through all others, too.

    Raises `ValueError` for fewer than four: through three, every count does.
    """
    if len(counted) < 4:
        raise ValueError(f"a parabola is tested on four counts or more, got {len(counted)}")
    (x, fx), (y, fy), (z, fz) = list(counted.items())[:3]
    slope, other = (fy - fx) / (y - x), (fz - fy) / (z - y)
    c = (other - slope) / (z - x)
    b = slope - c * (x + y)
    a = fx - b * x - c * x * x
    return a, b, c, all(a + b * t + c * t * t == count for t, count in counted.items())


@pinned()
def measure_compactness(
    run_folder: Path, progress: bool = False, lengths: tuple[int, ...] = LENGTHS, repeats: int = 3, scale: Scale | None = None
) -> dict:
    """Claim 4: nets of `tiny` with fresh weights. Memory: of a training step."""
    scale = scale or get_scale("tiny")
    with global_generator(0):
        nets = {
            halvings: STUNet.from_t2i(UNet(scale.t2i, scale.size), halvings, verbose=False) for halvings in (0, scale.halvings)
        }

    def forward(net: nn.Module, t: int) -> Tensor:
        words = null_tokens(1).to(next(net.parameters()).device)
        return net(torch.zeros(1, 3, t, scale.size, scale.size), torch.zeros(1), words)

    def train_step(net: nn.Module, t: int) -> None:
        with torch.enable_grad():
            forward(net, t).square().mean().backward()
        net.zero_grad()

    rows = []
    with torch.no_grad():
        for t in lengths:
            row: dict[str, float] = {"frames": t}
            for halvings, net in nets.items():
                row[f"gflop_{halvings}"] = flops(partial(_on_meta, net, partial(forward, t=t))) / 1e9
                row[f"seconds_{halvings}"] = min(seconds(partial(forward, net, t), repeats))
                row[f"mib_{halvings}"] = peak_bytes(partial(train_step, net, t)) / 2**20
            rows.append(row)
    halved = scale.halvings
    ratios = {kind: [row[f"{kind}_0"] / row[f"{kind}_{halved}"] for row in rows] for kind in ("gflop", "seconds", "mib")}
    time = interval(ratios["seconds"])
    words = {"gflop": "operations", "seconds": "time", "mib": "memory"}
    shown = ", ".join(f"{values[0]:.2f} to {values[-1]:.2f} times the {words[kind]}" for kind, values in ratios.items())
    return {
        "claim": "temporal resampling moves compute to a compact representation",
        "paper": "said, not measured",
        "measured": f"without it, T = {lengths[0]} to {lengths[-1]} frames take {shown} (memory: of a training step)",
        "spread": f"time {time.show()} over the lengths; operations and memory exact",
        "n": len(lengths),
        "verdict": together(
            HOLDS if min(ratios["gflop"]) > 1 else FAILS, HOLDS if min(ratios["mib"]) > 1 else FAILS, above(time, 1)
        ),
        "command": COMMAND.format(4),
        "settings": {
            "parameters": {f"{n} halvings": sum(p.numel() for p in net.temporal_parameters()) for n, net in nets.items()},
            "steps": 0,
            "batch": f"1 clip of {', '.join(map(str, lengths))} frames, {scale.size}x{scale.size}",
            "seeds": [0],
            "device": DEVICE,
        },
        "values": {"rows": rows},
    }
