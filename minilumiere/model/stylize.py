"""Stylization: the frozen image net is exchanged for a styled one, or for something between the two.

    W = α W_style + (1 − α) W_orig        over the spatial weights; the temporal layers stay as they are

Lumiere, section 4.1 (after StyleDrop): with α = 1 the temporal layers get features that they were not trained on, and the
paper sees static or distorted motion; α in [0.5, 1] is chosen by hand for each style. Notebook 08 measures both.

    log-SNR   −15 ── noise hides strokes ── STYLED_FROM ── strokes show ── 15
               W_orig: where things go                     W_interpolate: how they are drawn

A second remedy, ours: the styled weights come in only once strokes can be seen. By then the motion is settled, so that α need
not be a compromise. Measured with `tiny`, α = 1: see notebook 08.

Our choice: with a style only the last level of the decoder is learnt, and the head. What is drawn and where stays with the
other levels, so that a handful of images can say how to draw without spoiling that; and the file is small.
"""

from copy import deepcopy

import torch
from torch import Tensor

from minilumiere.model.diffusion import MAX_LOG_SNR, Denoiser
from minilumiere.model.stunet import STUNet
from minilumiere.model.unet import UNet
from minilumiere.validate import check_number

DEFAULT_ALPHA = {"outline": 0.7, "dotted": 1.0, "neon": 1.0}  # whole, outlines are hard to read
DEFAULT_STRENGTH = 0.2  # of SDEdit
STYLED_FROM = -3.0  # log-SNR
FROM_THE_START = -MAX_LOG_SNR  # as in the paper


def interpolate_weights(original: dict[str, Tensor], style: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """α · style + (1 − α) · original, for every tensor; α from 0 (the original) to 1 (the style).

    Raises `ValueError` for another α, or state dicts whose names or shapes differ.
    """
    alpha = check_number(alpha, "alpha", 0, 1)
    if differing := sorted(set(original) ^ set(style)):
        raise ValueError(f"the two state dicts do not hold the same tensors: {differing[0]} is in one of them only")
    for name, tensor in original.items():
        if tensor.shape != style[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} in the original, {tuple(style[name].shape)} in the style")
    return {name: torch.lerp(tensor, style[name].to(tensor), alpha) if tensor.is_floating_point() else tensor
            for name, tensor in original.items()}  # fmt: skip


def with_style(stunet: STUNet, style: UNet, alpha: float) -> STUNet:
    """A copy of a STUNet whose image net lies between its own (α = 0) and a styled one (α = 1)."""
    styled = deepcopy(stunet)
    styled.t2i.load_state_dict(interpolate_weights(stunet.t2i.state_dict(), style.state_dict(), alpha))
    return styled


def plain_until(plain: Denoiser, styled: Denoiser, log_snr_from: float) -> Denoiser:
    """A denoiser that is `plain` below this log-SNR, and `styled` from it on."""
    return lambda noisy, log_snr: (plain if log_snr[0] < log_snr_from else styled)(noisy, log_snr)


def last_level(net: UNet) -> UNet:
    """Freeze all of a net but the last level of its decoder and its head: what is learnt with a style. Returns it."""
    net.requires_grad_(False)
    block = net.up_blocks[0]  # not its first norm: on CPU, torch 2.13 crashes in its backward pass behind frozen layers
    for part in (block.conv_in, block.modulation, block.conv_out, net.head):
        part.requires_grad_(True)
    return net
