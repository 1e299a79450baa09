"""The digit classifier that the judge reads crops with: a small convolutional net. Not the paper's: our choice.

It lies here, beside the other nets, so that `weights` can build it; what it is for is told in `evaluation.judge`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.config import JudgeConfig


class DigitClassifier(nn.Module):
    """Crops of one object's ink to logits of the ten digits."""

    def __init__(self, config: JudgeConfig = JudgeConfig()):  # noqa: B008 (frozen)
        super().__init__()
        self.crop = config.crop  # pixels
        layers, last = [], 1
        for width in config.channels:
            layers += [
                nn.Conv2d(last, width, 3, padding=1),
                nn.GroupNorm(4, width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 2, 1),
                nn.ReLU(),
            ]
            last = width
        side = -(-config.crop // 2 ** len(config.channels))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(last * side**2, 10))

    def forward(self, crops: Float[Tensor, "n 1 crop crop"]) -> Float[Tensor, "n 10"]:
        return self.layers(crops)
