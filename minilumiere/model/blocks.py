"""Small parts that the image layers (`unet`) and the temporal layers (`temporal`) share.

Axes, here and everywhere: `b` batch, `c` channels, `t` frames, `h w` height and width, `n` words, `e` embedding.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8  # of every group norm


class Context(NamedTuple):
    """What every block may look at."""

    embedding: Float[Tensor, "b *t e"]  # of noise level(s) and caption; temporal layers have one a frame, or one for all
    words: Float[Tensor, "b n d"]  # features of the caption's words
    real: Bool[Tensor, "b n"]  # False for padding
    here: Float[Tensor, "b h w e"] | None = None  # what the caption adds to the embedding at each place (temporal layers only)

    def repeat(self, frames: int) -> "Context":
        """The same context for each of `frames` frames, of image layers: b -> (b t)."""
        return Context(*(part.repeat_interleave(frames, dim=0) for part in (self.embedding, self.words, self.real)))


class GroupNorm(nn.GroupNorm):
    """Group norm in the precision of its input: autocast would compute it, and all that follows, in float32."""

    def __init__(self, channels: int):
        super().__init__(GROUPS, channels)

    def forward(self, x: Float[Tensor, "b c *hw"]) -> Float[Tensor, "b c *hw"]:
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # "meta": to count operations
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Modulation(nn.Module):
    """Group norm whose scale and shift are computed from the embedding; starts as plain group norm unless told not to."""

    def __init__(self, channels: int, embedding: int, plain: bool = True):
        super().__init__()
        self.norm = GroupNorm(channels)
        self.scale_shift = nn.Linear(embedding, 2 * channels)
        if plain:
            nn.init.zeros_(self.scale_shift.weight)
            nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)  # b c 1 1
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class NoiseEmbedding(nn.Module):
    """Fourier features of the log-SNR(s), and the caption's summary, to one embedding."""

    def __init__(self, noise_levels: int, text_width: int, embedding: int, features: int = 16):
        super().__init__()
        self.register_buffer("frequencies", 2 ** torch.linspace(-5, 2, features), persistent=False)
        self.caption = nn.Linear(text_width, embedding)
        self.noise = nn.Linear(2 * features * noise_levels, embedding)
        self.out = nn.Linear(embedding, embedding)

    def forward(
        self, log_snr: Float[Tensor, "b levels"], summary: Float[Tensor, "b d"], clock: Float[Tensor, "t e"] | None = None
    ) -> Float[Tensor, "b *t e"]:
        """Of the whole image, or of each frame if given what its `clock` adds."""
        angle = log_snr[..., None] * self.frequencies  # b levels features
        fourier = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
        h = self.noise(fourier) + self.caption(summary)  # b e
        if clock is not None:
            h = h[:, None] + clock  # b t e
        return F.silu(self.out(F.silu(h)))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, real: Tensor | None = None) -> Float[Tensor, "b n c"]:
    """Multi-head attention, all of shape `b n c`; keys where `real` (b n) is False are not seen."""
    query, key, value = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (query, key, value))
    mask = None if real is None else real[:, None, None]  # b 1 1 n
    return rearrange(F.scaled_dot_product_attention(query, key, value, mask), "b heads n d -> b n (heads d)")
