"""Checkpoints: safetensors files that are whole or absent, and that are believed only if their checksum is right.

tensors + metadata (stage, scale, config, version, ...) ──► sha256 over all of it, stored in the metadata
write: a temporary file beside the target, fsync, rename: killed at any moment, the old file or the new one is there
read:  safetensors (never pickle), checksum, version, stage, scale and config must all agree; else `ValueError`
"""

import errno
import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from minilumiere.config import FORMAT_VERSION

Tensors = dict[str, Tensor]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, or leave it as it was and raise `OSError` (disk full, say). Folders are made."""
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # of this write alone: threads may write one name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path} ({error.strerror}); what was there before is untouched") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise `OSError` where `write_atomically` could not write now, as far as that can be told: before long work, say."""
    path, folder = Path(path), Path(path).parent
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        while not folder.exists() and folder != folder.parent:  # it will be made
            folder = folder.parent
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path} ({error.strerror})") from error


def write_checkpoint(path: Path, tensors: Tensors, metadata: dict) -> str:
    """Write tensors and JSON-able metadata atomically. Returns the sha256 checksum of the content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"version": FORMAT_VERSION} | metadata, sort_keys=True)
    checksum = _checksum(tensors, text)
    write_atomically(path, save(tensors, {"minilumiere": json.dumps([checksum, text])}))  # one entry: safetensors shuffles them
    return checksum


def read_checkpoint(path: Path, **expected) -> tuple[Tensors, dict]:
    """Read tensors and metadata, or raise `ValueError`: damaged, tampered with, or not what is `expected`.

    `expected` are metadata entries that must agree: `stage="base", scale="tiny", config={...}`. The metadata returned
    have one entry more, `sha256`. Raises `FileNotFoundError` where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        checksum, text = json.loads(stored["minilumiere"])
        checksum_ok = checksum == _checksum(tensors, text)
        metadata = dict(json.loads(text)) if checksum_ok else {}
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is no whole minilumiere checkpoint: {error}") from error
    if not checksum_ok:
        raise ValueError(f"{path} is damaged or was tampered with: its checksum does not match its content")
    for key, wanted in ({"version": FORMAT_VERSION} | expected).items():
        if metadata.get(key) != wanted:
            raise ValueError(f"{path} is of another {key}: it has {metadata.get(key)!r}, wanted {wanted!r}")
    return tensors, metadata | {"sha256": checksum}


def matching(tensors: Tensors, prefix: str, parameters: Tensors) -> Tensors:
    """The tensors whose names begin with `prefix`, without it; `ValueError` unless names and shapes are the parameters'."""
    chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if differing := sorted(set(chosen) ^ set(parameters)):
        raise ValueError(f"checkpoint and model do not hold the same tensors: {prefix}{differing[0]} is in one of them only")
    for name, tensor in chosen.items():
        if tensor.shape != parameters[name].shape:
            have, want = tuple(tensor.shape), tuple(parameters[name].shape)
            raise ValueError(f"{prefix}{name} has shape {have} in the checkpoint, {want} in the model")
    return chosen


@torch.no_grad()
def load_weights(module: torch.nn.Module, tensors: Tensors, prefix: str = "") -> None:
    """Copy tensors into the trainable parameters: all of them, no others. Raises `ValueError` on a mismatch."""
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name, tensor in matching(tensors, prefix, parameters).items():
        parameters[name].copy_(tensor)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _checksum(tensors: Tensors, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
