"""Fixtures that several test files share."""

import multiprocessing
from multiprocessing import forkserver
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fork_server():
    """A multiprocessing context whose children start at once, with torch, the package and `train_driver` imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_driver"])
    with pytest.MonkeyPatch.context() as patch:  # what the server starts with, its children have too
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
        patch.setenv("OMP_NUM_THREADS", "1")  # a process with a pool of threads must not fork
        patch.setenv("MINILUMIERE_TEST_SERVER", "1")
        forkserver.ensure_running()
    return context
