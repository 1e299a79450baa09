"""Two captions, one noisy clip: where and from which layer on do the features part?

    distance = ‖one − other‖ / √(½ (‖one − its mean‖² + ‖other − its mean‖²))        means: of each channel, over t h w

0 where words have not reached, 1 where they change as much as a layer varies over the clip. Guidance multiplies the
difference of the last layer (with the empty caption as the other). Our choice. Used in notebook 10.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.dataset.captions import MOTIONS, format_caption, parse_caption
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number
from minilumiere.viz.clips import new_figure
from minilumiere.viz.layers import Recording, curves_over_layers, finish_curves, record
from minilumiere.viz.panels import draw_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# left: right, up: down, clockwise: anticlockwise, and back
OPPOSITE = dict(zip(MOTIONS[1:], (MOTIONS[i] for i in (2, 1, 4, 3, 6, 5)), strict=True))


def opposite(caption: str) -> str:
    """The caption with every motion turned round; what has none, or stands still, moves to the right.

    Raises what `parse_caption` raises.
    """
    turned = (replace(each, motion=OPPOSITE.get(each.motion, "moving right")) for each in parse_caption(caption))
    return format_caption(tuple(turned))


def distance(one: Float[Tensor, "... c t h w"], other: Float[Tensor, "... c t h w"]) -> float:
    """How far two feature maps are from each other, see above; 0 for two of the same."""
    varies = sum((x - x.mean((-3, -2, -1), keepdim=True)).square().mean() for x in (one, other)) / 2
    return float((one - other).square().mean().sqrt() / varies.sqrt().clamp(min=1e-12))


def parting(
    stunet: nn.Module,
    video: Float[Tensor, "t 3 h w"],
    captions: tuple[str, str],
    log_snrs: tuple[float, ...],
    seed: int = 0,
) -> dict[float, dict[str, float]]:
    """{log-SNR: {layer: distance}} of two captions on the same noisy clip. Raises what `record` raises."""
    table = {}
    for level in log_snrs:
        one, other = (record(stunet, video, caption, level, seed).features for caption in captions)
        table[level] = {layer: distance(one[layer], other[layer]) for layer in one}
    return table


@pinned()
def plot_parting(table: Mapping[float, Mapping[str, float]], title: str = "") -> "Figure":
    """A curve over the layers for each noise level. Layers that inflation added have orange names."""
    figure, axis = curves_over_layers(table)
    finish_curves(axis, list(next(iter(table.values()))), "distance of the two captions", title)
    return figure


@pinned()
def render_pair(
    one: Recording, other: Recording, captions: tuple[str, str], layer: str, frame: int = 0, channel: int = 0, row: int = 0
) -> "Figure":
    """Two recordings of one layer: `channel` of both on the same scale, its difference, and that of all channels (RMS).

    `frame` and `row` are the layer's. Raises `ValueError` or `TypeError` for an unknown layer or a number outside it.
    """
    if layer not in one.features:
        raise ValueError(f"unknown layer {layer!r}: choose one of {', '.join(one.features)}")
    a, b = one.features[layer][0], other.features[layer][0]  # c t h w
    frame, channel, row = (
        check_number(value, name, 0, n - 1, int)
        for value, name, n in ((frame, "frame", a.shape[1]), (channel, "channel", a.shape[0]), (row, "row", a.shape[2]))
    )
    figure = new_figure(10.2, 5.7, dpi=80, layout=None)
    grid = figure.add_gridspec(2, 4, left=0.05, bottom=0.07, right=0.98, top=0.82, wspace=0.2, hspace=0.32)
    low, high = (float(torch.stack([a[channel], b[channel]]).aminmax()[i]) for i in (0, 1))
    most = max(float((a - b)[channel].abs().max()), 1e-6)
    draw_clip(grid, 0, f"“{captions[0]}”", a[channel], frame, row, vmin=low, vmax=high)
    draw_clip(grid, 1, f"“{captions[1]}”", b[channel], frame, row, vmin=low, vmax=high)
    draw_clip(grid, 2, f"difference, ±{most:.2g}", (a - b)[channel], frame, row, cmap="RdBu_r", vmin=-most, vmax=most)
    draw_clip(grid, 3, "all channels, RMS", (a - b).square().mean(0).sqrt(), frame, row, cmap="cividis", vmin=0)
    figure.suptitle(f"{layer}, channel {channel}: the captions are {distance(a, b):.2f} apart", fontsize=12)
    return figure
