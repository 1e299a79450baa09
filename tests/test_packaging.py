"""environment.yml, pyproject.toml and constraints.txt say the same, and the package keeps its promises of size."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch"}  # conda-forge's name: PyPI's
EIGHT = {"torch", "torchvision", "einops", "matplotlib", "jupyterlab", "ipywidgets", "nbval", "pytest"}


def requirements() -> dict[str, str]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    return dict(re.fullmatch(r"([\w.-]+)(>=.*)", line).groups() for line in PROJECT["dependencies"] + extras)


def environment() -> dict[str, str]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pairs = (re.fullmatch(r"([\w.-]+)(>=.*)?", line).groups() for line in lines if isinstance(line, str))
    return {CONDA_NAMES.get(name, name): bound for name, bound in pairs}


def test_environment_names_python_pip_and_the_eight_packages():
    assert set(environment()) == EIGHT | {"python", "pip"}


@pytest.mark.parametrize("name", sorted(EIGHT))
def test_lower_bounds_agree(name):
    assert environment()[name] == requirements()[name]


def test_environment_installs_this_package_and_the_same_python():
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-e ."]} in lines
    assert environment()["python"] == PROJECT["requires-python"]


def test_constraints_pin_every_requirement_within_its_bound():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    numbers = lambda version: [int(part) for part in re.findall(r"\d+", version)]  # noqa: E731
    for name, bound in requirements().items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert numbers(pins[name]) >= numbers(bound), name


def test_modules_are_short_and_import_downwards_only():
    modules = {path.stem: path.read_text() for path in (ROOT / "minilumiere").glob("*.py")}
    assert max(text.count("\n") for text in modules.values()) <= 320
    imports = {
        name: set(re.findall(r"^\s*from minilumiere\.(\w+) import", text, re.MULTILINE)) for name, text in modules.items()
    }
    done: set[str] = set()
    while todo := set(imports) - done:  # a module is done once all that it imports are: a cycle never is
        ready = {name for name in todo if imports[name] <= done}
        assert ready, f"import cycle among {sorted(todo)}"
        done |= ready


def test_torchvision_and_diffusers_are_not_imported():
    code = (
        "import sys, minilumiere, minilumiere.cli; sys.exit(bool({'torchvision', 'diffusers', 'IPython'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
