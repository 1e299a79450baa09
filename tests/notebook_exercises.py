"""Reads the exercises of notebooks whose cells end in a call of a checker, and the answers beside them."""

import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CALL = re.compile(r"^print\((check_\w+)\((\w+)\)\)$", re.MULTILINE)  # the answer is below a fold of the next cell
USE = re.compile(r"^\w+ = use\((check_\w+)\((\w+)\), .*\)$", re.MULTILINE)  # the cell is the answer, its metadata the stub
ANSWER = re.compile(r"<summary>Answer</summary>.*?```python\n(.*?)```", re.DOTALL)


class Exercise(NamedTuple):
    """Names, and Python source."""

    checker: str
    function: str
    stub: str
    answer: str


def exercises(path: Path) -> list[Exercise]:
    """The exercises of a notebook, in order. Raises `ValueError` where one has no answer, or two."""
    found = []
    for cell, after in pairwise(nbformat.read(path, as_version=nbformat.NO_CONVERT).cells):
        if cell.cell_type != "code":
            continue
        if call := CALL.search(cell.source):
            (answer,) = [code for code in ANSWER.findall(after.source) if f"def {call[2]}(" in code]
            found.append(Exercise(call[1], call[2], CALL.sub("", cell.source), answer))
        elif call := USE.search(cell.source):
            found.append(Exercise(call[1], call[2], USE.sub("", cell.metadata["stub"]), USE.sub("", cell.source)))
    return found


def parameters(*paths: Path) -> list:
    """The same of some notebooks, for pytest."""
    return [pytest.param(each, id=f"{path.name.split('_')[0]} {each.function}") for path in paths for each in exercises(path)]


def defined(source: str, name: str, names: dict):
    """What source code defines as `name`, where it finds `names` already defined."""
    names = dict(names)
    exec(source, names)
    return names[name]


def accepts(course, exercise: Exercise, names: dict) -> None:
    """Assert that the checker in `course` accepts the answer and not the stub."""
    check = getattr(course, exercise.checker)
    assert check(defined(exercise.answer, exercise.function, names)).startswith("right")
    assert check(defined(exercise.stub, exercise.function, names)).startswith("not yet")


def checkers(course) -> list[str]:
    """The names of all checkers of a module, sorted."""
    return sorted(name for name, value in vars(course).items() if name.startswith("check_") and callable(value))
