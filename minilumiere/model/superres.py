"""Spatial super-resolution (SSR): an image net conditioned on the enlarged low resolution, inflated in time, run on windows.

    low resolution ─ noise ─ enlarge ─┐ one global tensor
    noise at full size ───────────────┴─► windows ─► SSR net ─► mean per frame ─► clip x̂ ─► DDIM step ─► …

Lumiere, section 3.2: the SSR net is inflated like the base, sees only short windows for memory, and MultiDiffusion
reconciles them at every denoising step. No temporal resampling here: a window of T' = 9 or 15 frames has no halves.
Noise-conditioning augmentation (Ho et al. 2022) teaches the net that its condition, a generated video, is imperfect.
Window length, augmentation and schedule are our choice: the paper is silent. Built in notebook 07.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from minilumiere.config import Scale, smoke
from minilumiere.model.diffusion import add_noise, sample
from minilumiere.model.multidiffusion import multidiffusion, temporal_windows
from minilumiere.model.stunet import STUNet

TRAIN_AUGMENTATION = (1.0, 8.0)  # log-SNR of the low-resolution condition, uniform; drawn anew for each clip
AUGMENTATION = 5.0  # at sampling: noise of 8 % of the signal's amplitude hides what the base got slightly wrong


def condition(low: Tensor, size: int, log_snr: Float[Tensor, " b"], noise: Tensor) -> Tensor:
    """The SSR net's condition: `low` (b 3 [t] h w) in [-1, 1] with noise added, enlarged to `size`."""
    noisy = add_noise(low, noise, log_snr)
    zoom = (size / low.shape[-2], size / low.shape[-1])
    if noisy.dim() == 4:
        return F.interpolate(noisy, scale_factor=zoom, mode="bilinear")
    return F.interpolate(noisy, scale_factor=(1.0, *zoom), mode="trilinear")  # along t it changes nothing


def super_resolve(
    net: STUNet,
    low: Float[Tensor, "b 3 t h w"],
    tokens: Int[Tensor, "b n"],
    scale: Scale,
    noise: Float[Tensor, "b 3 t H W"],
    augmentation_noise: Float[Tensor, "b 3 t h w"],
    *,
    windows: list[slice] | None = None,
    windows_per_call: int | None = None,
    steps: int | None = None,
    progress: str = "",
) -> Float[Tensor, "b 3 t H W"]:
    """Enlarge a base video in [-1, 1] by `scale.upscale`, in windows reconciled by MultiDiffusion at every step.

    `windows`, `steps`: default the scale's. `windows_per_call`: see `multidiffusion`.
    """
    windows = windows or temporal_windows(low.shape[2], scale.window, scale.overlap)
    augmentation = low.new_full((len(low),), AUGMENTATION)
    enlarged = condition(low, noise.shape[-1], augmentation, augmentation_noise)

    def denoise(noisy: Float[Tensor, "b 3 t H W"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b 3 t H W"]:
        levels = torch.stack([log_snr, augmentation], dim=1)  # b 2

        def denoise_windows(segments: Float[Tensor, "n b 3 s H W"], some: list[slice]) -> Float[Tensor, "n b 3 s H W"]:
            n, b = segments.shape[:2]
            conditions = torch.stack([enlarged[:, :, window] for window in some])
            both = torch.cat([segments, conditions], dim=2).flatten(0, 1)  # (n b) 6 s H W
            return net(both, levels.repeat(n, 1), tokens.repeat(n, 1)).unflatten(0, (n, b))

        return multidiffusion(denoise_windows, noisy, windows, windows_per_call)

    options = {"steps": steps or smoke(scale.ssr_steps), "shift": scale.ssr_shift, "tail": scale.tail, "power": scale.ssr_power}
    return sample(denoise, noise, **options, progress=progress)  # clips x̂
