"""What each training stage trains: its net, its data, its loss. The loop over them is `train`.

    t2i ──► base ──► conditioned     the text-to-image model; temporal layers on top; with given pixels
      │                   └──► fast ──► on-policy     a student of few steps; trained on where its own steps lead
      └───► style-*                  the text-to-image model in another style
    ssr-image ──► ssr                the first two for super-resolution
    judge                            the digit classifier that evaluation reads videos with
    video-features                   a reader of words, whose features a Fréchet video distance compares

All randomness of a step comes from the generator that the loop hands in, seeded by (seed, step): nothing else has to
be saved for a resumed run to continue bit for bit. Batch sizes, steps and learning rates are our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.config import STYLES, Scale
from minilumiere.dataset.captions import COLOURS, Subject
from minilumiere.dataset.chance import normal, pick, uniform
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import Subjects, random_subjects, subjects_of
from minilumiere.evaluation.judge import judge_crops
from minilumiere.model.conditioning import extents
from minilumiere.model.superres import TRAIN_AUGMENTATION, condition
from minilumiere.model.text import NULL, VOCABULARY, tokens_of
from minilumiere.training.clips import (
    HIDDEN,
    NARROWLY,
    OFTEN_CIRCLING,
    TURNING,
    Batch,
    draw_hidden_videos,
    draw_narrow_videos,
    draw_turning_videos,
    draw_videos,
    random_levels,
    with_noise,
)
from minilumiere.training.distill import draw_segments
from minilumiere.weights.nets import build

STYLE_DIGITS = (0, 2, 3, 5, 7)  # that a style is learnt from
TWO_OBJECTS = 0.6  # share of the text-to-image model's images with two: which colour goes with which digit is hard
READ_FRAMES = 16  # of the clips whose words are read, at every scale
STYLED = 0.4  # share of super-resolution's training clips that are drawn in some style


@dataclass(frozen=True)
class Stage:
    """How a stage is trained: `build` makes the net, `draw` a batch of `n`, `loss` is a mean over its first axis."""

    build: Callable[[Scale], nn.Module]
    draw: Callable[[Scale, int, torch.Generator, str], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    steps: dict[str, int]  # by scale
    batch: dict[str, int]  # on a CPU
    rate: float  # peak learning rate
    on_gpu: int = 1  # times as large a batch, which a GPU draws and learns from in about the time of a small one
    minutes: float = 1.0  # its share of the minutes of `train all`, relative to the other stages
    curriculum: tuple[tuple[float, Callable[..., Batch]], ...] = ()  # until which share of the steps to draw what instead

    def draw_at(self, progress: float, scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
        """The batch of a step; `progress` is the share of the steps before it."""
        for until, draw in self.curriculum:
            if progress < until:
                return draw(scale, n, generator, device, progress)
        return self.draw(scale, n, generator, device)

    def default_batch(self, scale: Scale, device: str) -> int:
        """The batch size on a kind of device ("cpu" or "cuda")."""
        return self.batch[scale.name] * (1 if device == "cpu" else self.on_gpu)


def draw_images(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Captioned frames with noise, for the text-to-image model. Every (colour, digit) pair occurs."""
    asked = random_subjects(n, generator, two=TWO_OBJECTS, bare=0.5, device=device)
    images, _ = draw_scenes(asked, generator, max(scale.lengths), scale.size, scale.output_size, "train", still=True)
    return with_noise(images[:, 0], tokens_of(asked), random_levels(n, scale.image_shift, generator), generator)


def diffusion_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of v."""
    given = {"given": batch["given"]} if "given" in batch else {}
    return F.mse_loss(model(batch["noisy"], batch["log_snr"], batch["tokens"], **given).float(), batch["v"])


def draw_styled_images(scale: Scale, n: int, generator: torch.Generator, device: str, style: str) -> Batch:
    """A style is learnt from 35 images: each colour of each of the `STYLE_DIGITS`. They are moved about, and noisy."""
    asked, images = style_images(scale, device, style)
    chosen = pick(uniform((n,), generator), len(asked))  # on the host
    moved = somewhere_else(images[chosen.to(device)], generator)
    return with_noise(moved, tokens_of(asked.at(chosen)), random_levels(n, scale.image_shift, generator), generator)


@cache
def style_images(scale: Scale, device: str, style: str) -> tuple[Subjects, Tensor]:
    """What the images of a style show, and they themselves (n, 3, h, w): the same at every step."""
    asked = subjects_of([(Subject(colour, digit),) for colour in COLOURS for digit in STYLE_DIGITS], device)
    always = torch.Generator().manual_seed(0)
    images, _ = draw_scenes(asked, always, 16, scale.size, scale.output_size, "train", still=True, style=style)
    return asked, images[:, 0]


def somewhere_else(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """What is drawn on black, moved to any place where all of it can be seen."""
    n, _, h, w = images.shape
    ink = torch.stack([torch.zeros_like(images), images], dim=2)  # as a clip in which all of it appears
    first, last = extents(ink, torch.zeros(n, device=images.device), 0.02).unbind(1)  # n 2
    size = torch.tensor([h, w], device=images.device)
    shift = -first.long() + pick(uniform((n, 2), generator, images.device), (size - last + first + 1).long())
    for axis, length in ((2, h), (3, w)):
        source = (torch.arange(length, device=images.device) - shift[:, axis - 2, None]) % length  # n length
        shape = (n, 1, length, 1) if axis == 2 else (n, 1, 1, length)
        images = images.gather(axis, source.reshape(shape).expand_as(images))
    return images


def draw_enlarged_images(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Frames at output size with noise, beside their noisy low resolution, for the image SSR net."""
    asked = random_subjects(n, generator, bare=0.5, device=device)
    size, style = scale.output_size, some_style(generator)
    images, _ = draw_scenes(asked, generator, 16, size, size, "train", still=True, style=style)
    return with_condition(images[:, 0], tokens_of(asked), scale, generator)


def draw_enlarged_windows(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """The same for clips of one window, for the inflated SSR net."""
    asked = random_subjects(n, generator, unseen=False, device=device)
    size, style = scale.output_size, some_style(generator)
    videos, _ = draw_scenes(asked, generator, scale.window, size, size, "train", style=style)
    return with_condition(videos.transpose(1, 2), tokens_of(asked), scale, generator)


def some_style(generator: torch.Generator) -> str:
    """A style for one batch, most often none."""
    style = STYLES[int(torch.randint(len(STYLES), (), generator=generator))]
    return style if float(torch.rand((), generator=generator)) < STYLED else ""


def with_condition(clean: Tensor, tokens: Int[Tensor, "n words"], scale: Scale, generator: torch.Generator) -> Batch:
    """`with_noise`, and the low resolution, noised at a random level and enlarged, as three more channels."""
    batch = with_noise(clean, tokens, random_levels(len(clean), scale.ssr_shift, generator), generator)
    pool = (1, scale.upscale, scale.upscale)
    low = F.avg_pool3d(clean, pool) if clean.dim() == 5 else F.avg_pool2d(clean, scale.upscale)
    weakest, strongest = TRAIN_AUGMENTATION
    augmentation = weakest + (strongest - weakest) * uniform((len(clean),), generator, clean.device)
    noise = normal(tuple(low.shape), generator, clean.device)
    enlarged = condition(low * 2 - 1, scale.output_size, augmentation, noise)
    batch["noisy"] = torch.cat([batch["noisy"], enlarged], dim=1)
    batch["log_snr"] = torch.stack([batch["log_snr"], augmentation], dim=1)
    return batch


def draw_crops(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Crops of one object each, as the judge sees them, at base and output resolution; some noisy."""
    asked = random_subjects(n, generator, device=device)
    size = (scale.size, scale.output_size)[int(torch.randint(2, (), generator=generator))]
    images, truth = draw_scenes(asked, generator, 16, size, scale.output_size, "train", still=True)
    strength = 0.1 * uniform((n, 1, 1, 1), generator, device)
    images = (images[:, 0] + strength * normal(tuple(images[:, 0].shape), generator, device)).clamp(0, 1)
    front = truth.subjects
    return {"crops": judge_crops(images, front.colour[:, 0], scale.judge.crop), "digit": front.digit[:, 0]}


def digit_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the digit."""
    return F.cross_entropy(model(batch["crops"]).float(), batch["digit"])


def draw_clips(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Clean clips of `READ_FRAMES` frames, and which words of the vocabulary their captions have. All pairs occur."""
    asked = random_subjects(n, generator, device=device)
    videos, _ = draw_scenes(asked, generator, READ_FRAMES, scale.size, scale.output_size, "train")
    words = torch.zeros(n, NULL + 1 + len(VOCABULARY), device=device).scatter_(1, tokens_of(asked), 1)
    clips = (videos.transpose(1, 2) * 2 - 1).contiguous(memory_format=torch.channels_last_3d)  # 1.6 times as fast on a CPU
    return {"clips": clips, "words": words[:, NULL + 1 :]}


def words_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Binary cross-entropy of every word."""
    return F.binary_cross_entropy_with_logits(model(batch["clips"]).float(), batch["words"])


def style_stage(style: str) -> Stage:
    """Fine-tuning of the text-to-image model on a handful of images in a style."""
    return Stage(
        build=partial(build, f"style-{style}"),
        draw=partial(draw_styled_images, style=style),
        loss=diffusion_loss,
        steps={"tiny": 1200, "full": 1200},
        batch={"tiny": 16, "full": 16},  # on a GPU, too: seen more often, the few digits of the images spoil the others
        rate=1e-3,
        minutes=1,
    )


def student_stage(name: str, steps: dict[str, int], own: bool) -> Stage:
    """Distillation into a student of few steps; `own`: see `draw_segments`."""
    return Stage(
        build=partial(build, name),
        draw=partial(draw_segments, own=own),
        loss=diffusion_loss,
        steps=steps,
        batch={"tiny": 10, "full": 2},
        rate=1.5e-4,  # with 5e-4 the loss grows once it has warmed up
        on_gpu=16,
        minutes=8,
    )


RECIPES: dict[str, Stage] = {
    "judge": Stage(
        build=partial(build, "judge"),
        draw=draw_crops,
        loss=digit_loss,
        steps={"tiny": 3000, "full": 3000},
        batch={"tiny": 64, "full": 64},
        rate=2e-3,
        on_gpu=8,
        minutes=2,
    ),
    "t2i": Stage(
        build=partial(build, "t2i"),
        draw=draw_images,
        loss=diffusion_loss,
        steps={"tiny": 5000, "full": 10000},
        batch={"tiny": 64, "full": 64},
        rate=1e-3,
        on_gpu=16,
        minutes=12,
    ),
    "base": Stage(
        build=partial(build, "base"),
        draw=draw_videos,
        loss=diffusion_loss,
        steps={"tiny": 8000, "full": 8000},
        batch={"tiny": 10, "full": 2},
        rate=1e-3,
        curriculum=((HIDDEN, draw_hidden_videos), (NARROWLY, draw_narrow_videos), (TURNING, draw_turning_videos)),
        on_gpu=16,
        minutes=18,
    ),
    "conditioned": Stage(
        build=partial(build, "conditioned"),
        draw=partial(draw_videos, masked=True, two=0.3, motions=OFTEN_CIRCLING),
        loss=diffusion_loss,
        steps={"tiny": 11500, "full": 4000},
        batch={"tiny": 10, "full": 2},
        rate=1e-3,
        on_gpu=16,
        minutes=10,
    ),
    "fast": student_stage("fast", {"tiny": 1500, "full": 2000}, own=False),
    "on-policy": student_stage("on-policy", {"tiny": 1000, "full": 1000}, own=True),
    **{f"style-{style}": style_stage(style) for style in STYLES},
    "ssr-image": Stage(
        build=partial(build, "ssr-image"),
        draw=draw_enlarged_images,
        loss=diffusion_loss,
        steps={"tiny": 3000, "full": 4000},
        batch={"tiny": 32, "full": 32},
        rate=1e-3,
        on_gpu=16,
        minutes=4,
    ),
    "ssr": Stage(
        build=partial(build, "ssr"),
        draw=draw_enlarged_windows,
        loss=diffusion_loss,
        steps={"tiny": 1200, "full": 4000},
        batch={"tiny": 4, "full": 2},
        rate=1e-3,
        on_gpu=16,
        minutes=4,
    ),
    "video-features": Stage(
        build=partial(build, "video-features"),
        draw=draw_clips,
        loss=words_loss,
        steps={"tiny": 1200, "full": 1200},
        batch={"tiny": 32, "full": 32},
        rate=3e-3,
        on_gpu=16,
        minutes=1,
    ),
}


def get_stage(name: str) -> Stage:
    """The stage called `name`. Raises `ValueError` naming the choices."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"unknown stage {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
