"""README and docs do what they say: their Python runs, their links lead somewhere, the map holds every module."""

import re
from pathlib import Path

import pytest

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


def test_the_readme_is_short():
    assert PAGES["README.md"].count("\n") <= 150
