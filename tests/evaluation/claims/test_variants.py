"""Variants differ in what they say, and in nothing else: as many parameters, as many operations, the same start."""

import pytest
import torch

from minilumiere.evaluation.claims.costs import context
from minilumiere.evaluation.claims.meters import flops
from minilumiere.evaluation.claims.variants import (
    FULL_3D,
    HE,
    NEAREST,
    NO_HALVINGS,
    ONE_D,
    exchange_convs,
    inner_width,
    variant,
)
from minilumiere.model.temporal import SpaceTimeConv
from minilumiere.model.text import null_tokens
from minilumiere.model.unet import UNet


def block(kind: str = "", channels: int = 64) -> SpaceTimeConv:
    torch.manual_seed(0)
    fresh = SpaceTimeConv(channels, 128)
    return exchange_convs(fresh, kind) if kind else fresh


@pytest.fixture
def nets(mini, perturb):
    """Builds variants on image nets with the same weights."""

    def build(name: str, seed: int = 0):
        torch.manual_seed(0)
        return variant(name, mini, seed, perturb(UNet(mini.t2i, mini.size), 0.05))

    return build


@pytest.mark.parametrize("kind", [ONE_D, FULL_3D])
@pytest.mark.parametrize("channels", [64, 96])
def test_parameters_and_operations_are_matched(kind, channels):
    counts, operations = [], []
    for net in (block(channels=channels), block(kind, channels)):
        counts.append(sum(p.numel() for p in net.parameters()))
        operations.append(flops(lambda net=net: net.to("meta")(torch.empty(1, channels, 4, 8, 8), context(4))))
    assert counts[1] == pytest.approx(counts[0], rel=0.03)
    assert operations[1] == pytest.approx(operations[0], rel=0.03)


def test_widths_pay_for_themselves():
    c = 96
    assert c * c + 3 * c * inner_width(ONE_D, c) + inner_width(ONE_D, c) * c == 13 * c * c
    full = inner_width(FULL_3D, c)
    assert c * c + 27 * c * full + full * c == pytest.approx(13 * c * c, rel=0.02)
    with pytest.raises(ValueError, match="full 3-D"):
        exchange_convs(block(), "2-D only")


@pytest.mark.parametrize(("kind", "in_space", "in_time"), [("", True, True), (ONE_D, False, True), (FULL_3D, True, True)])
def test_a_pixel_is_felt_where_the_convolutions_reach(kind, in_space, in_time, perturb):
    """The group norms are left out: they let every pixel be felt everywhere."""
    net = perturb(block(kind, 8), 0.1)
    net.norm = net.modulation.norm = torch.nn.Identity()
    clip = torch.randn(1, 8, 5, 5, 5)
    changed = clip.clone()
    changed[:, :, 2, 2, 2] += 1
    with torch.no_grad():
        felt = (net(changed, context(5)) - net(clip, context(5))).abs().amax((0, 1)) > 1e-6  # t h w
    assert felt[2, 2, 2] and bool(felt[2, 2, 3]) == in_space and bool(felt[3, 2, 2]) == in_time
    assert not felt[4].any() and not felt[0].any()


def test_fresh_blocks_of_every_kind_add_nothing(nets, mini):
    noisy, tokens = torch.randn(1, 3, 4, 16, 16), null_tokens(1)
    with torch.no_grad():
        one, *others = (nets(name)(noisy, torch.zeros(1), tokens) for name in (NEAREST, ONE_D, FULL_3D))
    for other in others:
        torch.testing.assert_close(other, one)


def test_he_differs_in_resampling_only_and_by_seed(nets):
    nearest, he, other = nets(NEAREST).state_dict(), nets(HE).state_dict(), nets(HE, 1).state_dict()
    differing = {name for name in nearest if not torch.equal(nearest[name], he[name])}
    assert differing == {name for name in nearest if name.startswith("temporal_") and name.endswith("conv.weight")}
    name = sorted(differing)[0]
    assert not torch.equal(he[name], other[name])
    fan_in = he[name][0].numel()
    assert he[name].std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2), "He et al. 2015"


def test_without_halvings_nothing_is_halved_and_names_are_checked(nets, mini):
    assert nets(NO_HALVINGS).temporal_factor == 1 and nets(NEAREST).temporal_factor == 4
    with pytest.raises(ValueError, match="all fine-tuned"):
        variant("fine", mini)
