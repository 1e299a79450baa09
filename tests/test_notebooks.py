"""The notebooks are fit to be read: valid, executed in order, free of faults, portable, linked, small. nbval runs them.

Each check is a function from a notebook to a list of complaints, so that a bad notebook can be put to it, too.
"""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
FILES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MOST_BYTES, MOST_BYTES_IN_ALL = 600_000, 5_000_000  # of outputs, as they are stored
SKIPPING_TAGS = {"nbval-skip", "skip-execution", "raises-exception"}
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<])/(?:work|root|home|tmp|Users|usr|var|opt|mnt)/[\w.]|(?<![A-Za-z])[A-Za-z]:\\\\?[A-Za-z]"
)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=[\"']([^\"']+)[\"']")


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / name, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(cell: NotebookNode) -> list[NotebookNode]:
    return cell.get("outputs", [])


def text_of(output: NotebookNode) -> str:
    """All that an output says in words: streams, tracebacks, and data of the types that are text."""
    data = {kind: value for kind, value in output.get("data", {}).items() if kind.startswith("text/") or "json" in kind}
    words = [output.get("text", ""), *output.get("traceback", []), *map(str, data.values())]
    return "\n".join(words)


def output_bytes(notebook: NotebookNode) -> int:
    return len(json.dumps([outputs_of(cell) for cell in code_cells(notebook)]))


# The checks


def invalid(notebook: NotebookNode) -> list[str]:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [str(error).splitlines()[0]]
    return []


def other_kernel(notebook: NotebookNode) -> list[str]:
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"the kernel is {name!r}, not 'python3'"]


def out_of_order(notebook: NotebookNode) -> list[str]:
    counts = [cell.get("execution_count") for cell in code_cells(notebook)]
    return [] if counts and counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]


def errors(notebook: NotebookNode) -> list[str]:
    return [
        f"cell {cell.get('id')}: {output.get('ename')}"
        for cell in code_cells(notebook)
        for output in outputs_of(cell)
        if output.output_type == "error"
    ]


def warnings(notebook: NotebookNode) -> list[str]:
    return [
        f"cell {cell.get('id')} writes to stderr: {output.text[:80]!r}"
        for cell in code_cells(notebook)
        for output in outputs_of(cell)
        if output.output_type == "stream" and output.name == "stderr"
    ]


def widgets(notebook: NotebookNode) -> list[str]:
    return ["GitHub calls a notebook with metadata.widgets invalid"] if "widgets" in notebook.metadata else []


def absolute_paths(notebook: NotebookNode) -> list[str]:
    places = [(cell.get("id"), cell.source) for cell in notebook.cells]
    places += [(cell.get("id"), text_of(output)) for cell in code_cells(notebook) for output in outputs_of(cell)]
    return [f"cell {name}: {found.group()!r}" for name, text in places for found in ABSOLUTE_PATH.finditer(text)]


def skipped(notebook: NotebookNode) -> list[str]:
    return [
        f"cell {cell.get('id')} is tagged {tag!r}"
        for cell in notebook.cells
        for tag in SKIPPING_TAGS.intersection(cell.metadata.get("tags", []))
    ]


def broken_links(notebook: NotebookNode) -> list[str]:
    """Relative links of markdown cells to files that do not exist, seen from the folder of the notebooks."""
    targets = [
        "".join(groups) for cell in notebook.cells if cell.cell_type == "markdown" for groups in LINK.findall(cell.source)
    ]
    relative = [target.split("#")[0] for target in targets if not re.match(r"[a-z][a-z+.-]*:|#", target)]
    return [f"{target} does not exist" for target in relative if not (FOLDER / target).exists()]


def too_large(notebook: NotebookNode) -> list[str]:
    size = output_bytes(notebook)
    return [f"{size:,} bytes of outputs, at most {MOST_BYTES:,}"] if size > MOST_BYTES else []


CHECKS = (
    invalid,
    other_kernel,
    out_of_order,
    errors,
    warnings,
    widgets,
    absolute_paths,
    skipped,
    broken_links,
    too_large,
)


def unlisted(names: list[str], readme: str) -> list[str]:
    """Notebooks that a README does not link to."""
    return [name for name in names if f"](notebooks/{name})" not in readme]


def test_there_are_notebooks():
    assert FILES and FILES[0].startswith("00_")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FILES)
def test_notebook(name, check):
    assert check(read(name)) == []


@pytest.mark.parametrize("name", FILES)
def test_notebook_is_listed_in_the_readme(name):
    assert unlisted([name], (ROOT / "README.md").read_text()) == []


def test_notebooks_are_small_in_all():
    assert sum(output_bytes(read(name)) for name in FILES) <= MOST_BYTES_IN_ALL


# Every check can fail


def good() -> NotebookNode:
    """A small notebook without a fault."""
    new = nbformat.v4
    link = "[start](00_quickstart.ipynb#top) [paper](https://arxiv.org/abs/2401.12945) <img src='../docs/gallery/two.webp'>"
    outputs = [new.new_output("stream", name="stdout", text="x/y is 3, and/or 4, 1/16, ~/x, https://example.org/home/page\n")]
    cells = [
        new.new_markdown_cell(link),
        new.new_code_cell("1", execution_count=1, outputs=outputs),
        new.new_code_cell(
            "2", execution_count=2, outputs=[new.new_output("execute_result", {"text/plain": "2"}, execution_count=2)]
        ),
    ]
    return new.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_good_notebook_passes(check):
    assert check(good()) == []


def set_kernel(notebook):
    notebook.metadata.kernelspec.name = "conda-env"


def drop_kernel(notebook):
    del notebook.metadata["kernelspec"]


def break_format(notebook):
    notebook.cells[1].cell_type = "cod"


def drop_outputs_field(notebook):
    del notebook.cells[1]["outputs"]


def swap_counts(notebook):
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1


def start_late(notebook):
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 4, 5


def forget_to_execute(notebook):
    notebook.cells[2].execution_count = None


def remove_all_code(notebook):
    notebook.cells = notebook.cells[:1]


def add_output(*arguments, **fields):
    def spoil(notebook):
        notebook.cells[1].outputs.append(nbformat.v4.new_output(*arguments, **fields))

    return spoil


def add_widgets(notebook):
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}


def add_tag(tag, cell=1):
    def spoil(notebook):
        notebook.cells[cell].metadata["tags"] = ["nbval-check-output", tag]

    return spoil


def write(text, cell=0):
    def spoil(notebook):
        notebook.cells[cell].source += text

    return spoil


PNG = {"image/png": "A" * 700_000}
FAULTS = [
    (invalid, "another cell type", break_format),
    (invalid, "a code cell without outputs", drop_outputs_field),
    (other_kernel, "another kernel", set_kernel),
    (other_kernel, "no kernel", drop_kernel),
    (out_of_order, "out of order", swap_counts),
    (out_of_order, "not from 1", start_late),
    (out_of_order, "not executed", forget_to_execute),
    (out_of_order, "no code", remove_all_code),
    (errors, "an error", add_output("error", ename="ValueError", evalue="", traceback=[])),
    (warnings, "a warning", add_output("stream", name="stderr", text="UserWarning: old")),
    (widgets, "widget state", add_widgets),
    (absolute_paths, "in code", write("\nopen('/work/main/data')", cell=1)),
    (absolute_paths, "in markdown", write(" see /home/me/notes")),
    (absolute_paths, "on Windows", write(r" C:\Users\me", cell=1)),
    (absolute_paths, "on Windows, escaped", write(r" 'C:\\Users\\me'", cell=1)),
    (absolute_paths, "on a Mac", write(" /Users/me/minilumiere")),
    (absolute_paths, "in a stream", add_output("stream", name="stdout", text="saved /tmp/clip.gif")),
    (absolute_paths, "in a result", add_output("display_data", {"text/plain": "PosixPath('/root/x')"})),
    (absolute_paths, "in html", add_output("display_data", {"text/html": "<img src='/home/me/a.png'>"})),
    (absolute_paths, "in a traceback", add_output("error", ename="E", evalue="", traceback=["File /usr/lib/python"])),
    *((skipped, tag, add_tag(tag)) for tag in sorted(SKIPPING_TAGS)),
    (skipped, "in markdown", add_tag("nbval-skip", cell=0)),
    (broken_links, "no such notebook", write(" [next](99_nothing.ipynb)")),
    (broken_links, "no such notebook, with a section", write(" [next](99_nothing.ipynb#section)")),
    (broken_links, "no such picture", write(" ![picture](picture.png)")),
    (broken_links, "no such picture, as html", write(' <img src="picture.png">')),
    (too_large, "a large picture", add_output("display_data", PNG)),
]


@pytest.mark.parametrize(("check", "spoil"), [pytest.param(c, s, id=f"{c.__name__}: {what}") for c, what, s in FAULTS])
def test_a_fault_is_found(check, spoil):
    bad = copy.deepcopy(good())
    spoil(bad)
    assert check(bad), "the fault was not seen"


def test_every_check_has_a_fault_to_find():
    assert {check for check, *_ in FAULTS} == set(CHECKS)


def test_a_notebook_that_the_readme_does_not_link_to_is_found():
    readme = "| [`00_quickstart`](notebooks/00_quickstart.ipynb) | 01_moving_digits.ipynb in words only |"
    assert unlisted(["00_quickstart.ipynb", "01_moving_digits.ipynb"], readme) == ["01_moving_digits.ipynb"]


def test_the_size_of_outputs_is_counted():
    larger = good()
    add_output("display_data", {"image/png": "A" * 1000})(larger)
    assert 1000 <= output_bytes(larger) - output_bytes(good()) <= 1200
