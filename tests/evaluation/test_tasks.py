"""The measurements of tasks: exact where they must be, right about clips whose answer is known."""

import pytest
import torch

import minilumiere as ml
from minilumiere.evaluation.quality import real_clips
from minilumiere.evaluation.tasks import (
    cinemagraph,
    evaluate_tasks,
    hidden_cases,
    hidden_frames,
    image_to_video,
    path_error,
    psnr_gain,
)
from minilumiere.pipeline import Pipeline

CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise"]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")


@pytest.mark.parametrize("kind", ["half", "moving box"])
def test_in_hidden_cases_the_object_is_hidden_on_some_frames_and_seen_on_others(pipe, kind):
    captions, clips, masks = hidden_cases(pipe, 6, kind, 0)
    assert len(captions) == 6 and clips.shape == (6, 16, 3, 128, 128) and masks.shape == (6, 16, 1, 128, 128)
    hidden = hidden_frames(clips, masks).sum(1)
    assert ((hidden >= 2) & (hidden <= 12)).all()
    share = 1 - masks.mean((1, 2, 3, 4))
    torch.testing.assert_close(share, torch.full((6,), 0.5 if kind == "half" else 0.25))


def test_path_error_is_the_distance_of_centres_on_the_frames_asked_for(pipe):
    real = real_clips(pipe, CAPTIONS)
    assert path_error(real, real, CAPTIONS) == 0
    moved = real.roll(8, dims=-1)  # 8 of 128 pixels are 2 of 32
    assert path_error(moved, real, CAPTIONS) == pytest.approx(2, abs=0.05)
    later = torch.cat([real[:, :8], moved[:, 8:]], dim=1)
    frames = torch.arange(16).expand(2, -1) >= 8
    assert path_error(later, real, CAPTIONS, frames) == pytest.approx(2, abs=0.05)
    assert path_error(later, real, CAPTIONS, ~frames) == 0


def test_psnr_gain_is_measured_against_the_mean_of_the_known_and_in_the_hole_only():
    real, masks = torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 1, 4, 4)
    masks[..., 2:] = 0
    real[..., 2:] = 0.5  # known: black; so the mean misses every hidden pixel by a half
    guess = real.clone()
    guess[..., 2:] = 0.45  # ten times nearer: 20 dB
    guess[..., :2] = 1  # of no account
    assert psnr_gain(guess, real, masks) == pytest.approx(20, abs=1e-3)
    assert psnr_gain(torch.zeros_like(real), real, masks) == pytest.approx(0, abs=1e-3)


def test_known_pixels_and_what_lies_outside_a_region_are_exact(pipe):
    rows = {what: value for _, what, value in image_to_video(pipe, 2) + cinemagraph(pipe, 2)}
    assert rows["largest difference on the first frame"] == 0
    assert rows["largest change over time outside the region"] == 0
    assert 0 < rows["the same of the base net alone (RMS)"] < 1


def test_the_table_has_every_task(pipe):
    table = evaluate_tasks(pipe, samples=2)
    for name in ("image-to-video", "inpainting, half", "inpainting, moving box", "cinemagraph"):
        assert name in table
    assert table.startswith("tiny: tasks")


def test_the_table_of_the_student_says_so(pipe):
    student = Pipeline(pipe.scale, pipe.base, pipe.ssr, pipe.device, student=True)
    assert evaluate_tasks(student, samples=1).startswith("tiny, few-step student: tasks")
