"""The pictures of the README's course table: one figure of each notebook, as it is stored there, made small.

python notebooks/thumbnails.py           after `make execute`, which calls it
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

HERE = Path(__file__).parent
WIDTH = 480  # pixels; the README shows half of that
FIGURES = {  # which of a notebook's pictures, from 0
    "00": 2, "01": 3, "01b": 4, "02": 6, "03": 3, "04": 1, "05": 6, "05b": 12, "06": 5, "06b": 4,
    "07": 2, "08": 8, "09": 8, "10": 15, "11": 4, "12": 0, "13": 3, "14": 2,
}  # fmt: skip


def thumbnail(notebook: Path, number: int) -> Image.Image:
    """Picture `number` of a notebook, of a clip its middle frame, at most `WIDTH` wide, with a palette."""
    cells = nbformat.read(notebook, as_version=nbformat.NO_CONVERT).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    stored = [data["image/png"] for data in outputs if "image/png" in data][number]
    picture = Image.open(io.BytesIO(base64.b64decode(stored)))
    picture.seek(getattr(picture, "n_frames", 1) // 2)
    picture = picture.convert("RGB")
    picture.thumbnail((WIDTH, picture.height))
    return picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def main() -> None:
    for name, number in FIGURES.items():
        (notebook,) = HERE.glob(f"{name}_*.ipynb")
        thumbnail(notebook, number).save(HERE / "pictures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
