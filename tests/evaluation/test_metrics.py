"""The laboratory: real against real is next to nothing, what is noticed grows with the strength, and the table says so."""

import json
import math
from itertools import pairwise

import pytest

from minilumiere.config import DATA
from minilumiere.dataset import parse_caption
from minilumiere.evaluation.corruption import CORRUPTIONS, corrupt, real_scenes
from minilumiere.evaluation.frechet import frechet_distance
from minilumiere.evaluation.metrics import (
    DISTANCES,
    DRAWS,
    METRICS,
    Reference,
    draws,
    laboratory,
    mixed_captions,
    noticed,
    read_all,
    read_clips,
    read_reference,
    spread,
    sum_up,
    tables,
    widened,
)

SEED = 2**41  # no seed of the laboratory's


@pytest.fixture(scope="module")
def scenes():
    return real_scenes(mixed_captions(16, 5), SEED)


@pytest.fixture(scope="module")
def many():
    """Enough clips for a distance to mean something."""
    return real_scenes(mixed_captions(64, 7), SEED + 2)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return read_reference(real_scenes(mixed_captions(128, 6), SEED + 1).clips)


@pytest.fixture(scope="module")
def table() -> dict:
    return json.loads((DATA / "metrics.json").read_text())


def test_every_fourth_caption_has_two_objects():
    captions = mixed_captions(16)
    assert [len(parse_caption(caption)) for caption in captions] == [1, 1, 1, 2] * 4
    assert captions == mixed_captions(16) != mixed_captions(16, 1)
    assert len(set(mixed_captions(64))) > 60


def test_draws_are_of_different_clips_and_as_many_with_two_objects():
    sets = draws(64, 16, 10)
    assert sets[0] == list(range(16)) and len(sets) == 10 and sets == draws(64, 16, 10)
    for chosen in sets:
        assert len(set(chosen)) == 16 and sum(i % 4 == 3 for i in chosen) == 4 and max(chosen) < 64
    assert len({tuple(sorted(chosen)) for chosen in sets}) == 10


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 0, 2, 3], 0.4),
        ([2, 2, 2, 2], 0.1),
        ([0, 0, 0, -1.5], 0.8),
        ([2, 2, 2, 1], None),  # the strongest is not noticed
        ([2, 0, 2, 2], 0.4),
        ([0, 1, 0.5, 0], None),
        ([None, None, None, None], None),
    ],
)
def test_noticed_is_outside_from_there_on(values, wanted):
    assert noticed(values, (0.1, 0.2, 0.4, 0.8), -1, 1) == wanted


def test_a_spread_leaves_out_what_was_not_measured():
    assert spread([1.0, None, 3.0]) == (1.0, 3.0)
    assert noticed([1.0], (0.5,), *spread([None])) is None


def test_a_range_is_widened_on_both_sides():
    assert widened(2.0, 4.0) == (1.5, 4.5) and widened(1.0, 1.0) == (1.0, 1.0)


def test_real_against_themselves_is_nothing_and_against_others_next_to_it(many, reference):
    """The two distances, beside what a strong corruption makes of them."""
    other = read_reference(many.clips)
    spoiled = read_reference(corrupt(many, "frame shuffle", 1.0))
    for kind in ("appearance", "motion"):
        real = getattr(reference, kind)
        assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)
        assert 0 < frechet_distance(getattr(other, kind), real) < frechet_distance(getattr(spoiled, kind), real) / 1.5


def test_all_metrics_of_real_clips(scenes):
    read = read_all(scenes.clips, scenes.captions, scenes.clips)
    values = read["values"]
    assert set(values) == set(METRICS) and all(values[name] == 0 for name in (*DISTANCES, "background"))
    assert values["judge: colour"] == values["multiple objects"] == 1 and values["judge: motion"] > 0.9
    assert (read["clips"], read["reference"], read["frames"], read["resolution"]) == (16, 16, 16, "32x32")
    assert "not comparable with published FVD" in read["note"]


def test_clips_of_other_length_or_size_are_refused(scenes):
    with pytest.raises(ValueError, match="differ in frames or size"):
        read_all(scenes.clips[:, :8], scenes.captions, scenes.clips)


def test_what_is_summed_up_is_of_the_chosen_clips(scenes, reference):
    readings = read_clips(scenes.clips, scenes.captions)
    chosen = [3, 0, 5, 7]
    alone = read_clips(scenes.clips[chosen], [scenes.captions[i] for i in chosen])
    a, b = sum_up(readings.at(chosen), reference), sum_up(alone, reference)
    assert a.keys() == set(METRICS) and all(a[name] == pytest.approx(b[name], abs=1e-3) for name in METRICS)
    assert sum_up(readings.at([0, 1, 2]), reference)["multiple objects"] is None, "of no clip with two"


MONOTONE = [  # metric, corruption, does the value grow?
    ("toy Fréchet video distance", "blur", True),
    ("toy Fréchet video distance", "speckle", True),
    ("toy Fréchet video distance", "frame shuffle", True),
    ("Fréchet distance of motion", "frame shuffle", True),
    ("Fréchet distance of motion", "freeze", True),
    ("Fréchet distance of motion", "wrong speed", True),
    ("motion smoothness", "frame shuffle", True),
    ("temporal flicker", "flicker", True),
    ("background", "speckle", True),
    ("subject consistency", "digit exchanged", False),
    ("judge: motion", "wrong direction", False),
    ("judge: same digit on all frames", "digit exchanged", False),
]


@pytest.mark.parametrize(("metric", "corruption", "grows"), MONOTONE)
def test_what_is_noticed_grows_with_the_strength(scenes, many, reference, table, metric, corruption, grows):
    """Of a few clips, without any corruption and at the two greatest strengths; that it is noticed is the table's word."""
    strengths = CORRUPTIONS[corruption].strengths
    assert table["notices"][metric][corruption] <= strengths[2]
    values = []
    for strength in (0.0, *strengths[2:]):
        if metric in DISTANCES:
            kind = ("appearance", "motion")[DISTANCES.index(metric)]
            read = read_reference(corrupt(many, corruption, strength))
            values.append(frechet_distance(getattr(read, kind), getattr(reference, kind)))
        else:
            values.append(sum_up(read_clips(corrupt(scenes, corruption, strength), scenes.captions), reference)[metric])
    assert values == sorted(values, reverse=not grows) and len(set(values)) == 3


def test_the_stored_table_agrees_with_its_own_values(table):
    """From the strength that it names, and from no earlier one, every value lies outside of what real clips score."""
    strengths = table["settings"]["strengths"]
    assert strengths == {name: list(corruption.strengths) for name, corruption in CORRUPTIONS.items()}
    assert set(table["notices"]) == set(METRICS) and table["settings"]["draws"] == DRAWS
    for metric, row in table["notices"].items():
        low, high = table["real"][metric]
        assert set(row) == set(CORRUPTIONS)
        for name, least in row.items():
            values = table["values"][metric][name]
            assert least == noticed(values, tuple(strengths[name]), *widened(low, high))


NOT_MONOTONE = {
    ("judge: path error (units of 32)", "freeze"),  # what is frozen from the first frame on rests on a perfect path
    ("judge: motion", "digit exchanged"),  # a centre that jumps halfway misleads the fit a little less than one that jumps late
}


def test_the_stored_table_is_monotone_where_something_is_noticed(table):
    """From that strength on a stronger corruption is as far outside as a weaker one, up to the range of real clips."""
    for metric, row in table["notices"].items():
        low, high = table["real"][metric]
        for name, least in row.items():
            if least is None:
                continue
            values = table["values"][metric][name][table["settings"]["strengths"][name].index(least) :]
            outside = [max(low - value, value - high) for value in values]
            falls = [before - after for before, after in pairwise(outside)]
            assert (max(falls, default=0) <= high - low + 1e-9) == ((metric, name) not in NOT_MONOTONE), (metric, name, values)


def test_a_small_laboratory_is_whole():
    results = laboratory(progress=False, clips=4, generated=False)
    assert set(results) == {"settings", "real", "values", "notices", "generated"} and results["generated"] == {}
    assert json.loads(json.dumps(results)) == json.loads(json.dumps(results)) and "Infinity" not in json.dumps(results)
    assert results["settings"]["clips"] == 4 and results["settings"]["reference"] == 16
    assert all(math.isfinite(value) for pair in results["real"].values() for value in pair)
    assert results["notices"]["background"]["speckle"] == 0.001, "one bright pixel is enough where real clips have none"
    lines = tables(results).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 * (1 + len(METRICS))
    assert "4 clips of 16 frames at 32x32" in lines[0] and "not comparable" in lines[0]
