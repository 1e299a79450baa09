"""The masks of training: what is given of each clip, and how often.

Half of the clips have nothing given, so that the one net still is the text-to-video model. The paper does not disclose its
masks: the mixture below is our choice. What tasks give: `model.conditioning`. Notebook 09.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minilumiere.model.conditioning import extents, moving_boxes

MIXTURE = {"nothing": 0.5, "first frame": 0.17, "first frames": 0.07, "half": 0.08,
           "box": 0.04, "moving box": 0.07, "region": 0.07}  # fmt: skip


def random_masks(
    video: Float[Tensor, "b 3 t h w"], generator: torch.Generator
) -> tuple[Float[Tensor, "b 1 t h w"], Bool[Tensor, " b"]]:
    """A mask for each training clip, drawn from the `MIXTURE`; and, on the host, whether it gives anything.

    Every mask of the mixture is a box that moves from one place to another (its inside is hidden), after some first frames
    that are given whole. So all masks of a batch are drawn at once.
    """
    b, _, t, h, w = video.shape
    shares = torch.tensor(list(MIXTURE.values())).cumsum(0)
    task = torch.searchsorted(shares, torch.rand(b, generator=generator)).clamp(max=len(MIXTURE) - 1)  # on the host
    of = {name: task == number for number, name in enumerate(MIXTURE)}
    share = torch.rand(b, 8, generator=generator)
    size = torch.tensor([h, w])

    def draw(numbers: Tensor, low, high) -> Tensor:  # whole numbers from low to high
        return low + (numbers * (high - low + 1)).floor().clamp(max=high - low)

    given = torch.zeros(b)
    given[of["first frame"] | of["region"]] = 1
    given = torch.where(of["first frames"], draw(share[:, 7], 2, max(2, t // 2)), given)
    sides = torch.where((of["box"] | of["moving box"])[:, None], draw(share[:, :2], size // 4, 3 * size // 4), size)
    start, end = (draw(share[:, i : i + 2], torch.zeros(b, 2), size - sides) for i in (2, 4))
    end = torch.where(of["moving box"][:, None], end, start)
    half, axis = of["half"][:, None], (share[:, :1] < 0.5)
    along = torch.cat([axis, ~axis], dim=1)  # which of rows and columns are halved
    sides = torch.where(half & along, size // 2, sides)
    edge = torch.where(along & (share[:, 1:2] < 0.5), size - size // 2, 0)
    start, end = (torch.where(half, edge, place) for place in (start, end))
    boxes = torch.stack([start, start + sides, end, end + sides], dim=1).to(video.device)  # b 4 2, on the device
    region = extents(video, draw(share[:, 6], 1, max(1, h // 8)).to(video.device))  # b 2 2
    boxes = torch.where(of["region"].to(video.device)[:, None, None], torch.cat([region, region], dim=1), boxes)
    return moving_boxes(given.to(video.device), boxes, t, h, w), ~of["nothing"]
