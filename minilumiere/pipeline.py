"""Use the trained models: text to video.

    caption ─► tokens ─► STUNet, all frames at once ─► base clip ─► SSR in windows ─► clip (T, 3, H, W) in [0, 1]
    given pixels, mask ──────┘        known pixels copied ┴───────────────────────┘

`load` puts the parts together from `data/weights`; nothing is downloaded. `Pipeline` has a method for each task: it says
which pixels are given, and leaves the rest to `_complete`, which samples and enlarges (`_sample`, `_enlarge`). Randomness:
the i-th clip of a call is drawn from seed + i alone, so it is the same whatever else the call makes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.config import Scale, get_scale, smoke
from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.chance import noises_of_seeds
from minilumiere.dataset.styles import check_style
from minilumiere.model.appearance import image_shares, with_drawing, with_image_net
from minilumiere.model.composition import sample_captions
from minilumiere.model.conditioning import given_pixels, shrink, still_clip, with_averages
from minilumiere.model.diffusion import MAX_LOG_SNR, Denoiser, add_noise, guided, sample, schedule
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import DEFAULT_ALPHA, DEFAULT_STRENGTH, STYLED_FROM, plain_until, with_style
from minilumiere.model.superres import super_resolve
from minilumiere.model.text import null_tokens, tokenise
from minilumiere.model.unet import UNet
from minilumiere.torch_state import pinned
from minilumiere.validate import check_device, check_flag, check_mask, check_number, check_number_or_none, check_video
from minilumiere.viz.files import read_image
from minilumiere.weights.nets import student, trained


@pinned()
def load(scale: str = "tiny", device: str | torch.device | None = None, fast: bool = False) -> "Pipeline":
    """The trained pipeline of a scale, on `device` (default: cuda where there is one, else cpu); `fast`: the few-step student.

    Raises `ValueError` for an unknown scale, an absent device or damaged weights, `FileNotFoundError` for a net not trained.
    """
    preset, device, fast = get_scale(scale), check_device(device), check_flag(fast, "fast")
    return Pipeline(preset, student(preset) if fast else trained("base", preset), trained("ssr", preset), device, student=fast)


@dataclass
class Sampling:
    """How clips are sampled. Raises `ValueError` or `TypeError` for a number outside its range, or no truth value."""

    steps: int | None = None  # of the base sampler, 1 to 1000; None: the scale's
    guidance: float | None = None  # weight, 0 to 20 (0 = no caption, 1 = no guidance); None: the scale's
    super_resolution: bool = True  # else the base clip
    progress: bool = False  # show bars
    copy_known: bool = True  # given pixels come back as they are; else as the net makes them
    frames: int | None = None  # of a clip that is not given, 1 to 10,000; None: the scale's
    start: float | None = None  # diffusion time: from what noise leaves of the given clip; None: from noise alone

    def __post_init__(self):
        self.steps = check_number_or_none(self.steps, "steps", 1, 1000, int)
        self.guidance = check_number_or_none(self.guidance, "guidance", 0, 20)
        self.frames = check_number_or_none(self.frames, "frames", 1, 10_000, int)
        for name in ("super_resolution", "progress", "copy_known"):
            setattr(self, name, check_flag(getattr(self, name), name))


class Pipeline:
    """The trained models of one scale: `base` (STUNet), `t2i` (inside it), `ssr`. Made by `load`.

    A caption makes a clip (T, 3, H, W) in [0, 1]; a list of N captions makes clips (N, T, 3, H, W), and whatever is given
    with it has N, too. The arguments that tasks share: `steps` of the base sampler, 1 to 1000 (few have one more, see
    `with_drawing`); `guidance` weight, 0 (as if there were no caption; 1 = no guidance) to 20, of all nets; `frames`, a
    multiple of the temporal factor; `super_resolution=False` for the base clip; `progress=True` for bars. Defaults: the
    scale's. Tasks raise `ValueError` or `TypeError` for a bad caption, image, video or mask, an argument outside its range,
    or guidance of a few-step student.
    """

    def __init__(
        self, scale: Scale, base: STUNet, ssr: STUNet, device: torch.device,
        plain: STUNet | None = None, styled_from: float = STYLED_FROM, student: bool = False,
    ):  # fmt: skip
        self.scale, self.device, self.student = scale, device, student
        self.base, self.ssr = base.to(device).eval(), ssr.to(device).eval()
        self.t2i: UNet = base.t2i
        self.plain, self.styled_from = plain, styled_from  # in a style, `plain` answers below this log-SNR, else `base`

    @pinned()
    def generate(
        self, caption: str | list[str], seed: int = 0, *,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        super_resolution: bool = True, progress: bool = False,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """A clip of a caption."""
        how, size = Sampling(steps, guidance, super_resolution, progress, frames=frames), self.scale.size
        nothing = torch.zeros(len(self._captions(caption)), how.frames or self.scale.frames, 4, size, size)
        return self._complete(nothing[:, :, :3], nothing[:, :, 3:], caption, seed, how)

    @pinned()
    @torch.no_grad()
    def generate_image(
        self, caption: str | list[str], seed: int = 0, *, steps: int | None = None, guidance: float | None = None
    ) -> Float[Tensor, "*n 3 h w"]:
        """An image (3, h, w) in [0, 1] by the text-to-image model alone; or images of a list of captions."""
        how, tokens, size = Sampling(steps, guidance), tokenise(self._captions(caption)).to(self.device), self.scale.size
        guidance = self.scale.t2i_guidance if how.guidance is None else how.guidance
        denoise, noise = self._denoiser(self.t2i, tokens, guidance), next(self._noises((3, size, size), len(tokens), seed))
        levels = {"steps": how.steps or smoke(self.scale.steps), "shift": self.scale.image_shift, "tail": self.scale.tail}
        images = _to_unit(sample(denoise, noise, **levels, order=self.scale.order))
        return images[0] if isinstance(caption, str) else images

    @pinned()
    def inpaint(
        self, video: Tensor, mask: Tensor, caption: str | list[str], seed: int = 0, *,
        steps: int | None = None, guidance: float | None = None,
        super_resolution: bool = True, progress: bool = False, copy_known: bool = True,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """Generate what is missing of a clip. Where pixels are given, they come back exactly as they are.

        Args: `video` (T, 3, H, W) in [0, 1] of output or base size; `mask`, 1 = given, 0 = generate, broadcastable to
        (T, 1, H, W); `copy_known=False` for what the net makes of given pixels, which is near them but not the same. Given at
        base size and enlarged, the area averages are what was given.
        """
        how = Sampling(steps, guidance, super_resolution, progress, copy_known)
        video = self._check(video, "video", caption, None)
        mask = check_mask(mask, "mask", (*video.shape[:-3], 1, *video.shape[-2:]))
        return self._complete(video, mask, caption, seed, how)

    @pinned()
    def image_to_video(
        self, image: Tensor | str | Path, caption: str | list[str], seed: int = 0, *,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        super_resolution: bool = True, progress: bool = False, copy_known: bool = True,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """A clip that begins with an image: (3, H, W) in [0, 1] of output or base size, or an image file of that size.

        `copy_known`: see `inpaint`. Raises `OSError` for a file that cannot be read.
        """
        how = Sampling(steps, guidance, super_resolution, progress, copy_known, frames=frames)
        return self._animate(image, torch.ones(1, 1, 1), caption, seed, how)

    @pinned()
    def cinemagraph(
        self, image: Tensor | str | Path, region: Tensor, caption: str | list[str], seed: int = 0, *,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        super_resolution: bool = True, progress: bool = False, copy_known: bool = True,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """An image that moves within a region, (1, H, W) or broadcastable to it, 1 = animated. See `image_to_video`."""
        how = Sampling(steps, guidance, super_resolution, progress, copy_known, frames=frames)
        return self._animate(image, region, caption, seed, how)

    @pinned()
    def in_style(self, style: str, alpha: float | None = None, styled_from: float = STYLED_FROM) -> "Pipeline":
        """The same pipeline with styled spatial weights: α of the style, 1 - α of the original (default: the style's own α).

        They are used from a log-SNR on, -15 to 15 (-15, `FROM_THE_START`: as in the paper), and always for the last step;
        until then the original ones. Images have no motion to lose, and are styled from the start.
        The image net guides frames the less, from α = 0.5 on not at all: it would hold the motion. Only a student draws noise
        anew: thin strokes vanish in it. Raises `ValueError` for an unknown style, a number out of range, a pipeline in a style.
        """
        if self.plain is not None:
            raise ValueError("this pipeline is in a style already: begin with a plain one")
        own_alpha = DEFAULT_ALPHA[check_style(style)]
        alpha = own_alpha if alpha is None else check_number(alpha, "alpha", 0, 1)
        styled_from = check_number(styled_from, "styled_from", -MAX_LOG_SNR, MAX_LOG_SNR)
        base = with_style(self.base, trained(f"style-{style}", self.scale), alpha)
        share = self.scale.image_share * max(0.0, 1 - 2 * alpha)
        scale = replace(self.scale, image_share=share, renewed=self.scale.renewed * (alpha == 0))
        return Pipeline(scale, base, self.ssr, self.device, self.base, styled_from, self.student)

    @pinned()
    def stylize(
        self, caption: str | list[str], style: str, alpha: float | None = None, seed: int = 0,
        styled_from: float = STYLED_FROM, *,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        super_resolution: bool = True, progress: bool = False,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """A clip of a caption in a style; see `in_style`."""
        options = {"steps": steps, "guidance": guidance, "super_resolution": super_resolution, "progress": progress}
        return self.in_style(style, alpha, styled_from).generate(caption, seed, frames=frames, **options)

    @pinned()
    def restyle(
        self, video: Tensor, caption: str | list[str], style: str, strength: float = DEFAULT_STRENGTH,
        alpha: float | None = None, seed: int = 0, *,
        steps: int | None = None, guidance: float | None = None, super_resolution: bool = True, progress: bool = False,
    ) -> Float[Tensor, "*n t 3 h w"]:  # fmt: skip
        """Draw a clip (T, 3, H, W) in [0, 1] of output or base size anew in a style, with its motion (SDEdit).

        Noise is added up to diffusion time `strength`, 0.01 to 1, and taken away with the styled weights: the weaker, the
        more of the clip stays. `alpha`: see `in_style`.
        """
        how = Sampling(steps, guidance, super_resolution, progress, start=check_number(strength, "strength", 0.01, 1))
        video = self._check(video, "video", caption, None)
        return self.in_style(style, alpha)._complete(video, torch.zeros_like(video[..., :1, :, :]), caption, seed, how)

    @pinned()
    def upscale(self, video: Float[Tensor, "t 3 h w"], caption: str, seed: int = 0) -> Float[Tensor, "t 3 H W"]:
        """Super-resolve a base clip (T, 3, h, w) in [0, 1]."""
        video = check_video(video, "video", (None, 3, self.scale.size, self.scale.size))
        low = (video.to(self.device) * 2 - 1).transpose(0, 1)[None]
        return _to_unit(self._enlarge(low, [caption], torch.tensor([0]), seed, Sampling()))[0].transpose(0, 1)

    def _animate(
        self, image: Tensor | str | Path, region: Tensor, caption: str | list[str], seed: int, how: Sampling
    ) -> Float[Tensor, "*n t 3 H W"]:
        """Give an image on frame 0, and outside a region on all frames."""
        image = read_image(image, (self.scale.output_size, self.scale.size)) if isinstance(image, str | Path) else image
        image = self._check(image, "image", caption)
        region = check_mask(region, "region", (*image.shape[:-3], 1, *image.shape[-2:]))
        return self._complete(*still_clip(image, region, how.frames or self.scale.frames), caption, seed, how)

    @torch.no_grad()
    def _complete(
        self, video: Float[Tensor, "*n t 3 H W"], mask: Float[Tensor, "*n t 1 H W"],
        caption: str | list[str], seed: int, how: Sampling,
    ) -> Float[Tensor, "*n t 3 H W"]:  # fmt: skip
        """Sample and enlarge what the mask does not give of videos in [0, 1] of base or output size."""
        self.base.check_frames(video.shape[-4])
        captions = self._captions(caption)
        video, mask = (given.reshape(-1, *given.shape[-4:]).transpose(1, 2).to(self.device) for given in (video, mask))
        known, where = shrink(video * 2 - 1, mask, self.scale.size)  # n c t h w
        result = _to_unit(self._sample(known, where, captions, seed, how))  # n 3 t H W
        if how.copy_known and mask.any() and video.shape[-1] <= result.shape[-1]:
            result = with_averages(result, video, mask)
        clips = result.transpose(1, 2)
        return clips[0] if isinstance(caption, str) else clips

    def _sample(
        self, known: Float[Tensor, "n 3 t h w"], where: Float[Tensor, "n 1 t h w"],
        captions: list[str], seed: int, how: Sampling,
    ) -> Float[Tensor, "n 3 t H W"]:  # fmt: skip
        """Clips in [-1, 1], enlarged if asked. Of those that begin with nothing but noise, two objects are sampled apart."""
        given = given_pixels(known, where) if where.any() else None
        scale, start = self._sampled(), 1.0 if how.start is None else how.start
        steps, shift = how.steps or smoke(scale.steps), scale.shift_of(known.shape[2])
        levels = with_drawing(schedule(steps, shift, start, scale.tail, scale.power))
        noises = self._noises(known.shape[1:], len(captions), seed)  # the first, then fresh ones
        noisy = next(noises) if how.start is None else add_noise(known, next(noises), levels[:1].to(self.device))
        styled_from = min(self.styled_from, float(levels[-2]))  # the last step is styled

        def denoiser(parts: list[str], owner: Tensor) -> Denoiser:
            theirs = None if given is None else given[owner]
            return self._video_denoiser(parts, self._guidance(how), theirs, styled_from)

        def finish(clean: Tensor, parts: list[str], owner: Tensor) -> Tensor:
            clean = torch.where(where[owner] == 1, known[owner], clean) if how.copy_known else clean
            return self._enlarge(clean, parts, owner, seed, how) if how.super_resolution else clean

        apart = [how.start is None and not place.any() for place in where]
        sampler = scale.sampler_of(known.shape[2]) | {"progress": "base" * how.progress}
        return sample_captions(denoiser, noisy, captions, apart, levels, finish, noises, **sampler)

    def _sampled(self) -> Scale:
        """How clips are sampled: as the scale says, or in a student's few steps."""
        return self.scale.few_steps() if self.student else self.scale

    def _guidance(self, how: Sampling) -> float:
        if self.student and how.guidance not in (None, 1):
            raise ValueError(f"a few-step student has its guidance inside: leave guidance out, got {how.guidance}")
        return self._sampled().guidance if how.guidance is None else how.guidance

    def _denoiser(self, model, tokens: Tensor, guidance: float, **given) -> Denoiser:
        """A model with captions, given pixels and guidance, as the sampler calls it."""

        def of(words: Tensor) -> Denoiser:
            return lambda noisy, log_snr: model(noisy, log_snr, words, **given)

        without = of(null_tokens(len(tokens)).to(self.device))
        return guided(of(tokens), without, guidance) if guidance > 0 else without

    def _video_denoiser(self, captions: list[str], guidance: float, given: Tensor | None, styled_from: float) -> Denoiser:
        """The base model's denoiser; beside it the image net's word on clips of a single object (see `appearance`)."""
        tokens = tokenise(captions).to(self.device)
        denoise = self._denoiser(self.base, tokens, guidance, given=given)
        if self.plain is not None:
            denoise = plain_until(self._denoiser(self.plain, tokens, guidance, given=given), denoise, styled_from)
        scale = self._sampled()
        return with_image_net(denoise, self.t2i, tokens, image_shares(captions, guidance, scale), scale)

    @torch.no_grad()
    def _enlarge(
        self, low: Float[Tensor, "m 3 t h w"], captions: list[str], owner: Int[Tensor, " m"], seed: int, how: Sampling
    ) -> Float[Tensor, "m 3 t H W"]:
        """Clips in [-1, 1] at output size, part i with the noise of clip `owner[i]`. Guided up to weight 1: none above."""
        n, t, size, guidance = int(owner[-1]) + 1, low.shape[2], self.scale.output_size, min(self._guidance(how), 1.0)
        noise = next(self._noises((3, t, size, size), n, seed, 1))[owner]
        augmentation = next(self._noises(low.shape[1:], n, seed, 2))[owner]
        options = {"windows_per_call": None if self.device.type == "cuda" or t <= 32 else 1}
        options |= {"progress": "super-resolution" if how.progress else ""}

        def net(noisy: Tensor, log_snr: Tensor, tokens: Tensor) -> Tensor:
            return self._denoiser(self.ssr, tokens, guidance)(noisy, log_snr)

        return super_resolve(net, low, tokenise(captions).to(self.device), self._sampled(), noise, augmentation, **options)

    def _noises(self, shape: tuple[int, ...], n: int, seed: int, stream: int = 0) -> Iterator[Tensor]:
        seed = check_number(seed, "seed", 0, 2**60, int)
        return (noise.to(self.device) for noise in noises_of_seeds(shape, n, seed, stream))

    def _check(self, given: Tensor, name: str, caption: str | list[str], *frames: None) -> Float[Tensor, "*n 3 h w"]:
        """An image or (with `frames`) a video for a caption, or one for each of a list, of base or output size, checked."""
        many = () if isinstance(caption, str) else (len(self._captions(caption)),)
        small = (self.scale.size, self.scale.size)
        sides = small if isinstance(given, Tensor) and given.shape[-2:] == small else (self.scale.output_size,) * 2
        return check_video(given, name, (*many, *frames, 3, *sides), f" or of base size {small}" * (sides != small))

    def _captions(self, caption: str | list[str]) -> list[str]:
        """A list of captions, checked."""
        captions = [caption] if isinstance(caption, str) else caption
        if not isinstance(captions, list | tuple) or not captions:
            raise TypeError(f"give a caption or a list of captions, not {captions!r:.80}")
        for each in captions:
            parse_caption(each)
        return list(captions)


def _to_unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1)
