"""The explorer: pictures of every layer, and sliders that stay within it. No browser here; see tests/browser."""

import builtins
import gc
import itertools

import pytest
import torch
from torch import nn

import minilumiere as ml
from minilumiere.model import STUNet, tokenise
from minilumiere.viz import explorer, feature_explorer, record_features
from minilumiere.viz.explorer import LOG_SNRS, Recording, principal_rgb, record, render

CAPTION = "a red 3 moving right"


@pytest.fixture(scope="module")
def stunet(small_unet, perturb) -> STUNet:
    torch.manual_seed(0)
    return perturb(STUNet.from_t2i(small_unet(size=32), verbose=False), 0.1, seed=1).eval()


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return ml.sample_batch(1, captions=[CAPTION], seed=0).video[0]


@pytest.fixture(scope="module")
def recording(stunet, video) -> Recording:
    return record(stunet, video, CAPTION, log_snr=2.0)


@pytest.fixture
def shown(stunet, video):
    """The explorer's controls by name, and its picture."""
    box = feature_explorer(stunet, video, CAPTION, log_snrs=(4.0, -2.0))
    return {control.description: control for line in box.children[:2] for control in line.children} | {
        "picture": box.children[2]
    }


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


def test_every_layer_is_drawn_with_named_axes_and_its_own_numbers(recording):
    for layer, feature in recording.features.items():
        channels, frames, height, _ = feature.shape[1:]
        figure = render(recording, layer, frames - 1, channels - 1, height - 1)
        axes = figure.axes
        assert len(axes) == (8 if layer in recording.attention else 6)
        assert all("→" in axis.get_xlabel() and "←" in axis.get_ylabel() and axis.get_title() for axis in axes)
        columns = len(axes) // 2
        image, slice_ = (torch.as_tensor(axes[i].images[0].get_array()) for i in (1, columns + 1))
        assert torch.equal(image, feature[0, -1, -1])  # of the last channel, the last frame
        assert torch.equal(slice_, feature[0, -1, :, -1])  # and the last row over time: t x
        rgb = torch.as_tensor(axes[2].images[0].get_array())
        assert rgb.shape == (*image.shape, 3) and rgb.min() >= 0 and rgb.max() <= 1
        assert layer in figure.get_suptitle()


def test_the_noisy_clip_is_shown_where_the_layer_is(recording):
    """Frame 2 of a layer of 4 frames is frame 8 of the clip's 16; its row 1 of 4 is in the middle of rows 8 to 15 of 32."""
    figure = render(recording, "middle.0.image", frame=2, row=1)
    clip = ((recording.noisy + 1) / 2).clamp(0, 1)  # c t h w
    image, slice_ = (torch.as_tensor(figure.axes[i].images[0].get_array()) for i in (0, 3))
    assert torch.equal(image, clip[:, 8].permute(1, 2, 0))
    assert torch.equal(slice_, clip[:, :, 12].permute(1, 2, 0))


def test_attention_is_drawn_of_one_head_or_of_their_mean(recording):
    layer = "middle.1.time-attention"
    weights = recording.attention[layer][0]  # heads t s h w
    for head, expected in ((None, weights.mean(0)), (1, weights[1])):
        axes = render(recording, layer, frame=3, row=2, head=head).axes
        to_each, along_row = (torch.as_tensor(axes[i].images[0].get_array()) for i in (3, 7))
        torch.testing.assert_close(to_each, expected.mean((2, 3)))
        torch.testing.assert_close(along_row, expected[3, :, 2])
    with pytest.raises(ValueError, match="head must be from 0 to 1"):
        render(recording, layer, head=2)


def test_rendering_is_pure(recording):
    before = {name: feature.clone() for name, feature in recording.features.items()}
    first, second = (explorer.to_png(render(recording, "down.1.space-time", 3, 2, 1)) for _ in range(2))
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


def test_sliders_have_the_ranges_of_the_layer(shown, recording):
    for layer, feature in recording.features.items():
        shown["layer"].value = layer
        channels, frames, height, _ = feature.shape[1:]
        ranges = [shown[name].max + 1 for name in ("frame t", "channel", "row y")]
        assert ranges == [frames, channels, height]
        assert all(0 <= shown[name].value <= shown[name].max for name in ("frame t", "channel", "row y"))
        assert shown["head"].disabled == (layer not in recording.attention)


def test_sliders_stay_where_they_are_relative_to_their_range(shown):
    shown["layer"].value = "down.0.image"
    shown["frame t"].value, shown["row y"].value = 15, 0
    shown["layer"].value = "middle.0.image"
    assert (shown["frame t"].value, shown["row y"].value) == (3, 0)
    shown["layer"].value = "output"
    assert (shown["frame t"].value, shown["row y"].value) == (15, 0)


def test_a_layer_of_one_frame_has_nothing_to_slide(stunet, video):
    box = feature_explorer(stunet, video[:4], CAPTION, log_snrs=(0.0,))
    layer, frame = box.children[0].children[0], box.children[1].children[0]
    layer.value = "middle.1.time-attention"
    assert frame.disabled and (frame.value, frame.max) == (0, 1)  # from 0 to 0 would be an error in the browser
    layer.value = "output"
    assert not frame.disabled and (frame.value, frame.max) == (0, 3)


def test_every_control_redraws_once_and_never_runs_the_net(shown, stunet, monkeypatch):
    drawn = []
    monkeypatch.setattr(explorer, "render", lambda *given: drawn.append(given) or render(*given))
    changes = {"log-SNR": 4.0, "frame t": 0, "channel": 1, "row y": 3, "head": 1, "layer": "up.1.double-time"}
    with stunet.register_forward_pre_hook(lambda *_: pytest.fail("the net was run again")):
        shown["layer"].value = "middle.2.time-attention"
        for count, (name, value) in enumerate(changes.items(), start=2):
            before = shown["picture"].value
            shown[name].value = value
            assert len(drawn) == count and shown["picture"].value != before, name


def test_figures_are_not_left_to_a_full_garbage_collection(shown):
    """It takes longer than a redraw; without care for it, it fell due at every ninth."""
    gc.collect()
    before = gc.get_stats()[2]["collections"]
    for channel in range(1, 31):
        shown["channel"].value = channel % (shown["channel"].max + 1)
    assert gc.isenabled() and gc.get_stats()[2]["collections"] == before


def test_the_picture_is_that_of_the_controls(shown, stunet, video):
    for layer, noise in itertools.product(("down.0.space-time", "middle.0.time-attention"), (4.0, -2.0)):
        shown["layer"].value, shown["log-SNR"].value, shown["frame t"].value = layer, noise, 1
        expected = render(
            record(stunet, video, CAPTION, noise), layer, 1, shown["channel"].value, shown["row y"].value, shown["head"].value
        )
        assert shown["picture"].value == explorer.to_png(expected)


def test_without_ipywidgets_the_error_says_what_to_install(stunet, video, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "ipywidgets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"minilumiere\[notebooks\]"):
        feature_explorer(stunet, video, CAPTION)


def test_bad_clips_captions_and_models(stunet, video, small_unet):
    with pytest.raises(ValueError, match="wanted"):
        feature_explorer(stunet, video[:, :, :16], CAPTION)
    with pytest.raises(ValueError, match="divisible"):
        record(stunet, video[:7], CAPTION)
    with pytest.raises(ValueError, match="pink"):
        record(stunet, video, "a pink 3")
    ssr = STUNet.from_t2i(small_unet(size=32, in_channels=6, noise_levels=2), halvings=0, whole=False, verbose=False)
    for other in (small_unet(), ssr, nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="STUNet"):
            record(other, video, CAPTION)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"log_snrs": ()}, "log_snrs must be a list of at least one"),
        ({"log_snrs": 3.0}, "log_snrs must be a list"),
        ({"log_snrs": (0.0, float("nan"))}, "log_snrs must be from"),
        ({"log_snrs": ("a",)}, "log_snrs must be a number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_options_name_what_is_wanted(stunet, video, option, says):
    with pytest.raises((ValueError, TypeError), match=says):
        feature_explorer(stunet, video, CAPTION, **option)


def test_default_noise_levels_go_from_nearly_clean_to_nearly_noise():
    assert sorted(LOG_SNRS, reverse=True) == list(LOG_SNRS) and LOG_SNRS[0] > 4 and LOG_SNRS[-1] < -4


def test_features_are_those_of_a_plain_call(stunet, recording):
    with record_features(stunet) as features, torch.no_grad():
        stunet(recording.noisy[None], torch.tensor([2.0]), tokenise([CAPTION]))
    assert all(torch.equal(features[name], recording.features[name]) for name in features)
