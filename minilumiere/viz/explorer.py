"""The feature explorer: six ways to look into the STUNet, a tab each, with controls that only draw.

    one clip         every layer at every noise level: a channel, RGB, slices x–t, temporal attention     (`layers`)
    two captions     the same noisy clip with another caption, and the difference                         (`compare`)
    sampling         both captions from one noise, step by step: z, x̂, and every layer                    (`path`)
    patching         one added block's output taken from the other caption's run                          (`patching`)
    correspondence   where a layer finds the object's points again, beside the truth                      (`correspondence`)
    words            which words the places of every frame look at                                        (`words`)

A tab computes what it shows once, when it is first opened; after that no control runs the net. Each picture is a plain
function of the module in brackets. Our choice. Used in notebook 10.
"""

import gc
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from minilumiere.config import get_scale, smoke
from minilumiere.dataset.captions import parse_caption
from minilumiere.model.diffusion import MAX_LOG_SNR
from minilumiere.validate import check_number
from minilumiere.viz.clips import to_png
from minilumiere.viz.compare import opposite, render_pair
from minilumiere.viz.correspondence import object_points, render_correspondence
from minilumiere.viz.features import named_layers
from minilumiere.viz.layers import Recording, record, render
from minilumiere.viz.patching import of_run, of_words, patched_clips, render_patched, without_image_guidance
from minilumiere.viz.path import as_clips, render_step, sampling_path
from minilumiere.viz.words import render_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG_SNRS = (6.0, 2.0, 0.0, -2.0, -4.0, -6.0)  # from hardly any noise to hardly any clip
PATCHED_STEPS = 6  # of sampling, in the tab of patches
FIRST_LAYER = "up.0.space-time"


def feature_explorer(
    stunet: nn.Module,
    video: Float[Tensor, "t 3 h w"],
    caption: str,
    log_snrs: tuple[float, ...] = LOG_SNRS,
    seed: int = 0,
    *,
    other: str | None = None,
    centre: Float[Tensor, "t 2"] | None = None,
    scale: str = "tiny",
):
    """Tabs of controls over what a base STUNet makes of a clip in [0, 1] of base size: an `ipywidgets.Tab` for Jupyter.

    Args: `caption` of the clip; noise levels `log_snrs`; `seed` of the noise; `other` caption to compare with (default: every
    motion turned round); `centre` (x, y) of the object on every frame, in units of 32 (of `sample_batch`; for a clip of 32
    pixels they are its pixels): without it there is no tab of correspondence; the `scale` whose net it is.

    Needs `pip install 'minilumiere[notebooks]'`, else `ImportError`; otherwise raises what `record` raises, and `ValueError`
    for a bad second caption or scale, or a centre of another shape.
    """
    try:
        import ipywidgets as widgets
    except ImportError as error:
        raise ImportError("feature_explorer needs the extra: pip install 'minilumiere[notebooks]'") from error
    if not isinstance(log_snrs, list | tuple) or not log_snrs:
        raise ValueError(f"log_snrs must be a list of at least one log-SNR, got {log_snrs!r}")
    log_snrs = tuple(check_number(level, "log_snrs", -MAX_LOG_SNR, MAX_LOG_SNR) for level in log_snrs)
    if other is not None:
        parse_caption(other)
    if centre is not None and not isinstance(centre, Tensor):
        raise TypeError(f"centre must be a torch.Tensor, (x, y) on every frame, not {type(centre).__name__}")
    if centre is not None and tuple(centre.shape) != (len(video), 2):
        raise ValueError(f"centre has shape {tuple(centre.shape)}; wanted {(len(video), 2)}: (x, y) on every frame")
    tabs = Tabs(widgets, stunet, video, caption, other, log_snrs, seed, scale)
    panels = {"one clip": tabs.one_clip, "two captions": tabs.two_captions, "sampling": tabs.sampling}
    panels |= {"patching": tabs.patching}
    if centre is not None:
        panels["correspondence"] = lambda: tabs.correspondence(centre)
    panels["words"] = tabs.words

    makers = list(panels.values())
    boxes = [widgets.VBox([widgets.Label("computing …")]) for _ in makers]
    made: set[int] = set()
    shown = widgets.Tab(boxes, titles=tuple(panels))

    def open_tab(change=None) -> None:
        number = shown.selected_index
        if number is not None and number not in made:
            made.add(number)
            boxes[number].children = makers[number]()

    shown.selected_index = 0
    open_tab()
    shown.observe(open_tab, "selected_index")
    return shown


class Tabs:
    """What the tabs show of one clip, computed when it is first asked for, and each tab's widgets."""

    def __init__(self, widgets, stunet, video, caption, other, log_snrs, seed, scale):
        self.widgets, self.stunet, self.video, self.log_snrs, self.seed = widgets, stunet, video, log_snrs, seed
        self.captions, self.scale = (caption, other or opposite(caption)), get_scale(scale)

    # What is computed

    def _record(self, caption: str) -> dict[float, Recording]:
        return {level: record(self.stunet, self.video, caption, level, self.seed) for level in self.log_snrs}

    @cached_property
    def recordings(self) -> dict[float, Recording]:
        return self._record(self.captions[0])

    @cached_property
    def others(self) -> dict[float, Recording]:
        return self._record(self.captions[1])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{layer: (c, t, h, w)}"""
        return {name: tuple(value.shape[1:]) for name, value in self.recordings[self.log_snrs[0]].features.items()}

    # The controls

    def _layer(self, names: list[str], first: str = FIRST_LAYER):
        first = first if first in names else names[-1]
        return self.widgets.Dropdown(options=names, value=first, description="layer")

    def _noise(self):
        levels = [(f"{level:+g}", level) for level in self.log_snrs]
        return self.widgets.SelectionSlider(options=levels, value=self.log_snrs[len(self.log_snrs) // 2], description="log-SNR")

    def _slider(self, name: str, length: int = 2):
        slider = self.widgets.IntSlider(0, 0, max(length - 1, 1), description=name)
        slider.disabled = length == 1
        return slider

    def _heads(self):
        count = self.stunet.middle_inflation[0].heads
        return self.widgets.Dropdown(options=[("all", None), *((str(i), i) for i in range(count))], description="head")

    def _panel(
        self, lines: list[list], draw: Callable[[], "Figure"], layer=None, lengths: Callable[[], dict] | None = None
    ) -> list:
        """Lines of controls over a picture. When `layer` changes, sliders take the lengths that `lengths` gives for it."""
        widgets = self.widgets
        picture = widgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        fitting = False

        def redraw(change=None) -> None:
            if not fitting:
                gc.disable()  # a figure ends as circular garbage: taken young, it makes no full collection (0.1 s) fall due
                try:
                    picture.value = to_png(draw())
                finally:
                    gc.enable()
                    gc.collect(0)

        def fit(change=None) -> None:
            """Give the sliders the ranges of the layer; each stays where it is, relative to its range. Then draw once."""
            nonlocal fitting
            fitting = True
            for slider, length in (lengths() if lengths else {}).items():
                share = slider.value / slider.max if change else 0.5
                slider.max = max(length - 1, 1)  # in the browser, a slider from 0 to 0 is an error
                slider.value, slider.disabled = round(share * (length - 1)), length == 1
            fitting = False
            redraw()

        fit()
        for control in (control for line in lines for control in line):
            control.observe(fit if control is layer else redraw, "value")
        return [*(widgets.HBox(line) for line in lines), picture]

    # The tabs

    def one_clip(self) -> list:
        layer, noise, head = self._layer(list(self.shapes)), self._noise(), self._heads()
        frame, channel, row = (self._slider(name) for name in ("frame t", "channel", "row y"))

        def lengths() -> dict:
            channels, frames, height, _ = self.shapes[layer.value]
            head.disabled = layer.value not in self.recordings[noise.value].attention
            return {frame: frames, channel: channels, row: height}

        def draw():
            return render(self.recordings[noise.value], layer.value, frame.value, channel.value, row.value, head.value)

        return self._panel([[layer, noise, head], [frame, channel, row]], draw, layer, lengths)

    def two_captions(self) -> list:
        layer, noise = self._layer(list(self.shapes), "up.1.space-time"), self._noise()
        frame, channel, row = (self._slider(name) for name in ("frame t", "channel", "row y"))
        pair = (self.recordings, self.others)

        def lengths() -> dict:
            channels, frames, height, _ = self.shapes[layer.value]
            return {frame: frames, channel: channels, row: height}

        def draw():
            one, other = (recorded[noise.value] for recorded in pair)
            return render_pair(one, other, self.captions, layer.value, frame.value, channel.value, row.value)

        return self._panel([[layer, noise], [frame, channel, row]], draw, layer, lengths)

    def sampling(self) -> list:
        frames = len(self.video)
        path = sampling_path(self.stunet, list(self.captions), [self.seed] * 2, self.scale, frames=frames)
        layer = self._layer(list(path[0].features), "up.1.space-time")
        clip = self.widgets.Dropdown(options=[(caption, i) for i, caption in enumerate(self.captions)], description="caption")
        step, frame, row = (
            self._slider(name, length)
            for name, length in (("step", len(path)), ("frame t", frames), ("row y", self.scale.size))
        )
        step.value, frame.value, row.value = len(path) // 2, frames // 2, self.scale.size // 2

        def draw():
            return render_step(path, step.value, layer.value, clip.value, frame.value, row.value)

        return self._panel([[layer, clip], [step, frame, row]], draw)

    def patching(self) -> list:
        names = [name for name in named_layers(self.stunet) if name.endswith(("space-time", "time-attention"))]
        scale, (one, other) = without_image_guidance(self.scale), self.captions
        options = {"steps": smoke(PATCHED_STEPS), "frames": len(self.video)}
        donor = sampling_path(self.stunet, [other], [self.seed], scale, layers=names, **options)
        patches = {("the other's run", name): of_run(donor, [name]) for name in names}
        patches |= {("the other's words", name): of_words(self.stunet, [other], [name]) for name in names}

        def sampled(patch=None) -> Tensor:
            return patched_clips(self.stunet, [one], [self.seed], scale, patch, **options)[0]

        own, theirs = sampled(), as_clips(donor[-1].clean)[0]
        clips = {key: sampled(patch) for key, patch in patches.items()}
        layer = self._layer(names, "middle.0.time-attention")
        source = self.widgets.Dropdown(options=["the other's run", "the other's words"], description="from")
        frame = self._slider("frame t", len(self.video))
        frame.value = len(self.video) // 2

        def draw():
            shown = {one: own, other: theirs, "patched": clips[source.value, layer.value]}
            return render_patched(shown, frame.value, f"{layer.value} from {source.value}", width=1.8)

        return self._panel([[layer, source, frame]], draw)

    def correspondence(self, centre: Tensor) -> list:
        layer, noise = self._layer(list(self.shapes), "up.1.space-time"), self._noise()
        frame, point = self._slider("frame t"), self._slider("point", len(object_points(self.video, centre)))

        def lengths() -> dict:
            return {frame: self.shapes[layer.value][1]}

        def draw():
            feature = self.recordings[noise.value].features[layer.value][0]
            return render_correspondence(self.video, feature, centre, layer.value, frame.value, point.value)

        return self._panel([[layer, noise], [frame, point]], draw, layer, lengths)

    def words(self) -> list:
        maps = {level: recording.words for level, recording in self.recordings.items()}
        names = list(maps[self.log_snrs[0]])
        layer, noise, head, row = self._layer(names, "up.1.space-time"), self._noise(), self._heads(), self._slider("row y")

        def lengths() -> dict:
            return {row: self.shapes[layer.value][2]}

        def draw():
            weights = maps[noise.value][layer.value][0]
            return render_words(weights, self.captions[0], layer.value, row.value, head.value)

        return self._panel([[layer, noise], [head, row]], draw, layer, lengths)
