"""Three other ways to draw the digits, for stylization: what the styled image models are trained on.

    ink (how much of each pixel the stroke covers) ──► cover (how much of what is behind is hidden), paint (of the colour)

    outline   a bright rim of colour around a dark core
    dotted    the stroke is broken into dots
    neon      the stroke glows

A patch of ink is styled before it is placed on the canvas, so that a pattern moves with its digit. Our choice: the paper
takes its styles from images of artists' work.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from minilumiere.config import STYLES

MARGIN = 3.0  # units around a patch that a style may paint on
RIM = 1.25  # units: width of an outline
CORE = 0.3  # brightness within it
PERIOD = 3.0  # units from dot to dot
GLOW = 1.7  # units: standard deviation of the glow


def check_style(style) -> str:
    """Raise `ValueError` naming the choices unless `style` is one of `STYLES`."""
    if not isinstance(style, str) or style not in STYLES:
        raise ValueError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
    return style


def styled(ink: Float[Tensor, "m p p"], style: str, pixels: float) -> tuple[Float[Tensor, "m q q"], Float[Tensor, "m q q"]]:
    """Cover and paint of patches of ink in a style, with a margin; `pixels` are those of one unit."""
    ink = F.pad(ink, [round(MARGIN * pixels)] * 4)
    if style == "outline":
        cover = widen(ink, RIM * pixels)
        return cover, cover - (1 - CORE) * ink
    if style == "dotted":
        place = (torch.arange(ink.shape[-1], device=ink.device) + 0.5) / pixels * (2 * math.pi / PERIOD)
        wave = place.cos()[:, None] + place.cos()  # -2 to 2: a dot where it is high
        broken = ink * (0.5 + 1.2 * wave).clamp(0, 1)
        return broken, broken
    cover = torch.maximum(ink, (1.3 * blur(ink, GLOW * pixels)).clamp(max=0.55))
    return cover, cover


def widen(ink: Float[Tensor, "m p p"], radius: float) -> Float[Tensor, "m p p"]:
    """The most ink within `radius` pixels of each."""
    reach = math.ceil(radius)
    steps = torch.arange(-reach, reach + 1)
    result = ink
    for dy in steps.tolist():
        for dx in steps.tolist():
            share = min(max(radius + 0.5 - math.hypot(dx, dy), 0), 1)  # soft edges
            result = torch.maximum(result, share * ink.roll((dy, dx), (1, 2)))
    return result


def blur(ink: Float[Tensor, "m p p"], sigma: float) -> Float[Tensor, "m p p"]:
    """Gaussian blur with a standard deviation in pixels."""
    steps = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1, device=ink.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    rows = F.conv2d(ink[:, None], kernel[..., None], padding="same")
    return F.conv2d(rows, kernel[:, :, None], padding="same")[:, 0]
