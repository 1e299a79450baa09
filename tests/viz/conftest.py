"""What the tests of pictures share. Files that need another net have a fixture of that name themselves."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import BboxImage

from minilumiere.model import STUNet


@pytest.fixture(scope="module")
def stunet(small_unet, perturb) -> STUNet:
    """A small untrained base net for 32x32 pixels, moved at random."""
    torch.manual_seed(0)
    return perturb(STUNet.from_t2i(small_unet(size=32), verbose=False), 0.1, seed=1).eval()


@pytest.fixture(scope="session")
def pictures() -> Callable[[Figure], list[torch.Tensor]]:
    """What the panels of a figure show, in the order in which they were made. None has an axes: those are slow to draw."""

    def shown(figure: Figure) -> list[torch.Tensor]:
        assert not figure.axes
        return [torch.as_tensor(np.ma.filled(image.get_array(), np.nan)) for image in figure.findobj(BboxImage)]

    return shown
