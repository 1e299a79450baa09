"""What notebook 08 reads from `styles.json`: style against motion over 32 captions. Takes 10 minutes on one CPU core.

    cd notebooks && python -m course.measure_styles

Every row is one setting: the style, its share α, the log-SNR from which it is used, and what the judge reads off 32 base
clips with the same captions and the same noise. A row that is in the file already is not measured again.
"""

import json
from pathlib import Path

import minilumiere as ml
from minilumiere.dataset import parse_caption
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions
from minilumiere.evaluation.style_scores import style_score
from minilumiere.model.stylize import FROM_THE_START, STYLED_FROM
from minilumiere.weights.shipped import read_manifest

FILE = Path(__file__).with_name("styles.json")
CLIPS, BATCH = 32, 8
STYLES = ("dotted", "outline", "neon")
SETTINGS = [(style, 1.0, FROM_THE_START) for style in STYLES]
SETTINGS += [(style, 1.0, STYLED_FROM) for style in STYLES]


def moving_captions() -> list[str]:
    """32 captions of one object that moves."""
    captions = [c for c in evaluation_captions(4 * CLIPS, 1, 60) if "standing" not in parse_caption(c)[0].motion]
    return captions[:CLIPS]


def measure(pipe, style: str, alpha: float, start: float) -> dict:
    """One row; α = 0 is the plain net."""
    styled, captions = pipe.in_style(style, alpha, start) if alpha else pipe, moving_captions()
    scores, motion, digit = {style: [] for style in ([style] if alpha else STYLES)}, 0, 0
    for i in range(0, CLIPS, BATCH):
        some = captions[i : i + BATCH]
        for clip, caption in zip(styled.generate(some, EVALUATION_SEED + i, super_resolution=False), some, strict=True):
            agrees = ml.assess(clip, caption)["agrees"]
            motion, digit = motion + agrees["motion"], digit + agrees["digit"]
            for name, row in scores.items():
                row.append(style_score(clip, name, pipe.scale.output_size))
    mean = {name: round(sum(row) / CLIPS, 3) for name, row in scores.items()}
    return {"style": style, "alpha": alpha, "from": start, "clips": CLIPS, "motion": motion, "digit": digit, "score": mean}


def main(pipe) -> None:
    sums = {name: entry["sha256"] for name, entry in read_manifest().items() if "style" in name or "base" in name}
    stored = json.loads(FILE.read_text()) if FILE.is_file() else {}
    rows = stored["rows"] if stored.get("weights") == sums else []  # of other weights: measured again
    for setting in [("", 0.0, FROM_THE_START), *SETTINGS]:
        if any((row["style"], row["alpha"], row["from"]) == setting for row in rows):
            continue
        rows.append(measure(pipe, *setting))
        FILE.write_text(json.dumps({"weights": sums, "rows": rows}, indent=1) + "\n")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main(ml.load("tiny", device="cpu"))
