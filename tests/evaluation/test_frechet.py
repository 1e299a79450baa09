"""The Fréchet distance is that of known Gaussians; its features tell what they should."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset.moving_digits import sample_batch
from minilumiere.evaluation.frechet import (
    directions,
    feature_net,
    frechet_distance,
    gaussian_distance,
    heaviest_path,
    motion_features,
    square_root,
    video_features,
)

vectors = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=6)


def rotation(n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(0, 1000))
def test_gaussians_of_known_axes_have_the_distance_of_the_formula(rows, seed):
    """Σ (m₁ − m₂)² + (s₁ − s₂)², in any rotated frame: the closed form for covariances that commute."""
    m1, m2, s1, s2 = torch.tensor(rows, dtype=torch.float64).T
    turn = rotation(len(rows), seed)
    wanted = float(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum())
    covariances = [turn @ torch.diag(s**2) @ turn.T for s in (s1, s2)]
    found = gaussian_distance(turn @ m1, covariances[0], turn @ m2, covariances[1])
    assert found == pytest.approx(wanted, abs=1e-5 * (1 + float(s1.max() * s2.max()) * 100))


def test_gaussians_whose_covariances_do_not_commute():
    """In two dimensions tr √M = √(tr M + 2 √det M), for M = Σ₁ Σ₂."""
    a, b = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    product = a @ b
    overlap = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    zero = torch.zeros(2).double()
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(float(a.trace() + b.trace()) - 2 * overlap)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_a_root_squared_is_the_matrix(seed, n):
    values = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = rotation(n, seed) @ torch.diag(values) @ rotation(n, seed).T
    assert torch.allclose(square_root(matrix) @ square_root(matrix), matrix, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(2, 30))
def test_it_is_a_distance(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, 5, generator=generator), torch.randn(m, 5, generator=generator) * 2 + 1
    assert frechet_distance(a, a) < 1e-6, "also with fewer vectors than features"
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(a, b) > 0
    assert frechet_distance(a, a + 3) == pytest.approx(5 * 9, rel=1e-4), "a shift alone: its length squared"


@pytest.mark.parametrize(("a", "b"), [((1, 3), (4, 3)), ((4, 3), (4, 2)), ((0, 3), (4, 3))])
def test_what_has_no_covariance_is_refused(a, b):
    with pytest.raises(ValueError, match="two or more vectors"):
        frechet_distance(torch.zeros(a), torch.zeros(b))


def test_few_of_the_same_kind_are_farther_away_than_many():
    """Why the number of clips belongs beside every value."""
    generator = torch.Generator().manual_seed(0)
    real, few, many = (torch.randn(n, 16, generator=generator) for n in (400, 20, 400))
    assert frechet_distance(few, real) > 5 * frechet_distance(many, real)


def test_directions_are_lengths_by_eighths_of_the_circle():
    assert directions(torch.tensor([[2.0, 0.0], [2.0, 0.2]]))[0] == pytest.approx(2.005, abs=1e-3)
    wanted = torch.zeros(8)
    wanted[2], wanted[4] = 0.5, 1.5  # down (y points down), left
    assert torch.allclose(directions(torch.tensor([[0.0, 1.0], [-3.0, 0.0]])), wanted)


def test_motion_features_are_of_velocity_and_acceleration():
    steady = torch.stack([torch.arange(6.0), torch.zeros(6)], dim=1)
    assert torch.allclose(motion_features(steady), torch.eye(16)[0]), "one unit a frame to the right, no acceleration"
    falling = torch.stack([torch.zeros(6), torch.arange(6.0).square()], dim=1)
    features = motion_features(falling)
    assert features[2] == pytest.approx(5) and features[8 + 2] == pytest.approx(2) and features.count_nonzero() == 2


def test_the_heaviest_path_is_that_of_the_larger_object():
    clip = torch.zeros(4, 3, 32, 32)
    for t in range(4):
        clip[t, 2, 4:6, 20:22] = 1  # blue, small, resting
        clip[t, 0, 10:20, 2 + t : 12 + t] = 1  # red, large, moving to the right
    assert torch.allclose(heaviest_path(clip), torch.tensor([[7.0 + t, 15.0] for t in range(4)]))


# The shipped net


def test_the_net_sees_what_a_clip_shows():
    """Beside a caption's words, its own clip has the higher logits: colour by colour, motion by motion."""
    from minilumiere.config import get_scale
    from minilumiere.model.text import VOCABULARY
    from minilumiere.weights import trained

    net = trained("video-features", get_scale("tiny")).eval()
    words = ("red", "cyan", "left", "up", "standing", "clockwise")
    captions = ["a red 3 moving left", "a cyan 3 moving up", "a white 3 standing still", "a blue 3 circling clockwise"]
    batch = sample_batch(48, captions=captions * 12, seed=2**41)
    with torch.no_grad():
        logits = net(batch.video.transpose(1, 2) * 2 - 1)[:, [VOCABULARY[word] - 2 for word in words]]
    said = torch.tensor([[word in caption.split() for word in words] for caption in batch.captions])
    assert ((logits > 0) == said).float().mean() > 0.9
    features = video_features(batch.video)
    assert torch.allclose(
        trained("video-features", get_scale("tiny")).eval()[-1](features), net(batch.video.transpose(1, 2) * 2 - 1), atol=1e-4
    )


def test_features_are_of_any_length_and_of_larger_clips_the_same():
    small = sample_batch(3, seed=2**41, frames=12).video
    large = sample_batch(3, seed=2**41, frames=12, size=64).video
    assert torch.allclose(video_features(small), video_features(large), atol=1e-3), "averaged down, they are the same clips"
    assert video_features(sample_batch(2, seed=1, frames=80).video).shape == (2, 64)
    assert not feature_net().training
    with pytest.raises(ValueError, match="32x32 pixels, or of a multiple"):
        video_features(torch.zeros(1, 4, 3, 48, 48))
