"""Chance: random numbers that one generator on the host determines, drawn on the device where they are needed.

A generator on the host is all the state there is; a GPU gets a generator of its own, seeded by the host's next number, so
that nothing is copied there and the host never waits.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def on_device(generator: torch.Generator, device: str | torch.device) -> torch.Generator:
    """A generator for `device`: `generator` itself on the CPU, else a new one that it determines."""
    if torch.device(device).type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    return torch.Generator(device).manual_seed(seed)


def uniform(shape: tuple[int, ...], generator: torch.Generator, device="cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers in [0, 1), drawn on `device`."""
    return torch.rand(shape, generator=on_device(generator, device), device=device, dtype=dtype)


def normal(shape: tuple[int, ...], generator: torch.Generator, device="cpu") -> Tensor:
    """Standard normal noise, drawn on `device`."""
    return torch.randn(shape, generator=on_device(generator, device), device=device, dtype=torch.float32)


def noises_of_seeds(shape: tuple[int, ...], n: int, seed: int, stream: int = 0) -> Iterator[Tensor]:
    """Standard normal noise (n, *shape) on the host, the same for every device, again and again.

    What comes at place i hangs on its own seed alone, `seed` + i; a `stream`, 0 to 3, tells its uses apart.
    """
    generators = [torch.Generator().manual_seed((seed + i) * 4 + stream) for i in range(n)]
    while True:
        yield torch.stack([torch.randn(shape, generator=generator, device="cpu") for generator in generators])


def pick(share: Tensor, options: Tensor | int) -> Tensor:
    """Numbers 0 … `options` − 1, all equally likely, from uniform numbers in [0, 1)."""
    return (share * options).long().clamp(max=options - 1)
