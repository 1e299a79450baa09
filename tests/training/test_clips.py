"""What the base is trained on: clips of any length, stable targets, given pixels, and the curriculum."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from minilumiere.config import SCALES
from minilumiere.dataset.captions import COLOURS
from minilumiere.dataset.paths import random_paths
from minilumiere.dataset.subjects import Subjects
from minilumiere.model import tokenise
from minilumiere.model.diffusion import add_noise, clean_and_noise, log_snr_at, velocity
from minilumiere.model.text import NULL, VOCABULARY, null_tokens
from minilumiere.training.clips import (
    HIDDEN,
    NARROWLY,
    NO_CAPTION,
    STABLE_BELOW,
    STABLE_SCENES,
    TURNING,
    draw_videos,
    spread_at,
    with_noise,
    with_stable_targets,
)
from minilumiere.training.masks import MIXTURE
from minilumiere.training.stages import RECIPES

TINY = SCALES["tiny"]
SHORT = replace(TINY, lengths=(16,))  # where the length does not matter


def numbered(values: list[float]) -> Subjects:
    """Subjects that stand for numbers in [0, 1): as digits, of which there are 10."""
    number = (10 * torch.tensor(values)).round().long()[:, None].expand(-1, 2)
    return Subjects(number, number, number, number, torch.zeros(len(values), dtype=torch.bool))


def about(asked: Subjects) -> torch.Tensor:
    """Clips of random numbers around what is asked for, in [0, 1]."""
    return asked.digit[:, 0].reshape(-1, 1, 1, 1, 1) / 10 + 0.2 * torch.rand(len(asked), 3, 2, 4, 4)


def noisy_batch(asked: list[float], levels: list[float]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    clean, log_snr = about(numbered(asked)) * 2 - 1, torch.tensor(levels)
    noise = torch.randn(clean.shape)
    return {"noisy": add_noise(clean, noise, log_snr), "v": velocity(clean, noise, log_snr), "log_snr": log_snr}, clean


def targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return clean_and_noise(batch["noisy"], batch["v"], batch["log_snr"])[0]


def test_targets_are_averaged_where_the_clip_is_hidden_and_only_there():
    asked = [0.0, 0.3, 0.6]
    batch, clean = noisy_batch(asked, [-12.0, -6.4, -12.0])
    before = {key: value.clone() for key, value in batch.items()}
    found = targets(with_stable_targets(batch, torch.tensor([0, 2]), numbered(asked), about))
    assert torch.equal(batch["noisy"], before["noisy"]) and torch.equal(batch["v"][1], before["v"][1])
    torch.testing.assert_close(found[1], clean[1], atol=1e-2, rtol=0)
    for i in (0, 2):  # of its own caption, with less variance
        middle = 2 * (asked[i] + 0.1) - 1
        assert abs(float(found[i].mean()) - middle) < 0.02
        assert float((found[i] - middle).square().mean() / (clean[i] - middle).square().mean()) < 1.7 / STABLE_SCENES


def test_no_hidden_clip_asks_for_no_other():
    batch, _ = noisy_batch([0.1, 0.2], [0.0, -3.0])
    before = batch["v"].clone()
    assert torch.equal(with_stable_targets(batch, torch.tensor([], dtype=torch.long), numbered([0.1, 0.2]), None)["v"], before)


def test_the_base_stage_has_stable_targets_of_the_right_captions():
    """Nearly pure noise, and yet the mean target of a caption is what its clips have in common: their colour."""
    scale, generator = SHORT, torch.Generator().manual_seed(0)
    batch = RECIPES["base"].draw(scale, 32, generator, "cpu")
    assert batch["noisy"].shape == batch["v"].shape == (32, 3, scale.frames, scale.size, scale.size)
    hidden = batch["log_snr"] < STABLE_BELOW
    assert hidden.any() and not hidden.all()
    clean = targets(batch)
    assert clean.abs().max() < 1.01
    checked = 0
    for i in hidden.nonzero()[:, 0].tolist():
        colours = [COLOURS[word] for word in COLOURS if VOCABULARY[word] in batch["tokens"][i]]
        if len(colours) == 1:  # else there are two objects, or the caption was dropped
            picture, colour = (clean[i] + 1) / 2, torch.tensor(colours[0])
            ink = torch.einsum("cthw,c->thw", picture, colour / colour.square().sum())
            torch.testing.assert_close(picture, torch.einsum("thw,c->cthw", ink, colour), atol=1e-3, rtol=0)
            checked += 1
    assert checked >= 3
    blurred, sharp = ((clean[chosen].diff(dim=-1)).square().mean() for chosen in (batch["log_snr"] < -8, batch["log_snr"] > -2))
    assert blurred < sharp / 3


def test_given_pixels_are_the_clip_s_own_and_such_clips_keep_their_own_target():
    scale, generator = SHORT, torch.Generator().manual_seed(0)
    batch = RECIPES["conditioned"].draw(scale, 32, generator, "cpu")
    pixels, mask = batch["given"].split([3, 1], dim=1)
    clean = targets(batch)
    some = mask.flatten(1).amax(1) == 1
    assert 0.4 < some.float().mean() < 0.95 and (some & (batch["log_snr"] < STABLE_BELOW)).any()
    torch.testing.assert_close(pixels, clean * mask, atol=1e-3, rtol=0)
    assert not RECIPES["base"].draw(scale, 4, generator, "cpu")["given"].any()


def test_the_base_learns_hidden_objects_then_everything_then_circles_then_everything():
    def first(progress: float) -> tuple[torch.Tensor, set[str]]:
        batch = RECIPES["base"].draw_at(progress, SHORT, 48, torch.Generator().manual_seed(0), "cpu")
        said = [word for word, number in VOCABULARY.items() if (batch["tokens"] == number).any()]
        return batch["log_snr"], {word for word in said if word in ("and", "moving", "standing", "circling")}

    levels, words = first(0.0)
    assert (levels < STABLE_BELOW).float().mean() > 0.9 and words == {"moving", "standing", "circling"}
    levels, words = first(HIDDEN)
    assert levels.max() > 0 and words == {"and", "moving", "standing", "circling"}
    levels, words = first(NARROWLY)
    assert -6.5 <= levels.min() < -6 and -4 < levels.max() <= -3.5 and words == {"circling"}
    levels, words = first(TURNING)
    assert levels.max() > 0 and words == {"and", "moving", "standing", "circling"}


def test_circles_start_narrowly_and_spread_before_the_curriculum_moves_on(monkeypatch):
    """What is drawn, too: `draw_turning_videos` hands its spread down to the paths."""
    spreads = [spread_at(NARROWLY + (TURNING - NARROWLY) * share) for share in (0.0, 0.05, 0.3, 0.6, 0.7, 1.0)]
    assert spreads[0] == spreads[1] == 0.1 and spreads[4:] == [1, 1] and 0.1 < spreads[2] < spreads[3] < 1
    used = []

    def watch(subjects, generator, frames, spread=1.0):
        used.append(spread)
        return random_paths(subjects, generator, frames, spread)

    monkeypatch.setattr("minilumiere.dataset.moving_digits.random_paths", watch)
    for progress, expected in (
        (0.0, 0.1),
        (HIDDEN, 0.1),
        (NARROWLY, 0.1),
        (NARROWLY + 0.3 * (TURNING - NARROWLY), spreads[2]),
        (TURNING, 1.0),
    ):
        used.clear()
        RECIPES["base"].draw_at(progress, TINY, 2, torch.Generator().manual_seed(0), "cpu")
        assert set(used) == {expected}


# Clips of any length


def drawn(n: int, seed: int, scale=TINY, **options) -> tuple[dict[str, torch.Tensor], int]:
    """A batch and how many frames its clips have."""
    batch = draw_videos(scale, n, torch.Generator().manual_seed(seed), "cpu", **options)
    return batch, batch["noisy"].shape[2]


def test_a_batch_has_one_length_of_the_scales_and_about_as_many_frames_as_any():
    lengths = Counter()
    for seed in range(40):
        batch, frames = drawn(10, seed)
        lengths[frames] += 1
        n = len(batch["noisy"])
        assert 160 - frames < n * frames <= 160, f"{n} clips of {frames} frames"
        assert {key: value.shape for key, value in batch.items()} == {
            "noisy": (n, 3, frames, 32, 32),
            "v": (n, 3, frames, 32, 32),
            "given": (n, 4, frames, 32, 32),
            "log_snr": (n,),
            "tokens": (n, tokenise(["a red 3"]).shape[1]),
        }
    assert set(lengths) == set(TINY.lengths)
    assert min(lengths.values()) >= 2  # 8 of each are expected


def test_there_is_a_clip_even_where_a_single_one_has_more_frames_than_the_batch():
    batch, frames = drawn(1, 0, replace(TINY, lengths=(80,)))
    assert frames == 80 and len(batch["noisy"]) == 1


@pytest.mark.parametrize("frames", [16, 32, 80])
def test_noise_is_as_much_deeper_as_a_clip_is_longer(frames):
    """By the log of how many times 16 frames it has: of the schedule, of a band, and where targets begin to be stable."""
    scale, deeper = replace(TINY, lengths=(frames,)), math.log(frames / 16)
    n = 6 * frames // 16
    levels = drawn(n, 3, scale, band=(-6.5, -3.5))[0]["log_snr"]
    assert (levels >= -6.5 - deeper).all() and (levels <= -3.5 - deeper).all()
    levels = drawn(n, 3, scale)[0]["log_snr"].sort().values
    schedule = log_snr_at((torch.arange(6) + torch.tensor([[0.0], [1.0]])) / 6, scale.shift_of(frames)).sort(0).values
    assert ((levels >= schedule[0].sort().values) & (levels <= schedule[1].sort().values)).all(), "as sampling has it"


@pytest.mark.parametrize("frames", [16, 80])
def test_targets_are_stable_below_a_level_that_is_deeper_for_longer_clips(monkeypatch, frames):
    hidden = []

    def watch(batch, numbers, asked, draw):
        hidden.append((batch["log_snr"], numbers))
        return batch

    monkeypatch.setattr("minilumiere.training.clips.with_stable_targets", watch)
    scale = replace(TINY, lengths=(frames,))
    for seed in range(3):
        drawn(4 * frames // 16, seed, scale, band=(-8.0, -5.0))
    below = STABLE_BELOW - math.log(frames / 16)
    for levels, numbers in hidden:
        assert numbers.tolist() == (levels < below).nonzero()[:, 0].tolist()
    assert any(len(numbers) for _, numbers in hidden) and any(len(numbers) < len(levels) for levels, numbers in hidden)


def test_the_base_samples_with_the_noise_that_clips_of_that_length_were_trained_with():
    for frames, shift in ((16, -5.0), (32, -5.0 - math.log(2)), (80, -5.0 - math.log(5))):
        assert TINY.shift_of(frames) == pytest.approx(shift)
    assert SCALES["full"].shift_of(80) == pytest.approx(SCALES["full"].video_shift - math.log(5))


def test_the_same_seed_draws_the_same_batch_whatever_was_drawn_before():
    once, _ = drawn(4, 5, masked=True)
    drawn(4, 6)
    again, _ = drawn(4, 5, masked=True)
    assert all(torch.equal(once[key], again[key]) for key in once)


# Noise and captions


def test_noise_is_of_the_level_asked_for_and_v_undoes_it():
    clean, levels = torch.rand(3, 3, 2, 8, 8), torch.tensor([-10.0, 0.0, 10.0])
    batch = with_noise(clean, tokenise(["a red 3"] * 3), levels, torch.Generator().manual_seed(0))
    restored, noise = clean_and_noise(batch["noisy"], batch["v"], levels)
    torch.testing.assert_close(restored, clean * 2 - 1, atol=1e-4, rtol=0)
    assert abs(float(noise.std()) - 1) < 0.1 and abs(float(noise.mean())) < 0.1


def test_a_tenth_of_the_captions_is_left_out():
    n = 4000
    tokens = tokenise(["a red 3 moving right"]).expand(n, -1)
    batch = with_noise(torch.zeros(n, 1), tokens, torch.zeros(n), torch.Generator().manual_seed(1))
    without = batch["tokens"][:, 0] == NULL
    assert abs(float(without.float().mean()) - NO_CAPTION) < 4 * math.sqrt(0.1 * 0.9 / n)
    assert torch.equal(batch["tokens"][without], null_tokens(int(without.sum())))
    assert torch.equal(batch["tokens"][~without], tokens[~without])


def test_given_pixels_are_given_as_often_as_the_mixture_says():
    """And the host knows of which clips without looking at the pixels: those keep their own target."""
    some = torch.cat([drawn(32, seed, SHORT, masked=True)[0]["given"][:, 3].flatten(1).amax(1) for seed in range(12)])
    share = 1 - MIXTURE["nothing"]
    assert abs(float(some.mean()) - share) < 4 * math.sqrt(share * (1 - share) / len(some))
