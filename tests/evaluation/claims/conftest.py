"""What the tests of claims share."""

from dataclasses import replace

import pytest

from minilumiere.config import Scale, UNetConfig, get_scale


@pytest.fixture(scope="session")
def mini() -> Scale:
    """A scale of miniature nets and clips: 16x16, twice as large after super-resolution."""
    sizes = {"channels": (8, 16, 16), "heads": 2, "embedding": 32, "text_width": 16, "text_layers": 1}
    ssr = UNetConfig(in_channels=6, attention=(False, False, False), noise_levels=2, **sizes)
    return replace(get_scale("tiny"), size=16, upscale=2, t2i=UNetConfig(**sizes), ssr=ssr)
