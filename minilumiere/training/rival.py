"""Training of the cascade, and of the one-pass net beside it, for claims 5 and 6 (see `evaluation.cascade`).

    shipped `base` ─┬─► keyframes   14 clips of 11 frames, 8 apart     480 steps ┐ together as many steps, of as many frames,
                    ├─► TSR         8 windows of 20, 3 of them given   120 steps ┘ as the one pass
                    └─► one pass    2 clips of 80 frames               600 steps

The keyframe net gets most of the cascade's steps, because it must learn new motion: everything is 8 times as fast. It halves
no time, and what inflation adds begins at half its strength: both make its frames look better from the start (see
docs/experiments.md). The TSR net begins as a net that goes on from given frames already. Each is trained from three seeds,
which differ in data and noise; a run that is cut off goes on where it was. Captions of one object, motion and speed given, no
`UNSEEN_PAIRS`. Our choice: the paper trains no cascade.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from minilumiere.config import Scale, architecture, get_scale
from minilumiere.dataset.chance import pick, uniform
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import Subjects, random_subjects
from minilumiere.evaluation.cascade import EVERY, FRAMES, GIVEN, KEYFRAMES, SEEDS, STRIDE, WINDOW, part_folder
from minilumiere.model.conditioning import given_pixels
from minilumiere.model.stunet import STUNet
from minilumiere.model.text import tokens_of
from minilumiere.torch_state import global_generator, pinned
from minilumiere.training.clips import STABLE_BELOW, Batch, random_levels, with_noise, with_stable_targets
from minilumiere.training.device import start_processes
from minilumiere.training.loop import TrainOptions, run, step_generator
from minilumiere.training.stages import Stage, get_stage
from minilumiere.weights.checkpoint import load_weights
from minilumiere.weights.nets import trained
from minilumiere.weights.run_folder import held
from minilumiere.weights.shipped import built_on, read_shipped


@dataclass(frozen=True)
class Part:
    """How one net of the comparison is trained."""

    frames: int  # of a clip
    batch: int  # clips a step: together 160 frames, as of `base`
    share: float  # of the steps
    rate: float  # peak learning rate: the more there is to learn, the larger


RECIPES = {
    "keyframes": Part(KEYFRAMES, 14, 0.8, 1e-3),
    "tsr": Part(WINDOW, 8, 0.2, 3e-4),
    "one-pass": Part(FRAMES, 2, 1.0, 1e-4),
}
STEPS = 600  # of the one-pass net, and of the two nets of the cascade together
DAMPED = 0.5  # the strength at which the keyframe net's inflation blocks begin


def shown_frames(part: str, n: int, generator: torch.Generator, device: str) -> Int[Tensor, "n t"]:
    """Which frames of a long clip a net is trained on: every 8th; those of one of the windows of 80 frames; all."""
    frames = torch.arange(RECIPES[part].frames, device=device)
    if part == "tsr":
        return STRIDE * pick(uniform((n, 1), generator, device), FRAMES // STRIDE) + frames
    return (frames * (EVERY if part == "keyframes" else 1)).expand(n, -1)


def draw_clips(scale: Scale, n: int, generator: torch.Generator, device: str, part: str) -> Batch:
    """`n` training clips for a net, with noise as for any clip of so many frames; of windows the keyframes are given."""
    asked = random_subjects(n, generator, two=0.0, unseen=False, device=device)
    shown = shown_frames(part, n, generator, device)

    def draw(subjects: Subjects, size: int) -> Tensor:
        frames = shown if part == "tsr" else shown[:1].expand(len(subjects), -1)
        length = FRAMES + WINDOW if part == "tsr" else int(shown[0, -1]) + 1
        return draw_scenes(subjects, generator, length, scale.size, size, "train", shown=frames)[0].transpose(1, 2)

    clean, shift = draw(asked, scale.output_size), scale.shift_of(RECIPES[part].frames)
    levels = random_levels(n, shift, generator)
    batch = with_noise(clean, tokens_of(asked), levels, generator)
    mask = torch.zeros_like(clean[:, :1])
    if part == "tsr":
        mask[:, :, list(GIVEN)] = 1
    batch["given"] = given_pixels(clean * 2 - 1, mask)
    if part == "tsr":  # what is given says more than the caption
        return batch
    hidden = (levels < STABLE_BELOW + shift - scale.video_shift).nonzero()[:, 0]
    return with_stable_targets(batch, hidden, asked, partial(draw, size=scale.size))


def stage_of(part: str, scale: Scale, steps: int) -> Stage:
    """How a net is trained, as a stage: `conditioned`, but for its data, steps and learning rate."""
    recipe = RECIPES[part]
    return replace(
        get_stage("conditioned"),
        draw=partial(draw_clips, part=part),
        steps={scale.name: max(1, round(recipe.share * steps))},
        batch={scale.name: recipe.batch},
        rate=recipe.rate,
    )


@global_generator()
@torch.no_grad()
def first_net(part: str, scale: Scale) -> tuple[STUNet, str]:
    """A net with the weights that it is trained from, those of the shipped base, and their checksum."""
    weights, facts = read_shipped("base", scale)
    net = STUNet.from_t2i(trained("t2i", scale), 0 if part == "keyframes" else scale.halvings, verbose=False)
    there = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    load_weights(net, {name: tensor for name, tensor in weights.items() if name in there})  # all, or all but resampling
    for name, parameter in net.named_parameters():
        if part == "keyframes" and ".project." in name and not name.startswith("t2i."):
            parameter.mul_(DAMPED)
    return net, facts["sha256"]


@pinned()
@torch.enable_grad()
def train_part(
    run_folder: Path,
    part: str,
    seed: int,
    progress: bool = True,
    device: str | torch.device | None = None,
    steps: int = STEPS,
    scale: str = "tiny",
) -> None:
    """Train one net from the shipped `base` on, or go on with it. What a checkpoint of another run raises: `ValueError`."""
    preset = get_scale(scale)
    stage, chosen = stage_of(part, preset, steps), start_processes(device)[2]
    model, start = first_net(part, preset)
    batch, config = RECIPES[part].batch, architecture("base", preset) | {"halvings": model.halvings}
    identity = {"stage": part, "scale": scale, "config": config, "batch": batch, "seed": seed, "from": start}
    identity |= built_on("base", preset)
    options = TrainOptions("conditioned", scale, seed=seed, run=part_folder(run_folder, part, seed), progress=progress)

    def draw(step: int, steps: int) -> Batch:
        return stage.draw(preset, batch, step_generator(seed, step), str(chosen))

    with held(options.folder):
        run(options, stage, model.to(chosen), draw, identity, 0, 1, chosen)


def train_rival(
    run_folder: Path,
    progress: bool = True,
    device: str | torch.device | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    scale: str = "tiny",
) -> None:
    """Train all nets of claims 5 and 6. What is finished is left alone, what was cut off goes on; other `steps` train more."""
    for part in RECIPES:
        for seed in range(seeds):
            train_part(run_folder, part, seed, progress, device, steps, scale)
