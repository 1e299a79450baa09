"""Where the places of every frame look among the words of the caption: cross-attention, recorded and drawn.

    with record_word_attention(model) as maps:
        model(noisy, log_snr, tokens)
    maps["middle.2.time-attention"]  # b heads t h w n: the share of each of n words in what a place of a frame reads

The image net reads words in its `image-attention` layers, the added layers in `time-attention` and, where the image net has
attention too, in `space-time` (see `features` for names). Our choice; as Hertz et al. 2022 show maps of an image net. Used in
notebook 10.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.torch_state import pinned
from minilumiere.validate import check_number
from minilumiere.viz.clips import new_figure
from minilumiere.viz.features import named_layers
from minilumiere.viz.panels import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {  # how a block lays out its places when it reads words
    "image-attention": "(b t) heads (h w) n -> b heads t h w n",
    "space-time": "b heads (t h w) n -> b heads t h w n",
    "time-attention": "b heads (h w t) n -> b heads t h w n",
}


@contextmanager
def record_word_attention(model: nn.Module) -> Iterator[dict[str, Float[Tensor, "b heads t h w n"]]]:
    """Within it, every call of a `UNet` or `STUNet` fills {layer: weights (b, heads, t, h, w, n = words)}.

    Over the words they sum to 1; padding has 0. The blocks never hold them (their attention is fused), so they are computed
    again, from queries and keys. Raises `TypeError` for another model.
    """
    maps: dict[str, Tensor] = {}
    parts: dict[str, Tensor] = {}  # of the block that runs: its query, and its key and value
    batch = 0

    def begin(module: nn.Module, args: tuple, options: dict) -> None:
        nonlocal batch
        batch = len(args[0] if args else options["noisy"])
        maps.clear()

    def keep(part: str, linear: nn.Module, args: tuple, output: Tensor) -> None:
        parts[part] = output.detach()

    def weigh(name: str, heads: int, block: nn.Module, args: tuple, output: Tensor) -> None:
        height, real = output.shape[-2], args[1].real
        weights = word_weights(parts["query"], parts["key_value"].chunk(2, dim=-1)[0], heads, real)
        maps[name] = rearrange(weights, AXES[name.rsplit(".")[-1]], b=batch, h=height, w=output.shape[-1])

    layers = named_layers(model)
    with ExitStack() as hooks:
        hooks.enter_context(model.register_forward_pre_hook(begin, with_kwargs=True))
        for name, block in layers.items():
            reader = block if name.endswith("image-attention") else getattr(block, "read", None)
            if reader is not None:
                hooks.enter_context(reader.query.register_forward_hook(partial(keep, "query")))
                hooks.enter_context(reader.key_value.register_forward_hook(partial(keep, "key_value")))
                hooks.enter_context(block.register_forward_hook(partial(weigh, name, reader.heads)))
        yield maps


def word_weights(query: Tensor, key: Tensor, heads: int, real: Tensor) -> Float[Tensor, "b heads places n"]:
    """softmax(q kᵀ / √d) over the words that are `real` (b n), of queries (b places c) and keys (b n c)."""
    query, key = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (query, key))
    logits = query @ key.mT / query.shape[-1] ** 0.5
    return logits.masked_fill(~real[:, None, None], -torch.inf).softmax(dim=-1)


@pinned()
def render_words(
    weights: Float[Tensor, "heads t h w n"], caption: str, layer: str = "", row: int = 0, head: int | None = None
) -> "Figure":
    """A line for each word: where on every frame it is looked at, and last its slice x–t at `row`. Of one `head`, or the mean.

    Dark is 0, bright the largest share of all. Raises `ValueError` or `TypeError` for a number outside the map.
    """
    heads, frames, height, width, _ = weights.shape
    head = None if head is None else check_number(head, "head", 0, heads - 1, int)
    row, words = check_number(row, "row", 0, height - 1, int), caption.split()
    chosen = (weights.mean(0) if head is None else weights[head])[..., : len(words)]  # t h w words
    largest, gap = chosen.max().item(), max(1, width // 8)
    apart = torch.nn.functional.pad(chosen.permute(3, 1, 0, 2), (0, gap, 0, 0, 0, gap), value=torch.nan)  # words h+ t w+
    picture = rearrange(apart, "n h t w -> (n h) (t w)")[:-gap, :-gap]
    tall = 0.65 * len(words) + 1.2
    figure = new_figure(9.5, tall, dpi=80, layout=None)
    room = {"left": 0.16, "bottom": 0.55 / tall, "right": 0.98, "top": 1 - 0.65 / tall, "wspace": 0.08}
    grid = figure.add_gridspec(1, 2, width_ratios=[4, 1], **room)
    limits = {"cmap": "cividis", "vmin": 0, "vmax": largest}
    panel = Panel(grid[0], picture, **limits)
    left, right, bottom, _ = panel.extent
    for number, (word, share) in enumerate(zip(words, chosen.mean((0, 1, 2)), strict=True)):
        middle = number * (height + gap) + (height - 1) / 2
        panel.text(left, middle, f"{word} {share:.2f}", right=-4, ha="right", va="center")
    for number in range(0, frames, max(1, frames // 8)):
        panel.text(number * (width + gap) + (width - 1) / 2, bottom, f"{number}", up=-4, va="top")
    sides = "t → (each an image: x →, ← y); beside a word its mean share"
    panel.text((left + right) / 2, bottom, sides, up=-18, va="top")
    over_time = torch.nn.functional.pad(chosen[:, row].permute(2, 0, 1), (0, 0, 0, 1), value=torch.nan)  # words t+ w
    slices = rearrange(over_time, "n t w -> (n t) w")[:-1]
    Panel(grid[1], slices, f"x–t at y = {row}", "x →", "← t, for each word", **limits)
    whose = "mean of heads" if head is None else f"head {head}"
    figure.suptitle(f"{layer}: share of each word ({whose}; brightest {largest:.2f})", fontsize=12)
    return figure
