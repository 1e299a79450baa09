"""environment.yml, pyproject.toml and constraints.txt say the same; files are short, and what they import is below them."""

import ast
import json
import os
import re
import shutil
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


def test_an_environment_has_what_its_tests_import():
    """Those of `make test-browser` need a browser besides, and its extra."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "browser" not in path.parts and "benchmarks" not in path.parts]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in tests]
    nodes = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.split(".")[0] for node in nodes for name in ([node.module] if isinstance(node, ast.ImportFrom) else
             [alias.name for alias in node.names])}  # fmt: skip
    brought = {"nbformat": "nbval", "nbclient": "nbval", "PIL": "pillow", "yaml": "pyyaml", "IPython": "ipywidgets"}
    here = {"minilumiere", "train_driver", "notebook_exercises", "conftest", "course"} | set(sys.stdlib_module_names)
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + extras["notebooks"] + extras["test"]
    there = {re.match(r"[\w-]+", line).group() for line in lines}
    assert {brought.get(name, name) for name in names - here} <= there


def test_the_wheel_packs_what_the_manifest_names_and_nothing_else():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    weights = json.loads((ROOT / "data" / "weights" / "manifest.json").read_text())
    wanted = ["data/glyphs.safetensors", "data/weights/manifest.json", *(f"data/weights/{name}" for name in weights)]
    assert packed == {name: f"minilumiere/{name}" for name in wanted}


# make


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess:
    """`make` in a folder with the project's Makefile, and only the programs of `path` if that is given."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    environment |= {"PATH": path} if path else {}
    return subprocess.run([shutil.which("make"), *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def programs(folder: Path, **pythons: str) -> str:
    """A folder of programs that has the system's, but no other Pythons than these: scripts."""
    folder.mkdir()
    for name in ("sh", "bash", "rm", "touch", "echo", "mkdir", "true"):
        (folder / name).symlink_to(shutil.which(name))
    for name, script in pythons.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(folder)


OLD = 'case "$*" in *version_info*) exit 1;; *--version*) echo Python 3.10.12;; *) exit 1;; esac'
GOOD = f'exec "{sys.executable}" "$@"'


def test_make_takes_a_python_that_fits_and_replaces_what_does_not(tmp_path):
    path = programs(tmp_path / "bin", python3=OLD, python3_12=GOOD)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    old = tmp_path / ".venv" / "bin" / "python"
    old.write_text(f"#!/bin/sh\n{OLD}\n")
    old.chmod(0o755)
    done = make(tmp_path, ".venv/demo", "PIP=true", path=path)
    assert done.returncode == 0, done.stderr
    check = "import sys, pip; print(sys.version_info >= (3, 11))"
    assert subprocess.run([old, "-c", check], capture_output=True, text=True).stdout == "True\n"
    again = make(tmp_path, ".venv/demo", "PIP=true", path=path)
    assert again.returncode == 0 and "making" not in again.stdout


def test_make_says_which_python_is_needed(tmp_path):
    for name, pythons in (("one", {"python3": OLD}), ("none", {})):
        done = make(tmp_path, "demo", "PIP=true", path=programs(tmp_path / name, **pythons))
        assert done.returncode != 0
        assert "minilumiere needs Python >= 3.11" in done.stderr and "PYTHON=/path/to/python3.12 demo" in done.stderr
    assert "3.10.12" in make(tmp_path, "demo", "PIP=true", path=str(tmp_path / "one")).stderr
    given = make(tmp_path, "demo", "PIP=true", f"PYTHON={tmp_path}/one/python3")
    assert given.returncode != 0 and "needs Python >= 3.11" in given.stderr


def test_make_help_names_every_target(tmp_path):
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", text).group(1).split()) - {"clean"}
    shown = make(tmp_path, "help").stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
    assert re.search(r"^export OMP_WAIT_POLICY \?= PASSIVE$", text, re.MULTILINE)


# The house: imports run down its floors, here from the ground up. What is imported from `minilumiere` itself is above them.

FLOORS = (
    "config validate torch_state",
    "dataset",
    "model",
    "weights",
    "viz",
    "pipeline",
    "evaluation",
    "training",
    "cli",
    "__main__",
)


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
