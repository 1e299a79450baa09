"""Checkers of notebook 05b, and what it goes on with where an answer is not yet right.

Each checker says "right" or what is not yet right; `use` prints that, and hands on the student's answer or the course's.
`tests/notebooks/test_checks_05b.py` proves that each accepts the notebook's answer, and rejects tempting wrong ones.
"""

from collections.abc import Callable

import torch
from course.small_world import CONFIG, SIZE, draw
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.dataset.captions import DIRECTIONS
from minilumiere.evaluation.judge import centroids
from minilumiere.model import STUNet, TemporalDownsample, TemporalUpsample, UNet, tokenise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def use(verdict: str, yours, ours):
    """Print what a checker said; give `yours` if it is right, else `ours`."""
    print(verdict if verdict == "right" else f"{verdict}\nThe notebook goes on with the course's own.")
    return yours if verdict == "right" else ours


# 1: which way does it go?


def check_direction(direction: Callable) -> str:
    """`direction(clip)`: a clip (t, 3, h, w) in [0, 1] to "left", "right", "up" or "down"."""
    captions = [f"a {colour} {digit} moving {way}" for colour, digit in (("red", 3), ("white", 1)) for way in DIRECTIONS]
    clips = (draw(captions, seeded(0)).transpose(1, 2) + 1) / 2
    dim = clips * 0.8 + 0.1 * torch.rand(clips.shape, generator=seeded(1))  # as sampled clips are: never quite black
    for caption, clip in zip(captions, dim, strict=True):
        if (said := direction(clip)) != caption.split()[-1]:
            return f"not yet: you say {said!r} of a clip of {caption!r}"
    return "right"


def reference_direction(clip: Tensor) -> str:
    brightness = clip.amax(1)
    x, y = (lambda path: path[-1] - path[0])(centroids(torch.where(brightness > 0.25, brightness, 0))[0])
    return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")


# 2: fewer frames, and back


def check_resampling(down: type[nn.Module], up: type[nn.Module]) -> str:
    """`Down(channels)` halves the frames, `Up(channels)` doubles them; each has a temporal convolution `conv`."""
    x = torch.randn(2, 8, 6, 3, 4, generator=seeded(0))
    torch.manual_seed(0)
    for name, mine, theirs, frames, at_first in (
        ("Down", down(8), TemporalDownsample(8), 3, x[:, :, ::2]),
        ("Up", up(8), TemporalUpsample(8), 12, x.repeat_interleave(2, dim=2)),
    ):
        with torch.no_grad():
            given = mine(x)
            if given.shape[2] != frames:
                return f"not yet: {name} makes {given.shape[2]} of 6 frames, not {frames}"
            if not torch.allclose(given, at_first, atol=1e-5):
                return f"not yet: fresh, {name} should be nearest-neighbour resampling"
            if {k: v.shape for k, v in mine.state_dict().items()} != {k: v.shape for k, v in theirs.state_dict().items()}:
                return f"not yet: {name} should hold one convolution over three frames, called conv"
            for parameter in theirs.parameters():
                nn.init.normal_(parameter, std=0.3)
            mine.load_state_dict(theirs.state_dict())
            if not torch.allclose(mine(x), theirs(x), atol=1e-5):
                return f"not yet: fresh, {name} is right; with other weights it isn't (which comes first?)"
    return "right"


# 3: put together


def reference_forward(self, noisy: Tensor, log_snr: Tensor, tokens: Tensor) -> Tensor:
    """The `forward` of `MySTUNet`, written with `rearrange` for each step."""
    net, (b, _, t, *_) = self.image_net, noisy.shape
    fold, unfold = "b c t h w -> (b t) c h w", "(b t) c h w -> b c t h w"

    def over_clip(block: nn.Module, h: Tensor, *context) -> Tensor:
        return rearrange(block(rearrange(h, unfold, b=b), *context), fold)

    frame, clip = net.context(log_snr, tokens), self.context(log_snr, tokens, t)
    frames, fewer, coarse = frame.repeat(t), frame.repeat(t // 2), clip._replace(embedding=clip.embedding[:, ::2])
    h = net.down_blocks[0](net.fold(rearrange(noisy, fold)), frames)
    h = skip = over_clip(self.conv_down, h, clip)
    h = over_clip(self.time_down, net.downsamples[0](h))
    for image_layer, block in zip((net.middle_in, net.middle_attention, net.middle_out), self.attention, strict=True):
        h = over_clip(block, image_layer(h, fewer), coarse)
    h = over_clip(self.time_up, net.upsamples[0](F.interpolate(h, scale_factor=2.0)))
    h = over_clip(self.conv_up, net.up_blocks[0](torch.cat([h, skip], dim=1), frames), clip)
    return rearrange(net.unfold(h), unfold, b=b)


def check_forward(net_class: type[nn.Module]) -> str:
    """`MySTUNet(image_net)`, of which the student wrote `forward`."""
    torch.manual_seed(0)
    image_net = UNet(CONFIG, SIZE)
    nn.init.normal_(image_net.head.weight, std=0.1)  # a fresh image net says 0 of everything
    net = net_class(image_net)
    noisy = torch.randn(2, 3, 4, SIZE, SIZE, generator=seeded(0))
    log_snr, tokens = torch.tensor([0.0, -2.0]), tokenise(["a red 3 moving left", "a cyan 7 moving up"])
    with torch.no_grad():
        given = net(noisy, log_snr, tokens)
        if given.shape != noisy.shape:
            return f"not yet: a clip of shape {tuple(noisy.shape)} gives {tuple(given.shape)}"
        frames = [image_net(noisy[:, :, i], log_snr, tokens) for i in (0, 2)]
        if not torch.allclose(given[:, :, ::2], torch.stack(frames, dim=2), atol=1e-4):
            return "not yet: fresh, it should say of every second frame what the image net says"
    new = {name: parameter for name, parameter in net.named_parameters() if not name.startswith("image_net.")}
    for name, parameter in new.items():
        if "project" in name:
            nn.init.normal_(parameter, std=0.1)
    loss = net(noisy, log_snr, tokens).square().mean()
    if not loss.requires_grad:
        return "not yet: this is the image net, frame by frame; none of your own layers is used"
    loss.backward()
    for name, parameter in new.items():
        if parameter.grad is None or not parameter.grad.abs().sum() > 0:
            return f"not yet: {name.split('.')[0]} is not used: {name} gets no gradient"
    package = STUNet.from_t2i(image_net, halvings=1, verbose=False)
    package.load_state_dict({reference_rename(name): value for name, value in net.state_dict().items()}, strict=False)
    with torch.no_grad():
        if not torch.allclose(net(noisy, log_snr, tokens), package(noisy, log_snr, tokens), atol=1e-4):
            return "not yet: every part is used, but not in the order of the drawing"
    return "right"


# 4: the package's names


NAMES = {
    "image_net": "t2i",
    "conv_down": "down_inflation.0",
    "time_down": "temporal_downs.0",
    "attention": "middle_inflation",
    "time_up": "temporal_ups.0",
    "conv_up": "up_inflation.0",
}


def reference_rename(name: str) -> str:
    first, rest = name.split(".", 1)
    return f"{NAMES.get(first, first)}.{rest}"


def check_rename(rename: Callable, net: nn.Module) -> str:
    """`rename(name)`: the package's name for a tensor of `MySTUNet`'s state dict."""
    package = STUNet.from_t2i(UNet(CONFIG, SIZE), halvings=1, verbose=False).state_dict()
    for name, value in net.state_dict().items():
        renamed = rename(name)
        if renamed not in package:
            return f"not yet: {name} becomes {renamed}, which the package's net doesn't have"
        if package[renamed].shape != value.shape or renamed != reference_rename(name):
            return f"not yet: {name} becomes {renamed}, which is another part of the package's net"
    return "right"
