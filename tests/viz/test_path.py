"""The path of sampling is the pipeline's own, step by step, and what is patched on it counts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import minilumiere as ml
from minilumiere.config import get_scale
from minilumiere.model.appearance import DRAWN
from minilumiere.model.diffusion import clean_and_noise
from minilumiere.model.text import tokenise
from minilumiere.pipeline import Pipeline
from minilumiere.viz.clips import to_png
from minilumiere.viz.features import named_layers
from minilumiere.viz.path import as_clips, plot_settling, render_step, sampling_path

CAPTION, OTHER = "a red 3 moving right", "a blue 7 moving left"
TINY = get_scale("tiny")


@pytest.fixture(scope="module")
def path(stunet):
    return sampling_path(stunet, [CAPTION, OTHER], [5, 5], TINY, steps=3, frames=8)


@pytest.mark.parametrize(
    ("options", "renewed"), [({}, 0.0), ({"guidance": 0.0}, 0.0), ({"guidance": 1.0, "frames": 8}, 0.0), ({"frames": 8}, 0.9)]
)
def test_its_end_is_what_the_pipeline_makes(options, renewed):
    """With the shipped weights, bit for bit: same noise, at first and anew, levels, guidance of both nets, and sampler."""
    loaded = ml.load("tiny", device="cpu")
    pipe = Pipeline(replace(loaded.scale, renewed=renewed), loaded.base, loaded.ssr, loaded.device)
    path = sampling_path(pipe.base, [CAPTION], [7], pipe.scale, steps=4, layers=[], **options)
    expected = pipe.generate(CAPTION, 7, steps=4, super_resolution=False, **options)
    assert torch.equal(as_clips(path[-1].clean)[0], expected)


def test_a_step_is_what_went_in_and_what_came_out(path, stunet):
    assert [step.log_snr for step in path] == sorted(step.log_snr for step in path) and len(path) == 4
    assert path[-1].log_snr == DRAWN, "so few steps have one more, in which the image net draws"
    first = path[0].noisy
    assert first.shape == (2, 3, 8, 32, 32) and torch.equal(first[0], first[1])  # one seed: one noise
    assert abs(float(first.std()) - 1) < 0.02
    assert not torch.equal(path[1].noisy[0], path[1].noisy[1])  # two captions: then they part
    assert list(path[0].features) == [name for name in named_layers(stunet) if name != "given"]
    assert all(value.shape[0] == 2 and not value.requires_grad for value in path[0].features.values())


def test_without_guidance_the_features_are_of_the_very_pass_that_made_x_hat(stunet):
    path = sampling_path(stunet, [CAPTION], [0], TINY, steps=3, frames=8, guidance=1.0)
    for step in path:
        clean, _ = clean_and_noise(step.noisy, step.features["output"], torch.tensor([step.log_snr]))
        torch.testing.assert_close(step.clean, clean.clamp(-1, 1))


@torch.no_grad()
def test_where_the_image_net_draws_alone_the_features_are_what_the_video_net_would_see(stunet):
    path = sampling_path(stunet, [CAPTION], [0], TINY, steps=3, frames=8, layers=["output"])
    alone = path[-1]
    v = stunet(alone.noisy, torch.tensor([alone.log_snr]), tokenise([CAPTION]))
    torch.testing.assert_close(alone.features["output"], v)
    unused, _ = clean_and_noise(alone.noisy, v, torch.tensor([alone.log_snr]))
    assert (alone.clean - unused.clamp(-1, 1)).abs().max() > 0.01


def test_only_the_layers_asked_for_are_kept(stunet):
    path = sampling_path(stunet, [CAPTION], [0], TINY, steps=2, frames=4, layers=["stem", "output"])
    assert all(list(step.features) == ["stem", "output"] for step in path)


def test_a_patch_is_asked_at_every_step_for_what_it_puts_in(stunet):
    asked = []

    def patch(number, noisy, log_snr):
        asked.append((number, tuple(noisy.shape), float(log_snr[0])))
        return {"output": torch.zeros_like(noisy)}

    path = sampling_path(stunet, [CAPTION], [0], TINY, steps=3, frames=4, guidance=1.0, patch=patch)
    assert asked == [(number, (1, 3, 4, 32, 32), step.log_snr) for number, step in enumerate(path)]
    assert all((step.features["output"] == 0).all() for step in path)  # recorded is what counts


def test_a_step_is_drawn_with_its_own_numbers(path, pictures):
    figure = render_step(path, 1, "middle.0.image", clip=1, frame=4, row=9)
    clean = as_clips(path[1].clean)[1]  # t 3 h w
    images = pictures(figure)
    assert torch.equal(images[2], clean[4].permute(1, 2, 0)) and torch.equal(images[3], clean[:, :, 9].permute(0, 2, 1))
    assert images[4].shape == (4, 4, 3) and images[5].shape == (2, 4, 3)
    strip = images[6]
    bold = [text.get_text() for text in figure.texts if text.get_weight() == "bold"]
    assert bold == [f"{path[1].log_snr:.0f}"]
    for number, step in enumerate(path):
        slice_ = as_clips(step.clean)[1].amax(2).permute(0, 2, 1)
        assert torch.equal(strip[:, 34 * number : 34 * number + 32], slice_)
    assert "step 1 of 4" in figure.get_suptitle()
    for bad, message in (({"number": 4}, "number"), ({"clip": 2}, "clip"), ({"frame": 8}, "frame"), ({"row": 32}, "row")):
        with pytest.raises(ValueError, match=f"{message} must be from"):
            render_step(path, **{"number": 0, "layer": "stem"} | bad)
    with pytest.raises(ValueError, match=r"unknown layer 'down\.9'.*stem"):
        render_step(path, 0, "down.9")


def test_curves_have_their_intervals():
    figure = plot_settling([-15.0, 0.0], {"motion": [(0.5, 0.25, 0.75), (1.0, 0.7, 1.0)]}, n=8)
    axis = figure.axes[0]
    assert axis.lines[0].get_ydata().tolist() == [0.5, 1.0] and to_png(figure)[:4] == b"\x89PNG"
    heights = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.25, 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"captions": []}, "list of captions"),
        ({"captions": CAPTION}, "list of captions"),
        ({"seeds": [0, 1]}, "a seed for each"),
        ({"captions": ["a pink 3"]}, "pink"),
        ({"seeds": [-1]}, "seed must be from 0"),
        ({"steps": 0}, "steps must be from 1"),
        ({"guidance": 21}, "guidance must be from 0 to 20"),
        ({"frames": 6}, "divisible"),
    ],
)
def test_bad_options_name_what_is_wanted(stunet, options, says):
    with pytest.raises(ValueError, match=says):
        sampling_path(**{"stunet": stunet, "captions": [CAPTION], "seeds": [0], "scale": TINY} | options)


def test_another_model_is_an_error():
    with pytest.raises(TypeError, match="base STUNet"):
        sampling_path(nn.Linear(1, 1), [CAPTION], [0], TINY)
