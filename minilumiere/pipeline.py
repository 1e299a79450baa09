"""Use the trained models: text to video.

    caption ─► tokens ─► STUNet, all frames at once ─► base clip ─► SSR in windows ─► clip (T, 3, H, W) in [0, 1]
    given pixels, mask ──────┘        known pixels copied ┴───────────────────────┘

`load` puts the parts together from `data/weights`; nothing is downloaded. Randomness: the i-th clip of a call is drawn
from seed + i alone, so it is the same whatever else the call makes.
"""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import Scale, get_scale, smoke
from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.styles import check_style
from minilumiere.model.appearance import with_image_guidance
from minilumiere.model.composition import sample_apart, take_apart
from minilumiere.model.conditioning import given_pixels, outside_region, shrink
from minilumiere.model.diffusion import MAX_LOG_SNR, Denoiser, add_noise, denoise_along, guided, sample, schedule
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import DEFAULT_ALPHA, DEFAULT_STRENGTH, STYLED_FROM, interpolate_weights, plain_until
from minilumiere.model.superres import super_resolve
from minilumiere.model.text import null_tokens, tokenise
from minilumiere.model.unet import UNet
from minilumiere.validate import check_mask, check_number, check_video
from minilumiere.viz.clips import read_image
from minilumiere.weights.nets import trained


class Pipeline:
    """The trained models of one scale: `base` (STUNet), `t2i` (inside it), `ssr`. Made by `load`."""

    def __init__(self, scale: Scale, base: STUNet, ssr: STUNet, device: torch.device):
        self.scale, self.device = scale, device
        self.base, self.ssr = base.to(device).eval(), ssr.to(device).eval()
        self.t2i: UNet = base.t2i
        self.plain: STUNet | None = None  # in a style, what is used below the log-SNR `styled_from`
        self.styled_from = STYLED_FROM

    def generate(
        self,
        caption: str | list[str],
        seed: int = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        frames: int | None = None,
        super_resolution: bool = True,
        progress: bool = False,
    ) -> Float[Tensor, "*n t 3 h w"]:
        """A clip (T, 3, H, W) in [0, 1] of a caption; or clips (N, T, 3, H, W) of a list of captions.

        Args: `steps` of the base sampler, 1 to 1000; `guidance` weight, 0 to 20 (1 = none); `frames`, a multiple of the
        temporal factor; `super_resolution=False` returns the base clip. Defaults: the scale's.

        Raises `ValueError` or `TypeError` for a bad caption or an argument outside its range.
        """
        options = {"steps": steps, "guidance": guidance, "super_resolution": super_resolution, "progress": progress}
        frames, size = self._frames(frames), self.scale.size
        captions = self._captions(caption)
        nothing = torch.zeros(len(captions), 4, frames, size, size)
        video = self._complete(nothing[:, :3], nothing[:, 3:], captions, seed, **options)
        return video[0] if isinstance(caption, str) else video

    def inpaint(self, video: Tensor, mask: Tensor, caption: str | list[str], seed: int = 0, **options) -> Tensor:
        """Generate what is missing of a clip. Where pixels are given, they come back exactly as they are.

        Args: `video` (T, 3, H, W) in [0, 1] of output or base size; `mask`, 1 = given, 0 = generate, broadcastable to
        (T, 1, H, W); `options` of `generate` but `frames`, and `copy_known=False` for what the net makes of given pixels,
        which is near them but not the same. With a list of N captions: a video (N, T, 3, H, W), a mask
        broadcastable to (N, T, 1, H, W). Of a clip of base size, the base clip keeps the given pixels, and
        super-resolution enlarges them like the rest.

        Raises `ValueError` or `TypeError` for a bad video, mask, caption or option.
        """
        captions, video = self._known_clips(video, caption)
        one = isinstance(caption, str)
        mask = check_mask(mask, "mask", (*video.shape[one:-3], 1, *video.shape[-2:]))
        mask = mask[None] if one else mask
        result = self._complete(video.transpose(1, 2), mask.transpose(1, 2), captions, seed, **options)
        return result[0] if one else result

    def image_to_video(
        self, image: Tensor | str | Path, caption: str | list[str], seed: int = 0, *, frames: int | None = None, **options
    ) -> Tensor:
        """A clip that begins with an image: (3, H, W) in [0, 1] of output or base size, or an image file of that size.

        `options` as of `generate`; with a list of N captions: images (N, 3, H, W). Raises what `inpaint` raises.
        """
        return self.cinemagraph(image, torch.ones(1, 1, 1), caption, seed, frames=frames, **options)

    def cinemagraph(
        self,
        image: Tensor | str | Path,
        region: Tensor,
        caption: str | list[str],
        seed: int = 0,
        *,
        frames: int | None = None,
        **options,
    ) -> Tensor:
        """An image that moves within a region, and nowhere else. See `image_to_video`.

        Args: `region` (1, H, W) or broadcastable to it, 1 = animated; with a list of N captions (N, 1, H, W).
        """
        image = read_image(image) if isinstance(image, str | Path) else image
        many = () if isinstance(caption, str) else (len(caption),)
        image = check_video(image, "image", (*many, 3, *self._sides(image)))
        frames = self._frames(frames)
        region = check_mask(region, "region", (*many, 1, *image.shape[-2:]))
        mask = outside_region(region, frames)
        return self.inpaint(image.unsqueeze(-4).expand(*mask.shape[:-3], 3, -1, -1), mask, caption, seed, **options)

    def in_style(self, style: str, alpha: float | None = None, styled_from: float = STYLED_FROM) -> "Pipeline":
        """The same pipeline with styled spatial weights: α of the style, 1 - α of the original (default: the style's own α).

        They are used from a log-SNR on, -15 to 15 (-15, `FROM_THE_START`: as in the paper), and always for the last step;
        until then the original ones. Images have no motion to lose, and are styled from the start.

        Styled, the image net guides no frames (see `appearance`): of four `dotted` captions, 3, 2 and 1 moved as asked
        at α = 0.5, 0.75 and 1 with its guidance, 4, 3 and 1 without, and all styles came out weaker.

        Raises `ValueError` for an unknown style, or an α or a log-SNR outside its range.
        """
        alpha = DEFAULT_ALPHA[check_style(style)] if alpha is None else alpha
        original, styled = self.t2i.state_dict(), trained(f"style-{style}", self.scale).to(self.device).state_dict()
        base = deepcopy(self.base)
        base.t2i.load_state_dict(interpolate_weights(original, styled, alpha))
        scale = replace(self.scale, image_guidance=0.0) if alpha > 0 else self.scale
        pipe = Pipeline(scale, base, self.ssr, self.device)
        pipe.plain = self.base
        pipe.styled_from = check_number(styled_from, "styled_from", -MAX_LOG_SNR, MAX_LOG_SNR)
        return pipe

    def stylize(
        self,
        caption: str | list[str],
        style: str,
        alpha: float | None = None,
        seed: int = 0,
        styled_from: float = STYLED_FROM,
        **options,
    ) -> Float[Tensor, "*n t 3 h w"]:
        """A clip of a caption in a style; see `in_style`, and `generate` for the `options`."""
        return self.in_style(style, alpha, styled_from).generate(caption, seed, **options)

    def restyle(
        self,
        video: Tensor,
        caption: str | list[str],
        style: str,
        strength: float = DEFAULT_STRENGTH,
        alpha: float | None = None,
        seed: int = 0,
        **options,
    ) -> Float[Tensor, "*n t 3 h w"]:
        """Draw a clip (T, 3, H, W) in [0, 1] of output or base size anew in a style, with its motion (SDEdit).

        Noise is added up to diffusion time `strength`, 0.01 to 1, and taken away with the styled weights: the weaker, the
        more of the clip stays. `alpha`, `options`: as of `stylize`. With a list of N captions: (N, T, 3, H, W).
        """
        check_number(strength, "strength", 0.01, 1)
        captions, video = self._known_clips(video, caption)
        video = video.transpose(1, 2)
        nothing = torch.zeros_like(video[:, :1])
        result = self.in_style(style, alpha)._complete(video, nothing, captions, seed, start=strength, **options)
        return result[0] if isinstance(caption, str) else result

    @torch.no_grad()
    def generate_image(
        self, caption: str | list[str], seed: int = 0, *, steps: int | None = None, guidance: float | None = None
    ) -> Float[Tensor, "*n 3 h w"]:
        """An image (3, h, w) in [0, 1] by the text-to-image model alone; or images of a list of captions."""
        tokens, shape = tokenise(self._captions(caption)).to(self.device), (3, self.scale.size, self.scale.size)
        denoise, noise = self._denoiser(self.t2i, tokens, guidance), self._noise(shape, len(tokens), seed)
        options = {"steps": self._steps(steps), "shift": self.scale.image_shift, "tail": self.scale.tail}
        image = _to_unit(sample(denoise, noise, **options))
        return image[0] if isinstance(caption, str) else image

    def upscale(self, video: Float[Tensor, "t 3 h w"], caption: str, seed: int = 0) -> Float[Tensor, "t 3 H W"]:
        """Super-resolve a base clip (T, 3, h, w) in [0, 1]."""
        size = self.scale.size
        video = check_video(video, "video", (None, 3, size, size))
        low = (video.to(self.device) * 2 - 1).transpose(0, 1)[None]
        return _to_unit(self._enlarge(low, tokenise([caption]).to(self.device), seed))[0].transpose(0, 1)

    @torch.no_grad()
    def _complete(
        self,
        video: Float[Tensor, "n 3 t H W"],
        mask: Float[Tensor, "n 1 t H W"],
        captions: list[str],
        seed: int,
        steps: int | None = None,
        guidance: float | None = None,
        super_resolution: bool = True,
        progress: bool = False,
        start: float = 1.0,
        copy_known: bool = True,
    ) -> Float[Tensor, "n t 3 H W"]:
        """Generate what the mask does not give of videos in [0, 1] of base or output size. Text-to-video gives nothing.

        From noise, or from what noise leaves of the videos at diffusion time `start`. Of clips that begin with nothing but
        noise, two objects are sampled apart at first (see `composition`).
        """
        video, mask, tokens = video.to(self.device), mask.to(self.device), tokenise(captions).to(self.device)
        known, where = shrink(video * 2 - 1, mask, self.scale.size)
        given = given_pixels(known, where) if where.any() else None
        single = torch.tensor([len(parse_caption(caption)) == 1 for caption in captions])
        levels = schedule(self._steps(steps), self.scale.video_shift, start, self.scale.tail)
        styled_from = min(self.styled_from, float(levels[-2]))
        denoise = self._video_denoiser(tokens, guidance, given, single, styled_from)
        noisy = self._noise(known.shape[1:], len(tokens), seed)
        sampler = {"order": self.scale.order, "progress": "base" if progress else ""}
        if start < 1:
            noisy = add_noise(known, noisy, levels[:1].to(self.device))
        parts, owner = take_apart(captions, [start == 1 and not place.any() for place in where])
        if len(parts) == len(captions):
            result = denoise_along(denoise, noisy, levels, **sampler)[1]
        else:
            words = tokenise(parts).to(self.device)
            theirs = None if given is None else given[owner]
            each = self._video_denoiser(words, guidance, theirs, single[owner], styled_from)
            result = sample_apart(each, denoise, noisy, owner, levels, **sampler)
        if copy_known:
            result = torch.where(where == 1, known, result)
        if super_resolution:
            result = self._enlarge(result, tokens, seed, progress)
        result = _to_unit(result)
        if copy_known and video.shape == result.shape:
            result = torch.where(mask == 1, video, result)
        return result.transpose(1, 2)

    def _steps(self, steps: int | None) -> int:
        return smoke(self.scale.steps) if steps is None else check_number(steps, "steps", 1, 1000, int)

    def _denoiser(self, model, tokens: Tensor, guidance: float | None, **given) -> Denoiser:
        """A model with captions, given pixels and guidance, as the sampler calls it."""
        guidance = self.scale.guidance if guidance is None else check_number(guidance, "guidance", 0, 20)
        null = null_tokens(len(tokens)).to(self.device)
        return guided(*(partial(_call, model, words, given) for words in (tokens, null)), guidance)

    def _video_denoiser(
        self, tokens: Tensor, guidance: float | None, given: Tensor | None, single: Tensor, styled_from: float
    ) -> Denoiser:
        """The base model's denoiser; beside it the image net's guidance of clips of a single object, unless guidance is 1."""
        denoise = self._denoiser(self.base, tokens, guidance, given=given)
        if self.plain is not None:
            denoise = plain_until(self._denoiser(self.plain, tokens, guidance, given=given), denoise, styled_from)
        weight = single.to(self.device) * (0.0 if guidance == 1 else self.scale.image_guidance)
        return with_image_guidance(denoise, self.t2i, tokens, weight)

    @torch.no_grad()
    def _enlarge(self, low: Float[Tensor, "n 3 t h w"], tokens: Tensor, seed: int, progress: bool = False) -> Tensor:
        n, _, t, *_ = low.shape
        size = self.scale.output_size
        noise, augmentation = self._noise((3, t, size, size), n, seed, 1), self._noise(low.shape[1:], n, seed, 2)
        per_call = None if self.device.type == "cuda" or t <= 32 else 1
        progress = "super-resolution" if progress else ""
        return super_resolve(
            self.ssr, low, tokens, self.scale, noise, augmentation, windows_per_call=per_call, progress=progress
        )

    def _noise(self, shape: tuple[int, ...], n: int, seed: int, stream: int = 0) -> Tensor:
        """Normal noise (n, *shape), the same on every device; `stream` tells the uses within one clip apart."""
        check_number(seed, "seed", 0, 2**60, int)
        generators = (torch.Generator().manual_seed((seed + i) * 4 + stream) for i in range(n))
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self.device)

    def _frames(self, frames: int | None) -> int:
        frames = self.scale.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
        self.base.check_frames(frames)
        return frames

    def _known_clips(self, video: Tensor, caption: str | list[str]) -> tuple[list[str], Float[Tensor, "n t 3 h w"]]:
        """Captions and clips, checked: one for each caption."""
        one, captions = isinstance(caption, str), self._captions(caption)
        video = check_video(video, "video", (*(() if one else (len(captions),)), None, 3, *self._sides(video)))
        self.base.check_frames(video.shape[-4])
        return captions, video[None] if one else video

    def _sides(self, given) -> tuple[int, int]:
        """Height and width to ask of an image or a video: the base size if it has it, else the output size."""
        small = (self.scale.size, self.scale.size)
        return small if isinstance(given, Tensor) and given.shape[-2:] == small else (self.scale.output_size,) * 2

    def _captions(self, caption: str | list[str]) -> list[str]:
        """A list of captions, checked."""
        captions = [caption] if isinstance(caption, str) else caption
        if not isinstance(captions, list | tuple) or not captions:
            raise TypeError(f"give a caption or a list of captions, not {captions!r}")
        for each in captions:
            parse_caption(each)
        return list(captions)


def load(scale: str = "tiny", device: str | torch.device | None = None) -> Pipeline:
    """The trained pipeline of a scale, on `device` (default: cuda where there is one, else cpu).

    Raises `ValueError` for an unknown scale or damaged weights, `FileNotFoundError` for a scale not trained yet.
    """
    preset = get_scale(scale)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Pipeline(preset, trained("base", preset), trained("ssr", preset), device)


def _call(model, tokens: Tensor, given: dict[str, Tensor], noisy: Tensor, log_snr: Tensor) -> Tensor:
    return model(noisy, log_snr, tokens, **given)


def _to_unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1)
