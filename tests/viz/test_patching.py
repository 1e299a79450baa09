"""Patched runs: with its own features a run stays, with the other's output it becomes the other."""

import pytest
import torch

from minilumiere.config import get_scale
from minilumiere.model import STUNet
from minilumiere.viz.features import named_layers
from minilumiere.viz.patching import of_run, of_words, patched_clips, render_patched, without_image_guidance
from minilumiere.viz.path import as_clips, sampling_path

ONE, OTHER = "a red 3 moving right", "a blue 7 moving left"
TINY = get_scale("tiny")
OPTIONS = {"steps": 3, "frames": 8}


@pytest.fixture(scope="module")
def stunet(small_unet, perturb) -> STUNet:
    torch.manual_seed(0)
    return perturb(STUNet.from_t2i(small_unet(size=32, attention=(False, True, True)), verbose=False), 0.3, seed=1).eval()


@pytest.fixture(scope="module")
def runs(stunet) -> dict:
    """Both captions' runs from one noise, without the image net's guidance."""
    return {caption: sampling_path(stunet, [caption], [3], without_image_guidance(TINY), **OPTIONS) for caption in (ONE, OTHER)}


def patched(stunet, patch):
    return patched_clips(stunet, [ONE], [3], TINY, patch, **OPTIONS)


def test_the_two_runs_differ(runs):
    assert (runs[ONE][-1].clean - runs[OTHER][-1].clean).abs().max() > 0.1


@pytest.mark.parametrize("source", ["run", "words"])
def test_patched_with_its_own_features_a_run_stays_as_it_is(stunet, runs, source):
    layers = [name for name in named_layers(stunet) if name != "given"]
    patch = of_run(runs[ONE], layers) if source == "run" else of_words(stunet, [ONE], layers)
    torch.testing.assert_close(patched(stunet, patch), as_clips(runs[ONE][-1].clean))
    torch.testing.assert_close(patched(stunet, None), as_clips(runs[ONE][-1].clean))


@pytest.mark.parametrize("source", ["run", "words"])
@pytest.mark.parametrize(
    "layers", [["output"], ["head"], ["down.0.space-time", "down.1.space-time", "up.1.double-time", "up.0.space-time"]]
)
def test_patched_in_all_that_leads_to_the_output_it_becomes_the_other(stunet, runs, source, layers):
    """At the first step both have the same noise, so the other's output is that of the same z; and so on, step by step."""
    patch = of_run(runs[OTHER], layers) if source == "run" else of_words(stunet, [OTHER], layers)
    torch.testing.assert_close(patched(stunet, patch), as_clips(runs[OTHER][-1].clean), atol=1e-4, rtol=1e-4)


def test_words_have_not_reached_the_stem_and_another_run_has(stunet, runs):
    torch.testing.assert_close(patched(stunet, of_words(stunet, [OTHER], ["stem"])), as_clips(runs[ONE][-1].clean))
    assert (patched(stunet, of_run(runs[OTHER], ["stem"])) - as_clips(runs[ONE][-1].clean)).abs().max() > 0.01


def test_a_part_is_patched_where_it_is_asked_for(stunet, runs):
    """Of the output, the first frames and the left half come from the other run, and nothing else does."""
    left = torch.zeros(32, 32)
    left[:, :16] = 1
    part = of_run(runs[OTHER], ["output"], {"frames": [0, 1], "region": left})
    path = sampling_path(stunet, [ONE], [3], without_image_guidance(TINY), **OPTIONS, patch=part)
    there = torch.zeros_like(path[0].clean, dtype=torch.bool)
    there[:, :, :2, :, :16] = True
    first = torch.where(there, runs[OTHER][0].clean, runs[ONE][0].clean)
    torch.testing.assert_close(path[0].clean, first, atol=1e-5, rtol=1e-5)
    assert (first - runs[OTHER][0].clean).abs().max() > 0.01


def test_clips_are_drawn_side_by_side(runs, pictures):
    one, other = (as_clips(run[-1].clean)[0] for run in runs.values())
    figure = render_patched({"one": one, "other": other}, frame=3, title="both")
    images = pictures(figure)
    assert torch.equal(images[3], other[3].permute(1, 2, 0)) and torch.equal(images[1], one.amax(2).permute(0, 2, 1))
    assert torch.equal(images[5], other.amax(3).permute(0, 2, 1)) and figure.get_suptitle() == "both"
