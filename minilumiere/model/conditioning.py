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
place. A good quarter of the clips have nothing given, so that the one net still is the text-to-video model. The paper
does not disclose its masks: the mixture below is our choice. Built in notebook 09.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

# What is given in training, and how often.
MIXTURE = {"nothing": 0.3, "first frame": 0.25, "first frames": 0.1, "half": 0.1, "box": 0.05, "moving box": 0.1, "region": 0.1}
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
    mask = torch.ones(frames, 1, height, width)
    start, end = torch.tensor([start, end or start])
    for frame, share in zip(mask, torch.linspace(0, 1, frames), strict=True):
        top, left = torch.lerp(start.float(), end.float(), share).round().int().tolist()
        frame[:, max(top, 0) : top + sides[0], max(left, 0) : left + sides[1]] = 0
    return mask


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


def random_masks(video: Float[Tensor, "b 3 t h w"], generator: torch.Generator) -> Float[Tensor, "b 1 t h w"]:
    """A mask for each training clip, drawn from the `MIXTURE`."""
    return torch.stack([_random_mask(clip, generator).transpose(0, 1) for clip in video])


def _random_mask(clip: Float[Tensor, "3 t h w"], generator: torch.Generator) -> Float[Tensor, "t 1 h w"]:
    _, t, h, w = clip.shape

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    task = list(MIXTURE)[int(torch.multinomial(torch.tensor(list(MIXTURE.values())), 1, generator=generator))]
    if task == "nothing":
        mask = first_frames(t, h, w, 0)
    elif task == "first frame":
        mask = first_frames(t, h, w)
    elif task == "first frames":
        mask = first_frames(t, h, w, draw(2, max(2, t // 2)))
    elif task == "half":
        mask = hidden_half(t, h, w, HALVES[draw(0, 1) + 2 * draw(0, 1)])
    elif task == "region":
        mask = outside_region(changing_region(clip, draw(1, h // 8)), t)
    else:
        sides = draw(h // 4, 3 * h // 4), draw(w // 4, 3 * w // 4)
        start, end = [(draw(0, h - sides[0]), draw(0, w - sides[1])) for _ in range(2)]
        mask = hidden_box(t, h, w, sides, start, end if task == "moving box" else None)
    return mask.to(clip.device)


def changing_region(clip: Float[Tensor, "3 t h w"], margin: int = 1, threshold: float = 0.05) -> Float[Tensor, "1 h w"]:
    """The smallest box that holds all that changes in a clip, and a margin: 1 inside; 0 everywhere if nothing does."""
    change = (clip - clip[:, :1]).abs().amax((0, 1)) > threshold  # h w
    region = torch.zeros(1, *change.shape)
    if change.any():
        (top, bottom), (left, right) = extent(change)
        region[:, max(top - margin, 0) : bottom + margin + 1, max(left - margin, 0) : right + margin + 1] = 1
    return region


def extent(where: Bool[Tensor, "h w"]) -> list[tuple[int, int]]:
    """First and last row, first and last column, of what is true somewhere."""
    places = (where.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return [(int(place[0]), int(place[-1])) for place in places]
