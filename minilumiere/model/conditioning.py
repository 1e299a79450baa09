"""Masked conditioning: some pixels of a clip are given, and the net generates the rest around them.

    ⟨J, C, M⟩ = noisy clip (3 channels), given pixels (3, zero where none are), mask (1)     M = 1 given, 0 to generate

    task             C                           M
    text-to-video    nothing                     0
    image-to-video   the image, then nothing     1 on frame 0
    inpainting       the clip                    as the user says
    cinemagraph      the image on every frame    1 on frame 0, and on every frame outside the animated region

Lumiere, section 4. The first convolution grows from 3 input channels to 7. The new channels start at zero (our choice),
so that the extended net is the base net until it is fine-tuned (stage `conditioned`). There, all that inflation added
and the new channels train, and the spatial layers stay frozen: one image net serves every model, and a style can take its
place. Which masks it is trained on: `training.masks`. Built in notebook 09.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

HALVES = ("top", "left", "bottom", "right")


def first_frames(frames: int, height: int, width: int, given: int = 1) -> Float[Tensor, "t 1 h w"]:
    """The mask of image-to-video: the first `given` frames are known.

    >>> print(picture(first_frames(4, 2, 4)))
    ####  ....  ....  ....
    ####  ....  ....  ....
    """
    mask = torch.zeros(frames, 1, height, width)
    mask[:given] = 1
    return mask


def hidden_box(
    frames: int, height: int, width: int, sides: tuple[int, int], start: tuple[int, int], end: tuple[int, int] | None = None
) -> Float[Tensor, "t 1 h w"]:
    """A mask for inpainting: all is known but a box of `sides` pixels, whose corner goes from `start` to `end` (rows, columns).

    >>> print(picture(hidden_box(4, 2, 4, sides=(2, 2), start=(0, 0), end=(0, 2))))
    ..##  #..#  #..#  ##..
    ..##  #..#  #..#  ##..
    """
    corners = torch.tensor([start, end or start]).float()  # 2 2
    boxes = torch.stack([corners, corners + torch.tensor(sides)], dim=1).flatten(0, 1)  # 4 2
    return moving_boxes(torch.zeros(1), boxes[None], frames, height, width)[0].transpose(0, 1)


def hidden_half(frames: int, height: int, width: int, half: str) -> Float[Tensor, "t 1 h w"]:
    """A mask for inpainting: one of the `HALVES` of every frame is hidden.

    >>> print(picture(hidden_half(2, 2, 4, "right")))
    ##..  ##..
    ##..  ##..
    """
    sides = (height // 2, width) if half in ("top", "bottom") else (height, width // 2)
    start = (0, 0) if half in ("top", "left") else (height - sides[0], width - sides[1])
    return hidden_box(frames, height, width, sides, start)


def outside_region(region: Float[Tensor, "*n 1 h w"], frames: int) -> Float[Tensor, "*n t 1 h w"]:
    """The mask of a cinemagraph: frame 0 is known, and later what lies outside the `region` (1 = animated).

    >>> region = torch.tensor([[[0., 0, 0, 0], [0, 1, 1, 0]]])
    >>> print(picture(outside_region(region, 3)))
    ####  ####  ####
    ####  #..#  #..#
    """
    mask = (1 - region).unsqueeze(-4).repeat_interleave(frames, dim=-4)
    mask[..., 0, :, :, :] = 1
    return mask


def still_clip(
    image: Float[Tensor, "*n 3 h w"], region: Float[Tensor, "*n 1 h w"], frames: int
) -> tuple[Float[Tensor, "*n t 3 h w"], Float[Tensor, "*n t 1 h w"]]:
    """What a cinemagraph is given: the image on every frame, and the mask `outside_region`. All animated: image-to-video."""
    mask = outside_region(region, frames)
    return image.unsqueeze(-4).expand(*mask.shape[:-3], 3, -1, -1), mask


def picture(mask: Float[Tensor, "t 1 h w"]) -> str:
    """A small mask as text, its frames side by side: `#` given, `.` to generate."""
    rows = mask[:, 0].transpose(0, 1).int().tolist()  # h t w
    return "\n".join("  ".join("".join(".#"[pixel] for pixel in line) for line in row) for row in rows)


def given_pixels(video: Float[Tensor, "b 3 t h w"], mask: Float[Tensor, "b 1 t h w"]) -> Float[Tensor, "b 4 t h w"]:
    """C and M, as `STUNet` takes them: the pixels of a video in [-1, 1] where the mask is 1, 0 elsewhere; and the mask."""
    return torch.cat([video * mask, mask], dim=1)


def shrink(
    video: Float[Tensor, "b 3 t H W"], mask: Float[Tensor, "b 1 t H W"], size: int
) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b 1 t h w"]]:
    """Both at the base resolution: area averages, and known where all pixels averaged are known."""
    factor = (1, video.shape[-2] // size, video.shape[-1] // size)
    return F.avg_pool3d(video, factor), -F.max_pool3d(-mask, factor)


def with_averages(
    large: Float[Tensor, "b 3 t H W"], small: Float[Tensor, "b 3 t h w"], mask: Float[Tensor, "b 1 t h w"]
) -> Float[Tensor, "b 3 t H W"]:
    """A clip in [0, 1] changed so that its area averages are those of a smaller one (or one of its size) where the mask is 1.

        x m̂ / m   where the average m is too high,     1 − (1 − x) (1 − m̂) / (1 − m)   where it is too low

    Exact, within [0, 1], and no more than needed: black stays black, white stays white, and where m = m̂ nothing changes.
    """
    factor = large.shape[-1] // small.shape[-1]
    if factor == 1:
        return torch.where(mask == 1, small, large)
    mean, small = F.avg_pool3d(large, (1, factor, factor)), small.clamp(0, 1)
    down = (small / mean.clamp(min=1e-12)).clamp(max=1)  # 0/0: there is nothing to scale
    up = ((1 - small) / (1 - mean).clamp(min=1e-12)).clamp(max=1)
    down, up = (torch.where(mask == 1, x, 1).repeat_interleave(factor, -1).repeat_interleave(factor, -2) for x in (down, up))
    return torch.where(up < 1, 1 - (1 - large) * up, large * down)


def moving_boxes(
    given: Float[Tensor, " b"], boxes: Float[Tensor, "b 4 2"], frames: int, height: int, width: int
) -> Float[Tensor, "b 1 t h w"]:
    """Masks that give the first `given` frames whole, and hide a box on the others.

    `boxes`: its first corner and its last one (rows and columns, exclusive), on the first frame and on the last frame.
    """
    share = torch.linspace(0, 1, frames, device=boxes.device)[:, None]  # t 1
    sides = boxes[:, 1::2] - boxes[:, ::2]  # b 2 2
    low, side = (torch.lerp(ends[:, :1], ends[:, 1:], share).round() for ends in (boxes[:, ::2], sides))  # b t 2
    high = low + side
    inside = []
    for axis, length in enumerate((height, width)):
        place = torch.arange(length, device=boxes.device)
        inside.append((place >= low[..., axis, None]) & (place < high[..., axis, None]))  # b t length
    hidden = inside[0][..., :, None] & inside[1][..., None, :]  # b t h w
    whole = torch.arange(frames, device=boxes.device) < given[:, None]  # b t
    return (whole[..., None, None] | ~hidden).float()[:, None]


def extents(video: Float[Tensor, "b 3 t h w"], margin: Float[Tensor, " b"], threshold: float = 0.05) -> Float[Tensor, "b 2 2"]:
    """Corners of the smallest box that holds all that changes in each clip, and a margin; an empty box if nothing does."""
    change = (video - video[:, :, :1]).abs().amax((1, 2)) > threshold  # b h w
    margin = margin * change.flatten(1).any(1)
    first, last = [], []
    for axis in (2, 1):  # rows, columns
        some = change.any(axis)  # b length
        place = torch.arange(some.shape[1], device=video.device)
        first.append(torch.where(some, place, some.shape[1]).amin(1))
        last.append(torch.where(some, place + 1, -some.shape[1]).amax(1))
    return torch.stack([torch.stack(first, 1) - margin[:, None], torch.stack(last, 1) + margin[:, None]], dim=1).float()


def changing_region(clip: Float[Tensor, "3 t h w"], margin: int = 1, threshold: float = 0.05) -> Float[Tensor, "1 h w"]:
    """The smallest box that holds all that changes in a clip, and a margin: 1 inside; 0 everywhere if nothing does."""
    box = extents(clip[None], torch.tensor([margin], device=clip.device), threshold)
    nothing = torch.zeros(1, device=clip.device)
    return 1 - moving_boxes(nothing, torch.cat([box, box], dim=1), 1, *clip.shape[2:])[0, :, 0]
