"""Is it good, is it true? Read judge (reading a clip), quality (text to video), tasks, style_scores, inside."""

from minilumiere.evaluation.judge import assess
from minilumiere.evaluation.quality import evaluate

__all__ = ["assess", "evaluate"]
