"""The world and its truth: captioned moving digits. Read captions, subjects, paths, glyphs, styles, moving_digits.

What a caption may say, how a digit is drawn, in which styles, and how it moves. Everything else in the package is
about these clips; nothing here knows of a net.
"""

from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.moving_digits import sample_batch
from minilumiere.dataset.subjects import UNSEEN_PAIRS

__all__ = ["UNSEEN_PAIRS", "parse_caption", "sample_batch"]
