"""The folder of a training run: one process's own while it trains, with a checkpoint and a log.

    runs/tiny-t2i/   checkpoint.safetensors   log.jsonl: {"step": 20, "loss": 0.31, ...} a line
                     .lock, .pid              while a process has it

A lock of the operating system ends with its process, however that ends; what a killed one left is cleared by the next.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from minilumiere.weights.checkpoint import write_atomically


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Within it, a folder belongs to this process. Raises `ValueError` with the other's number where it has one already.

    `patience`: seconds to wait for the other one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(folder / ".lock", timeout=patience), folder / ".pid"
    try:
        lock.acquire()
    except Timeout as error:
        with suppress(OSError):
            other = f" {note.read_text(encoding='utf-8')}"
            raise ValueError(f"{folder} is in use by process{other}: let it finish, or give another folder") from error
        raise ValueError(f"{folder} is in use by another process: let it finish, or give another folder") from error
    try:
        note.write_text(str(os.getpid()), encoding="utf-8")
        for left in folder.glob(".*.tmp"):  # of a write that was killed
            left.unlink(missing_ok=True)
        yield
    finally:
        for mine in (note, folder / ".lock"):
            with suppress(OSError):
                mine.unlink(missing_ok=True)
        lock.release()


def log(path: Path, **values) -> None:
    """Append one JSON line. Raises `OSError` with the file's name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"could not write {path} ({error.strerror})") from error


def read_log(path: Path) -> list[dict]:
    """The lines of a log, but for a last one that was cut off when the run was killed, or out of disk.

    Raises `ValueError` with the file's name and the line's number for any other that is no line of a log.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row[key], int | float) for key in ("step", "loss")):
                raise ValueError("no step or no loss")
        except (ValueError, KeyError) as error:
            if number == len(lines) and not line.endswith(b"}"):
                break
            raise ValueError(f"{path}, line {number}, is no line of a log with step and loss: mend it, or remove it") from error
        rows.append(row)
    return rows


def trim_log(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again, and one that was cut off."""
    if path.is_file():
        kept = [row for row in read_log(path) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
