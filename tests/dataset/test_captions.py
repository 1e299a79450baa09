"""The caption grammar: what is accepted comes back whole, what is not is named."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, WORDS, Subject, format_caption, parse_caption

# The grammar of the contract a second time, by other means.
ONE = (
    r"a (red|green|blue|yellow|purple|cyan|white) [0-9]"
    r"( (standing still|moving (left|right|up|down)|circling (clockwise|anticlockwise)))?"
    r"( (slowly|quickly))?"
)
GRAMMAR = re.compile(f"{ONE}( and {ONE})?")

subjects = st.builds(
    Subject, st.sampled_from(list(COLOURS)), st.integers(0, 9), st.sampled_from(["", *MOTIONS]), st.sampled_from(SPEEDS)
)


@st.composite
def nearly_captions(draw) -> str:
    """A caption with up to two words replaced, put in or left out, in any case and with any white space."""
    words = format_caption(tuple(draw(st.lists(subjects, min_size=1, max_size=3)))).split()
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(words)))
        word = draw(st.sampled_from([*WORDS, "", "10", "orange"]) | st.text(max_size=6))
        words[place : place + draw(st.integers(0, 1))] = [word]
    caption = draw(st.sampled_from([" ", "  ", "\t", "\n "])).join(words)
    return caption.upper() if draw(st.booleans()) else caption


def check_reading(caption: str) -> None:
    """Either it parses and nothing was dropped, or it is a `ValueError` of one line; and the grammar decides which."""
    normalised = " ".join(caption.lower().split())
    try:
        read = parse_caption(caption)
    except ValueError as error:
        assert not GRAMMAR.fullmatch(normalised), f"{caption!r} is in the grammar"
        assert len(str(error).splitlines()) == 1
    else:
        assert GRAMMAR.fullmatch(normalised), f"{caption!r} is not in the grammar"
        assert format_caption(read) == normalised


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(caption):
    check_reading(caption)


@settings(max_examples=300, deadline=None)
@given(nearly_captions())
def test_almost_right_captions_are_read_or_refused(caption):
    check_reading(caption)


def test_a_whole_caption():
    assert parse_caption("a red 3 moving right and a blue 7 circling clockwise quickly") == (
        Subject("red", 3, "moving right", ""),
        Subject("blue", 7, "circling clockwise", "quickly"),
    )


def test_parts_left_out():
    assert parse_caption("a red 3") == (Subject("red", 3),)
    assert parse_caption("a red 3 slowly") == (Subject("red", 3, "", "slowly"),)
    assert parse_caption("a red 3 standing still") == (Subject("red", 3, "standing still"),)


def test_every_single_object_round_trips():
    everything = [Subject(*parts) for parts in product(COLOURS, range(10), ("", *MOTIONS), SPEEDS)]
    assert len({str(subject) for subject in everything}) == len(everything) == 7 * 10 * 8 * 3
    for subject in everything:
        assert parse_caption(format_caption((subject,))) == (subject,)


@settings(deadline=None)
@given(st.tuples(subjects, subjects))
def test_two_objects_round_trip_in_order(pair):
    assert parse_caption(format_caption(pair)) == pair


def test_case_and_white_space_do_not_matter():
    assert parse_caption("  A Red\t3\nMOVING right ") == parse_caption("a red 3 moving right")


@pytest.mark.parametrize(
    ("caption", "word", "nearest"),
    [
        ("a read 3", "read", "red"),
        ("a red 3 moving rihgt", "rihgt", "right"),
        ("a blue 7 circling antclockwise", "antclockwise", "anticlockwise"),
        ("a red 3 moving right quick", "quick", "quickly"),
        ("a purpel 3", "purpel", "purple"),
        ("a red 12", "12", "1"),
        ("an red 3", "an", "a"),
    ],
)
def test_an_unknown_word_is_named_with_the_nearest_known_one(caption, word, nearest):
    with pytest.raises(ValueError, match="unknown word") as caught:
        parse_caption(caption)
    assert repr(word) in str(caught.value)
    assert repr(nearest) in str(caught.value)


def test_a_word_like_no_other_is_named_with_all_that_are_known():
    with pytest.raises(ValueError, match="'###'") as caught:
        parse_caption("a red 3 ###")
    assert all(word in str(caught.value) for word in WORDS)


@pytest.mark.parametrize("caption", ["", "   ", "\n\t"])
def test_an_empty_caption_is_refused_with_the_grammar(caption):
    with pytest.raises(ValueError, match=r"empty.*a COLOUR DIGIT"):
        parse_caption(caption)


def test_three_objects_are_refused_with_what_is_accepted():
    with pytest.raises(ValueError, match=r"3 objects.*one or two"):
        parse_caption("a red 3 and a blue 7 and a green 1")


@pytest.mark.parametrize(
    ("caption", "given", "accepted"),
    [
        ("red 3", "red", "a"),  # no article
        ("a 3", "3", "red green blue"),  # no colour
        ("a red", "nothing", "0 1 2"),  # no digit
        ("a red 3 moving", "nothing", "left right up down"),
        ("a red 3 moving clockwise", "clockwise", "left right up down"),
        ("a red 3 circling left", "left", "clockwise anticlockwise"),
        ("a red 3 quickly moving left", "moving", "one speed"),  # speed before motion
        ("a red 3 moving left moving up", "moving", "one motion"),
        ("a red 3 slowly quickly", "quickly", "one speed"),
        ("a red 3 and", "nothing", "article"),
        ("and a red 3", "and", "article"),
        ("a red 3 and and a blue 7", "and", "article"),
        ("a red 3 a blue 7", "a", "end of the object"),
    ],
)
def test_known_words_out_of_order_are_refused_with_what_was_expected(caption, given, accepted):
    with pytest.raises(ValueError, match="grammar") as caught:
        parse_caption(caption)
    message = str(caught.value)
    assert ("got nothing;" if given == "nothing" else f"got '{given}';") in message
    assert accepted in message


@pytest.mark.parametrize("value", [None, 3, 3.5, b"a red 3", ["a red 3"], ("a", "red", "3")])
def test_anything_but_a_string_is_a_type_error_that_says_what_is_wanted(value):
    with pytest.raises(TypeError, match=f"string.*{type(value).__name__}"):
        parse_caption(value)
