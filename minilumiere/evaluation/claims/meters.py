"""What a computation costs: operations, seconds, bytes.

flops    counted on tensors without content: exact, on any machine      2 for each multiply-add
seconds  of one CPU thread's own time: what runs beside it hardly matters
bytes    of all tensors that are alive at once, at most
"""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call: build nets and inputs within it, or within `torch.device("meta")`."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, torch computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seconds(call: Callable[[], object], repeats: int = 5) -> list[float]:
    """CPU seconds of `repeats` calls with one thread, after one that is not counted."""
    with one_thread():
        call()
        taken = []
        for _ in range(repeats):
            begun = time.process_time()
            call()
            taken.append(time.process_time() - begun)
    return taken


class Alive(TorchDispatchMode):
    """Within it, `peak` is how many bytes of new tensors were alive at once at most. Views count once, parameters do not."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.watch(tensor.untyped_storage(), given)
        return result

    def watch(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """Count a storage that is new until it is freed. Those of what a call was `given` are not new."""
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or key in given:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.freed, key, size)

    def freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak_bytes(call: Callable[[], object]) -> int:
    """How many bytes of tensors a call makes that are alive at once, at most. What it is given does not count."""
    with Alive() as alive:
        call()
    return alive.peak
