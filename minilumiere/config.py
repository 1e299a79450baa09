"""Sizes of every model and clip: frozen dataclasses, and the two presets `tiny` and `full`.

Nothing else in the package holds a size. The paper discloses almost none of these numbers (it gives 80 frames at
16 fps, 128x128 base and 1024x1024 output): unless a comment says otherwise they are our choice.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

_HERE = Path(__file__).parent
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parent / "data"  # in an installed wheel; in a checkout

VERSION = "0.1.0"
STYLES = ("outline", "dotted", "neon")
# Of training, in an order in which they can be trained.
STAGES = (
    "judge",
    "t2i",
    "base",
    "conditioned",
    "fast",
    "on-policy",
    "ssr-image",
    "ssr",
    *(f"style-{style}" for style in STYLES),
    "video-features",
)
FORMAT_VERSION = 1  # of checkpoints; raised whenever an old file can no longer be read


@dataclass(frozen=True)
class UNetConfig:
    """One U-Net: the text-to-image model, or the image super-resolution model."""

    in_channels: int = 3  # 3 = the noisy image; 6 = noisy image beside the enlarged low-resolution one
    patch: int = 2  # the stem folds patch x patch pixels into channels (pixel_unshuffle)
    channels: tuple[int, ...] = (64, 96, 96)  # one entry a level, finest first
    attention: tuple[bool, ...] = (False, True, True)  # self- and cross-attention at this level?
    heads: int = 4
    embedding: int = 128  # width of the noise-level and caption embedding that scales and shifts every block
    floor: float = 0.0  # 0: the net predicts v; else clean data (see `diffusion.velocity_of_guess`), where channels are few
    noise_levels: int = 1  # noise levels given to the net: 1, or 2 where the conditioning image is noisy too
    text_width: int = 96
    text_layers: int = 2


@dataclass(frozen=True)
class JudgeConfig:
    """The digit classifier of the judge."""

    crop: int = 28  # pixels of the square crop that it reads
    channels: tuple[int, ...] = (16, 32, 64)


@dataclass(frozen=True)
class FeaturesConfig:
    """The space-time net whose features a Fréchet video distance compares."""

    channels: tuple[int, ...] = (16, 48, 64)  # one entry a level; the last is the number of features


@dataclass(frozen=True)
class Scale:
    """Everything that differs between `tiny` (laptop, CI) and `full` (one GPU)."""

    name: str
    frames: int  # of a clip, unless asked for otherwise; the paper: 80
    fps: int  # frames a second of a saved clip; the paper: 16
    size: int  # pixels of the base clip's side
    upscale: int  # super-resolution factor
    window: int  # frames T' of a super-resolution window (not disclosed)
    overlap: int  # frames shared by neighbouring windows; the paper: 2
    t2i: UNetConfig
    ssr: UNetConfig
    lengths: tuple[int, ...] = (16, 32, 48, 64, 80)  # frames of the clips that the base is trained on, one a batch
    halvings: int = 2  # times that the base STUNet halves the frames: its temporal factor is 2 ** halvings
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    image_shift: float = -2.0  # log-SNR shifts towards noise: redundant data (large, or many frames) needs more
    video_shift: float = -5.0  # of 16 frames; see `shift_of`
    ssr_shift: float = -2.0
    steps: int = 14  # default sampling steps of the base model
    order: int = 2  # of its sampler (see `diffusion.denoise_along`); tests/benchmarks/README.md compares them
    renewed: float = 0.0  # share of the noise that is drawn anew after its later steps (see `sampler_of`)
    ssr_steps: int = 4
    tail: int = 3  # of either's steps: small ones at the end (see `diffusion.schedule`); without, speckle is left on the black
    guidance: float = 3.0  # default classifier-free guidance weight (1 = none)
    image_guidance: float = 3.0  # the image net's beside it, of single objects (see `appearance`)
    image_share: float = 1.0  # of the image net's word in clips, 0 to 1
    t2i_guidance: float = 4.5  # of the image net alone: of two objects, both digits are then right more often
    power: float = 1.0  # of the times of sampling (see `diffusion.schedule`)
    ssr_power: float = 1.0  # the same of super-resolution
    reach: float = 1.0  # of a few-step student's first step: training ends at 1, and it may go farther (see `nets.student`)

    def shift_of(self, frames: int) -> float:
        """The base's log-SNR shift for a clip of so many frames: as many times as there are frames, so much more noise.

        The frames of a clip show the same things: together they show through noise that hides each one alone.
        """
        return self.video_shift - math.log(frames / 16)

    def sampler_of(self, frames: int) -> dict[str, float]:
        """How steps of a clip of so many frames are taken: options of `diffusion.denoise_along`.

        A share of the noise is drawn anew in the later half of the schedule's time (the shift is the log-SNR in its middle):
        what comes before settles where things go and how fast, and new noise there makes clips alike (docs/experiments.md).
        The second order compares x̂ with that of the step before, which is of other noise then: new noise goes with the first.
        """
        order = 1 if self.renewed > 0 else self.order
        return {"order": order, "renewed": self.renewed, "renewed_from": self.shift_of(frames)}

    def few_steps(self) -> "Scale":
        """The same, sampled by a student of few steps (see `training.distill`), which holds its guidance.

        The image net guides beside that, a little. Three quarters of the noise are drawn anew after each step but the first,
        which forgets what went wrong in it: more clips keep their digit, and their paces vary as the teacher's
        (docs/experiments.md). After the churn of Karras et al. 2022; our choice.
        """
        return replace(
            self,
            steps=4,
            order=1,
            renewed=0.75,
            tail=0,
            power=2.0,
            guidance=1.0,
            image_guidance=1.0,
            ssr_steps=2,
            ssr_power=2.0,
            reach=2.0,
        )

    @property
    def output_size(self) -> int:
        """Pixels of the super-resolved clip's side; also the resolution at which scenes are drawn."""
        return self.size * self.upscale

    @property
    def temporal_factor(self) -> int:
        """Frames of a clip must be divisible by this."""
        return 2**self.halvings


_TINY_SSR = UNetConfig(
    in_channels=6,
    patch=4,
    channels=(32, 48, 48),
    attention=(False, False, False),
    embedding=64,
    floor=0.05,  # a patch of 4x4 pixels has noise of 48 numbers, and the finest level 32 channels
    noise_levels=2,
    text_width=32,
    text_layers=1,
)
SCALES = {
    "tiny": Scale("tiny", 16, 16, 32, 4, window=9, overlap=2, t2i=UNetConfig(), ssr=_TINY_SSR),
    "full": Scale(
        "full",
        80,
        16,
        32,
        4,
        window=15,
        overlap=2,
        t2i=UNetConfig(channels=(96, 160, 224), embedding=256, text_width=128),
        ssr=replace(_TINY_SSR, channels=(64, 96, 128), embedding=192),
        lengths=(16, 80, 80),  # with long clips only, "clockwise" and "anticlockwise" become one word (docs/experiments.md)
        ssr_shift=-3.0,
        steps=20,
        renewed=0.9,  # straighter paths and steadier digits, for some variety (docs/experiments.md)
        image_guidance=4.0,
    ),
}


OFF = ("", "0", "false", "no", "off", "n", "f", "none", "disable", "disabled")


def smoking() -> bool:
    """Is `MINILUMIERE_SMOKE` on? The usual words for off, in any case, are off."""
    return os.environ.get("MINILUMIERE_SMOKE", "").strip().lower() not in OFF


def smoke(steps: int) -> int:
    """Few steps of training or sampling under `MINILUMIERE_SMOKE=1`, so that notebooks run in CI; else `steps`."""
    return min(steps, 4) if smoking() else steps


def get_scale(name: str) -> Scale:
    """The preset called `name`. Raises `ValueError` naming the choices."""
    if not isinstance(name, str) or name not in SCALES:
        raise ValueError(f"unknown scale {name!r}: choose one of {', '.join(SCALES)}")
    return SCALES[name]


def architecture(stage: str, scale: Scale) -> dict:
    """What a checkpoint of a training stage must agree with, as JSON values. Raises `ValueError` for an unknown stage."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    config, more = {
        "judge": (scale.judge, {}),
        "t2i": (scale.t2i, {"size": scale.size}),
        **dict.fromkeys(
            ("base", "conditioned", "fast", "on-policy"), (scale.t2i, {"size": scale.size, "halvings": scale.halvings})
        ),
        "ssr-image": (scale.ssr, {"size": scale.output_size}),
        "ssr": (scale.ssr, {"size": scale.output_size, "halvings": 0}),
        **{f"style-{style}": (scale.t2i, {"size": scale.size}) for style in STYLES},
        "video-features": (scale.features, {"size": scale.size}),
    }[stage]
    facts = asdict(config) | more
    if not facts.get("floor", 1.0):  # what predicts v is what it was before there was a floor
        del facts["floor"]
    return json.loads(json.dumps(facts))
