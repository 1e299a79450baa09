"""The checkers of notebook 13 accept the answers under the folds, and reject the stubs and tempting wrong answers."""

import sys

import pytest
import torch
from notebook_exercises import NOTEBOOKS, accepts, checkers, exercises, parameters

sys.path.insert(0, str(NOTEBOOKS))
from course import checks_13 as course

from minilumiere.evaluation.frechet import square_root

FILE = NOTEBOOKS / "13_what_metrics_see.ipynb"
NAMES = {"torch": torch, "Tensor": torch.Tensor, "square_root": square_root}


@pytest.mark.parametrize("exercise", parameters(FILE))
def test_the_answer_is_accepted_and_the_stub_is_not(exercise):
    accepts(course, exercise, NAMES)


def test_each_checker_has_one_exercise():
    found = sorted(exercise.checker for exercise in exercises(FILE))
    assert len(found) >= 3 and found == checkers(course)


def signed(clip):
    ink = clip.sum((1, 2, 3))
    return ink.diff().mean() / ink.mean()


def of_pixels(clip):
    return clip.diff(dim=0).abs().mean() / clip.mean()


def not_relative(clip):
    return clip.sum((1, 2, 3)).diff().abs().mean()


def against_the_first(clip):
    ink = clip.sum((1, 2, 3))
    return (ink - ink[0]).abs().mean() / ink.mean()


def product_of_roots(mean_a, cov_a, mean_b, cov_b):
    both = square_root(cov_a) @ square_root(cov_b)
    return (mean_a - mean_b).square().sum() + (cov_a + cov_b - 2 * both).trace()


def deviations_only(mean_a, cov_a, mean_b, cov_b):
    return (mean_a - mean_b).square().sum() + (cov_a.diag().sqrt() - cov_b.diag().sqrt()).square().sum()


def distance_not_squared(mean_a, cov_a, mean_b, cov_b):
    root = square_root(cov_a)
    return (mean_a - mean_b).norm() + (cov_a + cov_b - 2 * square_root(root @ cov_b @ root)).trace()


def once(mean_a, cov_a, mean_b, cov_b):  # the 2 is forgotten
    root = square_root(cov_a)
    return (mean_a - mean_b).square().sum() + (cov_a + cov_b - square_root(root @ cov_b @ root)).trace()


def outside(value, low, high):
    return not low <= value <= high


def first_outside(values, strengths, low, high):
    return next((s for v, s in zip(values, strengths, strict=True) if outside(v, low, high)), None)


def only_above(values, strengths, low, high):
    for i, strength in enumerate(strengths):
        if all(value > high for value in values[i:]):
            return strength
    return None


def at_the_strongest(values, strengths, low, high):
    return first_outside(values, strengths, low, high) if outside(values[-1], low, high) else None


WRONG = [
    ("check_flicker", signed, "no sign"),
    ("check_flicker", of_pixels, "only moves"),
    ("check_flicker", not_relative, "relative"),
    ("check_flicker", against_the_first, "wanted"),
    ("check_frechet", product_of_roots, "do not commute"),
    ("check_frechet", deviations_only, "do not commute"),
    ("check_frechet", distance_not_squared, "squared distance"),
    ("check_frechet", once, "same covariance"),
    ("check_noticed", first_outside, "always outside"),
    ("check_noticed", only_above, "falls"),
    ("check_noticed", at_the_strongest, "always outside"),
    ("check_noticed", lambda *given: 1 / 0, "ZeroDivisionError"),
]


@pytest.mark.parametrize(
    ("checker", "function", "says"), [pytest.param(*row, id=f"{row[0]} {row[1].__name__} {row[2]}") for row in WRONG]
)
def test_a_tempting_wrong_answer_is_rejected_with_a_reason(checker, function, says):
    said = getattr(course, checker)(function)
    assert said.startswith("not yet") and says in said


def test_every_checker_has_two_wrong_answers_to_reject():
    assert all(sum(row[0] == name for row in WRONG) >= 2 for name in vars(course) if name.startswith("check_"))
