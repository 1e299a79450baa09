"""Every layer of a noisy clip, recorded and drawn."""

import pytest
import torch
from torch import nn

import minilumiere as ml
from minilumiere.model import STUNet, tokenise
from minilumiere.viz import record_features
from minilumiere.viz.clips import to_png
from minilumiere.viz.layers import Recording, principal_rgb, record, render

CAPTION = "a red 3 moving right"


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return ml.sample_batch(1, captions=[CAPTION], seed=0).video[0]


@pytest.fixture(scope="module")
def recording(stunet, video) -> Recording:
    return record(stunet, video, CAPTION, log_snr=2.0)


def test_a_recording_is_one_run_of_the_net_on_the_noisy_clip(stunet, recording, video):
    assert recording.noisy.shape == (3, 16, 32, 32)
    alpha, sigma = torch.tensor(2.0).sigmoid().sqrt(), torch.tensor(-2.0).sigmoid().sqrt()
    noise = (recording.noisy - alpha * (video.transpose(0, 1) * 2 - 1)) / sigma
    assert noise.mean().abs() < 0.02 and (noise.std() - 1).abs() < 0.02
    again, other = record(stunet, video, CAPTION, 2.0), record(stunet, video, CAPTION, 2.0, seed=1)
    assert torch.equal(again.noisy, recording.noisy) and not torch.equal(other.noisy, recording.noisy)
    assert all(torch.equal(again.features[name], recording.features[name]) for name in recording.features)
    assert set(recording.attention) <= set(recording.features)
    assert not any(module._forward_hooks for module in stunet.modules())


def test_every_layer_is_drawn_with_named_sides_and_its_own_numbers(recording, pictures):
    for layer, feature in recording.features.items():
        channels, frames, height, _ = feature.shape[1:]
        figure = render(recording, layer, frames - 1, channels - 1, height - 1)
        _, _, image, slice_, rgb, *_ = shown = pictures(figure)
        assert len(shown) == (8 if layer in recording.attention else 6)
        assert torch.equal(image, feature[0, -1, -1])  # of the last channel, the last frame
        assert torch.equal(slice_, feature[0, -1, :, -1])  # and the last row over time: t x
        assert rgb.shape == (*image.shape, 3) and rgb.min() >= 0 and rgb.max() <= 1
        words = [text.get_text() for text in figure.texts]
        assert words.count("x →") == len(shown) // 2 and {"← y", "← t", f"x–t at y = {height - 1}"} <= set(words)
        assert ("← looking: t" in words) == (layer in recording.attention)
        assert layer in figure.get_suptitle()


def test_the_noisy_clip_is_shown_where_the_layer_is(recording, pictures):
    """Frame 2 of a layer of 4 frames is frame 8 of the clip's 16; its row 1 of 4 is in the middle of rows 8 to 15 of 32."""
    image, slice_, *_ = pictures(render(recording, "middle.0.image", frame=2, row=1))
    clip = ((recording.noisy + 1) / 2).clamp(0, 1)  # c t h w
    assert torch.equal(image, clip[:, 8].permute(1, 2, 0))
    assert torch.equal(slice_, clip[:, :, 12].permute(1, 2, 0))


def test_attention_is_drawn_of_one_head_or_of_their_mean(recording, pictures):
    layer = "middle.1.time-attention"
    weights = recording.attention[layer][0]  # heads t s h w
    for head, expected in ((None, weights.mean(0)), (1, weights[1])):
        *_, to_each, along_row = pictures(render(recording, layer, frame=3, row=2, head=head))
        torch.testing.assert_close(to_each, expected.mean((2, 3)))
        torch.testing.assert_close(along_row, expected[3, :, 2])
    with pytest.raises(ValueError, match="head must be from 0 to 1"):
        render(recording, layer, head=2)


def test_rendering_is_pure(recording):
    before = {name: feature.clone() for name, feature in recording.features.items()}
    first, second = (to_png(render(recording, "down.1.space-time", 3, 2, 1)) for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")
    assert all(torch.equal(before[name], feature) for name, feature in recording.features.items())


def test_a_bad_layer_names_the_choices_and_a_bad_number_the_range(recording):
    with pytest.raises(ValueError, match=r"unknown layer 'down.9'.*down\.0\.space-time.*output"):
        render(recording, "down.9")
    for bad, message in (({"frame": 16}, "frame must be from 0 to 15"), ({"channel": -1}, "channel"), ({"row": 16}, "row")):
        with pytest.raises(ValueError, match=message):
            render(recording, "down.0.image", **bad)
    with pytest.raises(TypeError, match="frame"):
        render(recording, "down.0.image", frame=1.5)


def test_principal_components_find_the_directions_and_have_fixed_signs():
    """Three independent patterns, mixed into seven channels: each component is one of them, strongest first."""
    torch.manual_seed(0)
    patterns = torch.rand(3, 4 * 6 * 6).pow(4)  # skewed: few places are bright
    patterns = (patterns - patterns.mean(1, keepdim=True)) / patterns.std(1, keepdim=True)
    mixing = torch.linalg.qr(torch.randn(7, 3)).Q * torch.tensor([3.0, 2.0, 1.0])
    feature = (mixing @ patterns).reshape(7, 4, 6, 6)
    rgb = principal_rgb(feature)
    assert rgb.shape == (3, 4, 6, 6) and rgb.min() == 0 and rgb.max() == 1
    for component, pattern in zip(rgb.flatten(1), patterns, strict=True):
        assert torch.corrcoef(torch.stack([component, pattern]))[0, 1] > 0.9
    torch.testing.assert_close(principal_rgb(-feature), rgb, atol=1e-4, rtol=0)
    assert principal_rgb(torch.zeros(4, 2, 3, 3)).abs().max() == 0  # nothing to see is black, not NaN


def test_features_are_those_of_a_plain_call(stunet, recording):
    with record_features(stunet) as features, torch.no_grad():
        stunet(recording.noisy[None], torch.tensor([2.0]), tokenise([CAPTION]))
    assert all(torch.equal(features[name], recording.features[name]) for name in features)


def test_bad_clips_captions_and_models(stunet, video, small_unet):
    with pytest.raises(ValueError, match="wanted"):
        record(stunet, video[:, :, :16], CAPTION)
    with pytest.raises(ValueError, match="divisible"):
        record(stunet, video[:7], CAPTION)
    with pytest.raises(ValueError, match="pink"):
        record(stunet, video, "a pink 3")
    ssr = STUNet.from_t2i(small_unet(size=32, in_channels=6, noise_levels=2), halvings=0, whole=False, verbose=False)
    for other in (small_unet(), ssr, nn.Linear(2, 2), ml.load("tiny", device="cpu")):
        with pytest.raises(TypeError, match="STUNet"):
            record(other, video, CAPTION)
