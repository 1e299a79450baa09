"""Badges: in every notebook and the README, once, and nothing else is touched."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
write_badges = runpy.run_path(str(ROOT / "notebooks" / "badges.py"))["write_badges"]


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "pictures"))
    return tmp_path


def texts(root: Path) -> dict[str, str]:
    """The README and the first cell of every notebook."""
    cells = {path.name: nbformat.read(path, 4).cells[0].source for path in (root / "notebooks").glob("*.ipynb")}
    return cells | {"README.md": (root / "README.md").read_text()}


def test_every_text_gets_one_badge_below_its_title_and_keeps_its_words(copy):
    before = texts(copy)
    assert len(write_badges("someone/minilumiere", copy)) == len(before)
    for name, text in texts(copy).items():
        opened = name if name.endswith(".ipynb") else "00_quickstart.ipynb"
        assert text.count(f"github/someone/minilumiere/blob/main/notebooks/{opened})") == 1
        assert ("mybinder.org/v2/gh/someone/minilumiere/main" in text) == (name == "README.md")
        lines = text.splitlines()
        assert lines[0] == before[name].splitlines()[0] and lines[2].startswith("[![Open in Colab]")
        kept = [line for line in lines if line and not line.startswith("[![Open in Colab]")]
        assert kept == [line for line in before[name].splitlines() if line]


def test_another_address_replaces_the_first(copy):
    write_badges("someone/minilumiere", copy)
    once = texts(copy)
    write_badges("else/lumiere.small", copy)
    assert all("someone" not in text for text in texts(copy).values())
    write_badges("someone/minilumiere", copy)
    assert texts(copy) == once


def test_outputs_and_code_stay_as_they_are(copy):
    path = copy / "notebooks" / "00_quickstart.ipynb"
    before = json.loads(path.read_text())
    write_badges("someone/minilumiere", copy)
    after = json.loads(path.read_text())
    assert before["cells"][1:] == after["cells"][1:] and before["metadata"] == after["metadata"]
    nbformat.validate(nbformat.read(path, 4))


def test_a_locale_that_is_not_utf_8(copy):
    before = texts(copy)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, copy / "notebooks" / "badges.py", "someone/minilumiere"], env=environment, check=True)
    after = texts(copy)
    assert all(text != after[name] and set(text) <= set(after[name]) for name, text in before.items())


@pytest.mark.parametrize("repository", ["", "minilumiere", "https://example.org/a/b", "a/b c"])
def test_an_address_that_is_none_is_refused(copy, repository):
    before = texts(copy)
    with pytest.raises(ValueError, match="OWNER/NAME"):
        write_badges(repository, copy)
    assert texts(copy) == before
