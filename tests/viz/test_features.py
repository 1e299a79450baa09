"""What the nets hold inside: every layer recorded, and nothing changed by recording."""

import pytest
import torch
from einops import rearrange
from torch import nn

from minilumiere.config import SCALES
from minilumiere.model import STUNet, UNet, tokenise
from minilumiere.viz import patch_features, record_features
from minilumiere.viz.features import is_added, named_layers, part_of, record_temporal_attention

CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise quickly and a white 1"]


@pytest.fixture
def inputs():
    """Two noisy clips of 8 frames, their noise levels and their captions' tokens."""
    return torch.randn(2, 3, 8, 16, 16), torch.tensor([-2.0, 3.0]), tokenise(CAPTIONS)


@pytest.fixture
def stunet(small_unet, perturb) -> STUNet:
    return perturb(STUNet.from_t2i(small_unet(attention=(False, True, True)), verbose=False), 0.1, seed=1).eval()


def count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_layer_of_the_stunet_has_its_shape_and_its_place_in_the_order(stunet, inputs):
    with record_features(stunet) as features:
        stunet(*inputs)
    fine, middle, coarse = (8, 8, 8, 8), (16, 4, 4, 4), (16, 2, 2, 2)  # c t h w of the three levels
    expected = {
        "stem": fine,
        "down.0.image": fine,
        "down.0.space-time": fine,
        "down.0.halve-space": (16, 8, 4, 4),
        "down.0.halve-time": middle,
        "down.1.image": middle,
        "down.1.image-attention": middle,
        "down.1.space-time": middle,
        "down.1.halve-space": (16, 4, 2, 2),
        "down.1.halve-time": coarse,
        "middle.0.image": coarse,
        "middle.0.time-attention": coarse,
        "middle.1.image-attention": coarse,
        "middle.1.time-attention": coarse,
        "middle.2.image": coarse,
        "middle.2.time-attention": coarse,
        "up.1.double-space": (16, 2, 4, 4),
        "up.1.double-time": middle,
        "up.1.image": middle,
        "up.1.image-attention": middle,
        "up.1.space-time": middle,
        "up.0.double-space": (8, 4, 8, 8),
        "up.0.double-time": fine,
        "up.0.image": fine,
        "up.0.space-time": fine,
        "head": (12, 8, 8, 8),
        "output": (3, 8, 16, 16),
    }
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {k: (2, *v) for k, v in expected.items()}
    assert list(features) == list(expected)  # the order in which they ran is the order of the names
    assert [name for name in named_layers(stunet) if name != "given"] == list(expected)
    assert not any(feature.requires_grad for feature in features.values())


def test_recording_changes_nothing_and_leaves_nothing(stunet, inputs):
    before = stunet(*inputs)
    with record_features(stunet) as features, record_temporal_attention(stunet):
        recorded = stunet(*inputs)
    assert torch.equal(before, recorded) and torch.equal(before, stunet(*inputs))
    assert torch.equal(features["output"], recorded) and recorded.requires_grad
    assert count_hooks(stunet) == 0


def test_hooks_go_after_an_error_too(stunet, inputs):
    noisy, *rest = inputs
    with pytest.raises(ValueError, match="divisible"), record_features(stunet), record_temporal_attention(stunet):
        assert count_hooks(stunet) > 0
        stunet(noisy[:, :, :7], *rest)
    assert count_hooks(stunet) == 0


def test_a_batch_becomes_clips_again(stunet, inputs):
    """The image layers see frames as a batch of images; clip by clip, the same features come out."""
    noisy, log_snr, tokens = inputs
    with record_features(stunet) as both:
        stunet(noisy, log_snr, tokens)
    with record_features(stunet) as second:
        stunet(noisy=noisy[1:], log_snr=log_snr[1:], tokens=tokens[1:])
    for name, feature in second.items():
        torch.testing.assert_close(both[name][1:], feature, atol=1e-4, rtol=1e-4)


def test_inflation_is_what_a_space_time_block_adds(small_unet, inputs):
    """Freshly inflated, a block adds nothing: its output is that of the image layer before it."""
    stunet = STUNet.from_t2i(small_unet(), verbose=False)
    with record_features(stunet) as features:
        stunet(*inputs)
    assert torch.equal(features["down.0.space-time"], features["down.0.image"])
    assert torch.equal(features["middle.0.time-attention"], features["middle.0.image"])
    assert torch.equal(features["down.0.halve-time"], features["down.0.halve-space"][:, :, ::2])


def test_an_image_net_has_one_frame_and_no_added_layers(small_unet):
    unet = small_unet()
    image, log_snr, tokens = torch.randn(2, 3, 16, 16), torch.tensor([0.0, 1.0]), tokenise(CAPTIONS)
    with record_features(unet) as features:
        output = unet(image, log_snr, tokens)
    assert torch.equal(features["output"], output[:, :, None])
    assert all(feature.dim() == 5 and feature.shape[2] == 1 for feature in features.values())
    assert not any(is_added(name) for name in features)
    with record_features(unet) as features:
        pass
    assert features == {}


def test_names_say_what_inflation_added(stunet):
    """The layers that are added hold exactly the trainable parameters that belong to blocks."""
    for name, layer in named_layers(stunet).items():
        if name != "output":
            assert {parameter.requires_grad for parameter in layer.parameters()} == {is_added(name)}, name


def test_given_pixels_are_a_layer_while_they_are_given(stunet, inputs):
    with record_features(stunet) as features:
        stunet(*inputs, torch.ones(2, 4, 8, 16, 16))
        assert features["given"].shape == (2, 8, 8, 8, 8) and list(features)[:2] == ["stem", "given"]
        stunet(*inputs)
        assert "given" not in features  # of the last call only


def test_super_resolution_halves_no_time():
    config = SCALES["tiny"].ssr
    ssr = STUNet.from_t2i(UNet(config, 16), halvings=0, whole=False, verbose=False)
    with record_features(ssr) as features, record_temporal_attention(ssr) as maps:
        ssr(torch.randn(1, 6, 9, 16, 16), torch.zeros(1, 2), tokenise(CAPTIONS[:1]))
    assert all(feature.shape[2] == 9 for feature in features.values())
    assert "up.0.double-time" not in features and "middle.1.image-attention" not in features
    assert maps["middle.1.time-attention"].shape == (1, config.heads, 9, 9, 1, 1)


def test_attention_maps_are_the_weights_of_the_block(small_unet, perturb):
    """Rows sum to 1; and with the values, they give what the block's fused attention hands to its next layer."""
    stunet = perturb(STUNet.from_t2i(small_unet(attention=(False,) * 3), verbose=False), 0.1, seed=1)
    block, seen = stunet.middle_inflation[1], {}
    handles = [
        block.qkv.register_forward_hook(lambda module, args, output: seen.update(qkv=output)),
        block.out.register_forward_pre_hook(lambda module, args: seen.update(attended=args[0])),
    ]
    with record_temporal_attention(stunet) as maps:
        stunet(torch.randn(2, 3, 12, 16, 32), torch.zeros(2), tokenise(CAPTIONS))  # wider than high: no axes are mixed up
    for handle in handles:
        handle.remove()
    assert list(maps) == [f"middle.{i}.time-attention" for i in range(3)]
    weights = maps["middle.1.time-attention"]  # b heads t s h w
    assert weights.shape == (2, 2, 3, 3, 2, 4) and weights.min() >= 0 and not weights.requires_grad
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 2, 3, 2, 4))
    assert (weights - 1 / 3).abs().max() > 0.01  # and they are not all the same
    value = rearrange(seen["qkv"].chunk(3, -1)[2], "(b h w) t (n d) -> b n t h w d", b=2, h=2, n=2)
    attended = rearrange(torch.einsum("bntshw,bnshwd->bnthwd", weights, value), "b n t h w d -> (b h w) t (n d)")
    torch.testing.assert_close(attended, seen["attended"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("other", [nn.Linear(2, 2), nn.Identity(), None])
def test_another_model_is_an_error(other):
    for record in (record_features, record_temporal_attention):
        with pytest.raises(TypeError, match="UNet or a STUNet"), record(other):
            pass
    assert other is None or count_hooks(other) == 0


# Patching.


@pytest.fixture
def others():
    """Another two captions for the same noisy clips."""
    return tokenise(["a red 3 moving left", "a green 4"])


def test_patching_with_its_own_features_changes_nothing(stunet, inputs):
    with torch.no_grad(), record_features(stunet) as features:
        before = stunet(*inputs)
    with torch.no_grad(), patch_features(stunet, dict(features)):
        torch.testing.assert_close(stunet(*inputs), before)
    assert count_hooks(stunet) == 0


@pytest.mark.parametrize(
    "layers", [["output"], ["head"], ["down.0.space-time", "down.1.space-time", "up.1.double-time", "up.0.space-time"]]
)
def test_patching_all_that_leads_to_the_output_gives_the_other_output(stunet, inputs, others, layers):
    noisy, log_snr, tokens = inputs
    with torch.no_grad(), record_features(stunet) as features:
        other = stunet(noisy, log_snr, others)
    with torch.no_grad(), patch_features(stunet, {layer: features[layer] for layer in layers}):
        torch.testing.assert_close(stunet(noisy, log_snr, tokens), other)


def test_a_function_patches_a_part(stunet, inputs, others):
    noisy, log_snr, tokens = inputs
    with torch.no_grad(), record_features(stunet) as features:
        other, own = stunet(noisy, log_snr, others), stunet(noisy, log_snr, tokens)

    def first_frame(output):
        return torch.cat([other[:, :, :1], output[:, :, 1:]], dim=2)

    with torch.no_grad(), patch_features(stunet, {"output": first_frame}):
        patched = stunet(noisy, log_snr, tokens)
    assert torch.equal(patched[:, :, 0], other[:, :, 0]) and torch.equal(patched[:, :, 1:], own[:, :, 1:])
    assert "output" in features


def test_patching_a_layer_that_matters_changes_the_output(stunet, inputs, others):
    noisy, log_snr, tokens = inputs
    with torch.no_grad(), record_features(stunet) as features:
        stunet(noisy, log_snr, others)
        value = features["middle.0.time-attention"]
        own = stunet(noisy, log_snr, tokens)
    with torch.no_grad(), patch_features(stunet, {"middle.0.time-attention": value}):
        assert not torch.equal(stunet(noisy, log_snr, tokens), own)


def test_bad_patches_are_refused(stunet, inputs):
    with (
        pytest.raises(ValueError, match=r"no layer 'down\.7\.image'.*stem"),
        patch_features(stunet, {"down.7.image": torch.zeros(1)}),
    ):
        pass
    wrong = patch_features(stunet, {"stem": torch.zeros(2, 8, 8, 4, 4)})
    with pytest.raises(ValueError, match=r"stem gives \(2, 8, 8, 8, 8\)"), wrong:
        stunet(*inputs)
    with pytest.raises(TypeError, match="layer stem: wanted a tensor"), patch_features(stunet, {"stem": lambda own: None}):
        stunet(*inputs)
    assert count_hooks(stunet) == 0
    with pytest.raises(TypeError, match="UNet"), patch_features(nn.Linear(1, 1), {}):
        pass
    with pytest.raises(TypeError, match="mapping"), patch_features(stunet, "stem"):
        pass


def test_part_of_replaces_frames_and_a_region_and_keeps_the_rest():
    own, value = torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 2, 4, 4, 4)
    region = torch.zeros(16, 16)
    region[:8, :6] = 1  # of the layer's 4x4 places of 4x4 pixels: two rows, a column and a half
    replaced = part_of(value, frames=[1, 3], region=region)(own)
    expected = torch.zeros_like(own)
    expected[:, :, [1, 3], :2, :2] = 1
    assert torch.equal(replaced, expected)
    assert torch.equal(part_of(value)(own), value) and torch.equal(part_of(value, frames=[])(own), own)
    expected = torch.zeros_like(own)
    expected[:, :, 2] = 1
    assert torch.equal(part_of(value, frames=[2])(own), expected)
    for bad in ([4], [-1]):
        with pytest.raises(ValueError, match="frames 0 to 3"):
            part_of(value, frames=bad)(own)
    with pytest.raises(ValueError, match=r"shape \(H, W\), not \(1, 4, 4\)"):
        part_of(value, region=torch.ones(1, 4, 4))(own)
