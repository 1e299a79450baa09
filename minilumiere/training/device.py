"""What differs between a CPU, a GPU and several: where batches are drawn, how a step is launched, what processes agree on.

A small net's kernels take less time than launching them one by one. So on a GPU a whole step (forward, backward, clipping,
AdamW) is recorded once for each shape of the batch, and replayed as one CUDA graph. Our choice: no paper is about it.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, distributed

from minilumiere.training.clips import Batch
from minilumiere.validate import check_device


class GraphedStep:
    """`step(batch) -> loss` as CUDA graphs, one for each set of shapes, recorded at its first use.

    `state` names all tensors that a step changes: recording needs a few steps to warm up, which are undone.
    """

    def __init__(self, step: Callable[[Batch], Tensor], state: Callable[[], list[Tensor]]):
        self.step, self.state = step, state
        self.pool = torch.cuda.graph_pool_handle()  # the graphs share their memory: one runs at a time
        self.graphs: dict[tuple, tuple] = {}

    def __call__(self, batch: Batch) -> Tensor:
        shapes = tuple((name, tuple(value.shape)) for name, value in batch.items())
        if shapes not in self.graphs:
            self.graphs[shapes] = self.record(batch)
        graph, inputs, loss = self.graphs[shapes]
        for name, value in batch.items():
            inputs[name].copy_(value)
        graph.replay()
        return loss.clone()  # the next graph may use its memory

    def record(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Tensor]:
        inputs = {name: value.clone() for name, value in batch.items()}
        before = {id(tensor): tensor.detach().clone() for tensor in self.state()}
        aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.step(inputs)
        now.wait_stream(aside)
        with torch.no_grad():
            for tensor in self.state():  # moments that were not there before begin at zero
                tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self.step(inputs)
        return graph, inputs, loss


def drawn_aside(draw: Callable[[int], Batch], steps: Iterable[int], device: torch.device) -> Iterator[Batch]:
    """The batches of the steps. A GPU draws them on a stream of its own, where it is still busy with the step before.

    Copies from the host's memory, and counts that the host must know, make the host wait for that stream alone.
    """
    if device.type != "cuda":
        yield from map(draw, steps)
        return
    aside, training = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for step in steps:
        with torch.cuda.stream(aside):
            batch = draw(step)
        training.wait_stream(aside)
        for tensor in batch.values():
            tensor.record_stream(training)  # its memory is not given away before training is done with it
        yield batch


def start_processes(device: str | torch.device | None) -> tuple[int, int, torch.device]:
    """This process's rank, the number of processes (as torchrun says), and the device that it trains on.

    Raises `ValueError` for a device that is not there.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = check_device(device)
    if chosen.type == "cuda":
        own = int(os.environ.get("LOCAL_RANK", 0)) if world > 1 or chosen.index is None else chosen.index
        if own >= (there := torch.cuda.device_count()):
            raise ValueError(
                f"process {own} of this machine has no GPU of its own: there are {there}, give --nproc-per-node={there}"
            )
        torch.cuda.set_device(own)
        torch.set_float32_matmul_precision("high")
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)  # its threads end before Python does
    return rank, world, chosen


def agree(value: float | list[float], device: torch.device) -> float | list[float]:
    """The largest of all processes' values (of each in a list), so that all of them save and stop after the same step."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return shared.tolist()


def average(value: Tensor, world: int) -> float:
    """The mean of all processes' values."""
    if world > 1:
        distributed.all_reduce(value, distributed.ReduceOp.SUM)
    return float(value) / world


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The device in words, for the log of what was trained where."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"
