"""The nets that claims are told apart by: the STUNet with one thing different. Trained by `training/ablations.py`.

    name             what differs from the STUNet                                            claim
    nearest          nothing                                                                 1, 2, 4b
    he               temporal resampling starts as He et al. 2015 start layers               1, 11
    1-D only         inflation blocks without a convolution over space                       2
    full 3-D         inflation blocks with one convolution over space and time               2
    no halvings      no temporal resampling: all frames at every level                       4b
    frozen           nothing; begins with the shipped temporal layers                        9
    all fine-tuned   the same, and the image net's weights train too                         9

In an inflation block of c channels the convolutions have 9 c² + 3 c² + c² weights. The two others are as large: a 1x1
convolution in place of the 3x3, and as many channels within as the rest pays for. Each weight is used once at each place of
each frame, so that matched parameters are matched operations, too. Widths are our choice: the paper reports no numbers.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from minilumiere.config import Scale
from minilumiere.model.stunet import STUNet
from minilumiere.model.temporal import SpaceTimeConv
from minilumiere.torch_state import global_generator, pinned
from minilumiere.weights.nets import trained

NEAREST, HE, ONE_D, FULL_3D, NO_HALVINGS = "nearest", "he", "1-D only", "full 3-D", "no halvings"
FROZEN, ALL_TUNED = "frozen", "all fine-tuned"
VARIANTS = (NEAREST, HE, ONE_D, FULL_3D, NO_HALVINGS, FROZEN, ALL_TUNED)


class FullConv(nn.Conv3d):
    """A 3x3x3 convolution of `b c t (h w)`, as `temporal.over_time` hands it over; frames are square."""

    def __init__(self, channels: int, width: int):
        super().__init__(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(rearrange(x, "b c t (h w) -> b c t h w", h=math.isqrt(x.shape[-1])))
        return rearrange(y, "b c t h w -> b c t (h w)")


def inner_width(kind: str, channels: int) -> int:
    """Channels within a block of a kind that has as many weights as the factorised one: 13 c²."""
    return {ONE_D: 3 * channels, FULL_3D: round(12 * channels / 28)}.get(kind, channels)


def exchange_convs(block: SpaceTimeConv, kind: str, width: int | None = None) -> SpaceTimeConv:
    """Let a block have another kind's convolutions, fresh. `width` within it: default, that of matched parameters."""
    channels = block.spatial.in_channels
    width = width or inner_width(kind, channels)
    if kind not in (ONE_D, FULL_3D):
        raise ValueError(f"unknown kind of convolutions {kind!r}: choose {ONE_D!r} or {FULL_3D!r}")
    block.spatial = nn.Conv2d(channels, channels, 1)
    block.temporal = FullConv(channels, width) if kind == FULL_3D else nn.Conv2d(channels, width, (3, 1), padding=(1, 0))
    block.project = nn.Conv2d(width, channels, 1)
    nn.init.zeros_(block.project.weight)
    nn.init.zeros_(block.project.bias)
    return block


def channels_last(net: nn.Module) -> nn.Module:
    """Let a net's two-dimensional convolutions have their weights in the order in which they are quickest."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    return net


def start_as_he(net: STUNet) -> STUNet:
    """Let temporal resampling start with random weights, as He et al. 2015 start layers, not as nearest-neighbour."""
    for layer in (*net.temporal_downs, *net.temporal_ups):
        nn.init.kaiming_normal_(layer.conv.weight)
        nn.init.zeros_(layer.conv.bias)
    return net


@pinned()
def variant(name: str, scale: Scale, seed: int = 0, image_net=None) -> STUNet:
    """The net called `name`, with fresh weights of a seed where it has fresh ones, on the shipped image net or a given one.

    Raises `ValueError` for an unknown name, and what `read_shipped` raises.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}: choose one of {', '.join(VARIANTS)}")
    if name in (FROZEN, ALL_TUNED):
        net = trained("base", scale)
        net.t2i.requires_grad_(name == ALL_TUNED)
        return net
    image_net = trained("t2i", scale) if image_net is None else image_net
    with global_generator(seed):
        net = STUNet.from_t2i(image_net, 0 if name == NO_HALVINGS else scale.halvings, verbose=False)
        if name == HE:
            start_as_he(net)
        if name in (ONE_D, FULL_3D):
            for block in (*net.down_inflation, *net.up_inflation):
                exchange_convs(block, name)
    return channels_last(net)
