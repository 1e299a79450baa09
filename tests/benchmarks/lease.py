"""Stages one after the other in one process, each shipped before the next begins. `lease.sh` calls it.

    python tests/benchmarks/lease.py --scale full --compile runs/compiled tiny/fast 3 base 6 conditioned 1.2

A stage begins with its shipped weights where there are any (`conditioned` always with those of `base`), also where they were
trained on earlier image weights than today's; `tiny/fast` is a stage of another scale than `--scale`. `--compile FOLDER`: a
stage's net is compiled if `shakedown.py --compile FOLDER` has left word there that this pays. It fills torch's cache of
compiled code, beside the training of other stages; a stage waits `--patience` seconds for its word.
"""

import argparse
import time
from pathlib import Path

from minilumiere.config import SCALES, STAGES, Scale
from minilumiere.training.loop import TrainOptions, train
from minilumiere.weights.checkpoint import read_checkpoint, write_checkpoint
from minilumiere.weights.shipped import BEGINS_WITH, SHIPPED_AS, built_on, ship, weights_path

WORTH = 1.05  # times as fast


def pays(stage: str, folder: Path | None, patience: float) -> bool:
    """Has it been found that compiling a stage's net makes its steps faster?"""
    if folder is None or not (folder / "asked").is_file() or stage not in (folder / "asked").read_text().split():
        return False
    begun, word = time.monotonic(), folder / stage
    while not word.is_file() and time.monotonic() < begun + patience:
        time.sleep(0.5)
    return word.is_file() and float(word.read_text() or 0) > WORTH


def adopt(stage: str, scale: Scale) -> None:
    """Let what was trained on earlier weights pass for trained on today's: it soon will be. Loading refuses it else."""
    path, today = weights_path(stage, scale), built_on(stage, scale)
    if today and path.is_file():
        tensors, metadata = read_checkpoint(path)
        if any(metadata.get(key) != checksum for key, checksum in today.items()):
            del metadata["sha256"]
            write_checkpoint(path, tensors, metadata | today)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="tiny")
    parser.add_argument("--compile", type=Path)
    parser.add_argument("--patience", type=float, default=60)
    parser.add_argument("stages", nargs="+", metavar="STAGE MINUTES")
    options = parser.parse_args()
    for name, minutes in zip(options.stages[::2], options.stages[1::2], strict=True):
        other, _, stage = name.rpartition("/")
        scale = SCALES[other or options.scale]
        if stage not in STAGES:
            parser.error(f"unknown stage {stage}")
        begun = time.monotonic()
        compiled = scale.name == options.scale and pays(BEGINS_WITH.get(stage, stage), options.compile, options.patience)
        again = stage not in SHIPPED_AS and weights_path(stage, scale).is_file()
        print(f"{time.strftime('%X')} {scale.name}/{stage}: {minutes} minutes{', compiled' if compiled else ''}", flush=True)
        settings = TrainOptions(
            stage, scale.name, minutes=float(minutes), from_shipped=again, compile=compiled, save_minutes=0.9, progress=False
        )
        try:
            adopt(stage, scale)
            train(settings)
            path = ship(settings.folder, stage, scale)
            print(f"{time.strftime('%X')} {path}, {time.monotonic() - begun:.0f} s in all", flush=True)
        except Exception as error:  # the other stages still have their minutes
            print(f"{time.strftime('%X')} {scale.name}/{stage}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
