"""Merged words are moved apart; all other captions keep what the encoder made of them."""

import pytest
import torch

from minilumiere.config import SCALES
from minilumiere.model import STUNet, UNet, tokenise
from minilumiere.model.text import TextEncoder
from minilumiere.training.opposites import APART, MERGED, exchanged, move_apart
from minilumiere.training.stages import RECIPES

CIRCLES = [
    "a red 3 circling clockwise",
    "a blue 5 circling anticlockwise quickly",
    "a red 3 moving up and a cyan 7 circling clockwise",
]
OTHERS = ["a red 3", "a green 8 moving left slowly", "a white 0 standing still", "a red 3 moving up and a cyan 7 moving down"]


@pytest.fixture(scope="module")
def merged() -> TextEncoder:
    """A fresh encoder for which both words are one."""
    torch.manual_seed(0)
    encoder = TextEncoder(32, 1)
    first, second = (int(exchanged(tokenise([f"a red 3 circling {word}"])).max()) for word in MERGED)
    with torch.no_grad():
        encoder.words.weight[first] = encoder.words.weight[second] + 0.01 * torch.randn(32)
    return encoder


def summaries(encoder: TextEncoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(tokens)[2]


def test_words_are_exchanged_where_they_are_and_exchanging_twice_is_nothing():
    tokens = tokenise(CIRCLES + OTHERS)
    other = exchanged(tokens)
    assert (tokens != other).sum(1).tolist() == [1] * len(CIRCLES) + [0] * len(OTHERS)
    assert torch.equal(exchanged(other), tokens)
    assert torch.equal(exchanged(tokenise([CIRCLES[0]])), tokenise(["a red 3 circling anticlockwise"]))


def test_merged_words_are_moved_apart_and_nothing_else_moves(merged):
    tokens, others = tokenise(CIRCLES), tokenise(OTHERS)
    distance = (summaries(merged, tokens) - summaries(merged, exchanged(tokens))).norm(dim=1)
    assert (distance < 0.5).all(), "merged"
    before = summaries(merged, others)
    move_apart(merged, torch.Generator().manual_seed(0))
    distance = (summaries(merged, tokens) - summaries(merged, exchanged(tokens))).norm(dim=1)
    assert ((distance - APART).abs() < 0.25 * APART).all(), distance
    moved = (summaries(merged, others) - before).norm(dim=1)
    assert (moved < 0.2 * APART).all(), moved


def test_the_base_goes_on_with_an_encoder_that_tells_them_apart():
    config = SCALES["tiny"].t2i
    net = STUNet.from_t2i(UNet(config, 32), verbose=False)
    images = {name: value.clone() for name, value in net.t2i.state_dict().items()}
    RECIPES["base"].prepare(net, torch.Generator().manual_seed(0))
    tokens = tokenise(CIRCLES)
    distance = (summaries(net.text, tokens) - summaries(net.text, exchanged(tokens))).norm(dim=1)
    assert ((distance - APART).abs() < 0.25 * APART).all(), distance
    assert all(torch.equal(value, images[name]) for name, value in net.t2i.state_dict().items())
