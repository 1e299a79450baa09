"""The path of sampling: what is noisy, what the net makes of it, and what its layers hold, step by step.

    z ─► STUNet ─► v ─► x̂ ─► next z        one `Step` for each: log-SNR, z, x̂, and every layer's output

`sampling_path` is the sampler of `Pipeline.generate`, with a notebook beside it; its last x̂ is that clip, bit for bit. A
`patch` puts other values into layers on the way (`patching`). Our choice. Used in notebook 10.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.config import Scale, smoke
from minilumiere.dataset.chance import noises_of_seeds
from minilumiere.model.appearance import image_shares, with_drawing, with_image_net
from minilumiere.model.diffusion import clean_and_noise, denoise_along, guided, schedule
from minilumiere.model.text import null_tokens, tokenise
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number, check_number_or_none
from minilumiere.viz.clips import new_figure
from minilumiere.viz.features import patch_features, record_features
from minilumiere.viz.layers import check_base, principal_rgb
from minilumiere.viz.panels import Panel, draw_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The step's number, z and its log-SNR -> what `patch_features` puts into the pass that hears the caption.
Patch = Callable[[int, Float[Tensor, "b 3 t h w"], Float[Tensor, " b"]], Mapping]


class Step(NamedTuple):
    """One step of sampling b clips."""

    log_snr: float
    noisy: Float[Tensor, "b 3 t h w"]  # z: in [-1, 1] but for the noise
    clean: Float[Tensor, "b 3 t h w"]  # x̂, in [-1, 1]
    features: dict[str, Tensor]  # of `record_features`, of the pass that hears the caption; empty unless asked for


@pinned()
@torch.no_grad()
def sampling_path(
    stunet: nn.Module,
    captions: list[str],
    seeds: list[int],
    scale: Scale,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    frames: int | None = None,
    layers: list[str] | None = None,
    patch: Patch | None = None,
) -> list[Step]:
    """Sample clips with a base STUNet; clip i is `Pipeline.generate(captions[i], seeds[i], super_resolution=False)`.

    `layers`: those to keep; None keeps all (9 MB a clip and step of `tiny`, 16 frames). Where the image net draws alone, they
    are as the video net would see the step. `steps`, `guidance` and `frames` are those of `Pipeline`, and default to the
    scale's. Two objects are sampled together, where the pipeline takes them apart. Raises `ValueError` or `TypeError` for a
    bad caption or number, or another model.
    """
    check_base(stunet)
    if not isinstance(captions, list | tuple) or not captions or len(seeds) != len(captions):
        raise ValueError(f"a list of captions and a seed for each are wanted, got {captions!r} and {seeds!r}")
    steps = check_number_or_none(steps, "steps", 1, 1000, int) or smoke(scale.steps)
    guidance = scale.guidance if guidance is None else check_number(guidance, "guidance", 0, 20)
    frames = scale.frames if frames is None else check_number(frames, "frames", 1, 10_000, int)
    device, size = next(stunet.parameters()).device, scale.size
    tokens, nothing = tokenise(list(captions)).to(device), null_tokens(len(captions)).to(device)
    seeds = [check_number(seed, "seed", 0, 2**60, int) for seed in seeds]
    streams = [noises_of_seeds((3, frames, size, size), 1, seed) for seed in seeds]
    noises = (torch.cat(each).to(device) for each in zip(*streams, strict=True))  # the first, then fresh ones
    path, seen = [], {}

    def hears(noisy: Tensor, log_snr: Tensor) -> Tensor:
        put = patch(len(path), noisy, log_snr) if patch else {}
        with patch_features(stunet, put), record_features(stunet) as features:
            v = stunet(noisy, log_snr, tokens if guidance > 0 else nothing)
        seen.update({name: value.float().cpu() for name, value in features.items() if layers is None or name in layers})
        return v

    both = guided(hears, lambda noisy, log_snr: stunet(noisy, log_snr, nothing), guidance) if guidance > 0 else hears
    drawn = with_image_net(both, stunet.t2i, tokens, image_shares(captions, guidance, scale), scale)

    def denoise(noisy: Tensor, log_snr: Tensor) -> Tensor:
        seen.clear()
        v = drawn(noisy, log_snr)
        if layers != [] and not seen:  # the image net draws alone: what the video net would have seen
            hears(noisy, log_snr)
        clean = clean_and_noise(noisy, v, log_snr)[0].clamp(-1, 1)
        path.append(Step(float(log_snr[0]), noisy.cpu(), clean.cpu(), dict(seen)))
        return v

    levels = with_drawing(schedule(steps, scale.shift_of(frames), tail=scale.tail))
    denoise_along(denoise, next(noises), levels, fresh=noises, **scale.sampler_of(frames))
    return path


def as_clips(x: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b t 3 h w"]:
    """[-1, 1] to clips in [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1).transpose(1, 2)


@pinned()
def render_step(path: list[Step], number: int, layer: str, clip: int = 0, frame: int = 0, row: int = 0) -> "Figure":
    """Draw one step: z, x̂ and a layer as RGB, of them `frame` and the slice x–t at `row`; below, x–t of x̂ at every step.

    `frame` and `row` are those of the clip. Raises `ValueError` or `TypeError` for an unknown layer or a number outside its
    range.
    """
    number = check_number(number, "number", 0, len(path) - 1, int)
    step = path[number]
    if layer not in step.features:
        raise ValueError(f"unknown layer {layer!r}: choose one of {', '.join(step.features)}")
    clip = check_number(clip, "clip", 0, len(step.noisy) - 1, int)
    _, frames, height, _ = step.noisy.shape[1:]
    frame, row = (
        check_number(value, name, 0, n - 1, int) for name, value, n in (("frame", frame, frames), ("row", row, height))
    )
    feature = principal_rgb(step.features[layer][clip])  # 3 t h w
    every, zoom = frames // feature.shape[1], height // feature.shape[2]
    figure = new_figure(7.7, 7.0, dpi=72, layout=None)
    room = {"left": 0.06, "bottom": 0.04, "right": 0.98, "top": 0.9, "wspace": 0.16, "hspace": 0.32}
    grid = figure.add_gridspec(3, 3, height_ratios=[1, 1, 0.62], **room)
    noisy, clean = (as_clips(part)[clip].permute(0, 2, 3, 1) for part in (step.noisy, step.clean))  # t h w 3
    draw_clip(grid, 0, "z", noisy, frame, row)
    draw_clip(grid, 1, "x̂", clean, frame, row)
    draw_clip(grid, 2, layer, feature.permute(1, 2, 3, 0), frame // every, row // zoom)
    slices = torch.stack([as_clips(each.clean)[clip].amax(2) for each in path])  # steps t 3 w: the brightest of all rows
    gap = torch.nn.functional.pad(slices, (0, 2), value=1.0)
    strip = rearrange(gap, "s t c w -> t (s w) c")[:, :-2]
    panel = Panel(grid[2, :], strip, "x–t of x̂ at every step (all rows), and its log-SNR", "", "← t")
    wide, (*_, bottom, top) = slices.shape[-1] + 2, panel.extent
    for i, each in enumerate(path):
        weight = "bold" if i == number else "normal"
        panel.text(i * wide + (wide - 3) / 2, bottom, f"{each.log_snr:.0f}", up=-4, va="top", weight=weight)
    left, right = number * wide - 0.5, (number + 1) * wide - 2.5
    panel.line([left, right, right, left, left], [bottom, bottom, top, top, bottom], color="#E69F00", linewidth=2)
    figure.suptitle(f"step {number} of {len(path)}, log-SNR {step.log_snr:+.1f}", fontsize=12)
    return figure


@pinned()
def plot_settling(log_snrs: list[float], shares: Mapping[str, list[tuple[float, float, float]]], n: int) -> "Figure":
    """Curves over the steps: of `n` clips, the share that reads as in the end; {what: (share, low, high) for each step}."""
    figure = new_figure(6.5, 3.2)
    axis = figure.subplots()
    for (name, rows), colour in zip(shares.items(), ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=False):
        share, low, high = torch.tensor(rows).T.numpy()
        axis.plot(range(len(share)), share, marker="o", color=colour, label=name)
        axis.fill_between(range(len(share)), low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xticks(range(len(log_snrs)), [f"{level:.0f}" for level in log_snrs])
    axis.set(xlabel="log-SNR of the step →", ylabel="reads as in the end", ylim=(0, 1.03), title=f"{n} clips, 95 % intervals")
    axis.legend(fontsize=9)
    return figure
