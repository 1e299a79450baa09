"""Following points by features, against exact tracks."""

import pytest
import torch
from matplotlib.lines import Line2D

import minilumiere as ml
from minilumiere.viz.correspondence import (
    at_rate,
    coarse_error,
    correspondence,
    follow,
    object_points,
    place_of,
    plot_correspondence,
    render_correspondence,
    track_error,
    true_track,
)

CAPTION = "a red 3 moving left quickly"  # 15 frames of 2 units: it meets the wall


@pytest.fixture(scope="module")
def batch():
    return ml.sample_batch(1, captions=[CAPTION], seed=0)


def test_truth_against_truth_has_no_error(batch):
    centre = batch.objects[0][0].centres
    points = object_points(batch.video[0], centre)
    truth = true_track(points, centre)
    assert truth.shape == (len(points), 16, 2) and torch.equal(truth[:, 0], points)
    assert track_error(truth, truth) == 0 and track_error(truth + torch.tensor([3.0, 4.0]), truth) == pytest.approx(5.0)
    assert truth[..., 0].diff(dim=1).max() > 0 > truth[..., 0].diff(dim=1).min()  # there, and back from the wall


def test_the_true_track_stays_on_the_object(batch):
    """Drawn pixels, not formulas: where the points of frame 0 have gone, the clip is bright, and elsewhere it is not."""
    video, centre = batch.video[0], batch.objects[0][0].centres
    points = object_points(video, centre)
    truth = true_track(points, centre)
    x, y = place_of(truth, 32, 32).unbind(-1)  # n t
    time = torch.arange(16)
    there, stayed = video.amax(1)[time, y, x], video.amax(1)[time, y[:, :1].expand_as(y), x[:, :1].expand_as(x)]
    assert there.mean() > 0.6 and (there.mean(0)[2:8] > stayed.mean(0)[2:8] + 0.3).all()
    assert (points - centre[0]).norm(dim=1).max() <= 10 and len(points) > 15


def whole_places(frames: int = 8, side: int = 8):
    """Features that name each place of a pattern, which moves by whole places to the right and up; points, and their truth."""
    torch.manual_seed(0)
    pattern = torch.randn(32, side, side)
    moves = [(-(frame // 2), frame % 5) for frame in range(frames)]  # rows, columns
    feature = torch.stack([pattern.roll(move, dims=(1, 2)) for move in moves], dim=1)  # c t h w
    points = torch.tensor([[9.0, 25.0], [5.0, 29.5], [13.9, 20.1]])  # x, y
    step = 32 / side
    truth = torch.stack([points + step * torch.tensor([column, row]) for row, column in moves], dim=1)
    return feature, points, truth


def test_features_that_name_their_places_are_followed_exactly():
    feature, points, truth = whole_places()
    assert torch.equal(follow(feature, points), truth)
    assert track_error(follow(feature + 100 * torch.randn(32, 1, 1, 1), points), truth) == 0  # what all places share: no matter
    assert track_error(follow(torch.randn_like(feature), points), truth) > 4  # and noise is not followed
    assert coarse_error(truth, 8, 8) == 0 and 0 < coarse_error(truth, 4, 4) <= 8 / 2**0.5


def test_a_place_is_where_a_point_lies():
    points = torch.tensor([[0.0, 0.0], [31.99, 8.0], [-1.0, 40.0], [7.9, 8.1]])
    assert place_of(points, 4, 4).tolist() == [[0, 0], [3, 1], [0, 3], [0, 1]]


def test_a_layer_of_fewer_frames_is_asked_about_those(batch):
    truth = true_track(torch.zeros(1, 2), batch.objects[0][0].centres)
    assert torch.equal(at_rate(truth, 4), truth[:, [0, 4, 8, 12]]) and torch.equal(at_rate(truth, 16), truth)


def test_errors_are_means_over_clips_for_every_layer_and_level(stunet, batch):
    clip = (batch.video[0], CAPTION, batch.objects[0][0].centres)
    errors, coarse, still = correspondence(stunet, [clip], (6.0, -6.0))
    twice, *_ = correspondence(stunet, [clip, clip], (6.0,))
    assert list(errors) == [6.0, -6.0] and set(errors[6.0]) == set(coarse) >= {"stem", "middle.0.image", "output"}
    assert coarse["output"] < coarse["stem"] < coarse["middle.0.image"] < still
    assert all(0 <= coarse[layer] <= error + 1e-6 for level in errors for layer, error in errors[level].items())
    again, *_ = correspondence(stunet, [clip], (6.0,), seed=1)  # the second clip's noise
    for layer, error in twice[6.0].items():
        assert error == pytest.approx((errors[6.0][layer] + again[6.0][layer]) / 2)
    lines = plot_correspondence(errors, coarse, still).axes[0].lines
    assert lines[0].get_ydata().tolist() == list(errors[6.0].values()) and lines[2].get_ydata().tolist() == list(
        coarse.values()
    )


def test_the_picture_has_the_points_the_truth_and_what_is_found(batch, pictures):
    video, centre = batch.video[0], batch.objects[0][0].centres
    points = object_points(video, centre)
    feature = video.transpose(0, 1)  # pixels as features: c t h w
    figure = render_correspondence(video, feature, centre, "pixels", frame=4, point=2)
    truth, found = true_track(points, centre), follow(feature, points)
    errors = (found - truth).norm(dim=-1).mean(0)
    expected = [points, points[2:3], truth[:, 4], found[:, 4], truth[2:3, 4]]
    expected += [torch.stack([torch.arange(16), errors], dim=1), torch.tensor([[4, errors[4]]])]
    drawn = [torch.as_tensor(line.get_xydata()).float() for line in figure.findobj(Line2D)]
    assert len(drawn) == len(expected) and all(torch.allclose(*each) for each in zip(drawn, expected, strict=True))
    start, later, *_ = pictures(figure)
    assert torch.equal(start, video[0].permute(1, 2, 0)) and torch.equal(later, video[4].permute(1, 2, 0))
    assert f"error {track_error(found, truth):.1f}" in figure.get_suptitle()
    with pytest.raises(ValueError, match="point must be from 0"):
        render_correspondence(video, feature, centre, point=len(points))
