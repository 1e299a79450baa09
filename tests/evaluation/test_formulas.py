"""The six formulas on clips of which the answer is known."""

import math

import pytest
import torch

from minilumiere.dataset.moving_digits import sample_batch
from minilumiere.evaluation.formulas import (
    DYNAMIC,
    FORMULAS,
    background,
    formulas,
    subject_consistency,
    temporal_flicker,
    unevenness,
)

ONE = "a red 3 moving right"


def real(caption: str, frames: int = 16) -> torch.Tensor:
    return sample_batch(1, captions=[caption], seed=2**41, frames=frames).video[0]


def test_a_real_clip_of_one_object():
    found = formulas(real(ONE), ONE)
    assert tuple(found) == FORMULAS
    assert found["subject consistency"] > 0.97 and found["temporal flicker"] < 1e-4 and found["background"] == 0
    assert found["dynamic degree"] == 1 and math.isnan(found["multiple objects"])
    assert formulas(real("a red 3 standing still"), "a red 3 standing still")["dynamic degree"] == 0


@pytest.mark.parametrize("motion", ["moving left slowly", "circling clockwise slowly", "moving up quickly"])
def test_the_slowest_motion_is_dynamic(motion):
    assert formulas(real(f"a blue 7 {motion}"), f"a blue 7 {motion}")["dynamic degree"] == 1


def test_consistency_is_the_mean_of_two_cosines():
    shapes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    assert subject_consistency(shapes) == pytest.approx(((0 + 0) / 2 + (0 + 1) / 2) / 2)
    assert subject_consistency(shapes[:1].repeat(4, 1)) == pytest.approx(1)


def test_flicker_is_the_change_of_ink():
    clip = torch.zeros(3, 3, 8, 8)
    for t, level in enumerate((1.0, 0.5, 0.75)):
        clip[t, :, t : t + 2, 3:5] = level  # it moves, too
    assert temporal_flicker(clip) == pytest.approx((0.5 + 0.25) / 2 / 0.75)


def test_unevenness_is_the_distance_from_the_middle():
    line = torch.stack([torch.arange(5.0), torch.arange(5.0)], dim=1)
    assert unevenness(line) == 0 and unevenness(line[:2]) == 0
    line[2, 0] += 3  # it is 3 off; each neighbour's middle is off by a half of that
    assert unevenness(line) == pytest.approx((1.5 + 3 + 1.5) / 3)


def test_the_background_is_what_is_far_from_every_object():
    clip, centre = torch.zeros(2, 3, 32, 32), torch.tensor([[8.0, 8.0]] * 2)
    clip[:, 1, :12, :12] = 1
    assert background(clip, [centre]) == 0
    clip[0, 0, 31, 31] = 0.5
    outside = 32 * 32 - sum((x + 0.5 - 8) ** 2 + (y + 0.5 - 8) ** 2 <= 144 for x in range(32) for y in range(32))
    assert background(clip, [centre]) == pytest.approx(0.5 / (2 * outside))
    assert background(clip, [centre, torch.tensor([[28.0, 28.0]] * 2)]) == 0


def test_multiple_objects_is_the_share_of_frames_that_show_all():
    caption = "a red 3 moving right and a blue 7 standing still"
    clip = real(caption)
    assert formulas(clip, caption)["multiple objects"] > 0.9
    clip[8:, 2] *= 0  # no blue on the second half
    clip[8:, 0] *= 1
    assert formulas(clip, caption)["multiple objects"] == pytest.approx(0.5, abs=0.1)
    assert formulas(real(ONE), caption)["multiple objects"] == 0
    assert DYNAMIC < 0.45  # the slowest pace of a line
