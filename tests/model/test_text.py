"""Captions to features: every word arrives, padding does not, and their order matters."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, WORDS, Subject, format_caption
from minilumiere.dataset.subjects import random_subjects, subjects_of
from minilumiere.model import null_tokens, tokenise
from minilumiere.model.text import MAX_TOKENS, NULL, PAD, VOCABULARY, TextEncoder, tokens_of

SHORT, LONG = "a red 3", "a blue 7 circling anticlockwise quickly and a green 1 circling clockwise slowly"


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(width=16, layers=2)


def test_a_caption_is_the_numbers_of_its_words_and_padding():
    tokens = tokenise(["a red 3 moving right", "a blue 7"])
    assert tokens.shape == (2, MAX_TOKENS) and tokens.dtype == torch.long
    words = [[VOCABULARY[word] for word in caption.split()] for caption in ("a red 3 moving right", "a blue 7")]
    assert tokens[0].tolist() == words[0] + [PAD] * (MAX_TOKENS - 5)
    assert tokens[1].tolist() == words[1] + [PAD] * (MAX_TOKENS - 3)


def test_every_word_has_a_number_of_its_own():
    assert set(VOCABULARY) == set(WORDS)
    assert len({PAD, NULL, *VOCABULARY.values()}) == len(WORDS) + 2
    assert max(VOCABULARY.values()) == len(WORDS) + 1  # no row of the embedding is out of reach


def test_captions_that_mean_the_same_have_the_same_tokens():
    assert torch.equal(tokenise(["A Red  3 MOVING right"]), tokenise(["a red 3 moving right"]))


def test_no_caption_is_one_token_of_its_own():
    tokens = null_tokens(3)
    assert tokens.shape == (3, MAX_TOKENS) and tokens.dtype == tokenise([SHORT]).dtype
    assert tokens.tolist() == [[NULL] + [PAD] * (MAX_TOKENS - 1)] * 3
    assert not (tokenise([SHORT, LONG]) == NULL).any()


def test_every_caption_of_the_grammar_fits():
    """Colours and digits are one word each: the length depends on motion and speed alone. All pairs of them."""
    ways = [f"{motion} {speed}".strip() for motion, speed in product(("", *MOTIONS), SPEEDS)]
    captions = [" ".join(f"a red 3 {one} and a blue 7 {other}".split()) for one, other in product(ways, ways)]
    word_of = {number: word for word, number in VOCABULARY.items()}
    for caption, tokens in zip(captions, tokenise(captions).tolist(), strict=True):
        assert " ".join(word_of[token] for token in tokens if token != PAD) == caption


things = st.builds(
    Subject, st.sampled_from(list(COLOURS)), st.integers(0, 9), st.sampled_from(["", *MOTIONS]), st.sampled_from(SPEEDS)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(things, min_size=1, max_size=2).map(tuple), min_size=1, max_size=6))
def test_tokens_of_numbers_are_those_of_the_words(scenes):
    """One object beside two, with motion and speed or without."""
    tokens, expected = tokens_of(subjects_of(scenes)), tokenise([format_caption(scene) for scene in scenes])
    assert torch.equal(tokens, expected) and tokens.dtype == expected.dtype


def test_tokens_of_scenes_drawn_at_random_are_those_of_their_captions():
    drawn = random_subjects(500, torch.Generator().manual_seed(0), bare=0.3)
    assert torch.equal(tokens_of(drawn), tokenise([format_caption(scene) for scene in drawn.words()]))


@pytest.mark.parametrize("caption", ["a read 3", "a red 3 moving sideways", "", "a red 3 and a blue 7 and a green 1"])
def test_what_the_grammar_refuses_is_refused_here(caption):
    with pytest.raises(ValueError, match="caption"):
        tokenise([SHORT, caption])


def test_a_number_is_no_caption():
    with pytest.raises(TypeError, match="string"):
        tokenise([3])


def test_one_caption_is_no_list_of_captions():
    with pytest.raises(TypeError, match="list of captions, not 'a red 3'"):
        tokenise(SHORT)


def test_features_a_word_which_are_words_and_their_mean(encoder):
    features, real, summary = encoder(tokenise([SHORT, LONG]))
    assert features.shape == (2, MAX_TOKENS, 16)
    assert real.dtype == torch.bool and real.sum(1).tolist() == [3, 13] and real[0, :3].all()
    torch.testing.assert_close(summary[0], features[0, :3].mean(0))
    torch.testing.assert_close(summary[1], features[1, :13].mean(0))


@pytest.mark.parametrize("train", [True, False])
def test_a_caption_has_the_same_features_in_any_company(encoder, train):
    """Alone or beside longer ones; while training or not (PyTorch takes another path through its encoder then)."""
    alone, _, alone_summary = encoder(tokenise([SHORT]))
    with torch.set_grad_enabled(train):
        batch, _, summary = encoder.train(train)(tokenise([LONG, SHORT, LONG]))
    torch.testing.assert_close(batch[1, :3], alone[0, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(summary[1], alone_summary[0], atol=1e-5, rtol=1e-5)


def test_words_do_not_see_the_padding(encoder):
    tokens = torch.cat([tokenise([SHORT, LONG]), null_tokens(1)])
    before, real, summary = encoder(tokens)
    with torch.no_grad():
        encoder.words.weight[PAD] += torch.randn(16)
    after, _, summary_after = encoder(tokens)
    torch.testing.assert_close(after[real], before[real])
    torch.testing.assert_close(summary_after, summary)
    assert not torch.allclose(after[~real], before[~real])  # it did change something


def test_the_order_of_words_matters(encoder):
    """Which colour belongs to which digit: the same words in another order."""
    features, real, summary = encoder(tokenise(["a red 3 and a blue 7", "a blue 3 and a red 7"]))
    assert real[0].sum() == 7
    three, other_three = features[:, 2]  # the same word at the same place: only its neighbour differs
    assert (three - other_three).abs().max() > 1e-3
    assert (summary[0] - summary[1]).abs().max() > 1e-3


def test_every_word_changes_the_features(encoder):
    """One caption with every single word swapped for another of its kind."""
    captions = ["a red 3 moving left slowly", "a blue 3 moving left slowly", "a red 4 moving left slowly"]
    captions += ["a red 3 moving right slowly", "a red 3 moving left quickly", "a red 3 moving left", "a red 3 slowly"]
    _, _, summary = encoder(tokenise(captions))
    assert torch.pdist(summary).min() > 1e-2
