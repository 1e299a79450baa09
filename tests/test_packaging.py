"""environment.yml, pyproject.toml and constraints.txt say the same; files are short, and what they import is below them."""

import ast
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
    assert {"pip": ["-e .[notebooks,test]"]} in lines
    assert environment()["python"] == PROJECT["requires-python"]


def test_constraints_pin_every_requirement_within_its_bound():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    numbers = lambda version: [int(part) for part in re.findall(r"\d+", version)]  # noqa: E731
    for name, bound in requirements().items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert numbers(pins[name]) >= numbers(bound), name


# The house: imports run down its floors, here from the ground up. What is imported from `minilumiere` itself is above them.

FLOORS = ("config validate torch_state", "dataset", "model", "weights", "viz", "pipeline", "evaluation", "training", "cli", "__main__")


def sources(package: Path) -> dict[str, str]:
    """The text of each file, by the module's name within the package: `model.unet`; `model` and "" are `__init__` files."""
    files = {path.relative_to(package).with_suffix(""): path.read_text() for path in package.rglob("*.py")}
    return {".".join(part for part in path.parts if part != "__init__"): text for path, text in files.items()}


def imports(text: str, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports anywhere, be it in a function or as `import minilumiere.model.unet`."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    inside = {name.removeprefix("minilumiere").lstrip(".") for name in names if name.split(".")[0] == "minilumiere"}
    return {name if name in modules else name.rpartition(".")[0] for name in inside}  # a module, or a name that it has


def complaints(modules: dict[str, str]) -> list[str]:
    """What is on no floor, what imports from a floor above its own, and files that import each other in a circle."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names.split()} | {"": len(FLOORS)}
    graph = {name: imports(text, set(modules)) for name, text in modules.items()}

    def height(name: str) -> int:
        return floor.get(name.split(".")[0], -1)

    found = [f"{name} is on no floor" for name in graph if height(name) < 0]
    for name in graph:
        found += [f"{name} imports {up or 'minilumiere'}" for up in sorted(graph[name]) if height(up) > height(name)]
    while ends := [name for name in graph if not graph[name] & set(graph) or all(name not in graph[other] for other in graph)]:
        graph = {name: graph[name] for name in graph if name not in ends}  # without those that import, or are imported by, none
    return found + ([f"a circle is among {', '.join(sorted(graph))}"] if graph else [])


def test_imports_run_down_the_floors_and_in_no_circle():
    assert complaints(sources(ROOT / "minilumiere")) == []


HOUSE = {
    "": "",
    "config": "import os",
    "model": "from minilumiere.model.unet import UNet",
    "model.text": "import minilumiere.config\nfrom minilumiere.model.unet import UNet",
    "model.unet": "import torch",
    "viz": "",
    "viz.clips": "from minilumiere.model import text",
    "pipeline": "from minilumiere.viz.clips import filmstrip\nfrom minilumiere.model import UNet",
}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("model.unet", "from minilumiere.pipeline import load", "model.unet imports pipeline"),
        ("model.unet", "def late():\n    from minilumiere import pipeline", "model.unet imports pipeline"),
        ("model.unet", "import minilumiere.viz.clips as clips", "model.unet imports viz.clips"),
        ("model.unet", "from minilumiere.viz import filmstrip", "model.unet imports viz"),
        ("viz.clips", "from minilumiere import load", "viz.clips imports minilumiere"),
        ("config", "import os, minilumiere", "config imports minilumiere"),
        ("model.unet", "from minilumiere.model.text import tokenise", "a circle is among model.text, model.unet"),
        ("model.unet", "def late():\n    from minilumiere.model import UNet", "a circle is among model, model.unet"),
        ("attic", "import torch", "attic is on no floor"),
    ],
)
def test_an_import_that_runs_up_or_in_a_circle_is_found(name, text, says):
    assert complaints(HOUSE) == []
    assert says in complaints(HOUSE | {name: text})


def test_files_are_short():
    lines = {name: text.count("\n") for name, text in sources(ROOT / "minilumiere").items()}
    assert not {name: count for name, count in lines.items() if count > 320}
    assert sum(count for name, count in lines.items() if name.split(".")[0] == "model") < 1500


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import minilumiere", {"torch", "matplotlib"}),
        ("from minilumiere.cli import main; main(['--help'])", {"torch", "matplotlib"}),
        ("from minilumiere.cli import main; main(['train', '--help'])", {"torch", "matplotlib"}),
        (
            "import minilumiere as ml; [getattr(ml, name) for name in ml.__all__]",
            {"matplotlib", "IPython", "torchvision", "diffusers"},
        ),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(code, unloaded):
    script = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "minilumiere" in done.stderr.split(), done.stderr
    assert not unloaded & set(done.stderr.split())
