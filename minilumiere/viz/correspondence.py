"""Correspondence: does a layer know which place of a later frame shows what a place of frame 0 shows? The truth is known.

    place p on frame 0 ─► its features ─► nearest place on frame t (cosine similarity) ─► p + how far that is ─► error

Digits move without turning, so the true track of a point is the point plus how far the object's centre has come: exact, also
where walls reflect. DiffTrack (Nam et al. 2025, 2506.17220) asks the same of large video models, with a tracker in place of
the truth. Features are compared without their mean over the clip, of each channel, which all places share. Distances are in
units of the canvas, of which there are 32. Our choice. Used in notebook 10.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.dataset.paths import CANVAS
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number
from minilumiere.viz.clips import new_figure
from minilumiere.viz.layers import curves_over_layers, finish_curves, record
from minilumiere.viz.panels import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = 0.5  # brightness: a pixel of frame 0 that is brighter is a point of the object


def object_points(video: Float[Tensor, "t 3 h w"], centre: Float[Tensor, "t 2"], reach: float = 10.0) -> Float[Tensor, "n 2"]:
    """The points (x, y), in units, of the object on frame 0: bright pixels no farther than `reach` from its centre."""
    y, x = (video[0].amax(0) > INK).nonzero().unbind(1)
    points = (torch.stack([x, y], dim=1) + 0.5) * CANVAS / video.shape[-1]
    return points[(points - centre[0]).norm(dim=1) <= reach]


def true_track(points: Float[Tensor, "n 2"], centre: Float[Tensor, "t 2"]) -> Float[Tensor, "n t 2"]:
    """Where the points of frame 0 are on each frame, given the object's centre in units."""
    return points[:, None] + (centre - centre[0])


def place_of(points: Float[Tensor, "n *t 2"], height: int, width: int) -> Int[Tensor, "n *t 2"]:
    """The column and row of the place that a point lies in."""
    size = torch.tensor([width, height])
    return (points / CANVAS * size).floor().long().clamp(min=torch.zeros(2, dtype=torch.long), max=size - 1)


@pinned()
def similarities(feature: Float[Tensor, "c t h w"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n t h w"]:
    """Cosine similarity of what is at each point on frame 0 to what is at every place of every frame."""
    centred = F.normalize(feature - feature.mean((1, 2, 3), keepdim=True), dim=0)
    column, row = place_of(points, *feature.shape[2:]).unbind(-1)
    return torch.einsum("cn,cthw->nthw", centred[:, 0, row, column], centred)


@pinned()
def follow(feature: Float[Tensor, "c t h w"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n t 2"]:
    """Where a layer says that the points of frame 0 are on each of its frames: each moves as far as its nearest place is."""
    height, width = feature.shape[2:]
    best = similarities(feature, points).flatten(2).argmax(-1)  # n t
    found = torch.stack([best % width, best // width], dim=-1)  # n t 2: column, row
    return points[:, None] + (found - place_of(points, height, width)[:, None]) * CANVAS / torch.tensor([width, height])


def track_error(found: Float[Tensor, "n t 2"], truth: Float[Tensor, "n t 2"]) -> float:
    """Mean distance in units, over all points and all frames but the first."""
    return float((found - truth)[:, 1:].norm(dim=-1).mean())


def at_rate(truth: Float[Tensor, "n t 2"], frames: int) -> Float[Tensor, "n t' 2"]:
    """The truth on the frames that a layer has: of 16, a layer of 4 has 0, 4, 8 and 12."""
    return truth[:, :: truth.shape[1] // frames]


def coarse_error(truth: Float[Tensor, "n t 2"], height: int, width: int) -> float:
    """The least error that a layer can have: points move by whole places only."""
    side = CANVAS / torch.tensor([width, height])
    return track_error(truth[:, :1] + ((truth - truth[:, :1]) / side).round() * side, truth)


@pinned()
def correspondence(
    stunet: nn.Module,
    clips: list[tuple[Float[Tensor, "t 3 h w"], str, Float[Tensor, "t 2"]]],
    log_snrs: tuple[float, ...],
    seed: int = 0,
) -> tuple[dict[float, dict[str, float]], dict[str, float], float]:
    """The mean error over `clips` (video, caption of one object, its centre in units), in units.

    Returns {log-SNR: {layer: error}}; {layer: the least that it can be}, see `coarse_error`; and the error of never moving.
    Noise of clip i is drawn from `seed` + i. Raises what `record` raises.
    """
    errors: dict[float, dict[str, list[float]]] = {level: {} for level in log_snrs}
    coarse: dict[str, list[float]] = {}
    still = []
    for number, (video, caption, centre) in enumerate(clips):
        points = object_points(video, centre)
        truth = true_track(points, centre)
        still.append(track_error(points[:, None].expand_as(truth), truth))
        for level in log_snrs:
            for layer, feature in record(stunet, video, caption, level, seed + number).features.items():
                there = at_rate(truth, feature.shape[2])
                errors[level].setdefault(layer, []).append(track_error(follow(feature[0], points), there))
                if level == log_snrs[0]:
                    coarse.setdefault(layer, []).append(coarse_error(there, *feature.shape[3:]))

    def mean(values: Mapping[str, list[float]]) -> dict[str, float]:
        return {layer: sum(each) / len(each) for layer, each in values.items()}

    return {level: mean(values) for level, values in errors.items()}, mean(coarse), sum(still) / len(still)


@pinned()
def plot_correspondence(
    errors: Mapping[float, Mapping[str, float]], coarse: Mapping[str, float], still: float, title: str = ""
) -> "Figure":
    """A curve over the layers for each noise level, between the least that whole places allow and never moving."""
    figure, axis = curves_over_layers({level: {layer: values[layer] for layer in coarse} for level, values in errors.items()})
    axis.plot(range(len(coarse)), list(coarse.values()), color="0.6", linestyle=":", label="least possible")
    axis.axhline(still, color="C3", linestyle="--", linewidth=1, label="never moving")
    finish_curves(axis, list(coarse), "error, in units of 32", title)
    return figure


@pinned()
def render_correspondence(
    video: Float[Tensor, "t 3 h w"],
    feature: Float[Tensor, "c t h w"],
    centre: Float[Tensor, "t 2"],
    layer: str = "",
    frame: int = 0,
    point: int = 0,
) -> "Figure":
    """Frame 0 with its points; frame `frame` of the layer with where they are and where they are found; what one `point` is
    similar to there; the error over time. Raises `ValueError` or `TypeError` for a number outside its range.
    """
    points = object_points(video, centre)
    truth = at_rate(true_track(points, centre), feature.shape[1])
    frame = check_number(frame, "frame", 0, feature.shape[1] - 1, int)
    point = check_number(point, "point", 0, len(points) - 1, int)
    found, every = follow(feature, points), len(video) // feature.shape[1]
    figure = new_figure(10.2, 3.2, dpi=80, layout=None)
    grid = figure.add_gridspec(1, 4, left=0.03, bottom=0.15, right=0.99, top=0.78, wspace=0.2)
    extent = (0, CANVAS, CANVAS, 0)
    start = Panel(grid[0], video[0].permute(1, 2, 0), "clip, t = 0", "x →", "← y", extent=extent)
    later = Panel(grid[1], video[frame * every].permute(1, 2, 0), f"clip, t = {frame * every}", "x →", extent=extent)
    alike = similarities(feature, points[point : point + 1])[0, frame]
    similar = Panel(grid[2], alike, f"similar to the ring, max {alike.max():.2f}", "x →", cmap="cividis", extent=extent)
    dots = {"color": "white", "marker": ".", "markersize": 3, "linestyle": "none"}
    ring = {"color": "#E69F00", "marker": "o", "markersize": 9, "fillstyle": "none"}
    start.line(*points.T, **dots)
    start.line(*points[point, :, None], **ring)
    later.line(*truth[:, frame].T, **dots)
    later.line(*found[:, frame].T, color="#E69F00", marker="x", markersize=4, linestyle="none")
    similar.line(*truth[point, frame, :, None], **ring)
    errors = (found - truth).norm(dim=-1).mean(0)
    top = max(8.0, float(errors.max()) * 1.05)
    white = torch.ones(1, 1, 3)
    curve = Panel(grid[3], white, "error over t, in units of 32", extent=(0, len(video), 0, top))
    curve.line(torch.arange(len(errors)) * every, errors, color="#0072B2")
    curve.line([frame * every], errors[frame, None], color="#0072B2", marker="o")
    for value in range(0, int(top) + 1, round(top / 4)):
        curve.text(0, value, f"{value}", right=-4, ha="right", va="center")
    for value in range(0, len(video) + 1, max(1, len(video) // 4)):
        curve.text(value, 0, f"{value}", up=-4, va="top")
    curve.text(len(video) / 2, 0, "t →", up=-16, va="top")
    figure.suptitle(f"{layer}: white where the points are, orange where they are found; error {track_error(found, truth):.1f}")
    return figure
