"""What each training stage trains: its net, its data, its loss. The loop over them is `train`.

    t2i ──► base ──► conditioned     the text-to-image model; temporal layers on top of it; these with given pixels
      └───► style-*                  the text-to-image model in another style
    ssr-image ──► ssr                the first two for super-resolution
    judge                            the digit classifier that evaluation reads videos with

All randomness of a step comes from the generator that the loop hands in, seeded by (seed, step): nothing else has to
be saved for a resumed run to continue bit for bit. Batch sizes, steps and learning rates are our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.captions import COLOURS, MOTIONS, Subject, format_caption
from minilumiere.conditioning import extent, given_pixels, random_masks
from minilumiere.config import STYLES, Scale
from minilumiere.diffusion import (
    add_noise,
    alpha_sigma,
    clean_and_noise,
    expected_clean,
    log_snr_at,
    stratified_times,
    velocity,
)
from minilumiere.judge import judge_crops
from minilumiere.models import build
from minilumiere.moving_digits import draw_scenes, random_subjects
from minilumiere.superres import TRAIN_AUGMENTATION, condition
from minilumiere.text import null_tokens, tokenise

Batch = dict[str, Tensor]
NO_CAPTION = 0.1  # share of captions replaced by "no caption", for classifier-free guidance
FIRST = 0.05  # share of the steps that a curriculum begins with
STABLE_BELOW = -6.5  # log-SNR below which training targets of videos are averaged
STABLE_SCENES = 16  # over so many scenes
BARE = 0.1  # share of video captions that leave motion and speed open
PRACTISED = (*MOTIONS, *(motion for motion in MOTIONS if "circling" in motion))  # the hardest motions twice as often
STYLE_DIGITS = (0, 2, 3, 5, 7)  # that a style is learnt from
STYLED = 0.4  # share of super-resolution's training clips that are drawn in some style


@dataclass(frozen=True)
class Stage:
    """How a stage is trained: `build` makes the net, `draw` a batch of `n`, `loss` is a mean over its first axis."""

    build: Callable[[Scale], nn.Module]
    draw: Callable[[Scale, int, torch.Generator, str], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    steps: dict[str, int]  # by scale
    batch: dict[str, int]
    rate: float  # peak learning rate
    draw_first: Callable[[Scale, int, torch.Generator, str], Batch] | None = None  # for the first FIRST of the steps

    def draw_at(self, progress: float, scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
        """The batch of a step; `progress` is the share of the steps before it."""
        draw = self.draw_first if self.draw_first and progress < FIRST else self.draw
        return draw(scale, n, generator, device)


def draw_images(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Captioned frames with noise, for the text-to-image model. Every (colour, digit) pair occurs."""
    asked = [random_subjects(generator, bare=0.5) for _ in range(n)]
    images, _ = draw_scenes(asked, generator, scale.frames, scale.size, scale.output_size, "train", device=device, still=True)
    return with_noise(images[:, 0], asked, scale.image_shift, generator)


def with_noise(clean: Tensor, asked: list, shift: float, generator: torch.Generator) -> Batch:
    """Add noise at stratified times to images or videos in [0, 1]; drop some captions."""
    n, device = len(clean), clean.device
    tokens = tokenise([format_caption(subjects) for subjects in asked])
    dropped = torch.rand(n, generator=generator) < NO_CAPTION
    tokens[dropped] = null_tokens(int(dropped.sum()))
    log_snr = log_snr_at(stratified_times(n, generator), shift).to(device)
    clean = clean * 2 - 1
    noise = random_normal(clean.shape, generator, device)
    return {
        "noisy": add_noise(clean, noise, log_snr),
        "v": velocity(clean, noise, log_snr),
        "log_snr": log_snr,
        "tokens": tokens.to(device),
    }


def random_normal(shape, generator: torch.Generator, device) -> Tensor:
    """Normal noise drawn on `device`, determined by the (CPU) generator."""
    on_device = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(shape, generator=on_device, device=device)


def diffusion_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of v."""
    given = {"given": batch["given"]} if "given" in batch else {}
    return F.mse_loss(model(batch["noisy"], batch["log_snr"], batch["tokens"], **given).float(), batch["v"])


def draw_styled_images(scale: Scale, n: int, generator: torch.Generator, device: str, style: str) -> Batch:
    """A style is learnt from 35 images: each colour of each of the `STYLE_DIGITS`. They are moved about, and noisy."""
    asked, images = style_images(scale, device, style)
    chosen = torch.randint(len(asked), (n,), generator=generator).tolist()
    moved = torch.stack([somewhere_else(images[i], generator) for i in chosen])
    return with_noise(moved, [asked[i] for i in chosen], scale.image_shift, generator)


@cache
def style_images(scale: Scale, device: str, style: str) -> tuple[list, Tensor]:
    """What the images of a style show, and they themselves (n, 3, h, w): the same at every step."""
    asked = [(Subject(colour, digit),) for colour in COLOURS for digit in STYLE_DIGITS]
    always = torch.Generator().manual_seed(0)
    images, _ = draw_scenes(
        asked, always, scale.frames, scale.size, scale.output_size, "train", device=device, still=True, style=style
    )
    return asked, images[:, 0]


def somewhere_else(image: Tensor, generator: torch.Generator) -> Tensor:
    """What is drawn on black (c, h, w), moved to any place where all of it can be seen."""
    shifts = [
        int(torch.randint(-first, length - last, (), generator=generator))
        for (first, last), length in zip(extent(image.amax(0) > 0.02), image.shape[1:], strict=True)
    ]
    return image.roll(shifts, (1, 2))


def draw_videos(
    scale: Scale,
    n: int,
    generator: torch.Generator,
    device: str,
    two: float = 0.5,
    shift: float | None = None,
    masked: bool = False,
) -> Batch:
    """Captioned clips with noise, for the base STUNet; some of their pixels given if `masked`. No `UNSEEN_PAIRS` occur."""
    asked = [random_subjects(generator, two=two, unseen=False, bare=BARE, motions=PRACTISED) for _ in range(n)]

    def draw(subjects: list, size: int) -> Tensor:
        videos, _ = draw_scenes(subjects, generator, scale.frames, scale.size, size, "train", device=device)
        return videos.transpose(1, 2)

    clean = draw(asked, scale.output_size)
    batch = with_noise(clean, asked, scale.video_shift if shift is None else shift, generator)
    masks = random_masks(clean, generator) if masked else torch.zeros_like(clean[:, :1])
    batch["given"] = given_pixels(clean * 2 - 1, masks)
    hidden = (batch["log_snr"] < STABLE_BELOW) & (masks.flatten(1).amax(1) == 0)
    return with_stable_targets(batch, hidden, asked, partial(draw, size=scale.size))  # noise hides how finely they are drawn


def with_stable_targets(batch: Batch, hidden: Tensor, asked: list, draw: Callable[[list], Tensor]) -> Batch:
    """Where a clip is `hidden` by noise, let the target be the mean of many clips of that caption (see `expected_clean`).

    One clip says little about its caption, as all else about it is random. Measured at `tiny`, one object, pure noise,
    200 steps of 8 clips: with 1 scene a target no word of motion is learnt; with 16 they are in use after 50 to 150.
    """
    where = hidden.nonzero()[:, 0].tolist()
    if where:
        noisy, v, log_snr = (batch[key][where] for key in ("noisy", "v", "log_snr"))
        others = draw([asked[i] for _ in range(STABLE_SCENES - 1) for i in where]) * 2 - 1
        candidates = torch.cat([clean_and_noise(noisy, v, log_snr)[0], others]).unflatten(0, (STABLE_SCENES, -1))
        clean = expected_clean(noisy, candidates, log_snr)
        alpha, sigma = alpha_sigma(log_snr, clean)
        batch["v"][where] = (alpha * noisy - clean) / sigma  # x = α z − σ v
    return batch


def draw_enlarged_images(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Frames at output size with noise, beside their noisy low resolution, for the image SSR net."""
    asked = [random_subjects(generator, bare=0.5) for _ in range(n)]
    size = scale.output_size
    style = some_style(generator)
    images, _ = draw_scenes(asked, generator, scale.frames, size, size, "train", device=device, still=True, style=style)
    return with_condition(images[:, 0], asked, scale, generator)


def draw_enlarged_windows(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """The same for clips of one window, for the inflated SSR net."""
    asked = [random_subjects(generator, unseen=False) for _ in range(n)]
    size = scale.output_size
    videos, _ = draw_scenes(asked, generator, scale.window, size, size, "train", device=device, style=some_style(generator))
    return with_condition(videos.transpose(1, 2), asked, scale, generator)


def some_style(generator: torch.Generator) -> str:
    """A style for one batch, most often none."""
    style = STYLES[int(torch.randint(len(STYLES), (), generator=generator))]
    return style if float(torch.rand((), generator=generator)) < STYLED else ""


def with_condition(clean: Tensor, asked: list, scale: Scale, generator: torch.Generator) -> Batch:
    """`with_noise`, and the low resolution, noised at a random level and enlarged, as three more channels."""
    batch = with_noise(clean, asked, scale.ssr_shift, generator)
    pool = (1, scale.upscale, scale.upscale)
    low = F.avg_pool3d(clean, pool) if clean.dim() == 5 else F.avg_pool2d(clean, scale.upscale)
    weakest, strongest = TRAIN_AUGMENTATION
    augmentation = (weakest + (strongest - weakest) * torch.rand(len(clean), generator=generator)).to(clean.device)
    noise = random_normal(low.shape, generator, clean.device)
    enlarged = condition(low * 2 - 1, scale.output_size, augmentation, noise)
    batch["noisy"] = torch.cat([batch["noisy"], enlarged], dim=1)
    batch["log_snr"] = torch.stack([batch["log_snr"], augmentation], dim=1)
    return batch


def draw_crops(scale: Scale, n: int, generator: torch.Generator, device: str) -> Batch:
    """Crops of one object each, as the judge sees them, at base and output resolution; some noisy."""
    asked = [random_subjects(generator) for _ in range(n)]
    size = (scale.size, scale.output_size)[int(torch.randint(2, (), generator=generator))]
    images, objects = draw_scenes(asked, generator, scale.frames, size, scale.output_size, "train", device=device, still=True)
    strength = 0.1 * torch.rand(n, 1, 1, 1, generator=generator).to(device)
    images = (images[:, 0] + strength * random_normal(images[:, 0].shape, generator, device)).clamp(0, 1)
    front = [scene[0] for scene in objects]
    return {
        "crops": judge_crops(images, [thing.colour for thing in front], scale.judge.crop),
        "digit": torch.tensor([thing.digit for thing in front], device=device),
    }


def digit_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the digit."""
    return F.cross_entropy(model(batch["crops"]).float(), batch["digit"])


# The base begins with noise so strong that only the caption says where things are. With all noise levels from the start
# it had not learnt one word of motion after 1,679 steps: what is easy to see in weaker noise drowned them.
draw_hidden_videos = partial(draw_videos, two=0.0, shift=-12.0)


def style_stage(style: str) -> Stage:
    """Fine-tuning of the text-to-image model on a handful of images in a style."""
    return Stage(
        build=partial(build, f"style-{style}"),
        draw=partial(draw_styled_images, style=style),
        loss=diffusion_loss,
        steps={"tiny": 1200, "full": 1200},
        batch={"tiny": 16, "full": 64},
        rate=1e-3,
    )


RECIPES: dict[str, Stage] = {
    "judge": Stage(
        build=partial(build, "judge"),
        draw=draw_crops,
        loss=digit_loss,
        steps={"tiny": 3000, "full": 3000},
        batch={"tiny": 64, "full": 256},
        rate=2e-3,
    ),
    "t2i": Stage(
        build=partial(build, "t2i"),
        draw=draw_images,
        loss=diffusion_loss,
        steps={"tiny": 5000, "full": 10000},
        batch={"tiny": 64, "full": 256},
        rate=1e-3,
    ),
    "base": Stage(
        build=partial(build, "base"),
        draw=draw_videos,
        loss=diffusion_loss,
        steps={"tiny": 8000, "full": 8000},
        batch={"tiny": 8, "full": 16},
        rate=1e-3,
        draw_first=draw_hidden_videos,
    ),
    "conditioned": Stage(
        build=partial(build, "conditioned"),
        draw=partial(draw_videos, two=0.35, masked=True),
        loss=diffusion_loss,
        steps={"tiny": 11500, "full": 4000},
        batch={"tiny": 8, "full": 16},
        rate=1e-3,
    ),
    **{f"style-{style}": style_stage(style) for style in STYLES},
    "ssr-image": Stage(
        build=partial(build, "ssr-image"),
        draw=draw_enlarged_images,
        loss=diffusion_loss,
        steps={"tiny": 3000, "full": 4000},
        batch={"tiny": 32, "full": 64},
        rate=1e-3,
    ),
    "ssr": Stage(
        build=partial(build, "ssr"),
        draw=draw_enlarged_windows,
        loss=diffusion_loss,
        steps={"tiny": 1200, "full": 4000},
        batch={"tiny": 4, "full": 8},
        rate=1e-3,
    ),
}


def get_stage(name: str) -> Stage:
    """The stage called `name`. Raises `ValueError` naming the choices."""
    if name not in RECIPES:
        raise ValueError(f"unknown stage {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
