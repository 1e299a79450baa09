"""What every layer of a STUNet makes of a noisy clip: recorded in one pass, and drawn.

    top      frame t of          the noisy clip    one channel    all channels as RGB    attention: each frame to each
    bottom   row y over time of      the clip      one channel    all channels as RGB    attention of frame t along row y

RGB are the three principal components of the channels (as Tumanyan et al. 2023 show features of a diffusion model; the rest
is our choice). Used in notebook 10; with sliders over it: `explorer`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.model.diffusion import MAX_LOG_SNR, add_noise
from minilumiere.model.stunet import STUNet
from minilumiere.model.text import tokenise
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number, check_video
from minilumiere.viz.clips import new_figure
from minilumiere.viz.features import is_added, record_features, record_temporal_attention
from minilumiere.viz.panels import Panel, draw_clip
from minilumiere.viz.words import record_word_attention

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

LOG_SNRS = (6.0, 2.0, 0.0, -2.0, -4.0, -6.0)  # from hardly any noise to hardly any clip


class Recording(NamedTuple):
    """What one pass of a STUNet leaves behind."""

    noisy: Float[Tensor, "3 t h w"]  # what the net saw, in [-1, 1] but for the noise
    features: dict[str, Tensor]  # of `record_features`
    attention: dict[str, Tensor]  # of `record_temporal_attention`
    words: dict[str, Tensor]  # of `record_word_attention`


def check_base(stunet: nn.Module) -> None:
    """Raise `TypeError` unless it is a base STUNet: super-resolution wants a second clip."""
    if not isinstance(stunet, STUNet) or stunet.t2i.config.in_channels != 3:
        raise TypeError(f"the explorer shows a base STUNet, not this {type(stunet).__name__}")


@pinned()
@torch.no_grad()
def record(stunet: nn.Module, video: Float[Tensor, "t 3 h w"], caption: str, log_snr: float = 0.0, seed: int = 0) -> Recording:
    """Add noise to a clip in [0, 1] of the base size, and run a base STUNet on it once.

    Raises `ValueError` for a bad clip, caption or number, `TypeError` for another model.
    """
    check_base(stunet)
    size = stunet.t2i.size
    video, seed = check_video(video, "video", (None, 3, size, size)), check_number(seed, "seed", 0, 2**60, int)
    device = next(stunet.parameters()).device
    clean = (video * 2 - 1).transpose(0, 1)[None]  # 1 3 t h w
    level = torch.tensor([float(check_number(log_snr, "log_snr", -MAX_LOG_SNR, MAX_LOG_SNR))])
    noisy = add_noise(clean.cpu(), torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)), level)
    with (
        record_features(stunet) as features,
        record_temporal_attention(stunet) as times,
        record_word_attention(stunet) as words,
    ):
        stunet(noisy.to(device), level.to(device), tokenise([caption]).to(device))
    on_cpu = ({name: value.float().cpu() for name, value in recorded.items()} for recorded in (features, times, words))
    return Recording(noisy[0], *on_cpu)


@pinned()
def principal_rgb(feature: Float[Tensor, "c t h w"]) -> Float[Tensor, "3 t h w"]:
    """The three principal components of the channels, each from its 1st to its 99th percentile as [0, 1].

    A component's sign is arbitrary; here its skewness is positive: few places (an object) are bright, most are dark.
    """
    points = feature.flatten(1) - feature.flatten(1).mean(1, keepdim=True)  # c (t h w)
    _, directions = torch.linalg.eigh(points.double() @ points.T.double())  # the largest come last
    components = directions.T.flip(0)[:3].to(points) @ points  # 3 (t h w)
    components = components * torch.where(components.pow(3).sum(1, keepdim=True) < 0, -1, 1)
    low, high = components.quantile(torch.tensor([0.01, 0.99]).to(points), dim=1)[..., None]
    rgb = ((components - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return rgb.reshape(-1, *feature.shape[1:])


@pinned()
def render(
    recording: Recording, layer: str, frame: int = 0, channel: int = 0, row: int = 0, head: int | None = None
) -> "Figure":
    """Draw a layer: `frame` (its own count), `channel`, `row`, and of the attention one `head`, or the mean of all.

    Raises `ValueError` naming the choices for an unknown layer, `ValueError` or `TypeError` for a number outside the layer.
    """
    if layer not in recording.features:
        raise ValueError(f"unknown layer {layer!r}: choose one of {', '.join(recording.features)}")
    feature = recording.features[layer][0]  # c t h w
    channels, frames, height, width = feature.shape
    frame, channel, row = (
        check_number(number, name, 0, length - 1, int)
        for name, number, length in (("frame", frame, frames), ("channel", channel, channels), ("row", row, height))
    )

    weights = recording.attention.get(layer)  # 1 heads t s h w, or None
    columns = 3 if weights is None else 4
    figure = new_figure(2.5 * columns + 0.2, 5.7, dpi=80, layout=None)
    left, right = 0.5 / figure.get_figwidth(), 1 - 0.2 / figure.get_figwidth()
    grid = figure.add_gridspec(2, columns, left=left, bottom=0.07, right=right, top=0.86, wspace=0.2, hspace=0.32)

    noisy = ((recording.noisy + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0)  # T H W 3
    every, zoom = len(noisy) // frames, noisy.shape[1] // height  # frames, and rows, of the clip to one of the layer
    draw_clip(grid, 0, "noisy clip", noisy, frame * every, row * zoom + zoom // 2)
    one = feature[channel]
    draw_clip(grid, 1, f"channel {channel}", one, frame, row, vmin=one.min().item(), vmax=one.max().item())
    draw_clip(grid, 2, "channels as RGB", principal_rgb(feature).permute(1, 2, 3, 0), frame, row)
    if weights is not None:
        _draw_attention(grid, weights[0], frame, row, head)
    origin = "the predicted v" if layer == "output" else "added by inflation" if is_added(layer) else "of the image net"
    figure.suptitle(f"{layer}  ({origin}; {channels} channels, {frames} frames of {height}×{width})", fontsize=12)
    return figure


def curves_over_layers(table: Mapping[float, Mapping[str, float]]) -> tuple["Figure", "Axes"]:
    """A figure with a curve over the layers for each noise level, to be finished by `finish_curves`."""
    from matplotlib import colormaps

    figure = new_figure(8, 3.6)
    axis = figure.subplots()
    for number, (level, values) in enumerate(table.items()):
        colour = colormaps["cividis"](0.95 - 0.95 * number / max(1, len(table) - 1))
        axis.plot(range(len(values)), list(values.values()), marker=".", color=colour, label=f"{level:+g}")
    return figure, axis


def finish_curves(axis: "Axes", layers: list[str], ylabel: str, title: str) -> None:
    """Names of the layers, orange where inflation added them, and a legend: once all curves are drawn."""
    axis.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=8)
    for label, layer in zip(axis.get_xticklabels(), layers, strict=True):
        label.set_color("C1" if is_added(layer) else "black")
    axis.set(ylabel=ylabel, ylim=(0, None), title=title)
    axis.legend(title="log-SNR", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_attention(grid: "GridSpec", weights: Float[Tensor, "heads t s h w"], frame: int, row: int, head: int | None) -> None:
    """Above: every frame to every frame, the mean over places. Below: where the places of `row` look from `frame`."""
    head = None if head is None else check_number(head, "head", 0, len(weights) - 1, int)
    chosen = weights.mean(0) if head is None else weights[head]  # t s h w
    every, some = chosen.mean((2, 3)), chosen[frame, :, row]
    colours = {"cmap": "cividis", "vmin": 0, "vmax": max(every.max().item(), some.max().item())}
    name = "attention, mean of heads" if head is None else f"attention, head {head}"
    Panel(grid[0, 3], every, name, "looked at: t →", "← looking: t", **colours)
    Panel(grid[1, 3], some, f"y = {row}, from t = {frame} (max {colours['vmax']:.2f})", "x →", "← looked at: t", **colours)
