"""Scenes as numbers: words become numbers and come back, and what is drawn at random is spread evenly."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, Subject, parse_caption
from minilumiere.dataset.chance import pick
from minilumiere.dataset.subjects import UNSEEN_PAIRS, fill_in, random_subjects, subjects_of

things = st.builds(
    Subject, st.sampled_from(list(COLOURS)), st.integers(0, 9), st.sampled_from(["", *MOTIONS]), st.sampled_from(SPEEDS)
)
scenes = st.lists(things, min_size=1, max_size=2).map(tuple)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_even(counts: Counter, options: int) -> None:
    """Every option occurs, and as often as the others: within four standard deviations, which chance exceeds once in 16,000."""
    drawn, share = sum(counts.values()), 1 / options
    assert len(counts) == options
    spread = 4 * (drawn * share * (1 - share)) ** 0.5
    assert all(abs(count - drawn * share) < spread for count in counts.values()), counts


# Words and numbers


@settings(max_examples=200, deadline=None)
@given(st.lists(scenes, min_size=1, max_size=5))
def test_words_become_numbers_and_come_back(asked):
    numbers = subjects_of(asked)
    assert numbers.words() == asked
    assert len(numbers) == len(asked) and numbers.colour.shape == numbers.motion.shape == (len(asked), 2)


def test_numbers_become_words_and_come_back():
    drawn = random_subjects(300, seeded(0), bare=0.3)
    again = subjects_of(drawn.words())
    assert torch.equal(again.two, drawn.two)
    there = torch.stack([torch.ones(300, dtype=torch.bool), drawn.two], dim=1)  # the other numbers mean nothing
    for name in ("colour", "digit", "motion", "speed"):
        assert torch.equal(getattr(again, name)[there], getattr(drawn, name)[there]), name


def test_scenes_asked_for_by_number_are_those_scenes():
    drawn, numbers = random_subjects(20, seeded(3), bare=0.3), torch.tensor([7, 7, 0, 19])
    assert drawn.at(numbers).words() == [drawn.words()[i] for i in numbers.tolist()]
    assert len(drawn.at(torch.tensor([], dtype=torch.long))) == 0


# What captions are drawn


def test_unseen_pairs_are_twelve_pairs():
    assert len(set(UNSEEN_PAIRS)) == len(UNSEEN_PAIRS) == 12
    assert all(colour in COLOURS and digit in range(10) for colour, digit in UNSEEN_PAIRS)
    # Every colour and every digit is seen, and every one is in an unseen pair.
    assert {colour for colour, _ in UNSEEN_PAIRS} == set(COLOURS)
    assert {digit for _, digit in UNSEEN_PAIRS} == set(range(10))


@pytest.mark.parametrize("unseen", [True, False])
def test_colours_and_the_digits_that_go_with_them_are_chosen_evenly(unseen):
    """Of both objects; the unseen pairs never, where they are left out."""
    drawn = random_subjects(20_000, seeded(0), two=1.0, unseen=unseen).words()
    for place in (0, 1):
        pairs = Counter((scene[place].colour, scene[place].digit) for scene in drawn)
        left_out = set() if unseen else set(UNSEEN_PAIRS)
        assert set(pairs) == set(itertools.product(COLOURS, range(10))) - left_out
        for colour in COLOURS:
            of_colour = Counter({digit: count for (one, digit), count in pairs.items() if one == colour})
            assert_even(of_colour, 10 - sum(pair[0] == colour for pair in left_out))
        assert_even(Counter(scene[place].colour for scene in drawn), len(COLOURS))


def test_motions_and_speeds_are_chosen_evenly():
    drawn = [scene[0] for scene in random_subjects(20_000, seeded(1), unseen=False).words()]
    assert_even(Counter(thing.motion for thing in drawn), len(MOTIONS))
    assert_even(Counter(thing.speed for thing in drawn if thing.motion != "standing still"), len(SPEEDS))
    assert {thing.speed for thing in drawn if thing.motion == "standing still"} == {""}


def test_motions_are_of_those_asked_for():
    some = ("circling clockwise", "moving up")
    drawn = random_subjects(4_000, seeded(2), motions=some).words()
    assert_even(Counter(thing.motion for scene in drawn for thing in scene), 2)
    assert set(some) == {thing.motion for scene in drawn for thing in scene}


def test_there_are_one_or_two_objects_of_different_colours():
    drawn = random_subjects(20_000, seeded(1), two=0.6).words()
    pairs = [scene for scene in drawn if len(scene) == 2]
    assert abs(len(pairs) - 12_000) < 4 * (20_000 * 0.6 * 0.4) ** 0.5
    assert_even(Counter((one.colour, other.colour) for one, other in pairs), len(COLOURS) * (len(COLOURS) - 1))
    assert {len(scene) for scene in random_subjects(50, seeded(1), two=0).words()} == {1}
    assert {len(scene) for scene in random_subjects(50, seeded(1), two=1).words()} == {2}


def test_motion_and_speed_are_left_open_as_often_as_asked_and_of_the_whole_scene():
    drawn = random_subjects(4_000, seeded(2), bare=0.5).words()
    bare = [scene for scene in drawn if not scene[0].motion]
    assert abs(len(bare) - 2_000) < 4 * (4_000 * 0.25) ** 0.5
    assert all((thing.motion, thing.speed) == ("", "") for scene in bare for thing in scene)
    assert all(thing.motion for scene in drawn if scene not in bare for thing in scene)
    assert all(thing.motion for scene in random_subjects(200, seeded(2)).words() for thing in scene)


# What captions leave open


def test_what_is_open_is_filled_in_evenly():
    filled = [scene[0] for scene in fill_in(subjects_of([parse_caption("a red 3")] * 7_000), seeded(0)).words()]
    assert_even(Counter(thing.motion for thing in filled), len(MOTIONS))
    quick = [scene[0] for scene in fill_in(subjects_of([parse_caption("a red 3 quickly")] * 7_000), seeded(0)).words()]
    assert_even(Counter(thing.motion for thing in quick), len(MOTIONS) - 1)
    assert {thing.motion for thing in quick} == set(MOTIONS) - {"standing still"}
    assert {thing.speed for thing in quick} == {"quickly"} and {thing.speed for thing in filled} == {""}


@settings(max_examples=100, deadline=None)
@given(scenes, st.integers(0, 2**31))
def test_what_is_said_stays_but_what_stands_still_has_no_speed(scene, seed):
    (filled,) = fill_in(subjects_of([scene]), seeded(seed)).words()
    for said, thing in zip(scene, filled, strict=True):
        assert (thing.colour, thing.digit) == (said.colour, said.digit)
        assert thing.motion == said.motion if said.motion else thing.motion in MOTIONS
        assert thing.speed == ("" if thing.motion == "standing still" else said.speed)


@settings(max_examples=200)
@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True, width=32))
def test_every_share_picks_one_of_the_options(options, share):
    """Also the largest number below 1, which times the options may be rounded up to their count."""
    for chance in (share, 1 - 2**-24):
        assert 0 <= int(pick(torch.tensor([chance]), options)) < options
        assert int(pick(torch.tensor([chance]), torch.tensor([options]))) == int(pick(torch.tensor([chance]), options))
