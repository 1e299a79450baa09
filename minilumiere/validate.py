"""Checks of what users hand in: errors that say what was given and what is wanted."""

import torch
from torch import Tensor


def check_video(given, name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Raise `ValueError` unless `given` is a finite float tensor in [0, 1] of `shape` (None = any length from 1)."""
    wanted = f"({', '.join('any' if length is None else str(length) for length in shape)}), float, in [0, 1]"
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {wanted}, not {type(given).__name__}")
    fits = given.dim() == len(shape) and all(
        want in (None, have) and have for want, have in zip(shape, given.shape, strict=True)
    )
    if not fits or not given.is_floating_point():
        raise ValueError(f"{name} has shape {tuple(given.shape)} and dtype {given.dtype}; wanted {wanted}")
    low, high = float(given.min()), float(given.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # so written, it fails for NaN too
        raise ValueError(f"{name} of shape {tuple(given.shape)} has values from {low} to {high}; wanted {wanted}")
    return given.to(torch.float32)


def check_mask(given, name: str, shape: tuple[int, ...]) -> Tensor:
    """A mask of 0 and 1 (or bool), broadcast to `shape` as float. Raises `ValueError` or `TypeError` for anything else."""
    wanted = f"broadcastable to {shape}, of 0 and 1"
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {wanted}, not {type(given).__name__}")
    try:
        mask = given.float().expand(shape)
    except RuntimeError as error:
        raise ValueError(f"{name} has shape {tuple(given.shape)}; wanted {wanted}") from error
    if given.is_complex() or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} of shape {tuple(given.shape)} and dtype {given.dtype} has other values; wanted {wanted}")
    return mask


def check_number(given, name: str, low: float, high: float, kind: type = float):
    """Raise `TypeError` unless `given` is a number (an int if `kind` is int), `ValueError` unless low <= given <= high."""
    accepted = int if kind is int else int | float
    if isinstance(given, bool) or not isinstance(given, accepted):
        raise TypeError(f"{name} must be {'an integer' if kind is int else 'a number'} from {low} to {high}, got {given!r}")
    if not low <= given <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {given!r}")
    return given
