"""What the tests of pictures share. Files that need another net have a fixture of that name themselves."""

import pytest
import torch

from minilumiere.model import STUNet


@pytest.fixture(scope="module")
def stunet(small_unet, perturb) -> STUNet:
    """A small untrained base net for 32x32 pixels, moved at random."""
    torch.manual_seed(0)
    return perturb(STUNet.from_t2i(small_unet(size=32), verbose=False), 0.1, seed=1).eval()
