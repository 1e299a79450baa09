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


@pytest.fixture(scope="session")
def perturb():
    """A function that moves every parameter of a net at random: layers that start at zero then do something."""

    import torch

    def move(net, std: float = 0.2, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += std * torch.randn(parameter.shape, generator=generator)
        return net

    return move


@pytest.fixture(scope="session")
def small_unet(perturb):
    """A function that builds a text-to-image net of a few thousand parameters, for 16x16 images, whose output is not 0."""

    from minilumiere.config import UNetConfig
    from minilumiere.model import UNet

    def build(size: int = 16, moved: bool = True, **changes):
        sizes = {"channels": (8, 16, 16), "heads": 2, "embedding": 32, "text_width": 16, "text_layers": 1} | changes
        unet = UNet(UNetConfig(**sizes), size)
        return perturb(unet, 0.05) if moved else unet

    return build


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    import torch

    torch.manual_seed(0)
