"""Trainings are read back and judged by what they say: within a seed, over the seeds."""

import json

import pytest

from minilumiere.evaluation.claims import trained
from minilumiere.evaluation.claims.ledger import KEYS
from minilumiere.evaluation.claims.variants import ALL_TUNED, FROZEN, FULL_3D, HE, NEAREST, NO_HALVINGS, ONE_D
from minilumiere.evaluation.claims.verdicts import FAILS, HOLDS, OPEN

CURVE = [{"step": 0, "loss": 1.0, "seconds": 0.0}, {"step": 10, "loss": 0.5, "seconds": 5.0}]


def write(folder, name: str, finals: list[float], seconds: float = 5.0, looks: tuple[int, ...] = (6, 6, 6)) -> None:
    """Results of three seeds, as the trainings store them. `looks`: how many of eight clips are right, by seed."""
    for seed, final in enumerate(finals):
        recipe = {"steps": 10, "batch": 4, "frames": 16, "rate": 1e-3, "held_out": 8, "sampling_steps": 8}
        curve = [{"step": 0, "loss": 1.0, "seconds": 0.0}, {"step": 10, "loss": final, "seconds": seconds}]
        result = {"name": name, "seed": seed, "recipe": recipe, "curve": curve, "unseen": curve, "trainable": 9}
        result |= {"flops_a_step": 10**12, "device": "CPU, 1 thread", "minutes": 0.5}
        right = [True] * looks[seed] + [False] * (8 - looks[seed])
        path = trained.run_path(folder, name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result | {"judged": {"looks": right, "motion": right}}))


def test_a_loss_is_reached_between_points():
    assert trained.reached(CURVE, 0.75) == 5
    assert trained.reached(CURVE, 0.75, "seconds") == 2.5
    assert trained.reached(CURVE, 1.0) == 0
    assert trained.reached(CURVE, 0.4) is None


def test_a_loss_is_read_where_so_much_was_spent():
    assert trained.loss_at(CURVE, 2.5, "seconds") == 0.75
    assert trained.loss_at(CURVE, 0, "step") == 1 and trained.loss_at(CURVE, 99, "step") == 0.5


@pytest.mark.parametrize(("he", "verdict"), [([0.9, 0.91, 0.89], HOLDS), ([0.3, 0.31, 0.29], FAILS), ([0.6, 0.4, 0.5], OPEN)])
def test_initialisations_are_compared_seed_by_seed(tmp_path, he, verdict):
    write(tmp_path, NEAREST, [0.5, 0.51, 0.49])
    write(tmp_path, HE, he)
    row = trained.judge_initialisation(tmp_path)
    assert row["verdict"] == verdict and {*KEYS} <= {*row} and row["n"] == 3
    if verdict == HOLDS:
        assert "after 2 of 10 steps" in row["measured"] and row["values"]["final"][HE] == he
        assert row["settings"]["minutes"] == 3.0


def test_a_slower_net_is_behind_at_equal_time(tmp_path):
    write(tmp_path, NEAREST, [0.5, 0.51, 0.49])
    write(tmp_path, ONE_D, [0.6, 0.61, 0.59])
    write(tmp_path, FULL_3D, [0.5, 0.51, 0.49], seconds=10.0)
    row = trained.judge_factorisation(tmp_path)
    assert row["verdict"] == HOLDS and row["values"]["seconds_a_step"] == {NEAREST: 0.5, ONE_D: 0.5, FULL_3D: 1.0}
    full, factorised = (trained.read_runs(tmp_path, name) for name in (FULL_3D, NEAREST))
    assert trained.higher(full, factorised).mean == 0
    assert trained.equal_time(full, factorised).mean == pytest.approx(0.5, abs=0.01), "after half its way: 0.75 to 0.5"


def test_what_is_worse_at_equal_compute_does_not_pay(tmp_path):
    write(tmp_path, NEAREST, [0.6, 0.61, 0.59])
    write(tmp_path, NO_HALVINGS, [0.5, 0.51, 0.49])
    row = trained.judge_compact(tmp_path)
    assert row["verdict"] == FAILS and {*KEYS} <= {*row}
    assert row["values"]["teraflop"] == {NEAREST: 10, NO_HALVINGS: 10}


@pytest.mark.parametrize(("looks", "verdict"), [((3, 2, 3), HOLDS), ((6, 6, 6), OPEN), ((8, 8, 8), FAILS)])
def test_a_prior_is_kept_where_more_clips_look_right(tmp_path, looks, verdict):
    write(tmp_path, FROZEN, [0.5] * 3, looks=(6, 6, 6))
    write(tmp_path, ALL_TUNED, [0.5] * 3, looks=looks)
    row = trained.judge_prior(tmp_path)
    assert row["verdict"] == verdict and row["n"] == 24 and {*KEYS} <= {*row}


def test_a_seed_that_is_missing_or_damaged_is_named(tmp_path):
    write(tmp_path, NEAREST, [0.5, 0.51])
    with pytest.raises(FileNotFoundError, match=r"nearest-2\.json.*--train"):
        trained.read_runs(tmp_path, NEAREST)
    write(tmp_path, NEAREST, [0.5, 0.51, 0.49])
    trained.run_path(tmp_path, NEAREST, 1).write_text('{"curve": []}')
    with pytest.raises(ValueError, match=r"nearest-1\.json is no result"):
        trained.read_runs(tmp_path, NEAREST)
