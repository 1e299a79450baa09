"""Chance: what comes at a place hangs on its own seed alone."""

from itertools import islice

import torch

from minilumiere.dataset.chance import noises_of_seeds


def test_the_noises_of_a_place_are_those_of_its_own_seed():
    together = list(islice(noises_of_seeds((3, 2), 4, seed=7), 3))
    for place in range(4):
        alone = islice(noises_of_seeds((3, 2), 1, seed=7 + place), 3)
        assert all(torch.equal(one[0], all_four[place]) for one, all_four in zip(alone, together, strict=True))


def test_no_two_noises_are_the_same_over_draws_places_and_streams():
    drawn = torch.cat([noise for stream in range(4) for noise in islice(noises_of_seeds((50,), 3, 7, stream), 4)])
    assert len(drawn) == 4 * 4 * 3
    assert (torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().max() < 0.7, "50 numbers: chance gives less than 0.6"
    assert abs(float(drawn.mean())) < 0.1 and abs(float(drawn.std()) - 1) < 0.1
