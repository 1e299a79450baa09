"""The text-to-image U-Net, explicit from top to bottom. Lumiere inflates one like it; ours is small.

    noisy ─ fold ─ stem ─ Res ──────────────────────────── cat ─ Res ─ head ─ unfold ─► v
                           └ ↓ ─ Res+Attn ──────── cat ─ Res+Attn ─ ↑ ┘
                                   └ ↓ ─ Res+Attn+Res ─ ↑ ┘
                       captions, noise level ──► every Res (scale, shift); captions ──► every Attn (cross-attention)

Shapes: `b c h w`, values in [-1, 1]. Source: the U-Net of Ho et al. 2020 with adaptive group norm (Dhariwal and Nichol
2021) and cross-attention (Rombach et al. 2022); Lumiere does not disclose its own (Imagen's). Built in notebook 02.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.config import UNetConfig
from minilumiere.model.blocks import Context, GroupNorm, Modulation, NoiseEmbedding, attend
from minilumiere.model.diffusion import velocity_of_guess
from minilumiere.model.text import TextEncoder


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3 conv; twice; plus the input. The second conv starts at zero: the block starts as identity."""

    def __init__(self, in_channels: int, channels: int, embedding: int):
        super().__init__()
        self.norm_in = GroupNorm(in_channels)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.modulation = Modulation(channels, embedding)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Float[Tensor, "b c h w"], context: Context) -> Float[Tensor, "b c h w"]:
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = self.conv_out(F.silu(self.modulation(h, context.embedding)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over the places of an image, then cross-attention to the words of its caption."""

    def __init__(self, channels: int, heads: int, text_width: int, places: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(places, channels) * 0.02)  # where things are
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.cross_norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(text_width, 2 * channels)
        self.cross_out = nn.Linear(channels, channels)
        for layer in (self.out, self.cross_out):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Float[Tensor, "b c h w"], context: Context) -> Float[Tensor, "b c h w"]:
        if (height := x.shape[-2]) * x.shape[-1] != len(self.position):
            raise ValueError(f"attention is over {len(self.position)} places, not {height} x {x.shape[-1]}: another image size")
        tokens = rearrange(x, "b c h w -> b (h w) c")
        normed = rearrange(self.norm(x), "b c h w -> b (h w) c") + self.position
        tokens = tokens + self.out(attend(*self.qkv(normed).chunk(3, dim=-1), self.heads))
        key, value = self.key_value(context.words).chunk(2, dim=-1)  # b n c
        found = attend(self.query(self.cross_norm(tokens) + self.position), key, value, self.heads, context.real)
        return rearrange(tokens + self.cross_out(found), "b (h w) c -> b c h w", h=height)


class UNet(nn.Module):
    """Predicts v from a noisy image `size` pixels wide (attention learns a vector a place), its noise level and its caption."""

    def __init__(self, config: UNetConfig, size: int):
        super().__init__()
        self.config, self.size = config, size
        widths, embedding = config.channels, config.embedding
        self.text = TextEncoder(config.text_width, config.text_layers)
        self.noise = NoiseEmbedding(config.noise_levels, config.text_width, embedding)
        self.stem = nn.Conv2d(config.in_channels * config.patch**2, widths[0], 3, padding=1)

        def attention(level: int) -> nn.Module:
            places = (size // config.patch // 2**level) ** 2
            return Attention(widths[level], config.heads, config.text_width, places) if config.attention[level] else Nothing()

        finer = range(len(widths) - 1)  # every level but the coarsest
        self.down_blocks = nn.ModuleList(ResBlock(widths[i], widths[i], embedding) for i in finer)
        self.down_attention = nn.ModuleList(attention(i) for i in finer)
        self.downsamples = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1) for i in finer)
        self.middle_in = ResBlock(widths[-1], widths[-1], embedding)
        self.middle_attention = attention(len(widths) - 1)
        self.middle_out = ResBlock(widths[-1], widths[-1], embedding)
        self.upsamples = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 3, padding=1) for i in finer)
        self.up_blocks = nn.ModuleList(ResBlock(2 * widths[i], widths[i], embedding) for i in finer)
        self.up_attention = nn.ModuleList(attention(i) for i in finer)
        self.norm = GroupNorm(widths[0])
        self.head = nn.Conv2d(widths[0], 3 * config.patch**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)  # 3x3 convolutions run up to twice as fast

    def context(self, log_snr: Tensor, tokens: Int[Tensor, "b n"]) -> Context:
        """Encode the captions and the noise level(s): (b,) or (b, levels)."""
        words, real, summary = self.text(tokens)
        return Context(self.noise(log_snr.reshape(len(tokens), -1), summary), words, real)

    def fold(self, noisy: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h/p w/p"]:
        """The stem: patches of pixels to channels."""
        return self.stem(F.pixel_unshuffle(noisy, self.config.patch).contiguous(memory_format=torch.channels_last))

    def unfold(self, h: Float[Tensor, "b d h/p w/p"]) -> Float[Tensor, "b 3 h w"]:
        """The head: channels back to pixels."""
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.config.patch)

    def to_v(self, output: Tensor, noisy: Tensor, log_snr: Tensor) -> Tensor:
        """v, of images or videos (b 3 ...): what `unfold` gives, or what that says of the clean data if there is a `floor`."""
        if not self.config.floor:
            return output
        return velocity_of_guess(output, noisy[:, :3], log_snr.reshape(len(noisy), -1)[:, 0], self.config.floor)

    def forward(self, noisy: Float[Tensor, "b c h w"], log_snr: Tensor, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 h w"]:
        context = self.context(log_snr, tokens)
        h = self.fold(noisy)
        skips = []
        for level, downsample in enumerate(self.downsamples):
            h = self.down_attention[level](self.down_blocks[level](h, context), context)
            skips.append(h)
            h = downsample(h)
        h = self.middle_out(self.middle_attention(self.middle_in(h, context), context), context)
        for level in reversed(range(len(skips))):
            h = self.upsamples[level](F.interpolate(h, scale_factor=2.0))
            h = torch.cat([h, skips[level]], dim=1)
            h = self.up_attention[level](self.up_blocks[level](h, context), context)
        return self.to_v(self.unfold(h), noisy, log_snr)


class Nothing(nn.Module):
    """Stands where a level has no attention."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


def count_parameters(model: nn.Module, trainable: bool | None = None) -> int:
    """Number of parameters; of the trainable or the frozen ones if asked."""
    return sum(p.numel() for p in model.parameters() if trainable is None or p.requires_grad == trainable)
