"""README and docs do what they say: their Python runs, their links lead somewhere, the map holds every module."""

import re
import shlex
from pathlib import Path

import pytest

from minilumiere.cli import build_parser
from minilumiere.config import STAGES

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
LINK = re.compile(r"(?:\]\(|src=\")(?!http)([^)\"#]+)")
LINKS = sorted({(page, link) for page, text in PAGES.items() for link in LINK.findall(text)})


def run_python(page: str) -> dict:
    names: dict = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)), page, "exec"), names)
    return names


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    monkeypatch.setattr("IPython.display.display", lambda shown: None)
    return tmp_path


def test_the_python_of_the_readme_runs(elsewhere):
    assert run_python("README.md")["video"].shape == (80, 3, 128, 128)
    assert (elsewhere / "out.gif").is_file()


def test_the_python_of_the_interface_runs(elsewhere):
    names = run_python("docs/api.md")
    assert names["video"].shape == (16, 3, 128, 128) and names["features"]["output"].shape == (1, 3, 16, 32, 32)
    assert (elsewhere / "out.gif").is_file()


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_the_links_lead_somewhere(page, link):
    assert ((ROOT / page).parent / link).exists()


def test_every_module_is_on_the_map():
    package = ROOT / "minilumiere"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if not path.name.startswith("__")}
    assert modules == set(re.findall(r"minilumiere/([\w/]+\.py)", PAGES["docs/map.md"]))


def commands() -> list[tuple[str, str]]:
    """Each command line of `minilumiere` in a block of bash."""
    blocks = ((page, block) for page, text in PAGES.items() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    return [(page, line) for page, block in blocks for line in block.splitlines() if line.startswith("minilumiere ")]


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_command_line_takes_what_the_pages_give_it(page, line):
    build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_every_stage_is_named(page):
    (listed,) = re.findall(r"(?:stages|one stage): (judge[^;\n]*)", PAGES[page])
    assert {re.sub("^style-.*", "style-*", stage) for stage in STAGES} == set(listed.split())


def test_notebooks_of_the_course_plan_are_there():
    there = {path.name.split("_")[0] for path in (ROOT / "notebooks").glob("*.ipynb")}
    named = set(re.findall(r"(?<![\d.])([01]\d[a-z]?)(?=[ ,.;:)/*]|$)", PAGES["docs/teaching.md"], re.MULTILINE))
    assert named and named <= there


def test_every_benchmark_is_in_its_table():
    folder = ROOT / "tests" / "benchmarks"
    table = (folder / "README.md").read_text().split("## Measured")[0]
    assert all(f"`{path.name}`" in table for path in folder.iterdir() if path.suffix in (".py", ".sh"))


def test_the_readme_is_short():
    assert PAGES["README.md"].count("\n") <= 150
