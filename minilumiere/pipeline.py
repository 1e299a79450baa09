"""Use the trained models: text to video.

    caption ─► tokens ─► STUNet, all frames at once ─► base clip ─► SSR in windows ─► clip (T, 3, H, W) in [0, 1]

`load` puts the parts together from `data/weights`; nothing is downloaded. Randomness: the i-th clip of a call is drawn
from seed + i alone, so it is the same whatever else the call makes.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import Scale, get_scale, smoke
from minilumiere.diffusion import guided, sample
from minilumiere.models import trained
from minilumiere.stunet import STUNet
from minilumiere.superres import super_resolve
from minilumiere.text import null_tokens, tokenise
from minilumiere.unet import UNet
from minilumiere.validate import check_number, check_video


class Pipeline:
    """The trained models of one scale: `base` (STUNet), `t2i` (inside it), `ssr`. Made by `load`."""

    def __init__(self, scale: Scale, base: STUNet, ssr: STUNet, device: torch.device):
        self.scale, self.device = scale, device
        self.base, self.ssr = base.to(device).eval(), ssr.to(device).eval()
        self.t2i: UNet = base.t2i

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
        captions = [caption] if isinstance(caption, str) else caption
        tokens = self._tokens(captions)
        frames = self.scale.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
        self.base.check_frames(frames)
        shape = (3, frames, self.scale.size, self.scale.size)
        low = self._sample(self.base, shape, tokens, seed, self.scale.video_shift, steps, guidance, progress and "base")
        video = self._enlarge(low, tokens, seed, progress) if super_resolution else low
        video = _to_unit(video).transpose(1, 2)  # n t 3 h w
        return video[0] if isinstance(caption, str) else video

    def generate_image(
        self, caption: str | list[str], seed: int = 0, *, steps: int | None = None, guidance: float | None = None
    ) -> Float[Tensor, "*n 3 h w"]:
        """An image (3, h, w) in [0, 1] by the text-to-image model alone; or images of a list of captions."""
        captions = [caption] if isinstance(caption, str) else caption
        tokens, shape = self._tokens(captions), (3, self.scale.size, self.scale.size)
        image = _to_unit(self._sample(self.t2i, shape, tokens, seed, self.scale.image_shift, steps, guidance))
        return image[0] if isinstance(caption, str) else image

    def upscale(self, video: Float[Tensor, "t 3 h w"], caption: str, seed: int = 0) -> Float[Tensor, "t 3 H W"]:
        """Super-resolve a base clip (T, 3, h, w) in [0, 1]."""
        size = self.scale.size
        video = check_video(video, "video", (None, 3, size, size))
        low = (video.to(self.device) * 2 - 1).transpose(0, 1)[None]
        return _to_unit(self._enlarge(low, self._tokens([caption]), seed))[0].transpose(0, 1)

    @torch.no_grad()
    def _sample(self, model, shape, tokens, seed, shift, steps, guidance, progress="") -> Tensor:
        steps = smoke(self.scale.steps) if steps is None else check_number(steps, "steps", 1, 1000, int)
        guidance = self.scale.guidance if guidance is None else check_number(guidance, "guidance", 0, 20)
        null = null_tokens(len(tokens)).to(self.device)
        denoise = guided(partial(_call, model, tokens), partial(_call, model, null), guidance)
        noise = self._noise(shape, len(tokens), seed)
        return sample(denoise, noise, steps=steps, shift=shift, progress=progress or "")

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

    def _tokens(self, captions: list[str]) -> Tensor:
        if not isinstance(captions, list | tuple) or not captions:
            raise TypeError(f"give a caption or a list of captions, not {captions!r}")
        return tokenise(list(captions)).to(self.device)


def load(scale: str = "tiny", device: str | torch.device | None = None) -> Pipeline:
    """The trained pipeline of a scale, on `device` (default: cuda where there is one, else cpu).

    Raises `ValueError` for an unknown scale or damaged weights, `FileNotFoundError` for a scale not trained yet.
    """
    preset = get_scale(scale)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Pipeline(preset, trained("base", preset), trained("ssr", preset), device)


def _call(model, tokens: Tensor, noisy: Tensor, log_snr: Tensor) -> Tensor:
    return model(noisy, log_snr, tokens)


def _to_unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1)
