"""One fixed set of noisy clips on which every net of a claim is measured: the same scenes, the same noise, clip by clip.

Differences of losses are then those of the nets: the noise that they share cancels. Test glyphs and seeds that training never
uses; one object, captions whole. Our choice: the paper is silent.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilumiere.config import Scale
from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import subjects_of
from minilumiere.evaluation.quality import EVALUATION_SEED, evaluation_captions, is_seen, of_unseen_pairs
from minilumiere.model.diffusion import add_noise, log_snr_at, stratified_times, velocity
from minilumiere.model.text import tokens_of
from minilumiere.model.unet import UNet

AT_ONCE = 8  # clips that go through a net together
BAND = (-6.0, -2.0)  # log-SNR, of 16 frames: where the shipped video net gains most on the image net, for it looks along time


@dataclass(frozen=True)
class HeldOut:
    """Noisy clips of the base size, and what a net should say of them."""

    noisy: Float[Tensor, "n 3 t h w"]
    v: Float[Tensor, "n 3 t h w"]
    log_snr: Float[Tensor, " n"]
    tokens: Int[Tensor, "n words"]


def held_out(scale: Scale, n: int, frames: int = 16, unseen: bool = False, band: tuple[float, float] | None = None) -> HeldOut:
    """`n` clips, their noise levels evenly spread over the scale's schedule, or over a `band` of log-SNR.

    Of (colour, digit) pairs that occur in training videos, or with `unseen` of the others: motions and noise stay the same.
    """
    captions = [caption for caption in evaluation_captions(2 * n + 16, 1, 60) if is_seen(caption)][:n]
    captions = of_unseen_pairs(captions) if unseen else captions
    subjects = subjects_of([parse_caption(caption) for caption in captions])
    generator = torch.Generator().manual_seed(EVALUATION_SEED + 60)
    times = stratified_times(n, generator)
    levels = torch.lerp(*torch.tensor(band), times) if band else log_snr_at(times, scale.shift_of(frames))
    noise = torch.randn(n, 3, frames, scale.size, scale.size, generator=generator)
    video, _ = draw_scenes(subjects, generator, frames, scale.size, scale.output_size, "test")
    clean = video.transpose(1, 2) * 2 - 1
    return HeldOut(add_noise(clean, noise, levels), velocity(clean, noise, levels), levels, tokens_of(subjects))


@torch.no_grad()
def losses(net: nn.Module, held: HeldOut) -> Float[Tensor, " n"]:
    """The mean squared error of v of each clip, by a video net, or by an image net that sees one frame at a time."""
    found = []
    for part in torch.arange(len(held.v)).split(AT_ONCE):
        noisy, log_snr, tokens = held.noisy[part], held.log_snr[part], held.tokens[part]
        if isinstance(net, UNet):
            t = noisy.shape[2]
            frames = rearrange(noisy, "b c t h w -> (b t) c h w")
            v = net(frames, repeat(log_snr, "b -> (b t)", t=t), repeat(tokens, "b n -> (b t) n", t=t))
            v = rearrange(v, "(b t) c h w -> b c t h w", t=t)
        else:
            v = net(noisy, log_snr, tokens)
        found.append((v - held.v[part]).square().flatten(1).mean(1))
    return torch.cat(found)
