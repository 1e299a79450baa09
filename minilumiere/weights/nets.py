"""The nets of a scale, by training stage: fresh, or with their shipped weights.

judge: DigitClassifier    t2i, ssr-image: UNet    base, conditioned, ssr: STUNet, inflated from the shipped image net
fast, on-policy: STUNet, too; in use `Student`, below
style-*: UNet, the shipped text-to-image net, of which the last level trains    video-features: `word_reader`, below
"""

import torch
from torch import Tensor, nn

from minilumiere.config import FeaturesConfig, Scale
from minilumiere.model.diffusion import MAX_LOG_SNR
from minilumiere.model.digit_classifier import DigitClassifier
from minilumiere.model.stunet import STUNet
from minilumiere.model.stylize import last_level
from minilumiere.model.text import VOCABULARY
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


class Student(STUNet):
    """The few-step student: a STUNet, beside a second one over the same image net that answers in its place to pure noise."""

    first: STUNet

    def forward(self, noisy: Tensor, log_snr: Tensor, *rest, **given) -> Tensor:
        """As of any STUNet, for clips of one noise level."""
        answer = self.first if log_snr[0] <= -MAX_LOG_SNR else super().forward
        return answer(noisy, log_snr, *rest, **given)


@pinned()
@global_generator()
def student(scale: Scale) -> Student:
    """The few-step student as it is used: in its first step farther from its teacher than its training went.

        W_first = W_teacher + reach (W_trained − W_teacher)        reach: `Scale.few_steps().reach`

    Pure noise leaves everything open. There a net that learns by a mean of squares answers with something of a mean, and its
    loss is least at reach 1. What it learnt leads out of that, and the same way farther on makes better clips, at no cost
    (notebook 14, docs/experiments.md). After Zheng et al. 2024, who extrapolate language models; our choice.

    Raises what `read_shipped` raises.
    """
    teacher, reach = _trained("base", scale), scale.few_steps().reach
    net, first = (kind.from_t2i(teacher.t2i, scale.halvings, verbose=False) for kind in (Student, STUNet))
    weights, _ = read_shipped("fast", scale)
    for each in (net, first):
        load_weights(each, weights)
    with torch.no_grad():
        for begun, learnt in zip(teacher.parameters(), first.parameters(), strict=True):
            learnt.copy_(torch.lerp(begun, learnt, reach))
    net.first = first
    return net


def _build(stage: str, scale: Scale, untrained: bool = False) -> nn.Module:
    if stage == "judge":
        return DigitClassifier(scale.judge)
    if stage == "video-features":
        return word_reader(scale.features)
    if stage == "t2i":
        return UNet(scale.t2i, scale.size)
    if stage == "ssr-image":
        return UNet(scale.ssr, scale.output_size)
    image_net = _build(BUILT_ON[stage], scale) if untrained else _trained(BUILT_ON[stage], scale)
    if stage.startswith("style-"):
        return last_level(image_net)
    if stage in ("base", "conditioned", "fast", "on-policy"):
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


def word_reader(config: FeaturesConfig) -> nn.Sequential:
    """Clips (b 3 t h w) in [-1, 1] to a logit for each word of the vocabulary: is it in the caption? Our choice.

    Each level halves the picture, sees a neighbourhood, then a moment; all but the first halve the frames, too. All but the
    last layer are what `evaluation.frechet` takes: maxima over frames and places, so that a clip may be of any length.
    """
    layers, last = [], 3
    for level, width in enumerate(config.channels):
        halved = 2 if level else 1
        for kernel, stride in (((1, 3, 3), (1, 2, 2)), ((3, 1, 1), (halved, 1, 1)), ((1, 3, 3), (1, 1, 1))):
            around = tuple(length // 2 for length in kernel)
            layers += [nn.Conv3d(last, width, kernel, stride, around), nn.GroupNorm(4, width), nn.ReLU()]
            last = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.LayerNorm(last), nn.Linear(last, len(VOCABULARY)))
