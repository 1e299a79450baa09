"""The nets of a scale, by training stage: fresh, or with their shipped weights.

judge: DigitClassifier    t2i, ssr-image: UNet    base, conditioned, ssr: STUNet, inflated from the shipped image net
style-*: UNet, the shipped text-to-image net, of which the last level trains
"""

from torch import nn

from minilumiere.config import Scale
from minilumiere.model.digit_classifier import DigitClassifier
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import last_level
from minilumiere.model.unet import UNet
from minilumiere.torch_state import global_generator, pinned
from minilumiere.weights.checkpoint import load_weights
from minilumiere.weights.shipped import BUILT_ON, read_shipped


@pinned()
@global_generator()
def build(stage: str, scale: Scale, untrained: bool = False) -> nn.Module:
    """The net that a stage trains, with fresh weights where it trains them: those of the state of torch's generator, which
    is not moved.

    It is built on the shipped image net, or on one that is fresh, too, if `untrained` (to time it, say).
    """
    return _build(stage, scale, untrained)


@pinned()
@global_generator()
def trained(stage: str, scale: Scale) -> nn.Module:
    """The net of a stage with its shipped weights. Raises what `read_shipped` raises."""
    return _trained(stage, scale)


def _build(stage: str, scale: Scale, untrained: bool = False) -> nn.Module:
    if stage == "judge":
        return DigitClassifier(scale.judge)
    if stage == "t2i":
        return UNet(scale.t2i, scale.size)
    if stage == "ssr-image":
        return UNet(scale.ssr, scale.output_size)
    image_net = _build(BUILT_ON[stage], scale) if untrained else _trained(BUILT_ON[stage], scale)
    if stage.startswith("style-"):
        return last_level(image_net)
    if stage in ("base", "conditioned"):
        return STUNet.from_t2i(image_net, scale.halvings, verbose=False)
    # On windows of T' = 9 or 15 frames, which have no halves, and which begin anywhere in the video.
    return STUNet.from_t2i(image_net, halvings=0, whole=False, verbose=False)


def _trained(stage: str, scale: Scale) -> nn.Module:
    net = _build(stage, scale)
    load_shipped(net, stage, scale)
    return net


def load_shipped(net: nn.Module, stage: str, scale: Scale) -> dict:
    """Put a stage's shipped weights into its net. Returns their metadata; raises what `read_shipped` raises."""
    weights, metadata = read_shipped(stage, scale)
    load_weights(net, weights)
    return metadata
