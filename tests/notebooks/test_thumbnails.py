"""The README's course table shows what the notebooks hold now."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from minilumiere.config import DATA

NOTEBOOKS = DATA.parent / "notebooks"
specification = importlib.util.spec_from_file_location("thumbnails", NOTEBOOKS / "thumbnails.py")
thumbnails = importlib.util.module_from_spec(specification)
specification.loader.exec_module(thumbnails)


def test_every_notebook_has_one_in_the_readme():
    readme = (DATA.parent / "README.md").read_text()
    assert set(thumbnails.FIGURES) == {path.name.split("_")[0] for path in NOTEBOOKS.glob("*.ipynb")}
    for name in thumbnails.FIGURES:
        assert f'src="notebooks/pictures/{name}.png"' in readme


@pytest.mark.parametrize("name", thumbnails.FIGURES)
def test_it_is_the_figure_that_is_stored_in_the_notebook(name):
    """`make execute` makes both."""
    (notebook,) = NOTEBOOKS.glob(f"{name}_*.ipynb")
    made, stored = thumbnails.thumbnail(notebook, thumbnails.FIGURES[name]), Image.open(NOTEBOOKS / "pictures" / f"{name}.png")
    assert made.size == stored.size and made.width <= thumbnails.WIDTH
    difference = np.abs(np.asarray(made.convert("RGB"), float) - np.asarray(stored.convert("RGB"), float))
    assert difference.mean() < 2, "another Pillow rounds otherwise, but shows the same"
