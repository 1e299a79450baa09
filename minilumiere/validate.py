"""Checks of what users hand in: errors that say what was given and what is wanted. What is returned is used from there on."""

import operator
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def check_video(given, name: str, shape: tuple[int | None, ...], also: str = "") -> Tensor:
    """A finite float tensor in [0, 1] of `shape` (None = any length from 1), of any float type, as float32 without gradient.

    Raises `ValueError` for any other tensor, `TypeError` for anything else. `also` says what else would do.
    """
    wanted = f"({', '.join('any' if length is None else str(length) for length in shape)}){also}, float, in [0, 1]"
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {wanted}, not {type(given).__name__}")
    fits = given.dim() == len(shape) and all(
        have > 0 and want in (None, have) for want, have in zip(shape, given.shape, strict=True)
    )
    if not fits or not given.is_floating_point() or given.is_meta or given.layout != torch.strided:
        raise ValueError(f"{name} has shape {tuple(given.shape)} and dtype {given.dtype}; wanted {wanted}")
    video = given.detach().to(torch.float32)
    low, high = float(video.min()), float(video.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # so written, it fails for NaN too
        raise ValueError(f"{name} of shape {tuple(given.shape)} has values from {low} to {high}; wanted {wanted}")
    return video


def check_mask(given, name: str, shape: tuple[int, ...]) -> Tensor:
    """A mask of 0 and 1 (or bool), broadcast to `shape` as float32. Raises `ValueError` or `TypeError` for anything else."""
    wanted = f"broadcastable to {shape}, of 0 and 1"
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {wanted}, not {type(given).__name__}")
    if given.is_complex() or given.is_meta or given.layout != torch.strided:
        raise ValueError(f"{name} has shape {tuple(given.shape)} and dtype {given.dtype}; wanted {wanted}")
    try:
        mask = given.detach().to(torch.float32).expand(shape)
    except RuntimeError as error:
        raise ValueError(f"{name} has shape {tuple(given.shape)}; wanted {wanted}") from error
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} of shape {tuple(given.shape)} and dtype {given.dtype} has other values; wanted {wanted}")
    return mask


def check_number(given, name: str, low: float, high: float, kind: type = float):
    """What acts like a number (an integer if `kind` is int: NumPy's, say) as Python's own.

    Raises `TypeError` for anything else (a truth value, too), `ValueError` unless low <= given <= high.
    """
    try:
        number = _number(given, kind)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        wanted = "an integer" if kind is int else "a number"
        raise TypeError(f"{name} must be {wanted} from {low} to {high}, got {given!r:.80}") from error
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {given!r}")
    return number


def _number(given, kind: type) -> int | float:
    truth = isinstance(given, bool) or str(getattr(given, "dtype", "")).removeprefix("torch.") in ("bool", "bool_")
    if truth or isinstance(given, str | bytes | bytearray) or getattr(given, "ndim", 0):
        raise TypeError
    if kind is not int:
        with suppress(TypeError):
            return operator.index(given)
        return float(given)
    return operator.index(given)


def check_flag(given, name: str) -> bool:
    """A truth value (NumPy's, too). Raises `TypeError` for anything else: "no" would mean yes."""
    if not isinstance(given, bool) and type(given).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, got {given!r:.80}")
    return bool(given)


def check_path(given, name: str = "path") -> Path:
    """A path, `~` expanded. Raises `TypeError` for anything but a string or a path, `ValueError` for an empty one, or one that
    no file can have."""
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} must be a string or a path, got {given!r:.80}")
    if not os.fspath(given):
        raise ValueError(f"{name} is empty: give the name of a file or folder")
    if b"\0" in os.fsencode(given):
        raise ValueError(f"{name} {given!r:.80} holds a null byte: no file or folder has such a name")
    return Path(os.path.expanduser(os.fsdecode(given)))


def check_device(given: str | torch.device | None, name: str = "device") -> torch.device:
    """The device that a name stands for, if it is there; cuda where there is one, else cpu, for None. Else `ValueError`."""
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(given, str | torch.device):
        raise TypeError(f"{name} must be a name such as 'cpu' or 'cuda', got {given!r:.80}")
    there = "cpu or cuda" if torch.cuda.is_available() else "cpu (there is no CUDA device)"
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).item()  # a device without values, "meta", fails here
    except Exception as error:  # torch has many: RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError
        raise ValueError(f"{name} {str(given)!r} cannot be used here: choose {there}") from error
    return torch.device("cpu") if device.type == "cpu" else device


def check_number_or_none(given, name: str, low: float, high: float, kind: type = float):
    """`check_number`, but None stays None: a default."""
    return None if given is None else check_number(given, name, low, high, kind)
