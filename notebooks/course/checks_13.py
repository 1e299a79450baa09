"""Checkers of the exercises of notebook 13: what metrics see.

As those of the other notebooks they return "right ..." or "not yet: ...", and raise nothing.
`tests/notebooks/test_checks_13.py` runs each on its answer and on tempting wrong ones.
"""

import torch
from course.checks_06_12 import check, seeded

from minilumiere.evaluation.formulas import temporal_flicker
from minilumiere.evaluation.frechet import gaussian_distance
from minilumiere.evaluation.metrics import noticed


@check
def check_flicker(function) -> str:
    moving = torch.zeros(4, 3, 8, 8)
    for t in range(4):
        moving[t, 0, 2:4, t : t + 2] = 1  # red, moving to the right
    if abs(float(function(moving))) > 1e-5:
        return "a digit that only moves keeps its ink: that is no flicker"
    lit = moving * torch.tensor([1.0, 0.5, 0.5, 1.0]).view(4, 1, 1, 1)
    if abs(float(function(lit))) < 1e-5:
        return "what is dimmed and lit again flickers, though it ends as it began: a change has no sign"
    if abs(float(function(lit * 0.5) - function(lit))) > 1e-4:
        return "a darker clip flickers as much: relative to the mean ink"
    for clip in (lit, torch.rand(5, 3, 6, 6, generator=seeded(0))):
        if abs(float(function(clip)) - temporal_flicker(clip)) > 1e-4:
            return f"{float(function(clip)):.3f}, where {temporal_flicker(clip):.3f} is wanted"
    return ""


def covariance(n: int, seed: int) -> torch.Tensor:
    factor = torch.randn(n, n, generator=seeded(seed), dtype=torch.float64)
    return factor @ factor.T / n


@check
def check_frechet(function) -> str:
    zero, one = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    if abs(float(function(zero + 2, one, zero, one)) - 12) > 1e-6:
        return "with the same covariance it is the squared distance of the means"
    if abs(float(function(zero, 4 * one, zero, one)) - 3) > 1e-6:
        return "of deviations 2 and 1 in each of 3 directions, (2 − 1)² is wanted three times"
    a, b = covariance(3, 0), covariance(3, 1)
    if abs(float(function(zero, a, zero, a))) > 1e-6:
        return "from a Gaussian to itself it is 0"
    wanted, made = gaussian_distance(zero, a, zero + 1, b), float(function(zero, a, zero + 1, b))
    if abs(made - wanted) > 1e-6:
        return f"{made:.3f}, where {wanted:.3f} is wanted: these two covariances do not commute"
    return ""


@check
def check_noticed(function) -> str:
    strengths = (0.1, 0.2, 0.4, 0.8)
    cases = (
        ([0.5, 0.5, 2.0, 3.0], "above"),
        ([0.5, -2.0, -3.0, -4.0], "below: a score that falls is noticed, too"),
        ([2.0, 0.5, 2.0, 3.0], "outside, inside, outside: from where on is it always outside?"),
        ([0.5, 2.0, 2.0, 0.5], "inside at the strongest: None"),
        ([0.5, 0.5, 0.5, 0.5], "always inside: None"),
        ([2.0, 2.0, 2.0, 2.0], "always outside"),
    )
    for values, said in cases:
        wanted, made = noticed(values, strengths, -1.0, 1.0), function(values, strengths, -1.0, 1.0)
        if made != wanted:
            return f"{values} against [-1, 1] ({said}): {wanted} is wanted, not {made}"
    return ""
