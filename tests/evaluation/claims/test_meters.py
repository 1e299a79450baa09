"""Operations and bytes are counted exactly, where both are known by heart."""

import torch
from torch import nn

from minilumiere.evaluation.claims.meters import flops, one_thread, peak_bytes, seconds


def test_a_product_of_matrices_takes_two_operations_an_entry():
    assert flops(lambda: torch.empty(3, 4) @ torch.empty(4, 5)) == 2 * 3 * 4 * 5


def test_only_what_is_alive_counts_and_views_are_free():
    def call():
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second * 2  # in the place of the first: two are alive at most
        return third.view(10, 100)[2:]

    assert peak_bytes(call) == 2 * 4000


def test_what_is_given_does_not_count():
    given = torch.zeros(1000)
    assert peak_bytes(lambda: given.add_(1)) == 0
    assert peak_bytes(lambda: given + 1) == 4000


def test_training_keeps_what_sampling_lets_go():
    layers = nn.Sequential(*(part for _ in range(8) for part in (nn.Linear(16, 16), nn.Tanh())))
    given = torch.randn(1000, 16)

    def sample():
        with torch.no_grad():
            layers(given)

    kept = peak_bytes(lambda: layers(given).sum().backward())
    assert peak_bytes(sample) <= 3 * given.nbytes < 8 * given.nbytes <= kept


def test_seconds_are_as_many_as_asked_and_threads_are_put_back():
    threads = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert len(seconds(lambda: torch.zeros(1), 3)) == 3 and torch.get_num_threads() == threads
