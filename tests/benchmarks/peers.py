"""STUNet beside two public video nets: time of forward, and of forward + backward, at equal numbers of parameters.

    ours                      STUNet on the `tiny` preset's T2I, widened until the parameters match; reads captions
    lumiere-pytorch           MPLumiere, inflating the KarrasUnet of denoising-diffusion-pytorch; same levels and halvings
    video-diffusion-pytorch   Unet3D: attention over time at every level and at every pixel

All parameters count, frozen ones too, and every net lies within 10 % of the same number. The nets take turns within each
repeat, so that whatever else the machine does hits all alike; the table gives medians. The peers are built without
their text conditioning, which ours keeps. Run it on an idle machine; see README.md beside this file for the set-up.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minilumiere.config import SCALES
from minilumiere.model import STUNet, UNet, tokenise

HOW_TO_INSTALL = """the peers are not installed. Keep them out of the project's own environment:
  python3 -m venv /tmp/peers
  /tmp/peers/bin/pip install torch lumiere-pytorch video-diffusion-pytorch denoising-diffusion-pytorch
  /tmp/peers/bin/pip install einops safetensors tqdm pillow matplotlib jaxtyping hatchling
  /tmp/peers/bin/pip install --no-deps --no-build-isolation -e .
  /tmp/peers/bin/python tests/benchmarks/peers.py"""
try:
    from denoising_diffusion_pytorch import KarrasUnet
    from lumiere_pytorch import MPLumiere
    from video_diffusion_pytorch.video_diffusion_pytorch import Unet3D
except ImportError as error:
    sys.exit(f"{error}: {HOW_TO_INSTALL}")

SIZE = 32  # pixels
BACKWARD_UP_TO = 80  # frames; beyond it Unet3D's attention maps outgrow a laptop's memory
TOLERANCE = 0.1  # of the parameters
TINY = SCALES["tiny"]


class Peer(nn.Module):
    """A net with what it needs to be called with a video alone, and a switch for what trains."""

    def __init__(self, name: str, net: nn.Module, call: Callable[[nn.Module, Tensor], Tensor], image_part: str | None):
        super().__init__()
        self.name, self.net, self.call, self.image_part = name, net, call, image_part

    def forward(self, video: Tensor) -> Tensor:
        return self.call(self.net, video)

    def all_parameters(self) -> list[nn.Parameter]:
        return [
            parameter for module in self.net.modules() for parameter in module._parameters.values() if parameter is not None
        ]

    def train_part(self, temporal_only: bool) -> None:
        for parameter in self.all_parameters():
            parameter.requires_grad_(True)
        if temporal_only:
            for module in getattr(self.net, self.image_part).modules():
                for parameter in module._parameters.values():
                    if parameter is not None:
                        parameter.requires_grad_(False)

    def count(self) -> int:
        return sum(parameter.numel() for parameter in self.all_parameters())


def build_ours(channels: tuple[int, ...]) -> Peer:
    unet = UNet(replace(TINY.t2i, channels=channels), SIZE)
    tokens = tokenise(["a red 3 moving right"])
    stunet = STUNet.from_t2i(unet, TINY.halvings, verbose=False)
    return Peer("minilumiere STUNet", stunet, lambda net, video: net(video, torch.zeros(1), tokens), "t2i")


def build_lumiere(dim: int) -> Peer:
    unet = KarrasUnet(  # three levels: 32x32 (downs 0), 16x16 (downs 1-2), 8x8 (downs 3-4)
        image_size=SIZE,
        dim=dim,
        dim_max=4 * dim,
        channels=3,
        num_downsamples=2,
        num_blocks_per_stage=1,
        attn_res=(8,),
        attn_dim_head=32,
        dropout=0.0,
    )
    net = MPLumiere(
        unet,
        image_size=SIZE,
        unet_time_kwarg="time",
        conv_module_names=["downs.0", "downs.2", "ups.4", "ups.7"],
        attn_module_names=["downs.4", "mids.0", "mids.1"],
        downsample_module_names=["downs.1", "downs.3"],
        upsample_module_names=["ups.2", "ups.5"],
    )
    return Peer("lumiere-pytorch MPLumiere", net, lambda net, video: net(video, time=torch.full((1,), 0.5)), "model")


def build_unet3d(dim: int) -> Peer:
    net = Unet3D(dim=dim, dim_mults=(1, 2, 4))
    return Peer("video-diffusion-pytorch Unet3D", net, lambda net, video: net(video, torch.full((1,), 0.5)), None)


def nearest(build: Callable[..., Peer], candidates: list, parameters: int) -> Peer:
    """The candidate whose number of parameters is nearest to the one wanted."""
    return min((build(candidate) for candidate in candidates), key=lambda peer: abs(peer.count() - parameters))


def matched_nets() -> list[Peer]:
    """Unet3D comes in the coarsest steps: the others are fitted to the one of its sizes that is nearest to `tiny`."""
    base = TINY.t2i.channels
    unet3d = nearest(build_unet3d, [24, 32, 40, 48, 64], build_ours(base).count())
    wider = [tuple(width + more for width, more in zip(base, add, strict=True)) for add in product((0, 8, 16, 24), repeat=3)]
    ours = nearest(build_ours, wider, unet3d.count())
    lumiere = nearest(build_lumiere, list(range(16, 68, 2)), unet3d.count())
    nets = [ours, lumiere, unet3d]
    counts = [net.count() for net in nets]
    if max(counts) > (1 + TOLERANCE) * min(counts):
        sys.exit(
            f"parameters differ by more than {TOLERANCE:.0%}: {dict(zip([net.name for net in nets], counts, strict=True))}"
        )
    for net in nets:  # nothing is left at zero: no multiplication is by chance a short cut
        for parameter in net.all_parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
    return nets


def forward(net: Peer, video: Tensor) -> None:
    with torch.no_grad():
        net.eval()(video)


def backward(net: Peer, video: Tensor, temporal_only: bool) -> None:
    net.train().train_part(temporal_only)
    net(video).square().mean().backward()
    for parameter in net.all_parameters():
        parameter.grad = None


MODES = {
    "forward": forward,
    "forward + backward, all": lambda net, video: backward(net, video, False),
    "forward + backward, temporal": lambda net, video: backward(net, video, True),
}


def measure(nets: list[Peer], frames: list[int], repeats: int) -> tuple[dict, dict]:
    """Median seconds of each (net, mode, frames), and floating-point operations of each forward pass."""
    cases = [
        (net, mode, count)
        for count in frames
        for mode in MODES
        for net in nets
        if (mode == "forward" or count <= BACKWARD_UP_TO) and ("temporal" not in mode or net.image_part)
    ]
    videos = {count: torch.randn(1, 3, count, SIZE, SIZE) for count in frames}
    seconds: dict = {(net.name, mode, count): [] for net, mode, count in cases}
    flops = {}
    for repeat in range(-1, repeats):  # the first round warms up, and counts operations
        for net, mode, count in cases:
            label = "warm-up" if repeat < 0 else f"repeat {repeat + 1} of {repeats}"
            print(f"\r{label}: {net.name}, {mode}, {count} frames".ljust(100), end="", file=sys.stderr, flush=True)
            if repeat < 0 and mode == "forward":
                with FlopCounterMode(display=False) as counter:
                    MODES[mode](net, videos[count])
                flops[net.name, count] = counter.get_total_flops()
                continue
            begun = time.perf_counter()
            MODES[mode](net, videos[count])
            if repeat >= 0:
                seconds[net.name, mode, count].append(time.perf_counter() - begun)
    print("\r".ljust(100) + "\r", end="", file=sys.stderr)
    return {case: statistics.median(values) for case, values in seconds.items()}, flops


def exponent(times: dict[int, float]) -> float:
    """Slope of log time over log frames, by least squares."""
    x, y = [math.log(count) for count in times], [math.log(value) for value in times.values()]
    middle = statistics.mean(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def report(nets: list[Peer], frames: list[int], seconds: dict, flops: dict) -> str:
    """One table: a row for each net, mode and number of frames; ratios are to ours."""
    ours = nets[0].name
    lines = [f"{'net':<32}{'parameters':>11}  {'what':<29}{'frames':>6}{'GFLOP':>8}{'ms':>11}{'times ours':>12}"]
    for mode in MODES:
        for count in frames:
            for net in nets:
                if (net.name, mode, count) in seconds:
                    value = seconds[net.name, mode, count]
                    work = f"{flops[net.name, count] / 1e9:.1f}" if mode == "forward" else ""
                    ratio = value / seconds[ours, mode, count]
                    lines.append(
                        f"{net.name:<32}{net.count():>11,}  {mode:<29}{count:>6}{work:>8}{value * 1e3:>11.1f}{ratio:>12.2f}"
                    )
    if len(frames) > 1:
        lines.append(f"\nforward time grows with frames to the power of ({', '.join(map(str, frames))} frames)")
        for net in nets:
            lines.append(f"{net.name:<32}{exponent({count: seconds[net.name, 'forward', count] for count in frames}):>11.2f}")
    lines.append(
        "\naims: at 80 frames forward, MPLumiere takes >= 2 and Unet3D >= 10 times ours; our exponent, 16 to 160, <= 1.1"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds; the table gives medians (default 5)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 80, 160], help="multiples of 4 (default 16 80 160)")
    options = parser.parse_args()
    if options.repeats < 1 or any(count < 4 or count % TINY.temporal_factor for count in options.frames):
        parser.error(f"--repeats must be at least 1, --frames positive multiples of {TINY.temporal_factor}")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    nets, frames = matched_nets(), sorted(set(options.frames))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 1, {SIZE}x{SIZE}, median of {options.repeats}\n"
    )
    print(report(nets, frames, *measure(nets, frames, options.repeats)))


if __name__ == "__main__":
    main()
