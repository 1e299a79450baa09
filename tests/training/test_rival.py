"""The cascade's training: each net sees the frames that it is used on, and a run that is cut off goes on bit for bit."""

from pathlib import Path

import pytest
import torch
from train_driver import SMALL, go, use_small

from minilumiere.config import SCALES
from minilumiere.evaluation.cascade import EVERY, FRAMES, GIVEN, STRIDE, WINDOW, part_folder, read_part
from minilumiere.model.diffusion import clean_and_noise
from minilumiere.training import rival
from minilumiere.training.rival import RECIPES, draw_clips, first_net, shown_frames, stage_of, train_part, train_rival
from minilumiere.training.stages import get_stage
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.shipped import ship

TINY = SCALES["tiny"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def weights(monkeypatch, tmp_path) -> Path:
    """A far smaller `tiny`, whose image net and base are shipped."""
    use_small(monkeypatch, tmp_path / "weights")
    for stage in ("t2i", "base"):
        go(tmp_path / stage, stage, steps=1)
        ship(tmp_path / stage, stage, SMALL)
    return tmp_path / "weights"


def test_both_sides_are_trained_on_as_many_frames():
    steps = {part: stage_of(part, TINY, 600).steps["tiny"] for part in RECIPES}
    assert steps["keyframes"] + steps["tsr"] == steps["one-pass"] == 600
    a_step = {part: recipe.frames * recipe.batch for part, recipe in RECIPES.items()}
    assert a_step["one-pass"] == get_stage("base").batch["tiny"] * TINY.frames
    assert all(0.96 < frames / a_step["one-pass"] <= 1 for frames in a_step.values())


def test_each_net_sees_the_frames_that_it_is_used_on():
    assert shown_frames("keyframes", 2, seeded(0), "cpu").tolist() == [list(range(0, 88, EVERY))] * 2
    assert shown_frames("one-pass", 2, seeded(0), "cpu").tolist() == [list(range(FRAMES))] * 2
    windows = shown_frames("tsr", 200, seeded(0), "cpu")
    assert set(windows[:, 0].tolist()) == set(range(0, FRAMES, STRIDE)), "every window of a clip, not the first alone"
    assert torch.equal(windows - windows[:, :1], torch.arange(WINDOW).expand(200, -1))


@pytest.mark.parametrize("part", RECIPES)
def test_keyframes_are_given_in_windows_and_nothing_elsewhere(part):
    batch = draw_clips(TINY, 3, seeded(1), "cpu", part)
    assert batch["noisy"].shape == (3, 3, RECIPES[part].frames, 32, 32)
    given, mask = batch["given"].split([3, 1], dim=1)
    frames = mask.amax((0, 1, 3, 4)).nonzero()[:, 0].tolist()
    assert frames == (list(GIVEN) if part == "tsr" else [])
    assert mask.sum() == 3 * len(frames) * 32 * 32
    if frames:
        clean, _ = clean_and_noise(batch["noisy"], batch["v"], batch["log_snr"])
        torch.testing.assert_close(given[:, :, frames], clean[:, :, frames], atol=1e-3, rtol=0)
        assert given[:, :, frames].amax((1, 3, 4)).min() > 0, "there is a digit on every keyframe"


def test_keyframes_move_eight_times_as_fast():
    """Between neighbours, what changes in keyframes is what changes in 8 frames: far more than in one."""
    change = {}
    for part in ("keyframes", "one-pass"):
        batch = draw_clips(TINY, 8, seeded(2), "cpu", part)
        clear = batch["log_snr"] > -4  # elsewhere the target is a mean of many clips
        clean, _ = clean_and_noise(*(batch[key][clear] for key in ("noisy", "v", "log_snr")))
        change[part] = float(clean.diff(dim=2).square().mean())
    assert change["keyframes"] > 1.5 * change["one-pass"] > 0


def test_runs_go_on_where_they_were_cut_off(tmp_path, weights, monkeypatch):
    train_part(tmp_path / "whole", "tsr", 1, progress=False, device="cpu", steps=20)
    whole = read_checkpoint(part_folder(tmp_path / "whole", "tsr", 1) / "checkpoint.safetensors")
    assert (whole[1]["step"], whole[1]["batch"], whole[1]["seed"]) == (4, 8, 1)
    run = rival.run

    def cut_off(options, *rest):  # after every step
        return run(rival.replace(options, stop_minutes=0.0), *rest)

    monkeypatch.setattr(rival, "run", cut_off)
    for step in range(1, 5):
        train_part(tmp_path / "parts", "tsr", 1, progress=False, device="cpu", steps=20)
        tensors, facts = read_checkpoint(part_folder(tmp_path / "parts", "tsr", 1) / "checkpoint.safetensors")
        assert facts["step"] == step
    assert all(torch.equal(tensors[name], tensor) for name, tensor in whole[0].items())


def test_all_nets_are_trained_from_the_shipped_one_and_a_second_call_does_nothing(tmp_path, weights):
    train_rival(tmp_path / "runs", progress=False, device="cpu", steps=4, seeds=1)
    times = {}
    for part in RECIPES:
        tensors, facts = read_part(tmp_path / "runs", part, 0, SMALL)
        assert facts["from"] == read_checkpoint(weights / "tiny" / "base.safetensors")[1]["sha256"]
        assert facts["step"] == stage_of(part, SMALL, 4).steps["tiny"] and any("middle" in name for name in tensors)
        assert any("temporal_downs" in name for name in tensors) == (part != "keyframes")
        path = part_folder(tmp_path / "runs", part, 0) / "checkpoint.safetensors"
        times[path] = path.read_bytes()
    train_rival(tmp_path / "runs", progress=False, device="cpu", steps=4, seeds=1)
    assert all(path.read_bytes() == content for path, content in times.items())


def test_the_keyframe_net_begins_as_the_base_at_half_strength_without_resampling(weights):
    base, keyframes = (first_net(part, SMALL)[0] for part in ("one-pass", "keyframes"))
    assert (base.temporal_factor, keyframes.temporal_factor) == (2, 1)
    own, other = dict(base.named_parameters()), dict(keyframes.named_parameters())
    assert set(own) - set(other) == {name for name in own if name.startswith(("temporal_downs", "temporal_ups"))}
    for name, tensor in other.items():
        half = ".project." in name and not name.startswith("t2i.")
        assert torch.equal(tensor, own[name] * (0.5 if half else 1)), name
    assert base.up_inflation[0].project.weight.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in keyframes.t2i.parameters())
