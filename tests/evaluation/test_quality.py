"""The tables of `minilumiere evaluate` count what they say they count."""

from collections import Counter

import pytest
import torch
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
    judge_real,
    of_unseen_pairs,
    score,
    table,
)
from minilumiere.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


class Recorder:
    """Stands for a pipeline: generates black, and remembers what it was asked."""

    def __init__(self, scale):
        self.scale, self.asked = scale, []

    def generate(self, captions: list[str], seed: int, frames: int | None = None) -> Tensor:
        self.asked += [(caption, seed + i, frames) for i, caption in enumerate(captions)]
        return torch.zeros(len(captions), frames or 4, 3, 32, 32)


def thing(same: bool = True, constant: float = 1.0, path: float = 0.5, **wrong: bool) -> dict:
    """What the judge says of an object, right but for what is named."""
    agrees = dict.fromkeys(("digit", "colour", "motion", "speed"), True) | wrong
    return {"agrees": agrees, "same_digit": same, "constant_digit": constant, "path_rms": path}


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


def test_a_table_has_a_column_for_each_name_and_a_row_for_each_score():
    lines = table("captions: 2", {"real": [[thing()]], "generated": [[thing(digit=False, path=0.25)]]})
    assert lines[1].split() == ["captions:", "2", "real", "generated"]
    assert lines[2].split() == ["digit", "100.0%", "0.0%"]
    assert lines[-1].split()[-2:] == ["0.50", "0.25"] and len(lines) == 2 + len(score([[thing()]]))


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
    ("options", "message"), [(["--frames", "18"], "16 or 20"), (["--tasks", "--frames", "20"], "--frames goes with neither")]
)
def test_frames_that_cannot_be_evaluated_are_one_clear_line(capsys, options, message):
    assert main(["evaluate", "--samples", "1", *options]) == 2
    assert message in capsys.readouterr().err
