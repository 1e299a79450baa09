"""The image net's guidance of every frame: the formula, frame by frame, and when it is not asked."""

import pytest
import torch

from minilumiere import load
from minilumiere.config import get_scale
from minilumiere.model import null_tokens, tokenise
from minilumiere.model.appearance import CLEAR, with_image_guidance
from minilumiere.weights import trained

CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise quickly"]


def video_net(noisy, log_snr):
    return 2 * noisy


@pytest.fixture(scope="module")
def image_net():
    return trained("t2i", get_scale("tiny")).eval()


@pytest.fixture
def clips():
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_frame_is_guided_as_the_image_that_it_is(image_net, clips):
    level, tokens = torch.full((2,), CLEAR + 1), tokenise(CAPTIONS)
    weight = torch.tensor([1.5, 0.5])
    found = with_image_guidance(video_net, image_net, tokens, weight)(clips, level)
    for clip in (0, 1):
        for frame in range(4):
            image, here = clips[clip : clip + 1, :, frame], slice(clip, clip + 1)
            gain = image_net(image, level[here], tokens[here]) - image_net(image, level[here], null_tokens(1))
            assert gain.abs().max() > 0.01
            torch.testing.assert_close(found[here, :, frame], 2 * image + weight[clip] * gain, atol=1e-4, rtol=1e-4)


def test_it_has_no_word_where_noise_hides_everything_or_its_weight_is_nothing(clips):
    def never(*_):
        raise AssertionError("the image net was asked")

    tokens = tokenise(CAPTIONS)
    hidden = torch.full((2,), CLEAR)
    assert torch.equal(with_image_guidance(video_net, never, tokens, torch.tensor([1.0, 0.0]))(clips, hidden), 2 * clips)
    assert with_image_guidance(video_net, never, tokens, torch.zeros(2)) is video_net
    with pytest.raises(AssertionError, match="was asked"):
        with_image_guidance(video_net, never, tokens, torch.tensor([1.0, 0.0]))(clips, hidden + 1)


def test_the_pipeline_guides_single_objects_with_its_own_image_net_unless_guidance_is_off(monkeypatch):
    pipe = load("tiny")
    asked = []
    forward = pipe.t2i.forward
    monkeypatch.setattr(pipe.t2i, "forward", lambda *given: asked.append(len(given[0])) or forward(*given))
    pipe.generate(CAPTIONS[0], steps=4, frames=4, super_resolution=False)
    assert asked and set(asked) == {4}, "four frames at a time, as images"
    asked.clear()
    pipe.generate(CAPTIONS[0], steps=4, frames=4, super_resolution=False, guidance=1)
    pipe.generate(" and ".join(CAPTIONS), steps=4, frames=4, super_resolution=False)
    assert not asked, "nor of two objects"


def test_a_styled_image_net_guides_no_frames():
    pipe = load("tiny")
    assert pipe.in_style("dotted", 0.5).scale.image_guidance == 0
    assert pipe.in_style("dotted", 0.0).scale == pipe.scale and pipe.scale.image_guidance > 0
