"""The checkers of notebook 11 accept the answers under the folds, and reject the stubs and tempting wrong answers."""

import re
import sys

import pytest
import torch
from notebook_exercises import NOTEBOOKS, accepts, checkers, exercises, parameters

from minilumiere.config import get_scale
from minilumiere.evaluation.cascade import SIDES
from minilumiere.weights.checkpoint import read_checkpoint, write_checkpoint
from minilumiere.weights.shipped import read_shipped

sys.path.insert(0, str(NOTEBOOKS))
from course import cascade
from course import checks_11 as course

FILE = NOTEBOOKS / "11_cascade_vs_one_pass.ipynb"
NAMES = {"torch": torch, "Tensor": torch.Tensor}


@pytest.mark.parametrize("exercise", parameters(FILE))
def test_the_answer_is_accepted_and_the_stub_is_not(exercise):
    accepts(course, exercise, NAMES)


def test_each_checker_has_an_exercise():
    found = sorted(exercise.checker for exercise in exercises(FILE))
    assert found == checkers(course) == ["check_alias", "check_largest_step", "check_window"]


def window_at(frames, first, mask=None, fill=0.0):
    """A window with three keyframes on some frames, from keyframe `first(number)` on."""

    def function(keyframes, number):
        video = torch.full((20, *keyframes.shape[1:]), fill)
        given = torch.zeros(20, 1, *keyframes.shape[2:])
        video[frames] = keyframes[first(number) : first(number) + 3]
        given[frames if mask is None else mask] = 1
        return video, given

    return function


def alias_a_frame(turns, every):
    return (turns * every - round(turns * every)) / every


KEYS = [0, 8, 16]
WRONG = [
    ("check_alias", "forward only", lambda turns, every: turns * every % 1, "back"),
    ("check_alias", "its size only", lambda turns, every: abs(turns * every - round(turns * every)), "sign is lost"),
    ("check_alias", "rounded down", lambda turns, every: turns * every - int(turns * every), "back"),
    ("check_alias", "turns a frame", lambda turns, every: turns - round(turns), "for a period of"),
    ("check_alias", "turns a frame, of the alias", alias_a_frame, "for a period of"),
    ("check_largest_step", "one less than the period", lambda period: period - 1, "seems to turn"),
    ("check_largest_step", "the whole period", lambda period: period, "stands still"),
    ("check_largest_step", "no whole number", lambda period: period / 2, "whole number|either way"),
    ("check_largest_step", "half of it, less one", lambda period: max(1, period // 2 - 1), "would do as well"),
    ("check_largest_step", "a quarter", lambda period: max(1, period // 4), "would do as well"),
    ("check_window", "the first frames", window_at([0, 1, 2], lambda n: 2 * n), "8 frames apart"),
    ("check_window", "no keyframe is shared", window_at(KEYS, lambda n: min(3 * n, 8)), "window 1 holds the keyframes"),
    ("check_window", "one gap on", window_at(KEYS, lambda n: n), "window 1 holds the keyframes"),
    ("check_window", "two keyframes given", window_at(KEYS, lambda n: 2 * n, mask=[0, 8]), "are given"),
    ("check_window", "grey where nothing is given", window_at(KEYS, lambda n: 2 * n, fill=0.5), "should be 0"),
    ("check_window", "raises", lambda keyframes, number: keyframes[0, 99], "IndexError"),
]  # fmt: skip


@pytest.mark.parametrize(("checker", "function", "said"), [pytest.param(c, f, s, id=f"{c}: {w}") for c, w, f, s in WRONG])
def test_a_tempting_wrong_answer_is_told_why(checker, function, said):
    told = getattr(course, checker)(function)
    assert told.startswith("not yet") and re.search(said, told), told


# The nets that come with the notebook


def test_weights_in_eight_bits_are_near_what_they_stand_for():
    torch.manual_seed(0)
    difference = torch.randn(6, 4, 3, 3) * torch.logspace(-3, 0, 6)[:, None, None, None]
    numbers, factor = cascade.packed(difference)
    assert numbers.dtype == torch.int8 and numbers.shape == difference.shape
    error = (cascade.unpacked(numbers, factor) - difference).flatten(1).abs().amax(1)
    assert (error < difference.flatten(1).abs().amax(1) / 200).all()
    assert torch.equal(cascade.unpacked(*cascade.packed(torch.zeros(3))), torch.zeros(3))


def test_the_cascade_comes_along_and_was_made_from_the_shipped_weights():
    tensors, facts = read_checkpoint(cascade.FILE, stage="cascade", scale="tiny")
    assert facts["from"] == read_shipped("base", get_scale("tiny"))[1]["sha256"]
    assert {name.split(".")[0] for name in tensors} == set(SIDES["cascade"]) and cascade.FILE.stat().st_size < 3 * 2**20
    nets = cascade.load_cascade()
    assert (nets.keyframes.base.temporal_factor, nets.tsr.base.temporal_factor) == (1, 4)


def test_a_cascade_of_other_base_weights_is_refused(tmp_path):
    tensors, facts = read_checkpoint(cascade.FILE)
    write_checkpoint(tmp_path / "other.safetensors", tensors, facts | {"from": "0" * 64})
    with pytest.raises(ValueError, match="other base weights"):
        cascade.load_cascade(path=tmp_path / "other.safetensors")
