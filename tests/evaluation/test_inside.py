"""What layers carry, read off by the judge: pairs, counts and curves."""

import pytest
import torch

import minilumiere as ml
from minilumiere.config import get_scale
from minilumiere.dataset.captions import parse_caption
from minilumiere.evaluation import inside
from minilumiere.evaluation.inside import Settling, added, attributes, contrary_captions, patching, said_of, settling
from minilumiere.evaluation.quality import wilson
from minilumiere.viz.compare import OPPOSITE


@pytest.fixture(scope="module")
def pipe():
    return ml.load("tiny", device="cpu")


def test_contrary_captions_differ_in_all_that_is_read():
    pairs = contrary_captions(12)
    assert pairs == contrary_captions(12) and pairs != contrary_captions(12, seed=1)
    assert len({said_of(one)[0] for one, _ in pairs}) == 6  # every motion
    for one, other in pairs:
        (a,), (b,) = parse_caption(one), parse_caption(other)
        assert a.colour != b.colour and a.digit != b.digit and OPPOSITE[a.motion] == b.motion


def test_the_judge_reads_what_real_clips_show():
    captions = [caption for pair in contrary_captions(6) for caption in pair]
    clips = ml.sample_batch(len(captions), captions=captions, seed=1).video
    right = [attributes(clip) == said_of(caption) for clip, caption in zip(clips, captions, strict=True)]
    assert sum(right) >= 11  # of 12


def test_the_output_turns_everything_and_no_patch_nothing(pipe):
    """Patched in the output, a run is the other's: what the judge reads of it is what it reads of the other."""
    pairs = contrary_captions(2)
    swapped = [(other, one) for one, other in pairs]
    there, back = (
        patching(pipe, some, [3, 4], ["output", "stem"], words=words, steps=4)
        for some, words in ((pairs, False), (swapped, True))
    )
    for name in inside.ATTRIBUTES:
        # Turned by the output is what the other keeps of its own, unpatched; and the other way round.
        assert there["output"][name]["turned"] == back["none"][name]["kept"]
        assert back["output"][name]["turned"] == there["none"][name]["kept"]
        assert back["stem"][name] == back["none"][name]  # words have not reached the stem
        assert there["none"][name]["turned"] == 0
    assert there["none"]["colour"]["kept"] == 2


def test_counts_add_up():
    one = {"stem": {"motion": {"turned": 1, "kept": 2}}}
    assert added(one, {"stem": {"motion": {"turned": 3, "kept": 0}}}) == {"stem": {"motion": {"turned": 4, "kept": 2}}}


def test_settling_ends_alike_and_reads_every_step(pipe, monkeypatch):
    read_off = []
    monkeypatch.setattr(inside, "attributes", lambda clip: read_off.append(clip) or attributes(clip))
    result = settling(pipe, 2, steps=4)
    assert len(read_off) == 2 * len(result.log_snrs) == 10 and sorted(result.log_snrs) == result.log_snrs
    assert {name: counts[-1] for name, counts in result.alike.items()} == {"motion": 2, "colour": 2, "digit": 2}
    assert all(0 <= count <= 2 for counts in result.alike.values() for count in counts)
    assert torch.stack(read_off).shape == (10, 16, 3, get_scale("tiny").size, get_scale("tiny").size)


def test_a_curve_that_is_right_from_step_two_on_settles_at_two():
    result = Settling(4, [-15.0, -5.0, 0.0, 5.0], {"motion": [0, 0, 4, 4], "digit": [0, 2, 2, 4]})
    assert result.settled("motion") == 2 and result.settled("digit") == 2
    assert result.shares()["motion"][0] == (0.0, *wilson(0, 4)) and result.shares()["digit"][1] == (0.5, *wilson(0.5, 4))
