"""What the layers of the base hold: the numbers of notebook 10 that take minutes. Writes notebooks/course/inside.json.

    python tests/benchmarks/inside.py

Where words part (8 clips), when x̂ settles (32), which layers carry what (32 pairs, patched from the other's run and with the
other's words only), how far places are found (16 clips). Resumable: what the file holds of the same weights is kept, and
`--seconds` stops after a piece. About ten minutes of one core.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import minilumiere as ml
from minilumiere.config import DATA
from minilumiere.evaluation.inside import added, contrary_captions, patching, settling
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions
from minilumiere.viz.compare import parting
from minilumiere.viz.correspondence import correspondence
from minilumiere.viz.explorer import LOG_SNRS
from minilumiere.viz.features import named_layers

FILE = Path(__file__).parents[2] / "notebooks" / "course" / "inside.json"
STEPS, PAIRS, AT_ONCE = 6, 32, 8  # of patched runs
PATCHED = ("stem", "image-attention", "space-time", "time-attention")  # blocks that mix places, frames or words; the input
PARTING = (2.0, 0.0, -2.0, -4.0, -6.0, -8.0, -12.0)


def patched_layers(net: torch.nn.Module) -> list[str]:
    """Those that are patched, each by itself."""
    return [name for name in named_layers(net) if name.endswith(PATCHED)]


def measure_parting(pipe: ml.pipeline.Pipeline, clips: int) -> dict:
    """The mean distance of two captions that are opposite in motion and else the same."""
    total: dict = {}
    for number, (one, other) in enumerate(contrary_captions(clips)):
        pair = (one, " ".join([*one.split()[:3], *other.split()[3:]]))
        video = ml.sample_batch(1, captions=[one], seed=number).video[0]
        for level, values in parting(pipe.base, video, pair, PARTING, seed=number).items():
            row = total.setdefault(f"{level:g}", {})
            for layer, value in values.items():
                row[layer] = row.get(layer, 0.0) + value / clips
    return {"clips": clips, "distance": total}


def measure_settling(pipe: ml.pipeline.Pipeline, samples: int) -> dict:
    result = settling(pipe, samples)
    return {"n": result.n, "log_snrs": result.log_snrs, "alike": result.alike}


def measure_correspondence(pipe: ml.pipeline.Pipeline, samples: int) -> dict:
    captions = evaluation_captions(samples, 1, seed=30)
    batch = ml.sample_batch(samples, captions=captions, seed=EVALUATION_SEED)
    clips = [(video, c, things[0].centres) for video, c, things in zip(batch.video, captions, batch.objects, strict=True)]
    errors, coarse, still = correspondence(pipe.base, clips, LOG_SNRS)
    return {"clips": samples, "error": {f"{level:g}": row for level, row in errors.items()}, "least": coarse, "still": still}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return (
        [rounded(each) for each in value] if isinstance(value, list) else round(value, 3) if isinstance(value, float) else value
    )


def show(result: dict) -> None:
    """The table of patching, as docs/results.md has it: turned / kept, of n pairs."""
    for source in ("run", "words"):
        table = result.get(f"patching, {source}")
        if table:
            print(f"\npatched from the other's {source}, {table['pairs']} pairs: turned / kept")
            for layer, row in table["counts"].items():
                cells = (f"{row[name]['turned']:>4} /{row[name]['kept']:>3}" for name in row)
                print(f"  {layer:<26}" + "  ".join(f"{name} {cell}" for name, cell in zip(row, cells, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further piece after so long")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"of patched captions, a multiple of {AT_ONCE}")
    options = parser.parse_args()
    began = time.monotonic()
    weights = json.loads((DATA / "weights" / "manifest.json").read_text())["tiny/base.safetensors"]["sha256"]
    result = json.loads(FILE.read_text()) if FILE.exists() else {}
    if result.get("weights") != weights:
        result = {"weights": weights, "device": "CPU"}
    pipe = ml.load("tiny", device="cpu")
    pairs, layers = contrary_captions(options.pairs), patched_layers(pipe.base)

    def late() -> bool:
        FILE.write_text(json.dumps(rounded(result), indent=1) + "\n")
        return time.monotonic() - began > options.seconds

    for name, piece, count in (
        ("parting", measure_parting, 8),
        ("correspondence", measure_correspondence, 16),
        ("settling", measure_settling, 32),
    ):
        if name not in result and not late():
            result[name] = piece(pipe, count)
    for start in range(0, len(pairs), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        seeds = [EVALUATION_SEED + number for number in range(len(pairs))[part]]
        for source in ("run", "words"):
            table = result.setdefault(f"patching, {source}", {"pairs": 0, "steps": STEPS, "counts": {}})
            if table["steps"] != STEPS:
                table.update(pairs=0, steps=STEPS, counts={})
            if table["pairs"] == start and not late():
                counts = patching(pipe, pairs[part], seeds, layers, words=source == "words", steps=STEPS)
                table["counts"] = added(table["counts"], counts) if table["counts"] else counts
                table["pairs"] += len(seeds)
    late()
    show(result)


if __name__ == "__main__":
    main()
