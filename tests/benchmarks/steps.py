"""How many sampling steps the base model needs, with DDIM (order 1) and its second order, DPM-Solver++(2M).

    same noise ─┬─ N steps ──────────── clip ── judge: shares of captions that come out as asked
                └─ many steps, order 2 ─ clip ── how far apart (RMS, pixels in [0, 1], first 8 captions, base size)

One object, captions of `minilumiere evaluate`, judged at output size. Seconds are of a whole clip, super-resolution included.
"""

import argparse
import time
from dataclasses import replace

from torch import Tensor

from minilumiere.config import SCALES
from minilumiere.evaluation.quality import BATCH, EVALUATION_SEED, evaluation_captions, judge_generated, score
from minilumiere.pipeline import Pipeline, load

MANY = 96
COLUMNS = ("digit", "motion", "all four", "same digit first and last", "same digit on all frames")


def base_clips(pipe: Pipeline, captions: list[str]) -> Tensor:
    """The first captions' base clips, n t 3 h w."""
    return pipe.generate(captions[:BATCH], EVALUATION_SEED, super_resolution=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="tiny", choices=SCALES)
    parser.add_argument("--samples", type=int, default=64, help="captions; default: 64")
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 14, 20, 28], help="default: 10 14 20 28")
    parser.add_argument("--orders", type=int, nargs="*", choices=(1, 2), default=[1, 2], help="default: 1 2")
    options = parser.parse_args()
    trained, captions = load(options.scale), evaluation_captions(options.samples, 1)

    def with_sampler(steps: int, order: int) -> Pipeline:
        return Pipeline(replace(trained.scale, steps=steps, order=order), trained.base, trained.ssr, trained.device)

    best = base_clips(with_sampler(MANY, 2), captions)
    print(f"{'order':>5}{'steps':>7}{f'to {MANY} steps':>14}{'seconds':>9}  " + ", ".join((*COLUMNS, "path error")))
    for order in options.orders:
        for steps in options.steps:
            pipe = with_sampler(steps, order)
            far = float((base_clips(pipe, captions) - best).square().mean().sqrt())
            begun = time.perf_counter()
            scores = score(judge_generated(pipe, captions))
            seconds = (time.perf_counter() - begun) / len(captions)
            shown = [*(f"{scores[key]:.1%}" for key in COLUMNS), f"{scores['path error (units of 32)']:.2f}"]
            print(f"{order:>5}{steps:>7}{far:>14.4f}{seconds:>9.2f}  " + ", ".join(shown), flush=True)
