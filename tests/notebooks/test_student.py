"""Copies for students: no answer is left in them, they are valid, and the exercises are those of the source."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FILES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))

specification = importlib.util.spec_from_file_location("student", NOTEBOOKS / "student.py")
student = importlib.util.module_from_spec(specification)
specification.loader.exec_module(student)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / name, as_version=nbformat.NO_CONVERT)


@pytest.mark.parametrize("name", FILES)
def test_a_copy_has_the_exercises_and_no_answer(name):
    source = read(name)
    copied = student.without_answers(source)
    nbformat.validate(copied)
    assert student.exercises(copied) == student.exercises(source)
    assert student.answers(copied) == []
    assert not any("stub" in cell.metadata for cell in copied.cells)
    everything = "\n".join(cell.source for cell in copied.cells)
    assert "<summary>Answer" not in everything
    assert everything.count("<details>") == everything.count("</details>")
    for answer in student.answers(source):
        assert answer.strip() not in everything


@pytest.mark.parametrize("name", FILES)
def test_every_exercise_has_an_answer(name):
    notebook = read(name)
    assert len(student.answers(notebook)) >= len(student.exercises(notebook))


def test_the_source_is_not_changed():
    source = small()
    before = source.copy()
    student.without_answers(source)
    assert source == before


def test_stubs_stand_where_answers_were():
    copied = student.without_answers(small())
    assert [cell.source for cell in copied.cells] == [
        "### Exercise 1 · Sum\nAdd.\n\n<details><summary>Hint 1</summary>\n\n+\n</details>",
        "def add(a, b):\n    return a  # your code",
        "Then go on.",
        "print(add(1, 2))",
    ]
    assert copied.cells[1].outputs == [] and copied.cells[1].execution_count is None


def test_what_the_checkers_said_is_read():
    assert student.verdicts(small()) == {"Exercise 1 · Sum": "right"}
    assert student.verdicts(student.without_answers(small())) == {"Exercise 1 · Sum": "nothing was run"}


def test_a_notebook_that_cannot_be_read_is_said_and_the_others_are_counted(tmp_path, capsys):
    whole, damaged, other = (tmp_path / f"{name}.ipynb" for name in ("whole", "damaged", "other"))
    nbformat.write(small(), whole)
    damaged.write_text(whole.read_text()[:100])
    other.write_text("[]")
    student.tally([tmp_path / "absent.ipynb", damaged, other, whole])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines[:4]] == ["cannot be read"] * 3 + ["1 of 1 right"]


def test_all_are_written_with_what_they_need(tmp_path, capsys):
    student.write_all(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.ipynb")) == FILES
    assert len(capsys.readouterr().out.splitlines()) == len(FILES)
    for needed in ("course", "pictures"):
        names = {path.name for path in (NOTEBOOKS / needed).iterdir() if path.suffix in {".json", ".png", ".safetensors"}}
        assert names <= {path.name for path in (tmp_path / needed).iterdir()}


def small() -> nbformat.NotebookNode:
    """A notebook with one exercise: an answer that runs, and a folded one."""
    new = nbformat.v4
    answer = new.new_code_cell("def add(a, b):\n    return a + b", execution_count=1)
    answer.outputs = [new.new_output("stream", name="stdout", text="right\n")]
    answer.metadata = nbformat.from_dict({"tags": ["answer"], "stub": "def add(a, b):\n    return a  # your code"})
    return new.new_notebook(
        cells=[
            new.new_markdown_cell("### Exercise 1 · Sum\nAdd.\n\n<details><summary>Hint 1</summary>\n\n+\n</details>", id="a"),
            answer,
            new.new_markdown_cell("<details><summary>Answer</summary>\n\na + b\n</details>\n\nThen go on.", id="b"),
            new.new_markdown_cell("<details>\n<summary>Answer: why</summary>\n\nbecause\n</details>", id="c"),
            new.new_code_cell("print(add(1, 2))", execution_count=2, id="d"),
        ]
    )
