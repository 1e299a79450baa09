"""The trained weights in `data/weights`: half precision, EMA, one file a stage and scale, and a manifest with checksums.

    t2i.safetensors        all of the text-to-image net        base.safetensors    the temporal layers on top of it
    ssr-image.safetensors  all of the image SSR net            ssr.safetensors     the temporal layers on top of it
    fast.safetensors       those of the few-step student       style-*.safetensors a styled last level of t2i
    judge.safetensors      the digit classifier                video-features.safetensors  what a Fréchet distance compares

`base` is trained by the stage of that name, then by `conditioned`, which teaches it to take given pixels; `fast` by its own,
then by `on-policy`, where its own steps lead (see `training.distill`). A file of
temporal layers, or of a style, names the image weights it was trained on, by checksum, and a student its teacher's; beside
others it is refused.
"""

import json
from pathlib import Path

import torch

from minilumiere.config import DATA, STYLES, Scale, architecture
from minilumiere.weights.checkpoint import Tensors, file_sha256, read_checkpoint, write_atomically, write_checkpoint
from minilumiere.weights.run_folder import held, read_log

WEIGHTS = DATA / "weights"
BUILT_ON = {"base": "t2i", "conditioned": "t2i", "fast": "t2i", "on-policy": "t2i", "ssr": "ssr-image"} | {
    f"style-{style}": "t2i" for style in STYLES
}
TAUGHT_BY = {"fast": "base", "on-policy": "base"}
# Fine-tuning begins with the shipped weights of another stage.
BEGINS_WITH = {"conditioned": "base", "fast": "base", "on-policy": "fast"}
SHIPPED_AS = {"conditioned": "base", "on-policy": "fast"}  # and takes their place


def weights_path(stage: str, scale: Scale, folder: Path = WEIGHTS) -> Path:
    """Where the weights of a stage lie."""
    return folder / scale.name / f"{SHIPPED_AS.get(stage, stage)}.safetensors"


def read_shipped(stage: str, scale: Scale, folder: Path = WEIGHTS) -> tuple[Tensors, dict]:
    """Tensors and metadata of a trained stage.

    Raises `FileNotFoundError` where it is not trained yet, `ValueError` where the file is damaged, of another model or
    trained on other image weights.
    """
    path = weights_path(stage, scale, folder)
    if not path.is_file():
        raise FileNotFoundError(f"no weights {path}: train them with 'minilumiere train {stage} --scale {scale.name} --ship'")
    tensors, metadata = read_checkpoint(path, stage=path.stem, scale=scale.name, config=architecture(stage, scale))
    check_built_on(path, metadata, stage, scale, folder)
    return tensors, metadata


def built_on(stage: str, scale: Scale, folder: Path = WEIGHTS) -> dict[str, str]:
    """The checksums of the image weights that temporal layers are trained on, and of a student's teacher; else nothing."""
    return {key: read_shipped(other, scale, folder)[1]["sha256"] for key, other in trained_beside(stage).items()}


def trained_beside(stage: str) -> dict[str, str]:
    """The stages whose weights a stage needs beside its own, by the metadata entry that holds their checksum."""
    return {key: roles[stage] for key, roles in (("built_on", BUILT_ON), ("teacher", TAUGHT_BY)) if stage in roles}


def check_built_on(path: Path, metadata: dict, stage: str, scale: Scale, folder: Path) -> None:
    """Raise `ValueError` where a stage was trained on other weights than those in `folder`, see `built_on`."""
    for key, checksum in built_on(stage, scale, folder).items():
        if metadata.get(key) != checksum:
            other = trained_beside(stage)[key]
            raise ValueError(f"{path} was trained on other {other} weights than those in {folder}: train it again")


def ship(run: Path, stage: str, scale: Scale, folder: Path = WEIGHTS) -> Path:
    """Put the EMA weights of a training run into `folder` and its manifest. Returns the file's path."""
    tensors, metadata = read_checkpoint(run / "checkpoint.safetensors", stage=stage, scale=scale.name)
    lines = read_log(run / "log.jsonl")[-25:]
    if not lines:
        raise ValueError(f"{run / 'log.jsonl'} has no lines: what has not been trained is not shipped")
    facts = {key: metadata[key] for key in ("scale", "config", "seed", "batch", "step", "minutes", "device")}
    path = weights_path(stage, scale, folder)
    facts |= {"stage": path.stem, "trained": stage}
    facts |= {"loss": round(sum(line["loss"] for line in lines) / len(lines), 5), "torch": torch.__version__}
    check_built_on(run, metadata, stage, scale, folder)
    facts |= {key: metadata[key] for key in ("built_on", "teacher", "from") if metadata.get(key)}
    half = {name.removeprefix("ema."): tensor.half() for name, tensor in tensors.items() if name.startswith("ema.")}
    if not all(tensor.isfinite().all() for tensor in half.values()):
        raise ValueError(f"{run} holds weights that half precision cannot: nothing was shipped")
    entry = {key: facts[key] for key in ("trained", "step", "batch", "seed", "minutes", "device", "loss", "torch")}
    with held(folder, patience=60):  # the manifest is one for all stages, and two may be shipped at once
        write_checkpoint(path, half, facts)
        manifest = read_manifest(folder)
        manifest[f"{scale.name}/{path.name}"] = {"sha256": file_sha256(path), "bytes": path.stat().st_size} | entry
        write_atomically(folder / "manifest.json", (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
    return path


def read_manifest(folder: Path = WEIGHTS) -> dict[str, dict]:
    """What `data/weights/manifest.json` says: checksum, size and training facts of each file. `ValueError` if it is broken."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes()) if path.is_file() else {}
        if not isinstance(manifest, dict) or not all(isinstance(entry, dict) for entry in manifest.values()):
            raise ValueError("it holds no entries")
    except ValueError as error:
        raise ValueError(f"{path} is no manifest: {error}") from error
    return manifest
