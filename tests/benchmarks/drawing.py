"""How long the host takes to draw a batch of training clips: 32 pixels, averaged from 128, all glyphs drawn before.

    captions ─► paths ─► glyphs ─► ink × colour on canvases ─► mean of 4x4 pixels

Milliseconds of the processor, on one thread: what other work runs beside does not count, though it slows memory down.
`--checkout` measures an earlier state of the repository, of the time when `minilumiere` had no folders and scenes were drawn
one by one: `git worktree add FOLDER a74e0df`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

CLIPS, FRAMES = (8, 64, 256), (16, 80)
SIZE, DRAWN_AT = 32, 128  # pixels


def code(checkout: str) -> tuple:
    """`bitmaps`, `draw_scenes`, `sample_batch`, and what draws `n` captions: of today, or of a checkout."""
    if checkout:
        sys.path.insert(0, checkout)
        from minilumiere.glyphs import bitmaps
        from minilumiere.moving_digits import draw_scenes, random_subjects, sample_batch

        def ask(n: int, generator: torch.Generator):
            return [random_subjects(generator) for _ in range(n)]
    else:
        from minilumiere.dataset import sample_batch
        from minilumiere.dataset.glyphs import bitmaps
        from minilumiere.dataset.moving_digits import draw_scenes
        from minilumiere.dataset.subjects import random_subjects as ask
    return bitmaps, draw_scenes, sample_batch, ask


def milliseconds(work: Callable[[int], object], repeats: int, warm_up: int = 1) -> float:
    """The median time of work that is given a number, which changes; `warm_up` of them do not count."""
    taken = []
    for number in range(warm_up + repeats):
        begun = time.process_time()
        work(number)
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken[warm_up:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", default="", help="of an earlier state, to measure instead")
    parser.add_argument("--clips", type=int, nargs="+", default=CLIPS)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bitmaps, draw_scenes, sample_batch, ask = code(arguments.checkout)

    def draw(n: int, frames: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw_scenes(ask(n, generator), generator, frames, SIZE, DRAWN_AT, "train")

    first = milliseconds(lambda number: sample_batch(8, "full"), repeats=1, warm_up=0)  # at 128 pixels, at all times
    print(f"sample_batch(8) of 80 frames, the first of a process: {first:.0f} ms")
    bank = milliseconds(lambda number: bitmaps("strokes", "train", DRAWN_AT * 14 / 32, "cpu"), repeats=1, warm_up=0)
    print(f"all 3,000 glyphs for training: {bank:.0f} ms")
    print(f"{'clips':>6}{'frames':>8}{'ms':>10}{'ms a frame':>12}")
    for n in arguments.clips:
        for frames in FRAMES:
            taken = milliseconds(partial(draw, n, frames), arguments.repeats)
            print(f"{n:>6}{frames:>8}{taken:>10.1f}{taken / (n * frames):>12.3f}", flush=True)
