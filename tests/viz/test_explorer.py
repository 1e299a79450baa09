"""The explorer: tabs of controls that stay within what they show, and only draw. No browser here; see tests/browser."""

import builtins
import gc
import itertools

import pytest
import torch
from matplotlib.figure import Figure

import minilumiere as ml
from minilumiere.config import get_scale
from minilumiere.model import STUNet
from minilumiere.viz import explorer, feature_explorer
from minilumiere.viz.clips import to_png
from minilumiere.viz.compare import render_pair
from minilumiere.viz.correspondence import render_correspondence
from minilumiere.viz.explorer import LOG_SNRS
from minilumiere.viz.layers import Recording, record, render
from minilumiere.viz.path import render_step, sampling_path
from minilumiere.viz.words import render_words

CAPTION, OTHER = "a red 3 moving right", "a red 3 moving left"


@pytest.fixture(scope="module")
def stunet(small_unet, perturb) -> STUNet:
    torch.manual_seed(0)
    return perturb(STUNet.from_t2i(small_unet(size=32, attention=(False, True, True)), verbose=False), 0.1, seed=1).eval()


@pytest.fixture(scope="module")
def batch():
    return ml.sample_batch(1, captions=[CAPTION], seed=0)


@pytest.fixture(scope="module")
def video(batch) -> torch.Tensor:
    return batch.video[0]


@pytest.fixture(scope="module")
def centre(batch) -> torch.Tensor:
    return batch.objects[0][0].centres


@pytest.fixture(scope="module")
def recording(stunet, video) -> Recording:
    return record(stunet, video, CAPTION, log_snr=4.0)


def controls(lines) -> dict:
    """A tab's controls by name, and its picture."""
    *lines, picture = lines
    return {control.description: control for line in lines for control in line.children} | {"picture": picture}


def opened(tabs, title: str) -> dict:
    tabs.selected_index = tabs.titles.index(title)
    return controls(tabs.children[tabs.selected_index].children)


@pytest.fixture
def tabs(stunet, video, centre, monkeypatch):
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    return feature_explorer(stunet, video, CAPTION, log_snrs=(4.0, -2.0), centre=centre)


@pytest.fixture
def shown(tabs):
    return opened(tabs, "one clip")


def test_a_tab_is_computed_when_it_is_first_opened_and_only_then(tabs, stunet):
    assert tabs.titles == ("one clip", "two captions", "sampling", "patching", "correspondence", "words")
    runs = []
    with stunet.register_forward_pre_hook(lambda *_: runs.append(1)):
        for title, expected in (("two captions", 2), ("words", 2), ("correspondence", 2), ("one clip", 2)):
            opened(tabs, title)
            assert len(runs) == expected, title  # once for each noise level; the first caption's were there already
        opened(tabs, "sampling")
        assert len(runs) > 2
        before = len(runs)
        for title in ("sampling", "two captions", "sampling"):
            opened(tabs, title)
        assert len(runs) == before


CHANGES = {  # of each tab: other values of its controls
    "one clip": {"layer": "middle.2.time-attention", "log-SNR": 4.0, "frame t": 0, "channel": 1, "row y": 3, "head": 1},
    "two captions": {"layer": "up.0.image", "log-SNR": 4.0, "frame t": 0, "channel": 1, "row y": 3},
    "sampling": {"layer": "down.0.image", "caption": 1, "step": 0, "frame t": 3, "row y": 7},
    "patching": {"layer": "up.1.space-time", "from": "the other's words", "frame t": 2},
    "correspondence": {"layer": "stem", "log-SNR": 4.0, "frame t": 3, "point": 5},
    "words": {"layer": "down.1.image-attention", "log-SNR": 4.0, "head": 1, "row y": 0},
}


@pytest.mark.parametrize("title", CHANGES)
def test_every_control_redraws_once_and_never_runs_the_net(tabs, stunet, monkeypatch, title):
    drawn = []
    shown = opened(tabs, title)
    monkeypatch.setattr(explorer, "to_png", lambda figure: drawn.append(1) or to_png(figure))
    assert set(CHANGES[title]) == set(shown) - {"picture"}
    with stunet.register_forward_pre_hook(lambda *_: pytest.fail("the net was run again")):
        for count, (name, value) in enumerate(CHANGES[title].items(), start=1):
            before = shown["picture"].value
            assert shown[name].value != value
            shown[name].value = value
            assert len(drawn) == count and shown["picture"].value != before, name


def test_without_a_centre_there_is_no_truth_to_compare_with(stunet, video):
    tabs = feature_explorer(stunet, video, CAPTION, log_snrs=(0.0,))
    assert "correspondence" not in tabs.titles and len(tabs.children) == 5


def test_pictures_are_those_of_the_plain_functions(tabs, stunet, video, centre, recording):
    two = opened(tabs, "two captions")
    two["log-SNR"].value = 4.0
    other = record(stunet, video, OTHER, 4.0)
    place = [two[name].value for name in ("layer", "frame t", "channel", "row y")]
    assert two["picture"].value == to_png(render_pair(recording, other, (CAPTION, OTHER), *place))

    words = opened(tabs, "words")
    words["log-SNR"].value = 4.0
    layer, row = words["layer"].value, words["row y"].value
    assert words["picture"].value == to_png(render_words(recording.words[layer][0], CAPTION, layer, row))

    match = opened(tabs, "correspondence")
    match["log-SNR"].value = 4.0
    layer, frame = match["layer"].value, match["frame t"].value
    drawn = render_correspondence(video, recording.features[layer][0], centre, layer, frame, match["point"].value)
    assert match["picture"].value == to_png(drawn)

    steps = opened(tabs, "sampling")
    path = sampling_path(stunet, [CAPTION, OTHER], [0, 0], get_scale("tiny"))
    place = [steps[name].value for name in ("step", "layer", "caption", "frame t", "row y")]
    assert steps["step"].max == len(path) - 1 and steps["picture"].value == to_png(render_step(path, *place))


def test_a_layer_of_one_frame_has_nothing_to_slide(stunet, video):
    shown = opened(feature_explorer(stunet, video[:4], CAPTION, log_snrs=(0.0,)), "one clip")
    shown["layer"].value = "middle.1.time-attention"
    frame = shown["frame t"]
    assert frame.disabled and (frame.value, frame.max) == (0, 1)  # from 0 to 0 would be an error in the browser
    shown["layer"].value = "output"
    assert not frame.disabled and (frame.value, frame.max) == (0, 3)


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


def test_figures_are_not_left_to_a_full_garbage_collection(shown):
    """It takes longer than a redraw; a figure that outlives its redraw makes one fall due."""

    def alive() -> int:
        return sum(issubclass(type(each), Figure) for each in gc.get_objects())

    gc.collect()
    seen, before = [], alive()
    gc.callbacks.append(lambda phase, info: seen.append(info["generation"]) if phase == "start" else None)
    try:
        for channel in range(1, 31):
            shown["channel"].value = channel % (shown["channel"].max + 1)
    finally:
        gc.callbacks.pop()
    assert gc.isenabled() and seen == [0] * 30  # one for each, of what is young
    assert alive() == before


def test_the_picture_is_that_of_the_controls(shown, stunet, video):
    for layer, noise in itertools.product(("down.0.space-time", "middle.0.time-attention"), (4.0, -2.0)):
        shown["layer"].value, shown["log-SNR"].value, shown["frame t"].value = layer, noise, 1
        expected = render(
            record(stunet, video, CAPTION, noise), layer, 1, shown["channel"].value, shown["row y"].value, shown["head"].value
        )
        assert shown["picture"].value == to_png(expected)


def test_without_ipywidgets_the_error_says_what_to_install(stunet, video, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "ipywidgets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"minilumiere\[notebooks\]"):
        feature_explorer(stunet, video, CAPTION)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"log_snrs": ()}, "log_snrs must be a list of at least one"),
        ({"log_snrs": 3.0}, "log_snrs must be a list"),
        ({"log_snrs": (0.0, float("nan"))}, "log_snrs must be from"),
        ({"log_snrs": ("a",)}, "log_snrs must be a number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"other": "a pink 3"}, "pink"),
        ({"scale": "huge"}, "unknown scale 'huge'"),
        ({"centre": torch.zeros(3, 2)}, r"centre has shape \(3, 2\); wanted \(16, 2\)"),
        ({"centre": [1, 2]}, "centre must be a torch.Tensor"),
    ],
)
def test_bad_options_name_what_is_wanted(stunet, video, option, says):
    with pytest.raises((ValueError, TypeError), match=says):
        feature_explorer(stunet, video, CAPTION, **option)


def test_default_noise_levels_go_from_nearly_clean_to_nearly_noise():
    assert sorted(LOG_SNRS, reverse=True) == list(LOG_SNRS) and LOG_SNRS[0] > 4 and LOG_SNRS[-1] < -4
