"""What the training stages draw: the stable targets and the curriculum of the base model."""

import torch

from minilumiere.config import SCALES
from minilumiere.dataset.captions import COLOURS
from minilumiere.dataset.moving_digits import random_paths
from minilumiere.model.diffusion import add_noise, clean_and_noise, velocity
from minilumiere.model.text import VOCABULARY
from minilumiere.training.clips import HIDDEN, NARROWLY, STABLE_BELOW, STABLE_SCENES, TURNING, spread_at, with_stable_targets
from minilumiere.training.stages import RECIPES


def numbered(asked: list) -> torch.Tensor:
    """Clips of random numbers around what is asked for, in [0, 1]."""
    return torch.tensor(asked).reshape(-1, 1, 1, 1, 1) + 0.2 * torch.rand(len(asked), 3, 2, 4, 4)


def noisy_batch(asked: list, levels: list) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    clean, log_snr = numbered(asked) * 2 - 1, torch.tensor(levels)
    noise = torch.randn(clean.shape)
    return {"noisy": add_noise(clean, noise, log_snr), "v": velocity(clean, noise, log_snr), "log_snr": log_snr}, clean


def targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return clean_and_noise(batch["noisy"], batch["v"], batch["log_snr"])[0]


def test_targets_are_averaged_where_the_clip_is_hidden_and_only_there():
    asked = [0.0, 0.3, 0.6]
    batch, clean = noisy_batch(asked, [-12.0, -6.4, -12.0])
    before = {key: value.clone() for key, value in batch.items()}
    found = targets(with_stable_targets(batch, torch.tensor([True, False, True]), asked, numbered))
    assert torch.equal(batch["noisy"], before["noisy"]) and torch.equal(batch["v"][1], before["v"][1])
    torch.testing.assert_close(found[1], clean[1], atol=1e-2, rtol=0)
    for i in (0, 2):  # of its own caption, with less variance
        middle = 2 * (asked[i] + 0.1) - 1
        assert abs(float(found[i].mean()) - middle) < 0.02
        assert float((found[i] - middle).square().mean() / (clean[i] - middle).square().mean()) < 1.7 / STABLE_SCENES


def test_no_hidden_clip_asks_for_no_other():
    batch, _ = noisy_batch([0.1, 0.2], [0.0, -3.0])
    before = batch["v"].clone()
    assert torch.equal(with_stable_targets(batch, torch.tensor([False, False]), [0.1, 0.2], None)["v"], before)


def test_the_base_stage_has_stable_targets_of_the_right_captions():
    """Nearly pure noise, and yet the mean target of a caption is what its clips have in common: their colour."""
    scale, generator = SCALES["tiny"], torch.Generator().manual_seed(0)
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
    scale, generator = SCALES["tiny"], torch.Generator().manual_seed(0)
    batch = RECIPES["conditioned"].draw(scale, 32, generator, "cpu")
    pixels, mask = batch["given"].split([3, 1], dim=1)
    clean = targets(batch)
    some = mask.flatten(1).amax(1) == 1
    assert 0.4 < some.float().mean() < 0.95 and (some & (batch["log_snr"] < STABLE_BELOW)).any()
    torch.testing.assert_close(pixels, clean * mask, atol=1e-3, rtol=0)
    assert not RECIPES["base"].draw(scale, 4, generator, "cpu")["given"].any()


def test_the_base_learns_hidden_objects_then_everything_then_circles_then_everything():
    def first(progress: float) -> tuple[torch.Tensor, set[str]]:
        batch = RECIPES["base"].draw_at(progress, SCALES["tiny"], 48, torch.Generator().manual_seed(0), "cpu")
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
        RECIPES["base"].draw_at(progress, SCALES["tiny"], 2, torch.Generator().manual_seed(0), "cpu")
        assert set(used) == {expected}
