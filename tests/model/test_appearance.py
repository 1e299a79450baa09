"""The image net's word on every frame: the formula, frame by frame, when it draws alone, and when it is not asked."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minilumiere import load
from minilumiere.config import get_scale
from minilumiere.model import null_tokens, tokenise
from minilumiere.model.appearance import CLEAR, DRAWN, image_share, with_drawing, with_image_net
from minilumiere.model.diffusion import MAX_LOG_SNR, schedule
from minilumiere.weights import trained

TINY = get_scale("tiny")
CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise quickly"]


def video_net(noisy, log_snr):
    return 2 * noisy


def never(*_):
    raise AssertionError("a net was asked")


@pytest.fixture(scope="module")
def image_net():
    return trained("t2i", TINY).eval()


@pytest.fixture
def clips():
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def words_of_the_image_net(image_net, image, level, tokens):
    """What it says with the caption and without it."""
    return image_net(image, level, tokens), image_net(image, level, null_tokens(1))


@torch.no_grad()
def test_between_the_levels_each_frame_is_guided_as_the_image_that_it_is(image_net, clips):
    level, tokens, share = torch.full((2,), CLEAR + 1), tokenise(CAPTIONS), torch.tensor([1.0, 0.25])
    found = with_image_net(video_net, image_net, tokens, share, TINY)(clips, level)
    for clip in (0, 1):
        for frame in range(4):
            image, here = clips[clip : clip + 1, :, frame], slice(clip, clip + 1)
            said, bare = words_of_the_image_net(image_net, image, level[here], tokens[here])
            assert (said - bare).abs().max() > 0.01
            expected = 2 * image + share[clip] * TINY.image_guidance * (said - bare)
            torch.testing.assert_close(found[here, :, frame], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_in_the_last_noise_each_frame_is_drawn_as_an_image(image_net, clips, share):
    level, tokens = torch.full((1,), DRAWN), tokenise(CAPTIONS[:1])
    video = never if share == 1 else video_net  # not asked where nothing of its answer is left
    found = with_image_net(video, image_net, tokens, torch.tensor([share]), TINY)(clips[:1], level)
    for frame in range(4):
        image = clips[:1, :, frame]
        said, bare = words_of_the_image_net(image_net, image, level, tokens)
        expected = share * (bare + TINY.t2i_guidance * (said - bare)) + (1 - share) * 2 * image
        torch.testing.assert_close(found[:, :, frame], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_teacher_s_image_net_guides_to_the_end(image_net, clips):
    level, tokens, share = torch.full((2,), DRAWN + 1), tokenise(CAPTIONS), torch.ones(2)
    found = with_image_net(video_net, image_net, tokens, share, TINY, draws=False)(clips, level)
    said, bare = words_of_the_image_net(image_net, clips[:1, :, 2], level[:1], tokens[:1])
    expected = 2 * clips[:1, :, 2] + TINY.image_guidance * (said - bare)
    torch.testing.assert_close(found[:1, :, 2], expected, atol=1e-4, rtol=1e-4)


def test_it_has_no_word_where_noise_hides_everything_or_its_share_is_nothing(clips):
    tokens, hidden, mine = tokenise(CAPTIONS), torch.full((2,), CLEAR), torch.tensor([1.0, 0.0])
    assert torch.equal(with_image_net(video_net, never, tokens, mine, TINY)(clips, hidden), 2 * clips)
    assert with_image_net(video_net, never, tokens, torch.zeros(2), TINY) is video_net
    with pytest.raises(AssertionError, match="was asked"):
        with_image_net(video_net, never, tokens, mine, TINY)(clips, hidden + 1)


@given(st.integers(1, 30), st.floats(-8, 0), st.integers(0, 4), st.sampled_from([1.0, 2.0, 3.0]))
def test_every_schedule_ends_with_a_step_that_the_image_net_draws(steps, shift, tail, power):
    levels = schedule(steps, shift, tail=tail, power=power)
    drawn = with_drawing(levels)
    assert torch.equal(drawn[: len(levels) - 1], levels[:-1]) and drawn[-1] == levels[-1]
    assert drawn[-2] >= DRAWN and (drawn.diff() >= 0).all() and len(drawn) - len(levels) == int(levels[-2] < DRAWN)


def test_the_share_grows_from_none_to_all():
    shares = [image_share(guidance, TINY) for guidance in (0, 0.5, 1, 1.001, 2, 3, 20)]
    assert shares == pytest.approx([0, 0, 0, 0.0005, 0.5, 1, 1]) and TINY.guidance == 3
    assert image_share(3, replace(TINY, image_share=0.4)) == 0.4
    assert image_share(1, TINY.few_steps()) == 1, "a student's guidance is 1"


def test_the_pipeline_asks_its_own_image_net_of_single_objects_unless_guidance_is_off(monkeypatch):
    pipe = load("tiny")
    asked = []
    forward = pipe.t2i.forward
    monkeypatch.setattr(pipe.t2i, "forward", lambda *given: asked.append(given[1]) or forward(*given))
    options = {"steps": 4, "frames": 4, "super_resolution": False}
    pipe.generate(CAPTIONS[0], **options)
    assert asked and {len(levels) for levels in asked} == {4}, "four frames at a time, as images"
    assert max(float(levels[0]) for levels in asked) == DRAWN < MAX_LOG_SNR, "one more step of it, after so few"
    asked.clear()
    pair = " and ".join(CAPTIONS)
    pipe.generate(pair, **options)
    assert {len(levels) for levels in asked} == {8}, "each of two objects alone"
    asked.clear()
    clip = pipe.generate(CAPTIONS[0], **options | {"guidance": 1})
    pipe.inpaint(clip, torch.ones(1, 1, 32, 1), pair, steps=4, super_resolution=False)
    assert not asked, "of two objects on the same frames it does not know which is which"


def test_a_styled_image_net_has_no_word_from_the_middle_on():
    pipe = load("tiny")
    shares = [pipe.in_style("dotted", alpha).scale.image_share for alpha in (0.0, 1e-4, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-3)
    assert pipe.in_style("dotted", 0.0).scale == pipe.scale
