"""Counts are what formulas say, and a verdict on cost follows from them."""

import pytest

from minilumiere.evaluation.claims.costs import (
    measure_attention,
    measure_compactness,
    measure_factorisation,
    parabola,
)
from minilumiere.evaluation.claims.ledger import KEYS
from minilumiere.evaluation.claims.verdicts import VERDICTS


def test_a_parabola_is_told_from_what_grows_faster():
    times = (2, 3, 5, 8, 13)
    assert parabola({t: 7 + 3 * t + 2 * t**2 for t in times}) == (7, 3, 2, True)
    assert not parabola({t: 7 + 3 * t + 2 * t**2 + t**4 for t in times})[3]
    with pytest.raises(ValueError, match="four"):
        parabola({1: 1, 2: 4, 3: 9})


def test_attention_takes_what_its_formula_says(tmp_path):
    row = measure_attention(tmp_path, ranges=((4, 8), (8, 16), (16, 32)), repeats=2)
    assert {*KEYS} <= {*row} and row["verdict"] in VERDICTS
    a, b, c, exact = parabola({int(t): count for t, count in row["values"]["flops"].items()})
    assert exact and c == 4 * 64 * 16, "4 T² C for each place: scores, and their sum of values"
    assert 0 < a < b


def test_full_convolutions_take_more(tmp_path):
    row = measure_factorisation(tmp_path, repeats=2)
    assert {*KEYS} <= {*row} and row["verdict"] in VERDICTS
    gflop = row["values"]["gflop"]
    assert gflop["1-D only"] < gflop["factorised"] < 0.5 * gflop["full 3-D"]


def test_resampling_saves_operations_and_memory(tmp_path, mini):
    row = measure_compactness(tmp_path, lengths=(4, 8), repeats=1, scale=mini)
    assert {*KEYS} <= {*row} and row["verdict"] in VERDICTS
    for each in row["values"]["rows"]:
        assert each["gflop_2"] < each["gflop_0"] and each["mib_2"] < each["mib_0"]
