"""Claims 7, 8, 10 and 11: measured on the shipped nets of `tiny`. Base clips where super-resolution is not the subject.

7   super-resolution in windows of 9 frames that share 0, 2, 4 or 8: do joins show?
8   stylization from α = 0 to 1, styled from the start as in the paper: style gained, motion lost
10  the figures of `evaluate --tasks`, of base clips
11  the loss of nets that are not trained yet
"""

import time
from pathlib import Path
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool3d
from tqdm import tqdm

from minilumiere.config import STYLES, Scale, get_scale
from minilumiere.dataset.captions import MOTIONS
from minilumiere.evaluation.claims.heldout import held_out, losses
from minilumiere.evaluation.claims.meters import one_thread
from minilumiere.evaluation.claims.variants import HE, NEAREST, variant
from minilumiere.evaluation.claims.verdicts import FAILS, HOLDS, Interval, above, differences, interval, together
from minilumiere.evaluation.judge import assess
from minilumiere.evaluation.quality import EVALUATION_SEED, batches, evaluation_captions, real_clips, wilson
from minilumiere.evaluation.style_scores import ALPHAS, style_score
from minilumiere.evaluation.tasks import cinemagraph, image_to_video, inpainting
from minilumiere.model.multidiffusion import temporal_windows
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import FROM_THE_START
from minilumiere.model.superres import super_resolve
from minilumiere.model.text import tokenise
from minilumiere.pipeline import Pipeline, load
from minilumiere.torch_state import pinned
from minilumiere.weights.nets import trained

COMMAND = "minilumiere claims --only {}"
OVERLAPS = (0, 2, 4, 8)
SEAM_FRAMES = 18  # two windows of 9


def described(pipe: Pipeline, batch: str) -> dict:
    """Settings of what is sampled."""
    return {
        "parameters": sum(p.numel() for p in pipe.base.parameters()),
        "steps": 0,
        "sampling_steps": pipe.scale.steps,
        "batch": batch,
        "seeds": [EVALUATION_SEED],
        "device": processor(),
    }


def processor() -> str:
    """What is computed with: all threads that torch has."""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def moving_captions(n: int, seed: int) -> list[str]:
    """Of one object that does not stand still."""
    return [caption for caption in evaluation_captions(2 * n + 16, 1, seed) if "standing" not in caption][:n]


# Claim 7


@pinned()
@torch.no_grad()
def measure_seams(
    run_folder: Path, progress: bool = False, clips: int = 10, scale: Scale | None = None, net: STUNet | None = None
) -> dict:
    """Claim 7, on real clips, made small and enlarged again: so that what differs from the truth is super-resolution's."""
    scale = scale or get_scale("tiny")
    net = (net or trained("ssr", scale)).eval()
    captions, generator = moving_captions(clips, 70), torch.Generator().manual_seed(EVALUATION_SEED + 70)
    real = real_clips(SimpleNamespace(scale=scale), captions, 70, SEAM_FRAMES)
    seams: dict[int, list[float]] = {overlap: [] for overlap in OVERLAPS}
    flicker: dict[int, list[float]] = {overlap: [] for overlap in OVERLAPS}
    taken = dict.fromkeys(OVERLAPS, 0.0)
    for clip, caption in zip(tqdm(real, "seams", disable=not progress, leave=False), captions, strict=True):
        low = avg_pool3d(clip.transpose(0, 1), (1, scale.upscale, scale.upscale))[None] * 2 - 1
        noise = torch.randn(1, *clip.transpose(0, 1).shape, generator=generator)
        augmentation = torch.randn(low.shape, generator=generator)
        for overlap in OVERLAPS:
            windows = temporal_windows(SEAM_FRAMES, min(scale.window, SEAM_FRAMES // 2), overlap)
            with one_thread():
                begun = time.process_time()
                large = super_resolve(net, low, tokenise([caption]), scale, noise, augmentation, windows=windows)
                taken[overlap] += (time.process_time() - begun) / clips
            change = ratio_to_truth((large[0].transpose(0, 1) + 1) / 2, clip)
            flicker[overlap].append(float(change.mean()))
            if (found := seam(change, windows)) is not None:
                seams[overlap].append(found)
    shown = {overlap: interval(values) for overlap, values in seams.items() if values}
    none, two = OVERLAPS[:2]
    removed = differences(seams[none], seams[two])
    told = ", ".join(f"{value.mean:.3f} (overlap {overlap})" for overlap, value in shown.items())
    cost = ", ".join(f"{seconds / taken[none]:.1f}" for seconds in taken.values())
    return {
        "claim": "windowed super-resolution has seams, and MultiDiffusion removes them",
        "paper": "ablation: adjacent-frame difference spikes at joins without it",
        "measured": f"adjacent-frame difference at joins, relative to elsewhere and to the truth: {told}; "
        f"time of overlaps {', '.join(map(str, OVERLAPS))}: {cost}",
        "spread": "; ".join(f"{overlap}: {value.show(3)}" for overlap, value in shown.items()),
        "n": clips,
        "verdict": together(above(shown[none], 1), above(removed)),
        "command": COMMAND.format(7),
        "settings": {
            "parameters": sum(p.numel() for p in net.parameters()),
            "steps": 0,
            "sampling_steps": scale.ssr_steps,
            "batch": f"clips of {SEAM_FRAMES} frames, windows of {min(scale.window, SEAM_FRAMES // 2)}",
            "seeds": [EVALUATION_SEED + 70],
            "device": "CPU, 1 thread",
        },
        "values": {
            "seams": {str(overlap): values for overlap, values in seams.items()},
            "change_relative_to_truth": {str(overlap): values for overlap, values in flicker.items()},
            "seconds_a_clip": {str(overlap): value for overlap, value in taken.items()},
            "removed": [removed.mean, removed.low, removed.high],
        },
    }


def ratio_to_truth(clip: Float[Tensor, "t 3 h w"], truth: Float[Tensor, "t 3 h w"]) -> Float[Tensor, " t-1"]:
    """How much adjacent frames differ, relative to how much they should: what moves fast differs more anyway."""
    return clip.diff(dim=0).abs().mean((1, 2, 3)) / truth.diff(dim=0).abs().mean((1, 2, 3)).clamp(min=1e-6)


def seam(change: Float[Tensor, " t-1"], windows: list[slice]) -> float | None:
    """The mean change where a window begins or ends, over that elsewhere: 1 is no seam. None where every frame is a join."""
    joins = sorted({edge for window in windows for edge in (window.start, window.stop)} - {0, len(change) + 1})
    at = torch.zeros(len(change), dtype=torch.bool)
    at[[join - 1 for join in joins]] = True
    return float(change[at].mean() / change[~at].mean()) if at.any() and not at.all() else None


# Claim 8


@pinned()
def measure_styles(
    run_folder: Path, progress: bool = False, ends: int = 64, between: int = 24, pipe: Pipeline | None = None
) -> dict:
    """Claim 8. `ends` captions for each style at α = 0 and 1, `between` of them in between."""
    pipe = pipe or load("tiny", "cpu")
    captions = moving_captions(ends, 80)

    def generate(styled: Pipeline, n: int, what: str) -> list[Tensor]:
        parts = batches(pipe, captions[:n], what)
        made = [
            styled.generate(captions[:n][part], EVALUATION_SEED + part.start, super_resolution=False).cpu() for part in parts
        ]
        return list(torch.cat(made))

    plain, rows = generate(pipe, ends, "plain"), []
    for style in STYLES:
        for alpha in ALPHAS:
            n = ends if alpha in (0, 1) else between
            styled = pipe.in_style(style, alpha, FROM_THE_START) if alpha else pipe
            clips = generate(styled, n, f"{style} {alpha}") if alpha else plain
            agrees = [assess(clip, caption)["agrees"]["motion"] for clip, caption in zip(clips, captions, strict=False)]
            scores = [min(2.0, max(-1.0, style_score(clip, style, pipe.scale.output_size))) for clip in clips]
            rows.append({"style": style, "alpha": alpha, "score": scores, "motion": agrees})
    return told_of_styles(rows) | {"settings": described(pipe, f"{ends} captions a style at 0 and 1, {between} between")}


def told_of_styles(rows: list[dict]) -> dict:
    """The row of claim 8, of what was measured at each style and α."""

    def pooled(alpha: float, key: str) -> list[float]:
        return [float(value) for row in rows if row["alpha"] == alpha for value in row[key]]

    gained = differences(pooled(1, "score"), pooled(0, "score"))
    lost = differences(pooled(0, "motion"), pooled(1, "motion"))
    by_style = {
        row["style"]: differences(*([float(each) for each in at["motion"]] for at in (other, row)))
        for row, other in ((one, two) for one in rows for two in rows)
        if row["style"] == other["style"] and row["alpha"] == 1 and other["alpha"] == 0
    }
    curve = {str(alpha): [share(pooled(alpha, "motion")), interval(pooled(alpha, "score"))] for alpha in ALPHAS}
    motion = ", ".join(f"{100 * both[0].mean:.0f}" for both in curve.values())
    style = ", ".join(f"{both[1].mean:.2f}" for both in curve.values())
    return {
        "claim": "α trades style against motion, and α = 1 harms motion",
        "paper": "shown in pictures: α = 1 gives static or distorted motion; α in [0.5, 1] by hand",
        "measured": f"at α = {', '.join(map(str, ALPHAS))}: motion right in {motion} %, style score {style}",
        "spread": f"from 0 to 1: style {gained.show()} more, motion {lost.show(1, 100)} points less ("
        + ", ".join(f"{name} {value.show(0, 100)}" for name, value in by_style.items())
        + ")",
        "n": len(pooled(1, "score")),
        "verdict": together(above(gained), above(lost)),
        "command": COMMAND.format(8),
        "values": {
            "curves": [
                {"style": row["style"], "alpha": row["alpha"], "n": len(row["score"])}
                | {key: [round(part, 4) for part in spread_of(row[key], key)] for key in ("score", "motion")}
                for row in rows
            ]
        },
    }


def share(right: list[float]) -> Interval:
    """A share with Wilson's interval."""
    value = sum(right) / len(right)
    return Interval(value, *wilson(value, len(right)), len(right))


def spread_of(values: list, key: str) -> tuple[float, float, float]:
    found = share(values) if key == "motion" else interval(values)
    return found.mean, found.low, found.high


# Claim 10


@pinned()
def measure_conditioning(run_folder: Path, progress: bool = False, cases: int = 48, pipe: Pipeline | None = None) -> dict:
    """Claim 10: `evaluate --tasks`, of base clips."""
    pipe = pipe or load("tiny", "cpu")
    rows = {}
    for task in (image_to_video, inpainting, cinemagraph):
        rows |= {f"{name}: {what}": value for name, what, value in task(pipe, cases, large=False)}
    first = real_clips(pipe, evaluation_captions(cases, 1, 10), 10, large=False)[:, 0]
    unrelated = float((first - first.roll(1, 0)).square().mean().sqrt())
    return told_of_tasks(rows, unrelated, cases) | {"settings": described(pipe, f"{cases} cases a task")}


def told_of_tasks(rows: dict[str, float], unrelated: float, cases: int) -> dict:
    """The row of claim 10. `unrelated`: the RMS difference of two first frames that have nothing to do with each other."""
    exact = max(value for key, value in rows.items() if "largest" in key)
    motion = {
        task: Interval(value, *wilson(value, cases), cases)
        for task in ("image-to-video", "cinemagraph")
        for key, value in rows.items()
        if key.startswith(f"{task}: motion")
    }
    alone = rows["image-to-video: the same of the base net alone (RMS)"]
    kept = 1 - (alone / unrelated) ** 2
    chance = 1 / len(MOTIONS)
    return {
        "claim": "masked conditioning keeps what is given and follows the caption",
        "paper": "shown in pictures",
        "measured": f"given pixels differ by {exact:.3f} (copied; of the first frame's variance the net alone keeps "
        f"{100 * kept:.1f} %); motion as captioned: "
        + ", ".join(f"{task} {100 * value.mean:.1f} %" for task, value in motion.items()),
        "spread": "; ".join(f"{task} {value.show(1, 100)} %" for task, value in motion.items())
        + f"; by chance {100 * chance:.0f} %",
        "n": cases,
        # What is given comes back; the net alone keeps most of it, too; the caption matters.
        "verdict": together(
            HOLDS if exact == 0 and kept > 0.5 else FAILS, *(above(value, chance) for value in motion.values())
        ),
        "command": COMMAND.format(10),
        "values": rows | {"unrelated first frames (RMS)": unrelated},
    }


# Claim 11


@pinned()
def measure_start(
    run_folder: Path, progress: bool = False, clips: int = 64, seeds: int = 3, scale: Scale | None = None, image_net=None
) -> dict:
    """Claim 11: on all noise levels of the scale."""
    scale = scale or get_scale("tiny")
    held = held_out(scale, clips)
    image_net = image_net or trained("t2i", scale)
    alone = losses(image_net, held)
    nearest = losses(variant(NEAREST, scale, 0, image_net), held)  # fresh blocks add nothing: every seed is the same net
    he = torch.stack([losses(variant(HE, scale, seed, image_net), held) for seed in range(seeds)])  # seeds n
    more, he_more = ((loss - alone) / alone.mean() for loss in (nearest, he.mean(0)))
    excess, he_excess, by_seed = interval(more), interval(he_more), interval(he.mean(1) / alone.mean() - 1)
    return {
        "claim": "the inflated net starts near the text-to-image net",
        "paper": "said: with nearest-neighbour resampling every N-th frame is the image net's",
        "measured": f"loss before training: image net {float(alone.mean()):.4f}, inflated {float(nearest.mean()):.4f} "
        f"({100 * excess.mean:+.0f} %), with He resampling {float(he.mean()):.4f} ({100 * he_excess.mean:+.0f} %)",
        "spread": f"inflated {excess.show(1, 100)} % over clips; He {by_seed.show(0, 100)} % over {seeds} seeds",
        "n": clips,
        # Nearer to the image net than to the same net with He initialisation.
        "verdict": above(differences((he_more / 2).tolist(), more.tolist())),
        "command": COMMAND.format(11),
        "settings": {
            "parameters": sum(p.numel() for p in variant(NEAREST, scale, 0, image_net).temporal_parameters()),
            "steps": 0,
            "batch": f"{clips} clips of 16 frames, {scale.size}x{scale.size}",
            "seeds": list(range(seeds)),
            "device": processor(),
        },
        "values": {"t2i": float(alone.mean()), NEAREST: float(nearest.mean()), HE: [float(loss.mean()) for loss in he]},
    }
