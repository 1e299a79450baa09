"""Each corruption changes what it should and nothing else; the stronger, the more; a strength of 0 changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset import parse_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import subjects_of
from minilumiere.evaluation.corruption import CORRUPTIONS, Scenes, corrupt, real_scenes
from minilumiere.evaluation.judge import centroids, colour_masses
from minilumiere.evaluation.metrics import mixed_captions

CAPTIONS = [
    "a red 3 moving right",
    "a green 5 circling clockwise quickly",
    "a white 0 standing still",
    "a cyan 7 moving up slowly and a yellow 2 moving left",
]


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return real_scenes(CAPTIONS, seed=2**41)


def path(clip: torch.Tensor) -> torch.Tensor:
    """Of the only colour in it."""
    return centroids(colour_masses(clip).sum(1))[0]


def sorted_frames(clip: torch.Tensor) -> list[bytes]:
    return sorted(frame.numpy().tobytes() for frame in clip)


def test_scenes_are_those_of_the_data_set():
    asked = subjects_of([parse_caption(caption) for caption in CAPTIONS])
    made = real_scenes(CAPTIONS, seed=5)
    video, truth = draw_scenes(asked, torch.Generator().manual_seed(5), 16, 32, 128, "test")
    assert made.clips.shape == video.shape and torch.allclose(made.centres, truth.centres)
    assert torch.equal(made.draw(made.ink, made.centres), made.clips)


def test_the_first_scenes_are_the_same(scenes):
    first = scenes.first(2)
    assert torch.equal(first.clips, scenes.clips[:2]) and torch.equal(first.draw(first.ink, first.centres), first.clips)


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_no_strength_no_change_and_the_same_seed_the_same_clips(scenes, name, seed):
    before = scenes.clips.clone()
    assert torch.equal(corrupt(scenes, name, 0.0, seed), scenes.clips)
    strong = corrupt(scenes, name, CORRUPTIONS[name].strengths[-1], seed)
    assert torch.equal(strong, corrupt(scenes, name, CORRUPTIONS[name].strengths[-1], seed))
    assert strong.shape == scenes.clips.shape and strong.min() >= 0 and strong.max() <= 1
    assert not torch.equal(strong, scenes.clips) and torch.equal(before, scenes.clips), "what was given stays as it is"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_stronger_the_farther_from_the_clips(scenes, name):
    strengths = CORRUPTIONS[name].strengths
    assert list(strengths) == sorted(set(strengths)) and strengths[0] > 0
    changes = [float((corrupt(scenes, name, strength) - scenes.clips).square().sum()) for strength in (0.0, *strengths)]
    assert (changes == sorted(changes) and changes[-1] > 2 * changes[1] > 0) or name == "wrong direction"


def test_blur_keeps_ink_and_place(scenes):
    """As far as it does not reach the rim."""
    blurred = corrupt(scenes, "blur", 1.0)
    assert torch.allclose(blurred[0].sum((2, 3)), scenes.clips[0].sum((2, 3)), rtol=0.02)
    ink = lambda clip: centroids(clip.amax(1))[0]  # noqa: E731
    assert (ink(blurred[0]) - ink(scenes.clips[0])).abs().max() < 0.1
    assert blurred.amax() < 0.95 * scenes.clips.amax()


def test_shuffled_frames_are_the_same_frames(scenes):
    for strength in CORRUPTIONS["frame shuffle"].strengths:
        shuffled = corrupt(scenes, "frame shuffle", strength)
        for clip, before in zip(shuffled, scenes.clips, strict=True):
            assert sorted_frames(clip) == sorted_frames(before)
        moved = (shuffled != scenes.clips).flatten(2).any(2)[:2].sum(1)  # of clips that do not rest
        assert moved.tolist() == [round(strength * 16)] * 2


def test_what_is_frozen_moves_until_then(scenes):
    frozen = corrupt(scenes, "freeze", 0.25)
    assert torch.equal(frozen[:, :12], scenes.clips[:, :12])
    assert torch.equal(frozen[:, 12:], scenes.clips[:, 11:12].expand(-1, 4, -1, -1, -1))
    assert torch.equal(corrupt(scenes, "freeze", 1.0), scenes.clips[:, :1].expand(-1, 16, -1, -1, -1))


def test_what_is_slower_takes_the_same_path(scenes):
    slow = corrupt(scenes, "wrong speed", 0.5)
    assert torch.allclose(slow[:, ::2], scenes.clips[:, :8], atol=1e-5), "every second frame is one of the clip"
    between = path(slow[0])[1::2][:7]
    assert torch.allclose(between, (path(scenes.clips[0])[:7] + path(scenes.clips[0])[1:8]) / 2, atol=0.1)


def test_a_share_of_the_clips_runs_backwards():
    scenes = real_scenes(["a red 3 moving right"] * 8, seed=2**41)
    weak, strong = corrupt(scenes, "wrong direction", 0.25), corrupt(scenes, "wrong direction", 0.5)
    changed = [{i for i in range(8) if not torch.equal(clips[i], scenes.clips[i])} for clips in (weak, strong)]
    assert [len(clips) for clips in changed] == [2, 4] and changed[0] < changed[1], "what is weakly spoiled stays so"
    assert all(torch.equal(strong[i], scenes.clips[i].flip(0)) for i in changed[1])
    assert torch.equal(corrupt(scenes, "wrong direction", 1.0), scenes.clips.flip(1))


def test_another_digit_goes_on_where_the_first_one_was(scenes):
    exchanged = corrupt(scenes, "digit exchanged", 0.5)
    assert torch.equal(exchanged[:, :8], scenes.clips[:, :8])
    assert (exchanged[:, 8:] - scenes.clips[:, 8:]).abs().amax((1, 2, 3, 4)).min() > 0.5
    for now, before in zip(exchanged[:3, 8:], scenes.clips[:3, 8:], strict=True):
        assert colour_masses(now).sum((0, 2, 3)).argmax() == colour_masses(before).sum((0, 2, 3)).argmax()
        assert (path(now) - path(before)).norm(dim=1).max() < 3, "centres of ink differ, those of digits do not"


def test_flicker_dims_whole_frames(scenes):
    dimmed = corrupt(scenes, "flicker", 0.4)
    lit = scenes.clips > 0.05
    for clip, before, where in zip(dimmed, scenes.clips, lit, strict=True):
        for now, then, pixels in zip(clip, before, where, strict=True):
            shares = now[pixels] / then[pixels]
            assert shares.min() >= 0.6 and shares.max() <= 1 and shares.max() - shares.min() < 1e-4
    assert dimmed.sum((2, 3, 4)).std(1).max() > 0


def test_speckle_hits_a_share_of_the_pixels(scenes):
    hit = (corrupt(scenes, "speckle", 0.02) != scenes.clips).any(2).float().mean()
    assert abs(float(hit) - 0.02) < 0.004


def test_what_chance_decides_does_not_depend_on_the_strength():
    scenes = real_scenes(mixed_captions(8), seed=2**41)
    for name in ("speckle", "flicker", "digit exchanged"):
        weak, strong = (corrupt(scenes, name, strength) for strength in CORRUPTIONS[name].strengths[1:3])
        assert not ((weak != scenes.clips) & (strong == scenes.clips)).any() or name == "digit exchanged"
        assert ((weak != scenes.clips) & (strong == scenes.clips)).float().mean() < 1e-4


@pytest.mark.parametrize(
    ("name", "strength", "says"), [("fog", 0.5, "blur, frame shuffle"), ("freeze", 1.5, "strength"), ("blur", -1, "strength")]
)
def test_what_is_not_known_is_refused(scenes, name, strength, says):
    with pytest.raises(ValueError, match=says):
        corrupt(scenes, name, strength)
