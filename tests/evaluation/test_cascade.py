"""The rival of one pass: its windows fit, it is aliased as theory says, and what it is measured by is right about the truth."""

import cmath
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minilumiere.config import SCALES
from minilumiere.dataset import parse_caption
from minilumiere.evaluation import cascade as rival
from minilumiere.evaluation.cascade import (
    EVERY,
    FRAMES,
    GIVEN,
    SIDES,
    STRIDE,
    WINDOW,
    Cascade,
    alias,
    balanced_captions,
    measure_consistency,
    measure_domain_gap,
    measure_side,
    part_folder,
    period_error,
    read_clip,
    read_part,
    summary,
    windows_of,
)
from minilumiere.evaluation.judge import fit_circle
from minilumiere.evaluation.quality import real_clips
from minilumiere.model import STUNet
from minilumiere.pipeline import Pipeline
from minilumiere.weights.checkpoint import write_checkpoint

TINY = SCALES["tiny"]
CAPTIONS = ["a red 3 moving right quickly", "a blue 7 circling clockwise"]


@pytest.fixture(scope="module")
def cascade(small_unet, perturb) -> Cascade:
    """Two small nets that were never trained."""
    scale = replace(TINY, size=16, steps=2)
    nets = [perturb(STUNet.from_t2i(small_unet(), n, verbose=False).requires_grad_(False), 0.1, seed=n) for n in (0, 2)]
    return Cascade(*(Pipeline(scale, net, nn.Identity(), torch.device("cpu")) for net in nets))


@pytest.fixture(scope="module")
def truth() -> tuple[list[str], torch.Tensor]:
    captions = balanced_captions(12)
    return captions, real_clips(SimpleNamespace(scale=TINY), captions, 0, FRAMES, large=False)


def circle(period: float, frames: int = FRAMES) -> torch.Tensor:
    """Centres of a clockwise circle of 5 units about the middle, t 2."""
    angle = 2 * math.pi * torch.arange(frames) / period
    return 16 + 5 * torch.stack([angle.cos(), angle.sin()], dim=1)


# Windows


@pytest.mark.parametrize("frames", [STRIDE, 48, FRAMES])
def test_every_frame_comes_from_one_window_and_no_window_is_longer_than_it_says(frames):
    numbers = torch.arange(0, frames + 1, EVERY)[None, :, None, None, None].expand(1, -1, 3, 4, 4) + 1.0
    shown = []
    for number, (video, mask) in enumerate(windows_of(numbers)):
        assert video.shape == (1, WINDOW, 3, 4, 4) and mask.shape == (WINDOW, 1, 4, 4)
        assert mask[:, 0, 0, 0].nonzero()[:, 0].tolist() == list(GIVEN) and mask.sum() == 16 * len(GIVEN)
        first = STRIDE * number
        for frame in range(WINDOW):  # frames are numbered from 1: what is not given is 0
            assert video[0, frame].unique().tolist() == [first + frame + 1 if frame in GIVEN else 0]
        shown += range(first, first + STRIDE)
    assert shown == list(range(frames))


def test_keyframes_come_back_exactly(cascade):
    keyframes = cascade.generate_keyframes(CAPTIONS, 3, 32)
    assert keyframes.shape == (2, 5, 3, 16, 16) and keyframes.std() > 0.01
    clips = cascade.fill(keyframes, CAPTIONS, 3)
    assert clips.shape == (2, 32, 3, 16, 16)
    assert torch.equal(clips[:, ::EVERY], keyframes[:, :4])
    assert torch.equal(cascade.generate(CAPTIONS, 3, 32), clips)
    others = clips[:, 1::EVERY] - keyframes[:, :4]
    assert others.abs().amax((2, 3, 4)).min() > 0.01, "the frames between are made, not copied"


def test_each_clip_hangs_on_its_own_seed_and_each_window_on_its_own_noise(cascade):
    both, second = cascade.generate(CAPTIONS, 3, 32), cascade.generate(CAPTIONS[1:], 4, 32)
    torch.testing.assert_close(both[1:], second, atol=1e-4, rtol=0)
    same = torch.full((1, 5, 3, 16, 16), 0.5)
    clip = cascade.fill(same, CAPTIONS[:1])
    assert (clip[:, 1:EVERY] - clip[:, STRIDE + 1 : STRIDE + EVERY]).abs().max() > 0.01


# Aliasing


@given(st.floats(-3, 3), st.integers(1, 20))
def test_an_alias_is_the_same_motion_to_who_looks_every_so_many_frames(turns, every):
    seen = alias(turns, every)
    assert -0.5 <= seen <= 0.5
    assert cmath.isclose(cmath.exp(2j * math.pi * seen), cmath.exp(2j * math.pi * turns * every), abs_tol=1e-6)


@pytest.mark.parametrize("period", [7.0, 7.2, 9.0, 9.1])
def test_the_judge_sees_the_alias_in_keyframes_and_the_circle_in_all_frames(period):
    centre = circle(period)
    turns, rms = fit_circle(centre, torch.arange(FRAMES))
    assert turns == pytest.approx(1 / period, abs=0.0005) and rms < 0.3
    looks = centre[::EVERY]
    seen, rms = fit_circle(looks, torch.arange(len(looks)))
    assert seen == pytest.approx(alias(1 / period), abs=0.004) and rms < 0.5
    assert (seen < 0) == (period > 8), "slower than the keyframes, it seems to turn the other way"


def test_a_circle_of_eight_frames_stands_still_in_keyframes():
    assert alias(1 / 8) == 0
    looks = circle(8.0)[::EVERY]
    assert (looks - looks[0]).abs().max() < 1e-4


# What is measured


def test_captions_are_balanced():
    subjects = [parse_caption(caption)[0] for caption in balanced_captions(54)]
    cases = [(subject.motion.split()[0], subject.speed) for subject in subjects]
    assert len(set(cases)) == 6 and all(cases.count(case) == 9 for case in cases)
    assert {subject.motion for subject in subjects} >= {"moving left", "circling clockwise", "circling anticlockwise"}
    assert len({subject.colour for subject in subjects}) == 7 and len({subject.digit for subject in subjects}) == 10
    assert all(len(set(cases[i : i + 18])) == 6 for i in (0, 18, 36)), "of each seed"


def test_the_truth_has_no_errors(truth):
    rows = [read_clip(clip, caption) for clip, caption in zip(truth[1], truth[0], strict=True)]
    assert all(row["motion"] and row["speed"] and row["digit"] for row in rows)
    assert max(row["path"] for row in rows) < 0.3 and max(row["keyframe path"] for row in rows) < 0.3
    assert [row["period"] for row in rows if row["circling"]] == [0.0] * 6
    assert all(row["period"] is None for row in rows if not row["circling"])
    assert abs(summary(rows)["added"]) < 0.1


def test_errors_are_told_apart(truth):
    captions, clips = truth
    number = next(i for i, caption in enumerate(captions) if "circling" in caption and "quickly" in caption)
    clip, caption = clips[number], captions[number]
    good = read_clip(clip, caption)
    broken = clip.clone()
    for first in range(0, FRAMES, EVERY):  # keyframes are right, what is between them stands still
        broken[first + 1 : first + EVERY] = clip[first]
    row = read_clip(broken, caption)
    assert row["keyframe path"] == pytest.approx(good["keyframe path"], abs=0.05)
    assert row["path"] > good["path"] + 0.3
    slow = clip[: FRAMES // 2].repeat_interleave(2, 0)
    assert not read_clip(slow, caption)["speed"] and read_clip(slow, caption)["period"] > 0.2


@pytest.mark.parametrize(
    ("period", "speed", "error"),
    [
        (8, "quickly", 0.0),
        (7.2, "quickly", 0.0),
        (9.0, "quickly", 0.0),
        (16, "quickly", 0.36),
        (16, "", 0.0),
        (16, "slowly", 0.86),
    ],
)
def test_the_period_error_is_what_a_word_does_not_allow(period, speed, error):
    assert period_error(circle(period), speed) == pytest.approx(error, abs=0.02)


# From runs to claims


def trained_nets(monkeypatch) -> None:
    """All nets are trained."""
    facts = {"step": 9, "steps": 9, "batch": 2, "minutes": 1.0, "device": "CPU", "config": {"halvings": 0}}
    monkeypatch.setattr(
        rival, "read_part", lambda folder, part, seed, scale: ({}, facts | {"sha256": f"{part} {seed}", "stage": part})
    )
    monkeypatch.setattr(
        rival, "pipeline_of", lambda weights, scale, device, halvings: SimpleNamespace(scale=scale, device=device)
    )


@pytest.fixture
def made(monkeypatch):
    """Clips are drawn, not generated: real ones, but of the cascade every gap stands still. What is made is listed."""
    trained_nets(monkeypatch)
    made = []

    def clips_of(side, pipes, captions, seed):
        made.append((side, seed, len(captions)))
        clips = real_clips(pipes[0], captions, seed, FRAMES, large=False)
        return clips[:, ::EVERY].repeat_interleave(EVERY, 1) if side == "cascade" else clips

    monkeypatch.setattr(rival, "clips_of", clips_of)
    return made


def test_what_is_measured_is_kept_and_not_done_again(tmp_path, made, monkeypatch):
    captions = balanced_captions(10)
    first = measure_side(tmp_path, "cascade", 1, captions)
    assert len(first["rows"]) == 10 and made == [("cascade", 10_000, 8), ("cascade", 10_008, 2)]
    assert measure_side(tmp_path, "cascade", 1, captions) == first and len(made) == 2
    path = next((tmp_path / "rival").glob("*.json"))
    path.write_text(path.read_text().replace("tsr 1", "tsr 0"))  # measured with other weights
    measure_side(tmp_path, "cascade", 1, captions[:2])
    assert len(made) == 3


def test_both_claims_hold_for_a_cascade_that_stands_still_between_keyframes(tmp_path, made):
    """It is off by more, the faster things move."""
    for number, measure in enumerate((measure_consistency, measure_domain_gap)):
        claim = measure(tmp_path, progress=False, captions=6)
        assert {"claim", "paper", "measured", "spread", "n", "verdict", "command", "settings"} <= claim.keys()
        assert claim["verdict"] == "holds" and claim["n"] == 18 and claim["values"]["by seed"]["cascade"][0]["added"] > 0.3
        means = claim["values"]["all"]
        assert list(means) == [("one-pass", "real keyframes")[number], "cascade"]
        assert f"{means['cascade']['path']:.2f} of 32" in claim["measured"]
        speeds = claim["values"]["by speed"]["cascade"]
        assert speeds["slowly"]["path"] < speeds["plainly"]["path"] < speeds["quickly"]["path"]
        assert claim["settings"]["frames through a net"] == {"one-pass": 80, "cascade": 111}
    assert [side for side, _, _ in made].count("cascade") == 3, "clips of the cascade serve both claims"


def rows_with(path: dict[str, float]) -> list[dict]:
    good = {"motion": True, "speed": True, "digit": True, "keyframe path": 0.1, "period": 0.0}
    return [good | {"said speed": speed, "path": value} for speed, value in path.items()]


@pytest.mark.parametrize(
    ("paths", "verdict"),
    [
        ([(1.0, 1.5, 2.0), (1.1, 1.5, 2.2), (1.0, 1.4, 2.1)], "holds"),
        ([(2.0, 2.0, 2.0), (2.1, 2.0, 2.1), (2.0, 2.1, 2.0)], "too small to tell"),  # as bad where it is slow
        ([(0.5, 0.5, 0.5), (0.6, 0.5, 0.6), (0.5, 0.5, 0.4)], "does not hold"),
        ([(0.5, 1.0, 1.6), (0.9, 1.0, 1.1), (1.2, 1.3, 1.6)], "too small to tell"),  # seeds differ
        ([(1.0, 1.5, 2.0), (1.1, 1.5, 2.2)], "too small to tell"),  # of two seeds
    ],
)
def test_a_cascade_that_is_bad_at_slow_motion_proves_nothing(tmp_path, monkeypatch, paths, verdict):
    def measure_side(folder, side, seed, captions):
        chosen = paths[seed] if side == "cascade" else (1.0, 1.0, 1.0)
        return {"rows": rows_with(dict(zip(("slowly", "", "quickly"), chosen, strict=True))), "seconds": 0.0}

    trained_nets(monkeypatch)
    monkeypatch.setattr(rival, "measure_side", measure_side)
    claim = measure_consistency(tmp_path, progress=False, captions=6, seeds=len(paths))
    assert claim["verdict"] == verdict and f"{len(paths)} " in claim["spread"]


def test_a_net_that_is_not_trained_to_its_end_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"keyframes-0.*claims --train"):
        measure_consistency(tmp_path, progress=False)
    facts = {"stage": "tsr", "scale": "tiny", "step": 3, "steps": 9}
    write_checkpoint(part_folder(tmp_path, "tsr", 1) / "checkpoint.safetensors", {"ema.w": torch.ones(1)}, facts)
    with pytest.raises(FileNotFoundError, match="tsr-1"):
        read_part(tmp_path, "tsr", 1, TINY)
    write_checkpoint(part_folder(tmp_path, "tsr", 1) / "checkpoint.safetensors", {"ema.w": torch.ones(1)}, facts | {"step": 9})
    assert read_part(tmp_path, "tsr", 1, TINY)[0] == {"w": torch.ones(1)}


def test_the_one_pass_net_is_the_shipped_one_unless_it_is_trained_further(tmp_path):
    shipped = read_part(tmp_path, "one-pass", 0, TINY)[1]
    assert shipped["stage"] == "base" and set(SIDES["one-pass"]) == {"one-pass"}
