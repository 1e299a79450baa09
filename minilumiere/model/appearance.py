"""What a thing looks like on every frame: the image net's word on it, beside the video net's.

    v = v_video + weight (v_image(caption) − v_image(no caption))        where log-SNR > CLEAR
    weight = image_guidance · max(0, guidance − 1) / (default guidance − 1), from the default guidance on image_guidance

Classifier-free guidance towards the caption, taken from the image net inside the STUNet, frame by frame. The STUNet sees
motion and, after its temporal resampling, draws every second frame and the last one less well; the image net knows digits
and colours, and nothing of time. As a difference of two predictions for the same noisy frames, its word moves little of
what is there; while noise still hides where things are, it has none.

One option means one thing: with `guidance` 0 no net hears the caption, with 1 none is guided, in between and above it nothing
jumps. The image net's weight grows from 0 at 1 to its own at the default guidance, where it was measured, and stays there.

More clips keep their digit on all frames with it (docs/results.md has both shares). Of two objects the image net does not
know which is which, and motions suffer (docs/experiments.md): there it is left out. It costs the image net twice a step where
it is used. After composable diffusion (Liu et al. 2022); our choice: the paper is silent.
"""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from minilumiere.config import Scale
from minilumiere.model.diffusion import Denoiser
from minilumiere.model.text import null_tokens
from minilumiere.model.unet import UNet

CLEAR = -2.0  # log-SNR


def image_weight(guidance: float, scale: Scale) -> float:
    """The weight of the image net's guidance that goes with a classifier-free guidance weight, see above."""
    share = 1.0 if guidance >= scale.guidance else max(0.0, guidance - 1) / max(scale.guidance - 1, 1e-6)
    return scale.image_guidance * share


def with_image_guidance(
    denoise: Denoiser, image_net: UNet, tokens: Int[Tensor, "b n"], weight: Float[Tensor, " b"]
) -> Denoiser:
    """A denoiser of videos, with the image net's guidance where noise lets it see, of a `weight` for each clip.

    Where all weights are 0 it costs nothing.
    """
    if not weight.any():
        return denoise
    nothing = null_tokens(len(tokens)).to(tokens)

    def both(noisy: Float[Tensor, "b c t h w"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b c t h w"]:
        v = denoise(noisy, log_snr)
        if log_snr[0] <= CLEAR:
            return v
        b, _, t, *_ = noisy.shape
        frames, levels = rearrange(noisy, "b c t h w -> (b t) c h w"), log_snr.repeat_interleave(t)
        with_caption, without = (image_net(frames, levels, words.repeat_interleave(t, 0)) for words in (tokens, nothing))
        return v + weight.reshape(b, 1, 1, 1, 1) * rearrange(with_caption - without, "(b t) c h w -> b c t h w", b=b)

    return both
