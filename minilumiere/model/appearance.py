"""What a thing looks like on every frame: the image net's word on it, beside the video net's, and at the end alone.

    log-SNR       v
    ≤ CLEAR       v_video                                      noise hides shapes: only the video net knows where things go
    CLEAR … DRAWN v_video + weight (v_image(caption) − v_image(no caption))
    ≥ DRAWN       v_image, guided by its own weight            where things are is settled: each frame is drawn as an image

The STUNet sees motion and, after its temporal resampling, draws every second frame and the last one less well; the image net
inside it knows digits and colours, and nothing of time. As classifier-free guidance its word moves little of what is there.
In the last, weak noise a place can hardly change, and the image net alone draws a digit better than both.

One option means one thing: with `guidance` 0 no net hears the caption, with 1 none is guided, in between and above it nothing
jumps. The share of the image net's word grows from 0 at 1 to all of it at the default guidance, and stays there.

More clips keep their digit on all frames with it (docs/results.md has both shares). Of two objects on the same frames the
image net does not know which is which, and motions suffer (docs/experiments.md): there it is left out. It is called twice a
step. After composable diffusion (Liu et al. 2022) and expert denoisers (Balaji et al. 2022); our choice: the paper is silent.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.dataset.captions import parse_caption
from minilumiere.model.diffusion import Denoiser
from minilumiere.model.text import null_tokens
from minilumiere.model.unet import UNet

CLEAR, DRAWN = -2.0, 1.0  # log-SNR


def image_share(guidance: float, scale: Scale) -> float:
    """The share of the image net's word that goes with a classifier-free guidance weight, 0 to 1, see above."""
    own = 1.0 if guidance >= scale.guidance else max(0.0, guidance - 1) / max(scale.guidance - 1, 1e-6)
    return scale.image_share * own


def image_shares(captions: list[str], guidance: float, scale: Scale) -> Float[Tensor, " b"]:
    """The same for each clip: nothing where two objects are on its frames."""
    share = image_share(guidance, scale)
    return torch.tensor([share if len(parse_caption(caption)) == 1 else 0.0 for caption in captions])


def with_image_net(
    denoise: Denoiser, image_net: UNet, tokens: Int[Tensor, "b n"], share: Float[Tensor, " b"], scale: Scale, draws: bool = True
) -> Denoiser:
    """A denoiser of videos, with the image net's word where noise lets it see, of a `share` for each clip, 0 to 1.

    Where all shares are 0 it costs nothing. Without `draws` the image net guides to the end.
    """
    if not share.any():
        return denoise
    nothing = null_tokens(len(tokens)).to(tokens)
    everywhere, share = bool((share == 1).all()), share.to(tokens.device).reshape(-1, 1, 1, 1, 1)

    def both(noisy: Float[Tensor, "b c t h w"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b c t h w"]:
        if log_snr[0] <= CLEAR:
            return denoise(noisy, log_snr)
        b, _, t, *_ = noisy.shape
        frames, levels = rearrange(noisy, "b c t h w -> (b t) c h w"), log_snr.repeat_interleave(t)
        with_caption, without = (
            rearrange(image_net(frames, levels, words.repeat_interleave(t, 0)), "(b t) c h w -> b c t h w", b=b)
            for words in (tokens, nothing)
        )
        if not draws or log_snr[0] < DRAWN:
            return denoise(noisy, log_snr) + share * scale.image_guidance * (with_caption - without)
        alone = without + scale.t2i_guidance * (with_caption - without)
        return alone if everywhere else torch.lerp(denoise(noisy, log_snr), alone, share)

    return both


def with_drawing(levels: Float[Tensor, " steps+1"]) -> Float[Tensor, " more"]:
    """The levels of a `schedule`; with one more step at the end, from `DRAWN` on, if so few steps have none there."""
    if levels[-2] >= DRAWN:
        return levels
    return torch.cat([levels[:-1], levels.new_tensor([DRAWN]), levels[-1:]])
