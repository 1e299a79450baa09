"""What is set for all of torch: a user's defaults do not reach the nets, and no call moves a global generator.

    with pinned(): ...            float32 and the CPU wherever no dtype or device is named; also a decorator
    with global_generator(): ...  what is drawn from torch's own generator within is put back; `seed` begins anew

Our choice; torch leaves both to its user.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock

import torch

_LOCK = RLock()
_pins: list[torch.dtype] = []  # of every call that is going on: the default dtype that it found


@contextmanager
def pinned() -> Iterator[None]:
    """Within it, new tensors are float32 and on the CPU unless they are asked for otherwise, whatever the user has set.

    The default dtype is one for all threads: the first of the calls that are going on sets it, the last puts it back.
    """
    with _LOCK:
        _pins.append(_pins[0] if _pins else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    # A thread's default device is taken off, not overlaid: while one is set, torch takes other paths with other last bits.
    default = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    if default is not None:
        torch.set_default_device(None)
    try:  # what is left is of a `with torch.device(...)`
        with nullcontext() if torch.get_default_device() == torch.device("cpu") else torch.device("cpu"):
            yield
    finally:
        if default is not None:
            torch.set_default_device(default.device)
        with _LOCK:
            found = _pins.pop()
            if not _pins:
                torch.set_default_dtype(found)


@contextmanager
def global_generator(seed: int | None = None) -> Iterator[None]:
    """Within it, torch's CPU generator may be drawn from (layers do, for fresh weights); afterwards it is where it was.

    `seed` lets it begin as `torch.manual_seed(seed)` does, but leaves the generators of GPUs alone.
    """
    with _LOCK:  # one at a time: another thread would take what is drawn here for what was there
        state = torch.get_rng_state()
        try:
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(state)
