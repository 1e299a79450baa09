"""The cascade of notebook 11: two nets that were trained with `minilumiere claims --train`, small enough to come along.

    cd notebooks && python -m course.cascade ../runs/claims 0

writes `cascade.safetensors` from the nets of a seed: how they differ from the shipped `base`, in 8 bits a number, each row of
a weight with a factor of its own. So the file hangs on these very weights, and says by checksum which they are.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from minilumiere.config import get_scale
from minilumiere.evaluation.cascade import SIDES, Cascade, pipeline_of, read_part
from minilumiere.weights.checkpoint import read_checkpoint, write_checkpoint
from minilumiere.weights.shipped import read_shipped

FILE = Path(__file__).with_name("cascade.safetensors")
FACTOR = ".factor"


def packed(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, and the factors of the rows that make them what they stand for."""
    rows = difference.reshape(len(difference), -1)
    factor = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-6).half()
    return (rows / factor.float()).round().clamp(-127, 127).to(torch.int8).view_as(difference), factor


def unpacked(numbers: Tensor, factor: Tensor) -> Tensor:
    return (numbers.reshape(len(numbers), -1).float() * factor.float()).view(numbers.shape)


def write(run_folder: Path, seed: int, scale: str = "tiny", path: Path = FILE) -> None:
    """Write the nets of a seed."""
    preset = get_scale(scale)
    base, about = read_shipped("base", preset)
    tensors, trained, halvings = {}, {}, {}
    for part in SIDES["cascade"]:
        weights, facts = read_part(run_folder, part, seed, preset)
        if facts["from"] != about["sha256"]:
            raise ValueError(f"{part}-{seed} was trained from other base weights than the shipped ones")
        trained[part] = {key: facts[key] for key in ("step", "batch", "minutes", "device")}
        halvings[part] = facts["config"]["halvings"]
        for name, tensor in weights.items():
            tensors[f"{part}.{name}"], tensors[f"{part}.{name}{FACTOR}"] = packed(tensor - base[name].float())
    facts = {"stage": "cascade", "scale": scale, "seed": seed, "from": about["sha256"], "trained": trained}
    write_checkpoint(path, tensors, facts | {"halvings": halvings})


def load_cascade(scale: str = "tiny", path: Path = FILE) -> Cascade:
    """The cascade, on the CPU. Raises `ValueError` where the shipped weights are not those that it was trained from."""
    preset = get_scale(scale)
    base, about = read_shipped("base", preset)
    tensors, facts = read_checkpoint(path, stage="cascade", scale=scale)
    if facts["from"] != about["sha256"]:
        raise ValueError(f"{path.name} was made from other base weights than the shipped ones: make it anew (see {__name__})")
    nets = []
    for part in SIDES["cascade"]:
        mine = {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
        weights = {
            name: base[name].float() + unpacked(numbers, mine[name + FACTOR])
            for name, numbers in mine.items()
            if not name.endswith(FACTOR)
        }
        nets.append(pipeline_of(weights, preset, torch.device("cpu"), facts["halvings"][part]))
    return Cascade(*nets)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
