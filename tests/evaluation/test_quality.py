"""The tables of `minilumiere evaluate` count what they say they count."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minilumiere as ml
from minilumiere.cli import main
from minilumiere.dataset import parse_caption
from minilumiere.evaluation.quality import (
    EVALUATION_SEED,
    evaluation_captions,
    is_seen,
    join_ratio,
    judge_generated,
    judge_images,
    judge_real,
    of_unseen_pairs,
    score,
    table,
    wilson,
    with_interval,
)
from minilumiere.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


class Recorder:
    """Stands for a pipeline: generates black, and remembers what it was asked."""

    device = torch.device("cpu")

    def __init__(self, scale):
        self.scale, self.asked = scale, []

    def generate(self, captions: list[str], seed: int, frames: int | None = None, super_resolution: bool = True) -> Tensor:
        self.asked += [(caption, seed + i, frames) for i, caption in enumerate(captions)]
        return torch.zeros(len(captions), frames or 4, 3, 32, 32)

    def generate_image(self, captions: list[str], seed: int) -> Tensor:
        return self.generate(captions, seed, 1)[:, 0]


def thing(same: bool = True, constant: float = 1.0, path: float = 0.5, seen: str = "red", **wrong: bool) -> dict:
    """What the judge says of an object, right but for what is named."""
    agrees = dict.fromkeys(("digit", "colour", "motion", "speed"), True) | wrong
    return {"colour": seen, "agrees": agrees, "same_digit": same, "constant_digit": constant, "path_rms": path}


def test_captions_are_always_the_same_and_others_by_seed():
    assert evaluation_captions(8, 1) == evaluation_captions(8, 1) != evaluation_captions(8, 1, seed=1)
    assert {len(parse_caption(caption)) for caption in evaluation_captions(8, 2)} == {2}


def test_unseen_pairs_are_asked_equally_often_with_the_same_motions():
    captions = evaluation_captions(48, 1)
    subjects = [parse_caption(caption)[0] for caption in of_unseen_pairs(captions)]
    pairs = Counter((subject.colour, subject.digit) for subject in subjects)
    assert pairs == dict.fromkeys(ml.UNSEEN_PAIRS, 4)
    before = [parse_caption(caption)[0] for caption in captions]
    assert [(s.motion, s.speed) for s in subjects] == [(s.motion, s.speed) for s in before]


def test_a_caption_is_seen_if_all_its_pairs_are():
    assert is_seen("a red 3 moving right") and not is_seen("a red 2 moving right")
    assert is_seen("a red 3 and a blue 7") and not is_seen("a red 3 and a blue 4")
    assert not any(map(is_seen, of_unseen_pairs(evaluation_captions(12, 1))))


def test_a_score_counts_clips_of_which_every_object_is_right():
    scores = score([[thing(), thing()], [thing(), thing(motion=False)], [thing(colour=False)], [thing(constant=79 / 80)]])
    assert (scores["digit"], scores["colour"], scores["motion"], scores["colour and motion"]) == (1, 0.75, 0.75, 0.5)
    assert scores["all four"] == 0.5
    assert scores["same digit on all frames"] == 0.75 and scores["everything"] == 0.25
    assert score([[thing(same=False)], [thing()]])["same digit first and last"] == 0.5


def test_the_path_error_is_the_mean_of_objects():
    assert score([[thing(path=1), thing(path=2)], [thing(path=6)]])["path error (units of 32)"] == 3
    assert score([[thing(path=1), thing(path=9, seen="")]])["path error (units of 32)"] == 1, "of what there is"


def test_a_table_has_a_column_for_each_name_and_a_row_for_each_score():
    lines = table("captions: 10", {"real": [[thing()]] * 10, "generated": [[thing(digit=False, path=0.25)]] * 10})
    assert lines[1].split() == ["captions:", "10", "real", "generated"]
    assert lines[2].split() == ["digit", "100.0", "[72.2,", "100.0]", "0.0", "[0.0,", "27.8]"]
    assert lines[-1].split()[-2:] == ["0.50", "0.25"] and len(lines) == 2 + len(score([[thing()]]))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 100, 0.0018, 0.0545),
    ],
)
def test_intervals_are_wilson_s(right, n, low, high):
    """As tables and other programs have them, for 95 %."""
    assert wilson(right / n, n) == pytest.approx((low, high), abs=1e-4)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.data())
def test_an_interval_holds_its_share_and_lies_within_0_and_1(n, data):
    share = data.draw(st.integers(0, n)) / n
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1 and low < high
    other_high, other_low = (1 - bound for bound in wilson(1 - share, n))
    assert (low, high) == pytest.approx((other_low, other_high), abs=1e-9)
    assert "-" not in with_interval(share, n)


def test_images_are_asked_for_colour_and_digit_and_judged_by_these(pipe):
    recorder, captions = Recorder(pipe.scale), ["a red 3 moving right quickly and a blue 7 moving up", "a green 1"] * 5
    judged = judge_images(recorder, captions)
    bare = ["a red 3 and a blue 7", "a green 1"] * 5
    assert recorder.asked == [(caption, EVALUATION_SEED + i, 1) for i, caption in enumerate(bare)]
    assert [len(things) for things in judged] == [2, 1] * 5 and not any(things[0]["agrees"]["colour"] for things in judged)


def test_ground_truth_is_read_rightly_at_any_length(pipe):
    captions = evaluation_captions(10, 1)  # more than a batch
    for frames in (None, 32):
        scores = score(judge_real(pipe, captions, frames=frames))
        assert scores["everything"] == 1 and scores["path error (units of 32)"] < 0.3


def test_generated_clips_have_the_noise_of_their_number(pipe):
    recorder, captions = Recorder(pipe.scale), evaluation_captions(10, 1)
    judged = judge_generated(recorder, captions, frames=12)
    assert recorder.asked == [(caption, EVALUATION_SEED + i, 12) for i, caption in enumerate(captions)]
    assert len(judged) == 10 and not any(things[0]["agrees"]["colour"] for things in judged)


def test_a_jump_at_the_joins_is_seen():
    clip = torch.zeros(1, 8, 3, 4, 4)
    clip += torch.arange(8)[:, None, None, None] * 0.01
    assert join_ratio(clip, [3, 5]) == pytest.approx(1, abs=1e-4)
    clip[:, 3:] += 0.01
    clip[:, 5:] += 0.01
    assert join_ratio(clip, [3, 5]) == pytest.approx(2, abs=1e-4)


def test_the_whole_table_of_longer_clips(capsys, monkeypatch):
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    assert main(["evaluate", "--samples", "2", "--frames", "20"]) == 0
    text = capsys.readouterr().out
    assert "20 frames" in text and "captions of one object: 2" in text and "captions of two objects: 1" in text
    assert all(word in text for word in ("real", "generated", "unseen", "with MultiDiffusion", "same digit on all frames"))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--frames", "18"], "16 or 20"), (["--tasks", "--frames", "20"], "go with neither --tasks nor --styles")],
)
def test_frames_that_cannot_be_evaluated_are_one_clear_line(capsys, options, message):
    assert main(["evaluate", "--samples", "1", *options]) == 2
    assert message in capsys.readouterr().err
