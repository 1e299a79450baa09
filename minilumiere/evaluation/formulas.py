"""Six measures in the manner of VBench (Huang et al. 2024), exact here: the world is black, objects are told apart by colour.

| VBench asks                                              | here                                                            |
|---|---|
| subject consistency: DINO features of the frames         | the drawing itself, cut out around its centre: cosine            |
| temporal flickering: difference of frames that stand still | the ink of a frame against that of the next                     |
| motion smoothness: frames that a net interpolates        | the centre against the middle of the one before and the one after |
| dynamic degree: optical flow                             | does the centre move?                                           |
| multiple objects: a detector                             | on which share of the frames does each colour have its ink?      |
| background consistency: CLIP features of the frames      | brightness where no object is                                   |

All are means over the objects that a caption names. What a real clip scores is measured, not assumed: see `metrics`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from minilumiere.dataset.captions import COLOURS, parse_caption
from minilumiere.dataset.paths import CANVAS
from minilumiere.evaluation.judge import FAINT, centroids, colour_masses, crops
from minilumiere.torch_state import pinned

CROP_PIXELS = 28
AROUND = 12.0  # units: an object whose centre is farther away has no ink here
DYNAMIC = 0.25  # units a frame: the slowest motion of a caption has 0.45
FORMULAS = (
    "subject consistency",  # cosine
    "temporal flicker",  # share of a frame's ink
    "motion smoothness",  # units off the middle: the smaller, the smoother
    "dynamic degree",  # 0 or 1
    "multiple objects",  # share of the frames
    "background",  # mean brightness
)


@pinned()
@torch.no_grad()
def formulas(clip: Float[Tensor, "t 3 h w"], caption: str) -> dict[str, float]:
    """The six of a clip in [0, 1] of two frames or more; NaN for multiple objects where the caption names one."""
    objects = [list(COLOURS).index(subject.colour) for subject in parse_caption(caption)]
    masses = colour_masses(clip)[:, objects].unbind(1)  # each t h w
    centres = [centroids(mass)[0] for mass in masses]
    shapes = [crops(mass, centre, CROP_PIXELS).flatten(1) for mass, centre in zip(masses, centres, strict=True)]
    present = torch.stack([mass.sum((1, 2)) * (CANVAS / mass.shape[-1]) ** 2 >= FAINT for mass in masses])  # objects t
    values = (
        mean(subject_consistency(shape) for shape in shapes),
        temporal_flicker(clip),
        mean(unevenness(centre) for centre in centres),
        mean(float(centre.diff(dim=0).norm(dim=1).mean() > DYNAMIC) for centre in centres),
        float(present.all(0).float().mean()) if len(objects) > 1 else float("nan"),
        background(clip, centres),
    )
    return dict(zip(FORMULAS, values, strict=True))


def subject_consistency(shapes: Float[Tensor, "t d"]) -> float:
    """Mean over frames of the cosine with the first frame and of that with the frame before, halved (VBench, equation 1)."""
    shapes = F.normalize(shapes, dim=1)
    first, before = shapes[1:] @ shapes[0], (shapes[1:] * shapes[:-1]).sum(1)
    return float((first + before).mean() / 2)


def temporal_flicker(clip: Float[Tensor, "t 3 h w"]) -> float:
    """Mean change of a frame's ink from one to the next, relative to the mean ink. Motion alone changes no ink."""
    ink = clip.sum((1, 2, 3))
    return float(ink.diff().abs().mean() / ink.mean().clamp(min=1e-6))


def unevenness(centre: Float[Tensor, "t 2"]) -> float:
    """Mean distance, in units, of a centre from the middle between those before and after it; 0 for fewer than 3 frames."""
    off = centre[1:-1] - (centre[:-2] + centre[2:]) / 2
    return float(off.norm(dim=1).mean()) if len(off) else 0.0


def background(clip: Float[Tensor, "t 3 h w"], centres: list[Float[Tensor, "t 2"]]) -> float:
    """Mean brightness farther than `AROUND` from every centre; 0 where there is no such place."""
    h, w = clip.shape[-2:]
    y, x = ((torch.arange(length) + 0.5).to(clip) * CANVAS / length for length in (h, w))
    outside = torch.ones(len(clip), h, w, dtype=torch.bool, device=clip.device)
    for centre in centres:
        outside &= (x - centre[:, :1])[:, None].square() + (y - centre[:, 1:])[:, :, None].square() > AROUND**2
    return float((clip.amax(1) * outside).sum() / outside.sum().clamp(min=1))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)
