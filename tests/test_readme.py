"""The README does what it says: its Python runs, its links lead somewhere, its modules are those of the package."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    monkeypatch.setattr("IPython.display.display", lambda shown: None)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile("\n".join(blocks), "README.md", "exec"), names)
    plt.close("all")
    assert names["video"].shape == (16, 3, 64, 64) and names["features"]["output"].shape == (1, 3, 16, 32, 32)
    assert (tmp_path / "out.gif").is_file()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"(?:\]\(|src=\")(?!http)([^)\"#]+)", README))))
def test_the_links_of_the_readme_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_every_module_is_on_the_readme_s_map():
    package = ROOT / "minilumiere"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if not path.name.startswith("__")}
    assert modules == set(re.findall(r"minilumiere/([\w/]+\.py)", README))
