"""Copies of the notebooks without their answers, to hand out: `make student` writes them to `student/`.

    python notebooks/student.py                         all notebooks, to student/
    python notebooks/student.py --tally done/*.ipynb    what the checkers said in notebooks that were run

There is one source, and this is how an exercise is marked in it:

| what | how | in the copy |
|---|---|---|
| an exercise | a heading `### Exercise 1 · Title` in a markdown cell | stays |
| a hint | `<details><summary>Hint 1</summary> ... </details>` | stays |
| a stub | a code cell that ends in `print(check_...(...))` and runs unsolved | stays |
| an answer | `<details><summary>Answer</summary> ... </details>` in a markdown cell | goes |
| an answer that the notebook runs | a code cell tagged `answer`, folded, with the stub as `stub` in its metadata | the stub |

A cell tagged `answer` without a stub is left out. Copies run unsolved, too: a stub runs, and where later cells need the
answer, the checker hands out the course's own. What else the notebooks need (`course/`, `pictures/`) is copied beside them.
"""

import argparse
import copy
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
ANSWER = re.compile(r"<details>\s*<summary>\s*Answers?\b[^<]*</summary>.*?</details>\n*", re.DOTALL | re.IGNORECASE)
EXERCISE = re.compile(r"^#{2,4} Exercise\b.*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,4} .*$", re.MULTILINE)
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "measure_*.py")


def exercises(notebook: NotebookNode) -> list[str]:
    """The headings of its exercises."""
    return [title for cell in notebook.cells if cell.cell_type == "markdown" for title in EXERCISE.findall(cell.source)]


def answers(notebook: NotebookNode) -> list[str]:
    """The answers in it: folded ones, and the code of cells tagged `answer`."""
    folded = [text for cell in notebook.cells if cell.cell_type == "markdown" for text in ANSWER.findall(cell.source)]
    return folded + [cell.source for cell in notebook.cells if is_answer(cell)]


def is_answer(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "answer" in cell.metadata.get("tags", [])


def without_answers(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook: its answers are gone, and stubs stand where answers were code."""
    copied = copy.deepcopy(notebook)
    cells = []
    for cell in copied.cells:
        if cell.cell_type == "markdown" and ANSWER.search(cell.source):
            cell.source = ANSWER.sub("", cell.source).strip()
            if not cell.source:
                continue
        elif is_answer(cell):
            stub = cell.metadata.pop("stub", None)
            if stub is None:
                continue
            cell.source, cell.outputs, cell.execution_count = stub, [], None
            cell.metadata.pop("jupyter", None)  # it was folded
            cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag != "answer"]
        cells.append(cell)
    copied.cells = cells
    return copied


def verdicts(notebook: NotebookNode) -> dict[str, str]:
    """What the checker printed under each exercise of a notebook that was run: "right", or what is not yet right."""
    said, current = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for heading in HEADING.findall(cell.source):
                current = heading.lstrip("# ") if EXERCISE.match(heading) else None
                if current:
                    said[current] = "nothing was run"
        elif current:
            printed = "".join(output.get("text", "") for output in cell.get("outputs", []) if output.output_type == "stream")
            lines = [line for line in printed.splitlines() if line.startswith(("right", "not yet"))]
            if lines:
                said[current] = lines[-1]
    return said


def write_all(target: Path) -> None:
    """Write copies of all notebooks, and what they need, to a folder. What was in it under these names is replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in ("course", "pictures"):
        shutil.copytree(HERE / folder, target / folder, ignore=LEFT_OUT, dirs_exist_ok=True)
    for path in sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        copied = without_answers(notebook)
        nbformat.validate(copied)
        nbformat.write(copied, target / path.name)
        print(f"{path.name:<45}{len(exercises(copied)):3} exercises, {len(answers(notebook)):2} answers removed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Copies of the notebooks without their answers.")
    parser.add_argument("--to", type=Path, default=HERE.parent / "student", help="the folder to write to (default: student/)")
    parser.add_argument("--tally", type=Path, nargs="+", metavar="NOTEBOOK", help="say what the checkers said instead")
    asked = parser.parse_args()
    if not asked.tally:
        return write_all(asked.to)
    tally(asked.tally)


def tally(paths: list[Path]) -> None:
    """Print what the checkers said in each notebook; of what cannot be read (it was handed in damaged, say), that."""
    for path in paths:
        try:
            said = verdicts(nbformat.read(path, as_version=nbformat.NO_CONVERT))
        except (OSError, ValueError, AttributeError, KeyError) as error:  # not there, no JSON, or no notebook
            print(f"{path}: cannot be read: {str(error)[:80]!r}")
            continue
        print(f"{path}: {sum(words.startswith('right') for words in said.values())} of {len(said)} right")
        for exercise, words in said.items():
            print(f"    {exercise}: {words}")


if __name__ == "__main__":
    main()
