"""The masks of training are those that users make, as often as the mixture says."""

import pytest
import torch

from minilumiere.model.conditioning import (
    HALVES,
    changing_region,
    first_frames,
    hidden_box,
    hidden_half,
    outside_region,
)
from minilumiere.training.masks import MIXTURE, random_masks


def moving_dots(n: int, frames: int = 8, size: int = 16) -> torch.Tensor:
    """Clips, in [0, 1], in which a pixel moves about, another one for each clip."""
    video = torch.zeros(n, 3, frames, size, size)
    for number, clip in enumerate(video):
        for frame in range(frames):
            clip[:, frame, (3 + number + frame // 2) % size, (5 * number + frame) % size] = 1
    return video


def kind_of(mask: torch.Tensor, clip: torch.Tensor) -> str:
    """Which entry of the `MIXTURE` a mask (t 1 h w) is, made again by the function that users call."""
    t, _, h, w = mask.shape
    if torch.equal(mask, first_frames(t, h, w, 0)):
        return "nothing"
    if torch.equal(mask, first_frames(t, h, w)):
        return "first frame"
    if any(torch.equal(mask, first_frames(t, h, w, given)) for given in range(2, t // 2 + 1)):
        return "first frames"
    if any(torch.equal(mask, hidden_half(t, h, w, half)) for half in HALVES):
        return "half"
    if any(torch.equal(mask, outside_region(changing_region(clip, margin), t)) for margin in range(1, h // 8 + 1)):
        return "region"
    (top, left), (bottom, right) = ((mask[0, 0] == 0).nonzero().amin(0).tolist(), (mask[0, 0] == 0).nonzero().amax(0).tolist())
    end = (mask[-1, 0] == 0).nonzero().amin(0).tolist()
    sides = bottom + 1 - top, right + 1 - left
    assert all(h // 4 <= side <= 3 * h // 4 for side in sides)
    assert torch.equal(mask, hidden_box(t, h, w, sides, (top, left), tuple(end)))
    return "box" if end == [top, left] else "moving box"


def test_training_masks_are_the_masks_that_users_make_as_often_as_the_mixture_says():
    assert sum(MIXTURE.values()) == pytest.approx(1)
    n, clips = 4800, moving_dots(8)
    masks, gives = random_masks(clips.repeat(n // 8, 1, 1, 1, 1), torch.Generator().manual_seed(0))
    assert masks.shape == (n, 1, 8, 16, 16) and gives.shape == (n,) and gives.device.type == "cpu"
    kinds = [kind_of(mask.transpose(0, 1), clips[i % 8]) for i, mask in enumerate(masks)]
    for kind, share in MIXTURE.items():
        found = kinds.count(kind) / n
        # Four standard deviations. Of the moving boxes some end where they began: less than one of fifty.
        assert abs(found - share) < 4 * (share * (1 - share) / n) ** 0.5 + 0.002 * ("box" in kind), f"{kind}: {found:.3f}"
    assert gives.tolist() == [kind != "nothing" for kind in kinds]
    assert torch.equal(gives, masks.flatten(1).amax(1) == 1)

    def of(kind: str) -> torch.Tensor:
        return masks[torch.tensor([found == kind for found in kinds]), 0]

    assert len(of("first frames").unique(dim=0)) == 3, "two, three or four of eight"
    assert len(of("half").unique(dim=0)) == 4
    assert len(of("region").unique(dim=0)) == 8 * 2, "two margins of each clip"
    for kind in ("box", "moving box"):
        hidden = 1 - of(kind)[:, 0]
        sides = torch.stack([hidden.amax(axis).sum(1) for axis in (2, 1)], 1)
        assert sides.unique().tolist() == list(range(4, 13)), "each side from a quarter to three quarters"
    some = torch.cat([of("box"), of("moving box")])
    assert ((1 - some).amax(0) == 1).all(), "everywhere, at times, on any frame"


def test_a_region_of_a_clip_in_which_nothing_moves_hides_nothing():
    generator = torch.Generator().manual_seed(0)
    masks, gives = random_masks(torch.zeros(200, 3, 4, 16, 16), generator)
    everything = masks.flatten(1).amin(1) == 1
    assert everything.any() and gives[everything].all()
    share = MIXTURE["region"]
    assert abs(float(everything.float().mean()) - share) < 4 * (share * (1 - share) / 200) ** 0.5
