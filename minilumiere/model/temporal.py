"""The layers that make an image net a video net: inflation blocks, and resampling in time.

    SpaceTimeConv      x ─┬─ 3x3 over h w ─ (words) ─ 3 over t ─ linear (zero) ─── + ─►     every level but the coarsest
    TemporalAttention  x ─┬─ attention over t ─ words ─ MLP ─ linear (zero) ────── + ─►     the coarsest level only
                          └────────────────────────────────────────────────────────┘
    TemporalDownsample  3 over t (identity), then every second frame      b c t h w -> b c t/2 h w
    TemporalUpsample    every frame twice, then 3 over t (identity)       b c t h w -> b c 2t h w

Lumiere, section 3.1 and figures 4 and 5. Zero and identity initialisation are the paper's: at first the blocks add
nothing, and resampling is nearest-neighbour. Kernel sizes, norms, positions, and how noise level and caption reach the
blocks are our choice: the paper is silent. In "moving right" the caption decides where a thing is when, so every block
multiplies all three: it knows its place, and its scale and shift come from caption, clock and noise level from the
first step on (beside the zero projection, a second zero would make captions slow to learn). "Circling clockwise" says
something else at every place, so scale and shift come from caption x place too (`CaptionByPlace`). Where the image net
reads words by cross-attention, convolution blocks do too: of two objects, which one moves left? Notebooks 03 to 05.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.model.blocks import Context, GroupNorm, Modulation, attend

PLACE_FEATURES = 8  # see `places`


def temporal_conv(channels: int, stride: int = 1, identity: bool = False) -> nn.Conv2d:
    """A 1-D convolution over t of `b c t (h w)`: three frames, zero padding. Optionally the identity at first.

    Zero padding tells the net where a clip begins and ends, which "moving right" needs: walls reflect.
    """
    conv = nn.Conv2d(channels, channels, (3, 1), stride=(stride, 1), padding=(1, 0))
    if identity:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        with torch.no_grad():
            conv.weight[:, :, 1, 0] = torch.eye(channels)
    return conv


def over_time(conv: nn.Conv2d, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
    """Apply a temporal convolution; it may change the number of frames."""
    y = conv(rearrange(x, "b c t h w -> b c t (h w)"))
    return rearrange(y, "b c t (h w) -> b c t h w", w=x.shape[-1])


class TemporalDownsample(nn.Module):
    """Halves the frames: a temporal convolution, identity at first, followed by a stride (one strided convolution)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = temporal_conv(channels, stride=2, identity=True)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t/2 h w"]:
        if x.shape[2] % 2:
            raise ValueError(f"{x.shape[2]} frames cannot be halved: give an even number")
        return over_time(self.conv, x)


class TemporalUpsample(nn.Module):
    """Doubles the frames: each is repeated, then a temporal convolution, identity at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = temporal_conv(channels, identity=True)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c 2*t h w"]:
        return over_time(self.conv, repeat(x, "b c t h w -> b c (t twice) h w", twice=2))


class SpaceTimeConv(nn.Module):
    """Convolution-based inflation block: factorised space-time convolution, zero-initialised, added to its input.

    Cheaper and more non-linear than a full 3-D convolution, more expressive than a temporal one alone (section 3.1).
    """

    def __init__(self, channels: int, embedding: int, text_width: int | None = None, heads: int = 4):
        """With `text_width`, every place of every frame looks at the caption too: which object is this one?"""
        super().__init__()
        self.norm = GroupNorm(channels)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.place = nn.Linear(PLACE_FEATURES, channels, bias=False)
        self.modulation = Modulation(channels, embedding, plain=False)
        self.read = WordAttention(channels, text_width, heads) if text_width else None
        self.temporal = temporal_conv(channels)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Float[Tensor, "b c t h w"], context: Context) -> Float[Tensor, "b c t h w"]:
        frames, height = x.shape[2:4]
        h = rearrange(x, "b c t h w -> (b t) c h w")
        if torch.is_grad_enabled() and not h.requires_grad:
            # The first trainable block behind frozen layers. On CPU, torch 2.13's group norm crashes in backward when its
            # input is channels_last and needs no gradient while its weights do.
            h = h.contiguous()
        h = self.spatial(F.silu(self.norm(h)))  # (b t) c h w
        h = h + rearrange(self.place(places(*h.shape[-2:], h.device)), "h w c -> c h w")
        scale, shift = scale_and_shift(self.modulation.scale_shift, context)  # b t h w c, or with 1 where all are the same
        scale, shift = (rearrange(part.expand(-1, frames, -1, -1, -1), "b t h w c -> (b t) c h w") for part in (scale, shift))
        h = torch.addcmul(shift, self.modulation.norm(h), 1 + scale)
        if self.read:
            read = self.read(rearrange(h, "(b t) c h w -> b (t h w) c", t=frames), context)
            h = rearrange(read, "b (t h w) c -> (b t) c h w", t=frames, h=height)
        h = over_time(self.temporal, rearrange(F.silu(h), "(b t) c h w -> b c t h w", t=frames))
        h = self.project(rearrange(F.silu(h), "b c t h w -> (b t) c h w"))
        return x + rearrange(h, "(b t) c h w -> b c t h w", t=frames)


class TemporalAttention(nn.Module):
    """Attention-based inflation block: every place looks along its own t, and at the caption; zero-initialised.

    Attention over t costs hw (4 t c² + 2 t² c): quadratic in t, the paper's reason for the coarsest level only (here,
    t < 2c, the projections cost more). Rotary positions (Su et al. 2021) depend on the distance of frames alone and are
    defined for any number of them; without positions, attention could not tell the order of frames.
    """

    def __init__(self, channels: int, embedding: int, text_width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.place = nn.Linear(PLACE_FEATURES, channels, bias=False)
        self.scale_shift = nn.Linear(embedding, 2 * channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.read = WordAttention(channels, text_width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Float[Tensor, "b c t h w"], context: Context) -> Float[Tensor, "b c t h w"]:
        b, _, _, height, width = x.shape
        scale, shift = scale_and_shift(self.scale_shift, context)  # b t h w c, or with 1 where all are the same
        place = self.place(places(height, width, x.device))  # h w c
        h = (self.norm(rearrange(x, "b c t h w -> b t h w c")) + place) * (1 + scale) + shift
        h = rearrange(h, "b t h w c -> (b h w) t c")
        query, key, value = self.qkv(h).chunk(3, dim=-1)  # (b h w) t c
        query, key = rotate(query, self.heads), rotate(key, self.heads)
        h = h + self.out(attend(query, key, value, self.heads))
        h = self.read(rearrange(h, "(b h w) t c -> b (h w t) c", b=b, h=height), context)
        h = h + self.mlp(h)
        return x + rearrange(self.project(h), "b (h w t) c -> b c t h w", h=height, w=width)


class WordAttention(nn.Module):
    """Every token of a video looks at the words of its caption; added to it."""

    def __init__(self, channels: int, text_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(text_width, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b n c"], context: Context) -> Float[Tensor, "b n c"]:
        key, value = self.key_value(context.words).chunk(2, dim=-1)
        return x + self.out(attend(self.query(self.norm(x)), key, value, self.heads, context.real))


class CaptionByPlace(nn.Module):
    """What a caption adds to the embedding at each place: "clockwise" is "up" on the left and "down" on the right.

    A product of caption and place (low-rank bilinear), zero at first, which all temporal blocks share. Our choice: a
    sum of the two cannot say what depends on both (docs/experiments.md).
    """

    def __init__(self, text_width: int, embedding: int, rank: int = 32):
        super().__init__()
        self.caption = nn.Linear(text_width, rank)
        self.place = nn.Linear(PLACE_FEATURES, rank)
        self.out = nn.Linear(rank, embedding, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, summary: Float[Tensor, "b d"], height: int, width: int) -> Float[Tensor, "b h w e"]:
        return self.out(self.caption(summary)[:, None, None] * self.place(places(height, width, summary.device)))


def scale_and_shift(linear: nn.Linear, context: Context) -> tuple[Tensor, Tensor]:
    """Of every frame and place, b t h w c: linear in the embedding, plus what the caption adds to it at each place."""
    both = linear(context.embedding)[:, :, None, None]  # of each frame, or 1 for all
    if context.here is not None:
        both = both + F.linear(context.here, linear.weight)[:, None]  # of each place
    return both.chunk(2, dim=-1)


def places(height: int, width: int, device=None) -> Float[Tensor, "h w 8"]:
    """Where each place lies in the image, at any resolution: sine and cosine of half a turn and a turn across it."""
    y, x = ((torch.arange(n, device=device) + 0.5) / n - 0.5 for n in (height, width))  # -1/2 to 1/2
    angle = torch.pi * torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)  # h w 2
    return torch.cat([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], dim=-1)


def since_start(frames: int, device=None) -> Float[Tensor, "t 6"]:
    """A clock: how far a frame is from the first, as six decays with time constants of 2 to 64 frames.

    Captions refer to the beginning ("moving right" until the wall), which rotary positions alone do not show. Decays,
    unlike a learned vector a frame, mean something for clips longer than those trained on: the beginning is long ago.
    """
    frame = torch.arange(frames, device=device)
    return torch.exp(-frame[:, None] / 2 ** torch.arange(1, 7, device=device))


def rotate(x: Float[Tensor, "b t c"], heads: int) -> Float[Tensor, "b t c"]:
    """Rotary positions: turn pairs of channels of each head by an angle that grows with the frame's number."""
    pairs = x.shape[-1] // heads // 2
    frequency = 100 ** -(torch.arange(pairs, device=x.device) / pairs)
    angle = torch.arange(x.shape[1], device=x.device)[:, None] * frequency  # t pairs
    cos, sin = (part.to(x.dtype)[:, None] for part in (angle.cos(), angle.sin()))  # t 1 pairs
    first, second = rearrange(x, "b t (heads two pairs) -> two b t heads pairs", heads=heads, two=2)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos])
    return rearrange(turned, "two b t heads pairs -> b t (heads two pairs)")
