"""Look inside the nets: every block's output, and where temporal attention looks.

    with record_features(model) as features:
        model(noisy, log_snr, tokens)
    features["down.0.space-time"]  # b c t h w

Layers, in the order in which they run (0 is the finest level; * were added by inflation, the others are the image net's):

    stem, given*
    down.0.   image, image-attention, space-time*, halve-space, halve-time*         down.1. the same
    middle.0. image, time-attention*    middle.1. image-attention, time-attention*    middle.2. image, time-attention*
    up.1.     double-space, double-time*, image, image-attention, space-time*       up.0. the same
    head, output

A net has those of its configuration: an image net none with *, super-resolution halves no time. `output` is the predicted
v in pixels. Recording is observation only: forward hooks, which are gone when the `with` ends. Our choice; no paper asks
for it. Used in notebook 10.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from minilumiere.model.temporal import rotate

ADDED = ("given", "space-time", "time-attention", "halve-time", "double-time")  # by inflation: so the names of layers end


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a `UNet` or a `STUNet` by name, in the order in which they run. Raises `TypeError` for another model."""
    image = getattr(model, "t2i", model)  # a STUNet holds the image net that it was inflated from
    if not hasattr(image, "down_blocks"):
        raise TypeError(f"features are those of a UNet or a STUNet, not of {type(model).__name__}")
    inflated, halvings = image is not model, getattr(model, "halvings", 0)
    levels, layers = range(len(image.downsamples)), {"stem": image.stem}
    if inflated and model.given is not None:
        layers["given"] = model.given
    for level in levels:
        layers[f"down.{level}.image"] = image.down_blocks[level]
        layers[f"down.{level}.image-attention"] = image.down_attention[level]
        if inflated:
            layers[f"down.{level}.space-time"] = model.down_inflation[level]
        layers[f"down.{level}.halve-space"] = image.downsamples[level]
        if level < halvings:
            layers[f"down.{level}.halve-time"] = model.temporal_downs[level]
    for number, block in enumerate((image.middle_in, image.middle_attention, image.middle_out)):
        layers[f"middle.{number}.image-attention" if number == 1 else f"middle.{number}.image"] = block
        if inflated:
            layers[f"middle.{number}.time-attention"] = model.middle_inflation[number]
    for level in reversed(levels):
        layers[f"up.{level}.double-space"] = image.upsamples[level]
        if level < halvings:
            layers[f"up.{level}.double-time"] = model.temporal_ups[level]
        layers[f"up.{level}.image"] = image.up_blocks[level]
        layers[f"up.{level}.image-attention"] = image.up_attention[level]
        if inflated:
            layers[f"up.{level}.space-time"] = model.up_inflation[level]
    layers |= {"head": image.head, "output": model}
    return {name: layer for name, layer in layers.items() if any(True for _ in layer.parameters())}  # not `Nothing`


def is_added(layer: str) -> bool:
    """Was the layer of this name added by inflation? If not, it is the image net's, frozen."""
    return layer.rsplit(".")[-1] in ADDED


@contextmanager
def record_features(model: nn.Module) -> Iterator[dict[str, Float[Tensor, "b c t h w"]]]:
    """Within it, every call of a `UNet` or `STUNet` fills {layer: its output (b, c, t, h, w), detached}, in running order.

    t, h and w are those of the layer: a STUNet halves all three on its way down; of an image net t is 1. The next call
    replaces what the last one left. Outputs of the model do not change. Raises `TypeError` for another model.
    """
    features: dict[str, Tensor] = {}
    batch = 0

    def begin(module: nn.Module, args: tuple, options: dict) -> None:
        nonlocal batch
        batch = len(args[0] if args else options["noisy"])
        features.clear()

    def keep(name: str, module: nn.Module, args: tuple, output: Tensor) -> None:
        output = output.detach()
        features[name] = output if output.dim() == 5 else rearrange(output, "(b t) c h w -> b c t h w", b=batch)

    layers = named_layers(model)
    with ExitStack() as hooks:  # a hook's handle is a context manager that removes it
        hooks.enter_context(model.register_forward_pre_hook(begin, with_kwargs=True))
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(keep, name)))
        yield features


@contextmanager
def patch_features(
    model: nn.Module, values: Mapping[str, Tensor | Callable[[Float[Tensor, "b c t h w"]], Tensor]]
) -> Iterator[None]:
    """Within it, the outputs of some layers of a `UNet` or `STUNet` are replaced: {layer: value (b, c, t, h, w)}.

    A value may be a function from the layer's own output to what takes its place; `part_of` makes one that replaces some
    frames or a region only. Of the layers, see above. Causal tracing of language models does the same (Meng et al. 2022,
    "activation patching"). Raises `ValueError` for a layer that there is not, and for a value of another shape when the model
    is called; `TypeError` for another model, values that are no mapping or a value that is no tensor.
    """
    layers = named_layers(model)
    if not isinstance(values, Mapping):
        raise TypeError(f"give a mapping from layers to values, not {values!r}")
    if unknown := sorted(set(values) - set(layers)):
        raise ValueError(f"there is no layer {unknown[0]!r}: choose among {', '.join(layers)}")
    batch = 0

    def begin(module: nn.Module, args: tuple, options: dict) -> None:
        nonlocal batch
        batch = len(args[0] if args else options["noisy"])

    def replace(name: str, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        own = output if output.dim() == 5 else rearrange(output, "(b t) c h w -> b c t h w", b=batch)
        value = values[name](own) if callable(values[name]) else values[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"layer {name}: wanted a tensor in its place, got {value!r}")
        if value.shape != own.shape:
            raise ValueError(f"layer {name} gives {tuple(own.shape)}; the value in its place has shape {tuple(value.shape)}")
        value = value.to(output)
        return value if output.dim() == 5 else rearrange(value, "b c t h w -> (b t) c h w")

    with ExitStack() as hooks:
        hooks.enter_context(model.register_forward_pre_hook(begin, with_kwargs=True))
        for name in values:
            hooks.enter_context(layers[name].register_forward_hook(partial(replace, name)))
        yield


def part_of(
    value: Float[Tensor, "b c t h w"], frames: list[int] | None = None, region: Tensor | None = None
) -> Callable[[Float[Tensor, "b c t h w"]], Tensor]:
    """For `patch_features`: a function that puts `value` on some `frames` of the layer, in a `region`, and else keeps its own.

    `frames`: their numbers, of the layer's own count (default: all). `region`: (H, W), 1 or True where `value` goes (default:
    everywhere), at any resolution; a place of the layer belongs to it if at least half of the place does. Raises `ValueError`
    for a frame that the layer does not have, or a region that is no (H, W), when the model is called.
    """

    def put(own: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        count, height, width = own.shape[2:]
        chosen = list(range(count)) if frames is None else list(frames)
        if any(not 0 <= frame < count for frame in chosen):
            raise ValueError(f"the layer has frames 0 to {count - 1}; asked for {chosen}")
        inside = torch.zeros(count, height, width, dtype=torch.bool, device=own.device)
        inside[chosen] = True
        if region is not None:
            if region.dim() != 2:
                raise ValueError(f"a region has shape (H, W), not {tuple(region.shape)}")
            share = F.adaptive_avg_pool2d(region[None].to(own), (height, width))
            inside &= share >= 0.5
        return torch.where(inside, value.to(own), own)

    return put


@contextmanager
def record_temporal_attention(model: nn.Module) -> Iterator[dict[str, Float[Tensor, "b heads t s h w"]]]:
    """Within it, every call of a `STUNet` fills {layer: weights (b, heads, t of the query, s = t of the key, h, w)}.

    The layers are those whose names end in `time-attention`. Over the frames of the key the weights sum to 1. The block
    never holds them (its attention is fused), so they are computed again, from its queries and keys.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, heads: int, qkv: nn.Module, args: tuple, output: Float[Tensor, "n t c"]) -> None:
        maps[name] = attention_weights(output.detach(), heads)  # (b h w) heads t s

    def place(name: str, block: nn.Module, args: tuple, output: Float[Tensor, "b c t h w"]) -> None:
        b, _, _, height, _ = output.shape
        maps[name] = rearrange(maps[name], "(b h w) heads t s -> b heads t s h w", b=b, h=height)

    with ExitStack() as hooks:
        for name, block in named_layers(model).items():
            if name.endswith("time-attention"):
                hooks.enter_context(block.qkv.register_forward_hook(partial(keep, name, block.heads)))
                hooks.enter_context(block.register_forward_hook(partial(place, name)))
        yield maps


def attention_weights(qkv: Float[Tensor, "n t c"], heads: int) -> Float[Tensor, "n heads t s"]:
    """softmax(q kᵀ / √d) of `TemporalAttention`'s queries, keys and values (a third of `c` each), after rotary positions."""
    query, key, _ = qkv.chunk(3, dim=-1)
    query, key = (rearrange(rotate(x, heads), "n t (heads d) -> n heads t d", heads=heads) for x in (query, key))
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
