"""Stored pictures of notebooks in 256 colours, where nobody sees that: half the bytes. Progress bars go; all else stays.

python notebooks/shrink.py notebooks/0*.ipynb           after `make execute`
"""

import base64
import io
import sys

import nbformat
import numpy as np
from PIL import Image

VISIBLE = 28  # of 255


def shrunk(stored: str) -> str:
    """A picture in base64 with a palette, if it is smaller and looks the same; else, or if it is a clip, as it is."""
    picture = Image.open(io.BytesIO(base64.b64decode(stored)))
    if getattr(picture, "n_frames", 1) > 1 or picture.mode == "P":
        return stored
    picture = picture.convert("RGB")
    small = min(
        (
            picture.quantize(256, method, kmeans=2, dither=Image.Dither.NONE)
            for method in (Image.Quantize.MAXCOVERAGE, Image.Quantize.MEDIANCUT)
        ),
        key=lambda candidate: error(picture, candidate),
    )
    if error(picture, small) > VISIBLE:
        return stored
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return min(stored, base64.b64encode(buffer.getvalue()).decode() + "\n", key=len)


def error(picture: Image.Image, small: Image.Image) -> float:
    """The largest error of a channel, leaving out the worst pixel of a thousand."""
    difference = np.abs(np.asarray(picture, float) - np.asarray(small.convert("RGB"), float)).max(-1)
    return float(np.quantile(difference, 0.999))


def main(paths: list[str]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [
                    output for output in cell.outputs if not output.get("text", "").startswith("\r")
                ]  # progress bars
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = shrunk(output.data["image/png"])
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
