"""What notebook 06b reads from `two_objects.json`: 32 captions of two objects, from the start or taken apart.

Takes 6 minutes on one CPU core: in `notebooks`, `python -m course.measure_two_objects`.
"""

import json
from pathlib import Path

import torch

import minilumiere as ml
from minilumiere.config import SCALES
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions
from minilumiere.model import null_tokens, tokenise
from minilumiere.model.composition import sample_captions
from minilumiere.model.diffusion import guided, schedule
from minilumiere.weights import trained

FILE = Path(__file__).with_name("two_objects.json")
CLIPS, BATCH = 32, 8
NAMES = {"both from the start": False, "taken apart": True}


@torch.no_grad()
def main() -> None:
    scale, right = SCALES["tiny"], dict.fromkeys(NAMES, 0)
    net, captions = trained("base", scale).eval(), evaluation_captions(CLIPS, 2, 61)
    levels = schedule(scale.steps, scale.video_shift, tail=scale.tail)

    def denoiser(parts: list[str], owner: torch.Tensor):
        tokens, nothing = tokenise(parts), null_tokens(len(parts))
        return guided(lambda z, level: net(z, level, tokens), lambda z, level: net(z, level, nothing), scale.guidance)

    for i in range(0, CLIPS, BATCH):
        some = captions[i : i + BATCH]
        noise = torch.randn(
            len(some), 3, scale.frames, scale.size, scale.size, generator=torch.Generator().manual_seed(EVALUATION_SEED + i)
        )
        for name, apart in NAMES.items():
            clips = sample_captions(denoiser, noise, some, [apart] * len(some), levels, order=scale.order)
            for clip, caption in zip((clips.transpose(1, 2) + 1) / 2, some, strict=True):
                agrees = ml.assess(clip.clamp(0, 1), caption)["agrees"]
                right[name] += agrees["motion"] and agrees["colour"]
        print(i + len(some), right, flush=True)
    FILE.write_text(json.dumps({"clips": CLIPS, "right": right}, indent=1) + "\n")


if __name__ == "__main__":
    main()
