"""The small trainings that claims are judged by: the `VARIANTS` of the STUNet, three seeds each, matched but for one thing.

    for each variant, for each seed:   same batches, same steps ──► losses on the same held-out clips ──► one file

A training is a minute of one core, and a file: killed, the next call does it again from its start, and no other. The constant
learning rate and an average of the last weights let every point of a curve be compared, not only its end. Without temporal
resampling a step costs more operations, so that net takes fewer steps: as many operations in all. The two nets of claim 9
begin with the shipped weights, and afterwards make clips of (colour, digit) pairs that no video of the training shows.
Steps, batch and rate are our choice. `evaluation/claims/trained.py` reads the files.
"""

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from minilumiere.config import Scale, get_scale, smoke
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import random_subjects
from minilumiere.evaluation.claims.heldout import BAND, HeldOut, held_out, losses
from minilumiere.evaluation.claims.meters import flops, one_thread
from minilumiere.evaluation.claims.trained import SEEDS, run_path
from minilumiere.evaluation.claims.variants import ALL_TUNED, FROZEN, NEAREST, NO_HALVINGS, VARIANTS, variant
from minilumiere.evaluation.quality import evaluation_captions, judge_generated, of_unseen_pairs
from minilumiere.model.stunet import STUNet
from minilumiere.model.text import null_tokens, tokens_of
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import pinned
from minilumiere.training.clips import Batch, random_levels, with_noise
from minilumiere.training.loop import CLIP, step_generator
from minilumiere.training.stages import diffusion_loss
from minilumiere.weights.checkpoint import write_atomically
from minilumiere.weights.nets import trained
from minilumiere.weights.run_folder import held
from minilumiere.weights.shipped import read_manifest


@dataclass(frozen=True)
class Recipe:
    """How each net is trained and looked at."""

    steps: int = 80
    batch: int = 4  # clips
    frames: int = 16
    rate: float = 2e-3  # after a warm-up; of fresh layers
    fine_rate: float = 3e-4  # of nets that begin trained
    warm_up: int = 10  # steps
    memory: float = 0.9  # of the average of the weights
    band: tuple[float, float] = BAND  # of log-SNR
    looks: int = 4  # at the held-out clips, besides the first
    held_out: int = 48  # clips
    judged: int = 24  # clips of unseen pairs (claim 9)
    sampling_steps: int = 8  # of those


def trainings(run_folder: Path, names: tuple[str, ...] = VARIANTS) -> list[tuple[str, int, bool]]:
    """Every training of the variants named: its net, its seed, and whether its file is there."""
    return [(name, seed, run_path(run_folder, name, seed).is_file()) for name in names for seed in SEEDS]


def train_ablations(
    run_folder: Path,
    progress: bool = True,
    names: tuple[str, ...] = VARIANTS,
    recipe: Recipe | None = None,
    scale: str = "tiny",
) -> None:
    """Train what is not trained yet. Raises `ValueError` where another process is at it."""
    preset, recipe = get_scale(scale), recipe or Recipe()
    with held(run_folder / "ablations"):
        for name, seed, _ in tqdm(trainings(run_folder, names), "claims", disable=not progress):
            path = run_path(run_folder, name, seed)
            own = recipe_of(name, preset, recipe)
            identity = {"name": name, "seed": seed, "recipe": asdict(own), "weights": checksums(preset)}
            identity = json.loads(json.dumps(identity))  # tuples are lists, as they will be read
            if not done(path, identity):
                result = identity | train_variant(name, seed, preset, own)
                write_atomically(path, json.dumps(result).encode())


def done(path: Path, identity: dict) -> bool:
    """Is the file there, whole, and of the same recipe and shipped weights?"""
    try:
        found = json.loads(path.read_bytes())
        return {key: found.get(key) for key in identity} == identity
    except (OSError, ValueError, AttributeError):
        return False


def checksums(scale: Scale) -> dict[str, str]:
    """Of the shipped weights that every variant begins with."""
    entries = read_manifest()
    return {name: entries.get(f"{scale.name}/{name}.safetensors", {}).get("sha256", "")[:16] for name in ("t2i", "base")}


def recipe_of(name: str, scale: Scale, recipe: Recipe) -> Recipe:
    """A variant's own: without temporal resampling, as many steps as take the same number of operations."""
    rate = recipe.fine_rate if name in (FROZEN, ALL_TUNED) else recipe.rate
    recipe = replace(recipe, steps=smoke(recipe.steps), rate=rate)
    if name != NO_HALVINGS:
        return recipe
    halved, whole = (flops_a_clip(variant(kind, scale), scale, recipe) for kind in (NEAREST, NO_HALVINGS))
    return replace(recipe, steps=max(1, round(recipe.steps * halved / whole)))


def flops_a_clip(net: STUNet, scale: Scale, recipe: Recipe) -> int:
    """Operations of a training step, for each clip of its batch."""
    empty, words = deepcopy(net).to("meta"), null_tokens(1).to("meta")

    def step() -> None:
        video = torch.empty(1, 3, recipe.frames, scale.size, scale.size)
        empty(video, torch.empty(1), words).sum().backward()

    with torch.enable_grad():
        return flops(step)


@pinned()
@torch.enable_grad()
def train_variant(name: str, seed: int, scale: Scale, recipe: Recipe) -> dict:
    """Train one net. Returns its curve on the held-out clips, what it cost, and, of claim 9's nets, what it makes."""
    begun, net = time.monotonic(), variant(name, scale, seed)
    with one_thread():
        averaged, curve, unseen = fit(net, seed, scale, recipe, name in (FROZEN, ALL_TUNED))
        result = {"curve": curve, "unseen": unseen} if unseen else {"curve": curve}
        if unseen:
            result["judged"] = judge(averaged, scale, recipe)
    trainable = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    flops_a_step = recipe.batch * flops_a_clip(net, scale, recipe)
    result |= {"trainable": trainable, "flops_a_step": flops_a_step, "device": "CPU, 1 thread"}
    return result | {"minutes": round((time.monotonic() - begun) / 60, 2)}


def fit(net: STUNet, seed: int, scale: Scale, recipe: Recipe, ends: bool) -> tuple[STUNet, list[dict], list[dict]]:
    """The loop. Returns the averaged net and its curves on seen and, only at both `ends`, on unseen pairs."""
    sets = [
        held_out(scale, recipe.held_out, recipe.frames, unseen, recipe.band) for unseen in ((False, True) if ends else (False,))
    ]
    looks = {0, recipe.steps} if ends else {round(recipe.steps * i / recipe.looks) for i in range(recipe.looks + 1)}
    averaged, spent = deepcopy(net), 0.0
    weights = [[p for p in module.parameters() if p.requires_grad] for module in (averaged, net)]
    optimiser = torch.optim.AdamW(weights[1], recipe.rate)
    points: list[list[dict]] = [[] for _ in sets]

    def look(step: int) -> None:
        for held_out_set, found in zip(sets, points, strict=True):
            found.append({"step": step, "loss": mean_loss(averaged, held_out_set), "seconds": round(spent, 3)})

    look(0)
    for step, batch in enumerate(batches(seed, scale, recipe), start=1):
        started = time.process_time()
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1, step / recipe.warm_up)
        diffusion_loss(net, batch).backward()
        nn.utils.clip_grad_norm_(weights[1], CLIP)
        optimiser.step()
        optimiser.zero_grad()
        spent += time.process_time() - started
        with torch.no_grad():
            torch._foreach_lerp_(*weights, 1 - min(recipe.memory, step / (step + 9)))
        if step in looks:
            look(step)
    return averaged, points[0], points[1] if ends else []


def mean_loss(net: nn.Module, clips: HeldOut) -> float:
    return float(losses(net, clips).mean())


def batches(seed: int, scale: Scale, recipe: Recipe) -> Iterator[Batch]:
    """A batch for each step: one object, pairs that may occur in videos, training glyphs, noise levels of the band."""
    for step in range(recipe.steps):
        generator = step_generator(seed, step)
        asked = random_subjects(recipe.batch, generator, two=0.0, unseen=False)
        video, _ = draw_scenes(asked, generator, recipe.frames, scale.size, scale.output_size, "train")
        levels = random_levels(recipe.batch, 0.0, generator, recipe.band)
        yield with_noise(video.transpose(1, 2), tokens_of(asked), levels, generator)


def judge(net: STUNet, scale: Scale, recipe: Recipe) -> dict[str, list[bool]]:
    """Of each clip that a net makes of an unseen pair: are digit and colour right, is the motion?"""
    pipe = Pipeline(replace(scale, steps=recipe.sampling_steps), net, trained("ssr", scale), torch.device("cpu"))
    captions = of_unseen_pairs(evaluation_captions(recipe.judged, 1, 61))
    agrees = [things[0]["agrees"] for things in judge_generated(pipe, captions, 61, recipe.frames, large=False)]
    return {"looks": [each["digit"] and each["colour"] for each in agrees], "motion": [each["motion"] for each in agrees]}
