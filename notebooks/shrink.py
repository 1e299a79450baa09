"""Stored pictures of notebooks in 128 colours: half the bytes or less. Clips and everything else stay as they are.

python notebooks/shrink.py notebooks/0*.ipynb           after `make execute`
"""

import base64
import io
import sys

import nbformat
from PIL import Image


def shrunk(stored: str) -> str:
    """A picture in base64, if it is smaller with a palette; a clip as it is."""
    picture = Image.open(io.BytesIO(base64.b64decode(stored)))
    if getattr(picture, "n_frames", 1) > 1:
        return stored
    buffer = io.BytesIO()
    picture.convert("RGB").quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return min(stored, base64.b64encode(buffer.getvalue()).decode() + "\n", key=len)


def main(paths: list[str]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = shrunk(output.data["image/png"])
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
