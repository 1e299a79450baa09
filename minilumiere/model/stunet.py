"""The Space-Time U-Net (STUNet): a frozen text-to-image U-Net, inflated; all frames of a clip in one pass.

    frames  t      stem ─ Res ─ SpaceTimeConv ──────────────────── cat ─ Res ─ SpaceTimeConv ─ head
    frames  t/2      └ ↓ ─ t↓ ─ Res ─ SpaceTimeConv ─── cat ─ Res ─ SpaceTimeConv ─ t↑ ┘
    frames  t/4                 └ ↓ ─ t↓ ─ Res ─ TA ─ Attn ─ TA ─ Res ─ TA ─ ↑ ─ t↑ ┘
                                                          (TA = TemporalAttention, ↓ and ↑ space, t↓ and t↑ time)

Lumiere, section 3.1 and figure 4: temporal blocks are interleaved with the pretrained ones, and temporal down- and
up-sampling follow each spatial one. Only these train. At initialisation the net is the text-to-image net on every N-th
frame, N the temporal factor, and on all frames of a static video; on the other frames it cannot be, for resampling.
Built in notebooks 03 to 06.
"""

from collections.abc import Iterator

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.model.blocks import Context, NoiseEmbedding
from minilumiere.model.temporal import (
    CaptionByPlace,
    SpaceTimeConv,
    TemporalAttention,
    TemporalDownsample,
    TemporalUpsample,
    since_start,
)
from minilumiere.model.text import TextEncoder
from minilumiere.model.unet import UNet, count_parameters


class STUNet(nn.Module):
    """Predicts v from a noisy video, its noise level and its caption. Build it with `STUNet.from_t2i`."""

    def __init__(self, t2i: UNet, halvings: int = 2, whole: bool = True):
        """`halvings`: after how many levels time is halved too; the temporal factor is 2 ** halvings.

        `whole`: does the net see whole clips, not windows of one? Then its temporal layers know how far a frame is from
        the first and what the caption means at each place, and pixels of the clip can be given (see `conditioning`).
        """
        super().__init__()
        config = t2i.config
        widths, embedding, text_width = config.channels, config.embedding, config.text_width
        if not 0 <= halvings < len(widths):
            raise ValueError(f"halvings must be 0 to {len(widths) - 1} for a U-Net of {len(widths)} levels, got {halvings}")
        self.halvings, self.temporal_factor = halvings, 2**halvings
        self.t2i = t2i
        # Their own: one trained on images unlearns words of motion ("left" and "right" end up a sixth as far apart as digits).
        self.text = TextEncoder(text_width, config.text_layers)
        self.noise = NoiseEmbedding(config.noise_levels, text_width, embedding)
        self.clock = nn.Linear(6, embedding, bias=False) if whole else None
        self.here = CaptionByPlace(text_width, embedding) if whole else None
        self.given = nn.Conv2d(4 * config.patch**2, widths[0], 3, padding=1, bias=False) if whole else None
        if whole:
            nn.init.zeros_(self.given.weight)

        def conv_block(level: int) -> SpaceTimeConv:
            return SpaceTimeConv(widths[level], embedding, text_width if config.attention[level] else None, config.heads)

        finer = range(len(widths) - 1)  # every level but the coarsest
        self.down_inflation = nn.ModuleList(conv_block(level) for level in finer)
        self.temporal_downs = nn.ModuleList(TemporalDownsample(widths[level + 1]) for level in range(halvings))
        self.middle_inflation = nn.ModuleList(
            TemporalAttention(widths[-1], embedding, text_width, config.heads) for _ in range(3)
        )
        self.temporal_ups = nn.ModuleList(TemporalUpsample(widths[level]) for level in range(halvings))
        self.up_inflation = nn.ModuleList(conv_block(level) for level in finer)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_t2i(cls, unet: UNet, halvings: int = 2, whole: bool = True, verbose: bool = True) -> "STUNet":
        """Inflate a text-to-image U-Net: it becomes part of the STUNet, and its weights are frozen. Prints a table.

        Raises `TypeError` for anything else, `ValueError` for halvings that the net has no levels for.
        """
        if not isinstance(unet, UNet):
            raise TypeError(f"inflate a UNet, not {type(unet).__name__}")
        unet.requires_grad_(False)
        stunet = cls(unet, halvings, whole)
        if verbose:
            print(stunet.table())
        return stunet

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that inflation added: those that train."""
        return (parameter for name, parameter in self.named_parameters() if not name.startswith("t2i."))

    def table(self) -> str:
        """Parameters by part, frozen and trainable."""
        rows = [f"{'part':<18}{'frozen':>12}{'trainable':>12}"]
        for name, part in self.named_children():
            rows.append(f"{name:<18}{count_parameters(part, False):>12,}{count_parameters(part, True):>12,}")
        return "\n".join([*rows, f"{'total':<18}{count_parameters(self, False):>12,}{count_parameters(self, True):>12,}"])

    def contexts(self, log_snr: Tensor, tokens: Int[Tensor, "b n"], frames: int, height: int, width: int) -> list[Context]:
        """What the temporal layers look at, for each level, finest first: captions, noise level(s), clock and places.

        `log_snr` is (b,) or (b, levels); `height` and `width` are those of the finest features.
        """
        words, real, summary = self.text(tokens)
        times = self.clock(since_start(frames, words.device)) if self.clock else words.new_zeros(1, 1)  # t e
        embedding = self.noise(log_snr.reshape(len(tokens), -1), summary, times)
        # Fresh, its entries are about 0.1 in size: normalised, a word makes a difference from the first step on.
        embedding = F.layer_norm(embedding, embedding.shape[-1:])
        contexts = []
        for level in range(len(self.t2i.config.channels)):
            here = self.here(summary, height >> level, width >> level) if self.here else None
            contexts.append(Context(embedding[:, :: 2 ** min(level, self.halvings)], words, real, here))
        return contexts

    def forward(
        self,
        noisy: Float[Tensor, "b c t h w"],
        log_snr: Tensor,
        tokens: Int[Tensor, "b n"],
        given: Float[Tensor, "b 4 t h w"] | None = None,
    ) -> Float[Tensor, "b 3 t h w"]:
        """`given`: pixels of the clip that are known, and their mask (see `conditioning`); by default there are none."""
        self.check_frames(noisy.shape[2])
        t2i, b, t = self.t2i, noisy.shape[0], noisy.shape[2]
        image_context = t2i.context(log_snr, tokens)

        def images(video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "(b t) c h w"]:
            return rearrange(video, "b c t h w -> (b t) c h w")

        def video(images: Float[Tensor, "(b t) c h w"]) -> Float[Tensor, "b c t h w"]:
            return rearrange(images, "(b t) c h w -> b c t h w", b=b)

        h = t2i.fold(images(noisy))
        if given is not None:  # the stem's convolution, extended from 3 channels to 7
            h = h + self.given(F.pixel_unshuffle(images(given), t2i.config.patch))
        contexts = self.contexts(log_snr, tokens, t, *h.shape[-2:])
        # Of the pretrained layers, which see the frames of a level as a batch of images.
        image_contexts = [image_context.repeat(t // 2 ** min(level, self.halvings)) for level in range(len(contexts))]
        skips = []
        for level, downsample in enumerate(t2i.downsamples):
            context, per_frame = contexts[level], image_contexts[level]
            h = t2i.down_attention[level](t2i.down_blocks[level](h, per_frame), per_frame)
            h = images(self.down_inflation[level](video(h), context))
            skips.append(h)
            h = downsample(h)
            if level < self.halvings:
                h = images(self.temporal_downs[level](video(h)))

        context, per_frame = contexts[-1], image_contexts[-1]
        h = images(self.middle_inflation[0](video(t2i.middle_in(h, per_frame)), context))
        h = images(self.middle_inflation[1](video(t2i.middle_attention(h, per_frame)), context))
        h = images(self.middle_inflation[2](video(t2i.middle_out(h, per_frame)), context))

        for level in reversed(range(len(skips))):
            h = t2i.upsamples[level](F.interpolate(h, scale_factor=2.0))
            if level < self.halvings:
                h = images(self.temporal_ups[level](video(h)))
            h = torch.cat([h, skips[level]], dim=1)
            context, per_frame = contexts[level], image_contexts[level]
            h = t2i.up_attention[level](t2i.up_blocks[level](h, per_frame), per_frame)
            h = images(self.up_inflation[level](video(h), context))
        return t2i.to_v(video(t2i.unfold(h)), noisy, log_snr)

    def check_frames(self, frames: int) -> None:
        """Raise `ValueError` unless the frames are divisible by the temporal factor."""
        factor = self.temporal_factor
        if frames < 1 or frames % factor:
            below, above = frames // factor * factor, -(-frames // factor) * factor
            near = f"{below} or {above}" if below > 0 else f"{max(above, factor)}"
            raise ValueError(f"{frames} frames are not divisible by the temporal factor {factor}: the nearest valid is {near}")
