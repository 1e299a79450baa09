"""The Fréchet distance between two sets of feature vectors, as if both were Gaussian; and what a toy one compares.

    d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)                                  (Dowson and Landau 1982)

FVD (Unterthiner et al. 2018) takes the features of a net that has learnt to name what happens in videos; so do we, of a small
one that names the words of the caption (stage `video-features`). FVMD (Liu et al. 2024) takes velocities and accelerations
of tracked points; so do we, of the centre of the heaviest object. **Neither value compares with a published one**: net, data,
frames, resolution and number of clips are others. The fewer the clips, the larger the distance, of the same kind of clips, too.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.config import get_scale
from minilumiere.evaluation.judge import centroids, colour_masses
from minilumiere.torch_state import pinned
from minilumiere.weights.nets import trained

CLIPS_AT_ONCE = 32
DIRECTIONS = 8  # bins of a histogram; the first is about "to the right"


@pinned()
def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """d² of two sets of feature vectors, two of each at least, in double precision. Raises `ValueError` for fewer."""
    if min(len(a), len(b)) < 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"two or more vectors of as many features are wanted, got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    return gaussian_distance(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """d² of two Gaussians: means (f), covariances (f f)."""
    cov_a, cov_b = torch.atleast_2d(cov_a), torch.atleast_2d(cov_b)
    root = square_root(cov_a)
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(0.0, float(distance))  # but for rounding it is never less


def square_root(matrix: Float[Tensor, "f f"]) -> Float[Tensor, "f f"]:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


@cache
def feature_net() -> nn.Sequential:
    """The shipped reader of words (of scale `tiny`) without its last layer, which names them. Raises what `trained` raises."""
    return trained("video-features", get_scale("tiny"))[:-1].eval()


@pinned()
@torch.no_grad()
def video_features(clips: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n f"]:
    """Features of clips in [0, 1], which are averaged down to the base size first. Raises `ValueError` for another size."""
    size, factor = get_scale("tiny").size, clips.shape[-1] // get_scale("tiny").size
    if clips.shape[-2:] != (size * factor, size * factor) or not factor:
        raise ValueError(f"clips of {size}x{size} pixels, or of a multiple, are wanted, got {tuple(clips.shape)}")
    net = feature_net()
    parts = clips.transpose(1, 2).split(CLIPS_AT_ONCE)  # n 3 t h w
    return torch.cat([net(F.avg_pool3d(part, (1, factor, factor)).cpu() * 2 - 1) for part in parts])


def motion_features(centre: Float[Tensor, "t 2"]) -> Float[Tensor, " 16"]:
    """Histograms of the directions of velocity and of acceleration, weighted by length, in units a frame: of one path."""
    velocity = centre.diff(dim=0)
    return torch.cat([directions(velocity), directions(velocity.diff(dim=0))])


def directions(vectors: Float[Tensor, "t 2"]) -> Float[Tensor, " 8"]:
    """The mean length that points into each eighth of the circle."""
    turn = torch.atan2(vectors[:, 1], vectors[:, 0]) / (2 * math.pi) * DIRECTIONS
    which = turn.round().long() % DIRECTIONS
    return vectors.new_zeros(DIRECTIONS).index_add_(0, which, vectors.norm(dim=1)) / max(1, len(vectors))


@pinned()
def heaviest_path(clip: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 2"]:
    """The centre, in units of the canvas, of the colour of which there is most."""
    masses = colour_masses(clip)
    return centroids(masses[:, masses.sum((0, 2, 3)).argmax()])[0]
