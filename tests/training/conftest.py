"""What the tests of training share."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the child processes: how work is split among threads changes the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
