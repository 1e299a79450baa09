"""The paper: every net and every way to use one, each in its file. Read them in this order:

text, diffusion, blocks, unet (text to image) · temporal, stunet (text to video) · multidiffusion, superres ·
conditioning, stylize · appearance, composition (our additions) · digit_classifier (the judge's net).
"""

from minilumiere.model.multidiffusion import multidiffusion, temporal_windows
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import interpolate_weights
from minilumiere.model.temporal import SpaceTimeConv, TemporalAttention, TemporalDownsample, TemporalUpsample
from minilumiere.model.text import null_tokens, tokenise
from minilumiere.model.unet import UNet, count_parameters

__all__ = [
    "STUNet",
    "SpaceTimeConv",
    "TemporalAttention",
    "TemporalDownsample",
    "TemporalUpsample",
    "UNet",
    "count_parameters",
    "interpolate_weights",
    "multidiffusion",
    "null_tokens",
    "temporal_windows",
    "tokenise",
]
