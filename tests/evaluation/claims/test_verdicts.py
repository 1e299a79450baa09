"""A verdict is what its interval says, and an interval is what tables of Student's t say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilumiere.evaluation.claims.verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    above,
    below,
    differences,
    interval,
    student,
    together,
)

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


def test_an_interval_of_three_is_wide():
    found = interval([1, 2, 3])
    assert (found.mean, found.n) == (2, 3)
    assert found.high - 2 == pytest.approx(4.303 / math.sqrt(3), abs=1e-3) == 2 - found.low


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (30, 2.042), (100, 1.984)])
def test_student_s_points_are_the_table_s(freedom, point):
    assert student(freedom) == pytest.approx(point, abs=1e-3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_too_little_has_no_interval(values):
    with pytest.raises(ValueError, match="two finite values"):
        interval(values)


@given(NUMBERS, st.floats(-100, 100))
def test_an_interval_moves_along_and_holds_its_mean(values, shift):
    found, moved = interval(values), interval(value + shift for value in values)
    assert found.low <= found.mean <= found.high
    assert (moved.low, moved.high) == pytest.approx((found.low + shift, found.high + shift), abs=1e-6)


@given(NUMBERS, st.floats(-1e3, 1e3))
def test_what_is_above_is_not_below(values, threshold):
    found = interval(values)
    assert above(found, threshold) == {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}[below(found, threshold)]


def test_an_interval_decides_only_where_it_excludes_the_threshold():
    assert above(interval([1, 1.1, 0.9])) == HOLDS
    assert above(interval([-1, -1.1, -0.9])) == FAILS
    assert above(interval([3, 1, -1])) == OPEN
    assert above(interval([1, 1.1, 0.9]), 1) == OPEN
    assert above(interval([0, 0, 0])) == OPEN, "no effect at all is none"


def test_pairs_are_compared_within():
    """What two seeds share is in no difference: so little a gap shows beside so large a spread."""
    assert above(differences([101.01, 1.01, 50.01], [101, 1, 50])) == HOLDS
    with pytest.raises(ValueError):
        differences([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("parts", "verdict"), [((HOLDS, HOLDS), HOLDS), ((HOLDS, OPEN), OPEN), ((OPEN, FAILS), FAILS), ((HOLDS, FAILS), FAILS)]
)
def test_a_claim_holds_if_all_its_parts_do(parts, verdict):
    assert together(*parts) == verdict


def test_an_interval_is_shown_with_its_bounds():
    assert interval([0.1, 0.1]).show(1, 100) == "10.0 [10.0, 10.0]"
