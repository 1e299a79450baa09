"""What each of our additions to the paper brings: the judge's shares with all of them, without one at a time, and without any.

    python tests/benchmarks/parts.py --samples 64 --frames 16

Judged on base clips, of the same captions and the same noise in every row, so that differences are those of the parts.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from minilumiere import pipeline
from minilumiere.config import SCALES
from minilumiere.evaluation.quality import evaluation_captions, judge_generated, score, with_interval
from minilumiere.pipeline import Pipeline, load

ROWS = {
    "as shipped": {},
    "without the image net beside the video net": {"image": False},
    "two objects together": {"apart": False},
    "the paper's parts alone": {"image": False, "apart": False},
}
COLUMNS = ("digit", "motion", "speed", "all four", "same digit on all frames", "path error (units of 32)")


@contextmanager
def parts(pipe: Pipeline, image: bool = True, apart: bool = True) -> Iterator[None]:
    """Within it, the pipeline samples without the parts that are False."""
    scale, sampled = pipe.scale, pipeline.sample_captions
    if not image:
        pipe.scale = replace(scale, image_share=0.0)
    if not apart:
        pipeline.sample_captions = lambda denoiser, noisy, captions, wanted, *rest, **options: sampled(
            denoiser, noisy, captions, [False] * len(captions), *rest, **options
        )
    try:
        yield
    finally:
        pipe.scale, pipeline.sample_captions = scale, sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--frames", type=int, default=16)
    options = parser.parse_args()
    pipe = load(options.scale)
    for objects in (1, 2):
        captions = evaluation_captions(options.samples, objects)
        print(f"{objects} object(s), {options.samples} captions, {options.frames} frames", flush=True)
        print(f"  {'':<46}" + "".join(f"{column[:18]:>20}" for column in COLUMNS))
        for name, changes in ROWS.items():
            if objects == 1 and "apart" in changes:
                continue  # one object is never taken apart
            if objects == 2 and changes == {"apart": False}:
                continue  # together, two objects have none of the image net's word anyway
            with parts(pipe, **changes):
                scores = score(judge_generated(pipe, captions, frames=options.frames, large=False))
            shown = [f"{scores[key]:.2f}" if "error" in key else with_interval(scores[key], options.samples) for key in COLUMNS]
            print(f"  {name:<46}" + "".join(f"{text:>20}" for text in shown), flush=True)


if __name__ == "__main__":
    main()
