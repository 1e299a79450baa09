"""The checkers of notebook 14 accept its answers, and reject the stubs and tempting wrong answers."""

import sys

import pytest
import torch
from notebook_exercises import NOTEBOOKS, accepts, checkers, exercises, parameters

sys.path.insert(0, str(NOTEBOOKS))
from course import checks_14 as course

from minilumiere.config import SCALES
from minilumiere.model import diffusion
from minilumiere.model.appearance import CLEAR, DRAWN
from minilumiere.model.diffusion import add_noise, alpha_sigma, ddim_step, denoise_along, velocity
from minilumiere.training.distill import velocity_between

FILE = NOTEBOOKS / "14_few_steps.ipynb"
NAMES = {name: getattr(diffusion, name) for name in ("add_noise", "alpha_sigma", "denoise_along", "velocity", "Denoiser")}
NAMES |= {"torch": torch, "Tensor": torch.Tensor, "CLEAR": CLEAR, "DRAWN": DRAWN, "velocity_between": velocity_between}


@pytest.mark.parametrize("exercise", parameters(FILE))
def test_the_answer_is_accepted_and_the_stub_is_not(exercise):
    accepts(course, exercise, NAMES)


def test_each_checker_has_one_exercise():
    assert sorted(exercise.checker for exercise in exercises(FILE)) == checkers(course)


def calls(video, image):
    return lambda levels, guidance, share: (video(levels, guidance, share), image(levels[:-1], share))


def both(levels, guidance, share):
    alone = int((levels[:-1] >= DRAWN).sum()) * (share > 0)
    return (len(levels) - 1 - alone) * (1 if guidance == 1 else 2)


def where_clear(begins, share):
    return 2 * int((begins > CLEAR).sum()) * (share > 0)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (calls(lambda levels, guidance, _: len(levels) * (1 if guidance == 1 else 2), where_clear), "levels are"),
        (calls(lambda levels, guidance, _: both(levels, guidance, 0), where_clear), "the image net draws alone"),
        (calls(lambda levels, _, share: both(levels, 3.0, share), where_clear), "video net is called"),
        (calls(both, lambda begins, share: 2 * len(begins) * (share > 0)), "only where noise lets it see"),
        (calls(both, lambda begins, share: 2 * int((begins > CLEAR).sum())), "image net is called 0 times"),
        (calls(both, lambda begins, share: where_clear(begins, share) // 2), "with the caption and without"),
    ],
)
def test_wrong_counts_of_calls(wrong, why):
    assert course.check_calls(calls(both, where_clear)) == "right"
    assert why in course.check_calls(wrong)


def test_calls_are_counted_in_the_sampler():
    scale = SCALES["tiny"]
    levels = diffusion.schedule(scale.steps, scale.video_shift, tail=scale.tail)
    assert course.counted_calls(levels, 3.0, 1.0) == (both(levels, 3.0, 1.0), where_clear(levels[:-1], 1.0))
    assert both(levels, 3.0, 1.0) < 2 * scale.steps == both(levels, 3.0, 0.0)
    assert course.counted_calls(levels, 1.0, 0.0) == (scale.steps, 0)


def between(wrong):
    def function(noisy, after, now, then):
        (alpha, sigma), (alpha_then, sigma_then) = alpha_sigma(now, noisy), alpha_sigma(then, noisy)
        return wrong(noisy, after, alpha, sigma, alpha_then, sigma_then)

    return function


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (between(lambda z, after, a, s, a2, s2: after / a2), "still holds noise"),
        (between(lambda z, after, a, s, a2, s2: (after - z * s2 / s) / a2), "not noise alone"),
        (between(lambda z, after, a, s, a2, s2: (after - z) / (a2 - a)), "ends up to"),
        (between(lambda z, after, a, s, a2, s2: (z - s * after) / a), "ends up to"),
        (velocity_between, "this is v"),
        (between(lambda z, after, a, s, a2, s2: after[:, 0]), "shape"),
    ],
)
def test_wrong_targets(wrong, why):
    assert why in course.check_clean_between(wrong)


def lesson_with(target):
    def lesson(teacher, clean, noise, levels, segment):
        steps = levels[2 * segment : 2 * segment + 3]
        now, then = steps[0].expand(len(clean)), steps[2].expand(len(clean))
        noisy = add_noise(clean, noise, now)
        return noisy, target(teacher, clean, noise, noisy, steps, now, then)

    return lesson


def half_way(teacher, clean, noise, noisy, steps, now, then):
    after, _ = denoise_along(teacher, noisy, steps[:2])  # one step of the teacher only
    return velocity_between(noisy, after, now, then)


def from_the_truth(teacher, clean, noise, noisy, steps, now, then):
    return velocity_between(noisy, ddim_step(noisy, clean, now, then), now, then)


def last_word(teacher, clean, noise, noisy, steps, now, then):
    """The x̂ of the second step, as if the first had not been."""
    _, said = denoise_along(teacher, noisy, steps)
    return velocity_between(noisy, ddim_step(noisy, said, now, then), now, then)


def every_step(teacher, clean, noise, levels, segment):
    return course.reference_lesson(teacher, clean, noise, levels[segment : segment + 3], 0)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lesson_with(lambda teacher, clean, noise, noisy, steps, now, then: velocity(clean, noise, now)), "the truth's"),
        (lesson_with(from_the_truth), "the truth's"),
        (lesson_with(lambda teacher, clean, noise, noisy, steps, now, then: teacher(noisy, now)), "one of its steps"),
        (lesson_with(half_way), "does not end where"),
        (lesson_with(last_word), "does not end where"),
        (every_step, "begins where"),
    ],
)
def test_wrong_lessons(wrong, why):
    assert course.check_lesson(course.reference_lesson) == "right"
    assert why in course.check_lesson(wrong)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda values: values.flatten(0, 1).std(0).mean(), "captions differ"),
        (lambda values: values.std(), "captions differ"),
        (lambda values: values.std(0).mean(), "mean of variances"),
        (lambda values: values.var(0).mean(), "a variance"),
        (lambda values: values.var(0, correction=0).mean().sqrt(), "divide by"),
        (lambda values: values.var(1).mean().sqrt(), "captions differ"),
    ],
)
def test_wrong_varieties(wrong, why):
    assert why in course.check_variety(wrong)
