"""Checkers of the exercises of notebook 11, as those of `checks_06_12`; `tests/notebooks/test_checks_11.py` tries them."""

import math

import torch
from course.checks_06_12 import check, seeded

from minilumiere.evaluation.cascade import alias as package_alias
from minilumiere.evaluation.cascade import windows_of


@check
def check_alias(function) -> str:
    for period, every in ((3, 8), (32, 8), (16, 8), (9, 8), (7, 8), (5, 4), (40, 10)):
        turns = 1 / period
        said, wanted = float(function(turns, every)), package_alias(turns, every)
        if math.isclose(said, turns * every, abs_tol=1e-6) and not math.isclose(said, wanted, abs_tol=1e-6):
            return f"{every} frames at {turns:.3f} turns a frame are {said:.2f} turns: who looks once sees no whole turns"
        if math.isclose(said, wanted % 1, abs_tol=1e-6) and wanted < 0:
            return f"{said:.2f} turns forward look like {1 - said:.2f} turns back: the smaller one is seen"
        if math.isclose(abs(said), abs(wanted), abs_tol=1e-6) and wanted < 0 < said:
            return f"for a period of {period} and every {every}th frame it seems to turn back: the sign is lost"
        if not (math.isclose(said, wanted, abs_tol=1e-6) or math.isclose(abs(said), 0.5, abs_tol=1e-6)):
            return f"for a period of {period} and every {every}th frame it says {said:.3f}, and {wanted:.3f} is seen"
        if math.isclose(abs(wanted), 0.5) and not math.isclose(abs(said), 0.5, abs_tol=1e-6):
            return f"half a turn is seen as half a turn, not as {said:.2f}"
    return ""


@check
def check_largest_step(function) -> str:
    for period in (32, 16, 14, 9, 8, 7, 5):
        said = function(period)
        if said != int(said) or said < 1:
            return f"a whole number of frames is wanted, not {said}"
        seen = package_alias(1 / period, int(said)) / said
        if 2 * said >= period:
            what = (
                "may go either way"
                if 2 * said == period
                else f"seems to turn once in {1 / seen:.1f} frames"
                if seen
                else "stands still"
            )
            return f"with every {said}th frame, a circle of {period} frames {what}"
        if 2 * (said + 1) < period:
            return f"every {said + 1}th frame of a circle of {period} would do as well"
    return ""


@check
def check_window(function) -> str:
    keyframes = torch.rand(1, 11, 3, 8, 8, generator=seeded(0)) + 0.1
    for number, (video, mask) in enumerate(windows_of(keyframes)):
        said, given = function(keyframes[0], number)
        if tuple(said.shape) != (20, 3, 8, 8) or tuple(given.shape) != (20, 1, 8, 8):
            return f"shapes (20, 3, h, w) and (20, 1, h, w) are wanted, not {tuple(said.shape)} and {tuple(given.shape)}"
        frames = given.amax((1, 2, 3)).nonzero()[:, 0].tolist()
        if frames != [0, 8, 16]:
            return f"in window {number} the frames {frames} are given: keyframes are 8 frames apart"
        if not torch.equal(given, mask):
            return "keyframes are given whole, and nothing else is"
        if not torch.equal(said[[0, 8, 16]], video[0, [0, 8, 16]]):
            held = [int((keyframes[0] - frame).abs().sum((1, 2, 3)).argmin()) for frame in said[[0, 8, 16]]]
            return f"window {number} holds the keyframes {held}: it begins where the one before it ended"
        if not torch.equal(said, video[0]):
            return "what is not given should be 0"
    return ""
