"""Is it good, is it true? Read judge (reading a clip), quality (text to video), tasks, style_scores, inside.

Then metrics: what Fréchet distances (frechet) and formulas notice of clips that are spoiled by degrees (corruption).
"""

from minilumiere.evaluation.judge import assess
from minilumiere.evaluation.quality import evaluate

__all__ = ["assess", "evaluate"]
