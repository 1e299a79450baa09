"""Does the base model listen to the words of motion? The error of x̂ with the caption, and with the opposite one.

    clip ─► + noise ─┬─ STUNet ("... circling clockwise") ───── error      gap = error of the opposite - error
                     └─ STUNet ("... circling anticlockwise") ─ error

A gap of 0 at every noise level says that a pair of words is not told apart: samples then obey it half the time, whatever the
guidance. The gap costs seconds where sampling and judging many clips costs minutes. One object, test glyphs, nothing given.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from minilumiere.config import Scale, get_scale
from minilumiere.dataset.captions import COLOURS, SPEEDS, Subject, format_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import subjects_of
from minilumiere.model import STUNet, tokenise
from minilumiere.model.diffusion import add_noise, clean_and_noise
from minilumiere.weights import trained

PAIRS = (
    ("moving left", "moving right"),
    ("moving up", "moving down"),
    ("circling clockwise", "circling anticlockwise"),
)
LEVELS = (-8.0, -6.0, -5.0, -4.0, -3.0, -2.0, 0.0)  # log-SNR
BATCH = 8


@torch.no_grad()
def errors(net: STUNet, noisy: Tensor, clean: Tensor, log_snr: float, captions: list[str]) -> float:
    """Mean squared error of x̂ in [-1, 1]."""
    level, tokens = torch.full((len(clean),), log_snr), tokenise(captions)
    parts = [slice(i, i + BATCH) for i in range(0, len(clean), BATCH)]
    v = torch.cat([net(noisy[part], level[part], tokens[part]) for part in parts])
    return float((clean_and_noise(noisy, v, level)[0] - clean).square().mean())


def gaps(net: STUNet, scale: Scale, pair: tuple[str, str], speed: str, clips: int) -> list[tuple[float, float]]:
    """The error at each of the `LEVELS`, and the gap."""
    generator = torch.Generator().manual_seed(0)

    def ask(turn: int) -> list[tuple[Subject]]:
        colours = list(COLOURS)
        return [(Subject(colours[i % len(colours)], i % 10, pair[(i + turn) % 2], speed),) for i in range(clips)]

    asked, opposite = ask(0), ask(1)
    videos, _ = draw_scenes(subjects_of(asked), generator, scale.frames, scale.size, scale.output_size, "test")
    clean = videos.transpose(1, 2) * 2 - 1
    noise = torch.randn(clean.shape, generator=generator)
    result = []
    for level in LEVELS:
        noisy = add_noise(clean, noise, torch.full((clips,), level))
        right, wrong = (errors(net, noisy, clean, level, [format_caption(s) for s in said]) for said in (asked, opposite))
        result.append((right, wrong - right))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="tiny", choices=("tiny", "full"))
    parser.add_argument("--clips", type=int, default=24, help="of each pair and speed; default: 24")
    parser.add_argument("--frames", type=int, help="of a clip; default: the scale's")
    arguments = parser.parse_args()
    scale = get_scale(arguments.scale)
    scale = replace(scale, frames=arguments.frames or scale.frames)
    net = trained("base", scale).eval()
    print(f"gap x 10,000 (error x 10,000) by log-SNR\n{'':<42}" + "".join(f"{level:>14.0f}" for level in LEVELS))
    for pair in PAIRS:
        for speed in SPEEDS:
            row = gaps(net, scale, pair, speed, arguments.clips)
            name = f"{pair[0]} / {pair[1].split()[1]} {speed}"
            cells = (f"{1e4 * gap:.1f} ({1e4 * error:.0f})" for error, gap in row)
            print(f"{name:<42}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
