"""Make it: what is trained on what, and the loop that does it. Read clips (the data), stages (the recipes), loop."""

from minilumiere.training.loop import TrainOptions, train
from minilumiere.training.stages import get_stage

__all__ = ["TrainOptions", "get_stage", "train"]
