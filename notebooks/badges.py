"""Write badges that open the notebooks in Colab and Binder: `make badges REPOSITORY=owner/name`, once it is published.

A badge needs the public address of the repository on GitHub, which a copy of it cannot know. README gets both badges, every
notebook its own Colab badge and the line that installs the package there. Running it again replaces what it wrote.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BADGE = re.compile(r"\n*^\[!\[(?:Open in Colab|Binder)\].*\n", re.MULTILINE)


def colab(repository: str, name: str) -> str:
    address = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def binder(repository: str) -> str:
    address = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/notebooks"
    return f"[![Binder](https://mybinder.org/badge_logo.svg)]({address})"


def below_title(text: str, badge: str) -> str:
    """The text with the badge as a paragraph below its first line, in place of an earlier one."""
    title, newline, rest = BADGE.sub("\n", text).partition("\n")
    return f"{title}\n\n{badge}\n{newline}{rest.lstrip(newline)}"


def write_badges(repository: str, root: Path = ROOT) -> list[Path]:
    """Write all badges. Returns the files; raises `ValueError` for anything but OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"give the repository as OWNER/NAME, not {repository!r}")
    files = [root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))]
    first, *notebooks = files
    badges = f"{colab(repository, '00_quickstart.ipynb')} {binder(repository)}"
    first.write_text(below_title(first.read_text(encoding="utf-8"), badges), encoding="utf-8")
    for path in notebooks:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        install = f"(there, first: `!pip install git+https://github.com/{repository}`)"
        text = below_title("".join(notebook["cells"][0]["source"]), f"{colab(repository, path.name)} {install}")
        notebook["cells"][0]["source"] = text.splitlines(keepends=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


if __name__ == "__main__":
    try:
        print(f"{len(write_badges(' '.join(sys.argv[1:])))} files have badges")
    except ValueError as error:
        sys.exit(f"badges: {error}")
