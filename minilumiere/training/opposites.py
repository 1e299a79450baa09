"""Two words that a text encoder has come to merge are moved apart, before training shows again what they mean.

    "clockwise" ──┐                       ┌── "clockwise"
                  ├─ 0.3 ──►  ──► 5 ──────┤                  distance of the summaries of two captions
    "anticlockwise"                       └── "anticlockwise"

A word that made no difference for long is no longer told from its opposite, and what follows the encoder cannot learn a
difference that it is not shown. So the encoder alone is trained for 200 steps: captions that differ in these words get
summaries a fixed distance apart, all others keep theirs. Our choice: the paper is silent (docs/experiments.md).
"""

from copy import deepcopy

import torch
from jaxtyping import Int
from torch import Tensor

from minilumiere.dataset.subjects import random_subjects
from minilumiere.model.text import VOCABULARY, TextEncoder, tokens_of

MERGED = ("clockwise", "anticlockwise")
APART = 5.0  # about as far as "left" and "right"
STEPS, BATCH, RATE = 200, 32, 1e-3


def exchanged(tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Captions with each of the `MERGED` words in place of the other."""
    first, second = (VOCABULARY[word] for word in MERGED)
    return torch.where(tokens == first, second, torch.where(tokens == second, first, tokens))


@torch.enable_grad()
def move_apart(encoder: TextEncoder, generator: torch.Generator) -> None:
    """Train an encoder, in place, to tell the `MERGED` words apart."""
    before = deepcopy(encoder).requires_grad_(False)
    optimiser = torch.optim.Adam(encoder.parameters(), RATE)
    for _ in range(STEPS):
        tokens = tokens_of(random_subjects(BATCH, generator, two=0.2))
        other = exchanged(tokens)
        (one, two), (was, too) = ([net(words)[2] for words in (tokens, other)] for net in (encoder, before))
        loss = ((one + two - was - too) / 2).square().sum(1).mean()
        differ = (tokens != other).any(1)
        if differ.any():
            loss = loss + ((one - two)[differ].norm(dim=1) - APART).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
