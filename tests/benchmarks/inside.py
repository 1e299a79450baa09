"""What the layers of the base hold: the numbers of notebook 10 that take minutes, and the tables of docs/results.md.

    python tests/benchmarks/inside.py

Where words part (8 clips), when x̂ settles (32), which layers carry what (32 pairs, patched from the other's run and with the
other's words only), how far places are found (16 clips). Writes notebooks/course/inside.json and prints tables. Resumable:
what the file holds of the same weights is kept, and `--seconds` stops after a piece. About ten minutes of one core.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import minilumiere as ml
from minilumiere.config import DATA
from minilumiere.evaluation.inside import ATTRIBUTES, added, contrary_captions, patching, settling
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions, wilson
from minilumiere.viz.compare import parting
from minilumiere.viz.correspondence import correspondence
from minilumiere.viz.explorer import LOG_SNRS
from minilumiere.viz.features import named_layers

FILE = Path(__file__).parents[2] / "notebooks" / "course" / "inside.json"
STEPS, PAIRS, AT_ONCE = 6, 32, 8  # of patched runs
PATCHED = ("stem", "image-attention", "space-time", "time-attention")  # blocks that mix places, frames or words; the input
SHOWN = (  # of the layers, in the tables of where captions part and of places
    "stem", "down.1.image", "down.1.image-attention", "down.1.space-time", "middle.0.time-attention", "middle.2.time-attention",
    "up.1.image", "up.1.space-time", "up.0.space-time", "output",
)  # fmt: skip
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


def table(head: list[str], rows: dict[str, list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def share(count: int, n: int) -> str:
    """In per cent, with its 95 % interval."""
    return "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * value for value in (count / n, *wilson(count / n, n))))


def markdown(result: dict) -> str:
    """The tables of docs/results.md, of what there is."""
    parts = []
    for source, means in (("run", "taken from the other's run"), ("words", "as the other's words make it")):
        found = result.get(f"patching, {source}")
        if found and found["pairs"]:
            n, rows = found["pairs"], found["counts"]
            cells = {
                (layer if layer == "none" else f"`{layer}`"): [
                    f"{share(row[name]['turned'], n)} / {100 * row[name]['kept'] / n:.0f}" for name in ATTRIBUTES
                ]
                for layer, row in rows.items()
            }
            parts.append(table([f"layer {means}, {n} pairs", *ATTRIBUTES], cells))
    if settled := result.get("settling"):
        cells = {
            f"{level:.1f}": [share(settled["alike"][name][step], settled["n"]) for name in ATTRIBUTES]
            for step, level in enumerate(settled["log_snrs"])
        }
        parts.append(table([f"log-SNR of the step, {settled['n']} clips", *ATTRIBUTES], cells))
    for name, key, digits in (("parting", "distance", 2), ("correspondence", "error", 1)):
        if found := result.get(name):
            levels, least = found[key], found.get("least")
            cells = {f"`{layer}`": [f"{row[layer]:.{digits}f}" for row in levels.values()] for layer in SHOWN}
            for layer in SHOWN if least else ():
                cells[f"`{layer}`"].append(f"{least[layer]:.{digits}f}")
            head = [f"log-SNR, {found['clips']} clips", *(f"{float(level):+g}" for level in levels)]
            parts.append(table([*head, "least"] if least else head, cells))
    return "\n".join(parts)


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
            found = result.setdefault(f"patching, {source}", {"pairs": 0, "steps": STEPS, "counts": {}})
            if found["steps"] != STEPS:
                found.update(pairs=0, steps=STEPS, counts={})
            if found["pairs"] == start and not late():
                counts = patching(pipe, pairs[part], seeds, layers, words=source == "words", steps=STEPS)
                found["counts"] = added(found["counts"], counts) if found["counts"] else counts
                found["pairs"] += len(seeds)
    late()
    print(markdown(result))


if __name__ == "__main__":
    main()
