"""Draw the two SVGs of the documentation: `python docs/drawings.py` writes `cascade_vs_lumiere.svg` and `stunet.svg`.

Plain shapes and generic fonts on a light background of their own, so that they can be read on white and on dark pages.
The shapes in `stunet.svg` are computed from the preset `tiny`.
"""

from math import cos, pi
from pathlib import Path

from minilumiere.config import get_scale

HERE = Path(__file__).parent
INK, GREY, PAPER = "#1f2328", "#6e7781", "#fbfbf8"
# Fill, stroke; told apart by colour-blind readers too.
FROZEN, TRAINED = ("#d3e5f4", "#0072B2"), ("#fbdfae", "#c67c00")
CASCADE, ONE_PASS = ("#e7e9ec", "#6e7781"), ("#d2efe5", "#009E73")


class Drawing:
    """A list of SVG elements."""

    def __init__(self, width: int, height: int, title: str):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x: float, y: float, words: str, size: float = 15, anchor: str = "middle", colour: str = INK, bold=False):
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{words}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, fill="none", stroke=INK, thick=1.5, round_=4, dash=""):
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{thick:g}"{dashed}/>'
        )

    def line(self, *points: tuple[float, float], colour=INK, thick=1.5, arrow=False, dash=""):
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = ' marker-end="url(#head)"' if arrow else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick:g}"{head}{dashed}/>')

    def circle(self, x: float, y: float, radius: float, fill: str):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}"/>')

    def save(self, name: str) -> None:
        body = "\n".join(self.parts)
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>'
        )
        (HERE / name).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="Helvetica, Arial, sans-serif" role="img">\n<title>{self.title}</title>\n{head}\n'
            f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{PAPER}"/>\n{body}\n</svg>\n'
        )


# Cascade against one pass

FRAMES, PERIOD = 16, 5
LEFT, PITCH, SIDE = 214, 48, 42


def height_of(frame: int) -> float:
    """Of a ball that goes up and down once in `PERIOD` frames: 0 at the top, 1 at the bottom."""
    return (1 - cos(2 * pi * frame / PERIOD)) / 2


def strip(drawing: Drawing, y: float, ball, colour: tuple[str, str], shown=range(FRAMES), fine: bool = False) -> None:
    """A row of frames; those not `shown` are dashed. `ball`: the height of the ball at a frame."""
    fill, stroke = colour
    for frame in range(FRAMES):
        x = LEFT + PITCH * frame
        if frame not in shown:
            drawing.box(x, y, SIDE, SIDE, stroke="#b5bbc2", thick=1.2, dash="4 3")
            continue
        drawing.box(x, y, SIDE, SIDE, fill, stroke)
        if fine:
            for share in (0.25, 0.5, 0.75):
                drawing.line((x + SIDE * share, y), (x + SIDE * share, y + SIDE), colour=stroke, thick=0.4)
                drawing.line((x, y + SIDE * share), (x + SIDE, y + SIDE * share), colour=stroke, thick=0.4)
        drawing.circle(x + SIDE / 2, y + 8 + (SIDE - 16) * ball(frame), 5, INK)


def windows(drawing: Drawing, y: float, spans: list[tuple[int, int]]) -> None:
    """A bracket under the frames first to last of each span, in two rows by turns, so that overlaps can be seen."""
    for number, (first, last) in enumerate(spans):
        low = y + 9 * (number % 2)
        left, right = LEFT + PITCH * first + 2, LEFT + PITCH * last + SIDE - 2
        drawing.line((left, low - 5), (left, low), (right, low), (right, low - 5), colour=INK, thick=2)


def label(drawing: Drawing, y: float, name: str, *lines: str) -> None:
    drawing.text(18, y, name, 16, "start", bold=True)
    for number, words in enumerate(lines):
        drawing.text(18, y + 19 + 17 * number, words, 13.5, "start", GREY)


def cascade_vs_lumiere() -> None:
    drawing = Drawing(1000, 680, "A cascade of keyframes, temporal and spatial super-resolution against Lumiere's one pass")
    rest = lambda frame: 0.0  # noqa: E731

    drawing.text(18, 34, "Cascade: keyframes first, the frames between them later", 20, "start", bold=True)
    label(drawing, 72, "1  Base", "keyframes only:", "every 5th frame")
    strip(drawing, 56, height_of, CASCADE, shown=range(0, FRAMES, 5))
    label(drawing, 152, "2  TSR", "temporal super-resolu-", "tion, window by window")
    strip(drawing, 136, rest, CASCADE)
    windows(drawing, 189, [(0, 5), (5, 10), (10, 15)])
    label(drawing, 240, "3  SSR", "spatial super-resolution")
    strip(drawing, 224, rest, CASCADE, fine=True)
    drawing.text(LEFT, 291, "The ball goes up and down once in 5 frames. Every keyframe catches it at the top,", 15, "start")
    drawing.text(LEFT, 311, "so the keyframes show a ball at rest, and so do the frames filled in between them.", 15, "start")

    drawing.line((18, 334), (982, 334), colour="#d0d4d9")
    drawing.text(18, 368, "Lumiere: all frames in one pass", 20, "start", bold=True)
    label(drawing, 406, "1  STUNet", "every frame at once,", "fewer frames inside")
    strip(drawing, 390, height_of, ONE_PASS)
    windows(drawing, 443, [(0, 15)])
    levels = (("16 frames", 16), ("8", 8), ("4", 4), ("8", 8), ("16 frames", 16))
    middle = LEFT + (PITCH * FRAMES - PITCH + SIDE) / 2
    for number, (name, frames) in enumerate(levels):
        x = middle + (number - 2) * 150
        for bar in range(frames):
            drawing.box(x - 7 * frames / 2 + 7 * bar, 470, 5, 34, *ONE_PASS, 1, 1)
        drawing.text(x, 523, name, 13.5, colour=GREY)
        if number < 4:
            start, end = x + 7 * frames / 2 + 6, x + 150 - 7 * levels[number + 1][1] / 2 - 6
            drawing.line((start, 487), (end, 487), arrow=True, thick=1.5)
            drawing.text((start + end) / 2, 479, "t ÷ 2" if number < 2 else "t × 2", 13)
    label(drawing, 562, "2  SSR", "spatial super-resolution,", "windows that overlap")
    strip(drawing, 546, height_of, ONE_PASS, fine=True)
    windows(drawing, 599, [(0, 8), (7, 15)])
    drawing.text(LEFT, 637, "All frames are made together, so that none has to be guessed from its neighbours.", 15, "start")
    drawing.text(LEFT, 657, "Where windows overlap, each denoising step takes their mean (MultiDiffusion).", 15, "start")
    drawing.save("cascade_vs_lumiere.svg")


# The STUNet


def stunet() -> None:
    scale = get_scale("tiny")
    config, side = scale.t2i, scale.size // scale.t2i.patch
    widths, frames = config.channels, [scale.frames >> level for level in range(3)]

    def shape(channels: int, level_in_time: int, level_in_space: int) -> str:
        pixels = side >> level_in_space
        return f"{channels}·{frames[level_in_time]}·{pixels}×{pixels}"

    drawing = Drawing(1000, 800, "The Space-Time U-Net: frozen layers of the image net, and the layers that inflation adds")
    left, right, top, pitch, width, height = 136, 852, 96, 70, 180, 36
    level_y = [top + pitch * row for row in range(9)]

    def block(x: float, y: float, name: str, colour: tuple[str, str], wide: float = width) -> None:
        drawing.box(x - wide / 2, y - height / 2, wide, height, colour[0], colour[1], 2.6 if colour is TRAINED else 1.4, 5)
        drawing.text(x, y + 5, name, 15)

    def down(x: float, y: float, words: str) -> None:
        """The arrow out of a block at y, to the block below."""
        drawing.line((x, y + height / 2), (x, y + pitch - height / 2 - 1), arrow=True)
        drawing.text(x - 10, y + pitch / 2 + 5, words, 14, "end")

    def up(x: float, y: float, words: str) -> None:
        drawing.line((x, y - height / 2), (x, y - pitch + height / 2 + 1), arrow=True)
        drawing.text(x + 10, y - pitch / 2 + 5, words, 14, "start")

    def up_through_cat(x: float, y: float, above: str, below: str) -> None:
        """The arrow out of a block at y, past the place where the skip is joined, to the block above."""
        drawing.circle(x, y - pitch / 2, 9, PAPER)
        drawing.line((x, y - height / 2), (x, y - pitch + height / 2 + 1), arrow=True)
        drawing.circle(x, y - pitch / 2, 4.5, INK)
        drawing.text(x + 10, y - pitch / 2 + 12, below, 13, "start")
        drawing.text(x + 10, y - pitch / 2 - 4, above, 13, "start")

    a, b, c = widths
    input_shape = f"3·{frames[0]}·{scale.size}×{scale.size}"
    drawing.text(left, 34, f"noisy clip  {input_shape}", 15)
    drawing.line((left, 42), (left, top - height / 2 - 1), arrow=True)
    for row, (name, colour, words) in enumerate(
        (
            ("stem: patches, 3×3", FROZEN, shape(a, 0, 0)),
            ("Res", FROZEN, shape(a, 0, 0)),
            ("SpaceTimeConv", TRAINED, shape(a, 0, 0)),
            ("3×3, stride 2", FROZEN, shape(b, 0, 1)),
            ("TemporalDownsample", TRAINED, shape(b, 1, 1)),
            ("Res + Attn", FROZEN, shape(b, 1, 1)),
            ("SpaceTimeConv", TRAINED, shape(b, 1, 1)),
            ("3×3, stride 2", FROZEN, shape(c, 1, 2)),
            ("TemporalDownsample", TRAINED, ""),
        )
    ):
        block(left, level_y[row], name, colour)
        if words:
            down(left, level_y[row], words)

    # The coarsest level, from left to right.
    bottom = level_y[8] + 84
    xs = [left + (right - left) / 7 * (number + 1) for number in range(6)]
    names = ("Res", "TempAttn", "Attn", "TempAttn", "Res", "TempAttn")
    wide = 84
    for number, (x, name) in enumerate(zip(xs, names, strict=True)):
        block(x, bottom, name, TRAINED if name == "TempAttn" else FROZEN, wide)
        if number:
            drawing.line((xs[number - 1] + wide / 2, bottom), (x - wide / 2 - 1, bottom), arrow=True)
    drawing.line((left, level_y[8] + height / 2), (left, bottom), (xs[0] - wide / 2 - 1, bottom), arrow=True)
    drawing.line((xs[-1] + wide / 2, bottom), (right, bottom), (right, level_y[8] + height / 2 + 1), arrow=True)
    drawing.text(left - 10, level_y[8] + 50, shape(c, 2, 2), 14, "end")
    drawing.text(right + 10, level_y[8] + 50, shape(c, 2, 2), 14, "start")
    for number in range(5):
        middle = (xs[number] + xs[number + 1]) / 2
        drawing.text(middle, bottom - 26, shape(c, 2, 2), 13)

    # Up, from the bottom.
    for row, (name, colour) in enumerate(
        (
            ("head: 3×3, pixels", FROZEN),
            ("SpaceTimeConv", TRAINED),
            ("Res", FROZEN),
            ("TemporalUpsample", TRAINED),
            ("twice as large, 3×3", FROZEN),
            ("SpaceTimeConv", TRAINED),
            ("Res + Attn", FROZEN),
            ("TemporalUpsample", TRAINED),
            ("twice as large, 3×3", FROZEN),
        )
    ):
        block(right, level_y[row], name, colour)
    up(right, level_y[8], shape(b, 2, 1))
    up_through_cat(right, level_y[7], shape(2 * b, 1, 1), shape(b, 1, 1))
    up(right, level_y[6], shape(b, 1, 1))
    up(right, level_y[5], shape(b, 1, 1))
    up(right, level_y[4], shape(a, 1, 0))
    up_through_cat(right, level_y[3], shape(2 * a, 0, 0), shape(a, 0, 0))
    up(right, level_y[2], shape(a, 0, 0))
    up(right, level_y[1], shape(a, 0, 0))
    drawing.line((right, top - height / 2), (right, 43), arrow=True)
    drawing.text(right, 34, f"predicted v  {input_shape}", 15)

    # Skips.
    for row, words in ((2, shape(a, 0, 0)), (6, shape(b, 1, 1))):
        y = level_y[row] + pitch / 2
        drawing.circle(left, y, 4.5, INK)
        drawing.line((left, y), (right - 6, y), arrow=True, thick=1.5)
        drawing.text((left + right) / 2, y - 8, f"skip  {words}", 14)

    # The middle: legend, and what is new.
    x0 = 262
    drawing.text(x0, 92, "On arrows: channels·frames·height×width", 15, "start")
    for y, colour, thick, words in (
        (112, FROZEN, 1.4, "the text-to-image net: frozen, frame by frame"),
        (146, TRAINED, 2.6, "added by inflation: the only part that trains"),
    ):
        drawing.box(x0, y, 40, 24, *colour, thick)
        drawing.text(x0 + 52, y + 17, words, 15, "start")
    notes = (
        ("SpaceTimeConv", "adds zero(3 over t(3×3 over space(x))) to x"),
        ("TemporalDownsample", "3 over t, then every second frame: t ÷ 2"),
        ("TemporalUpsample", "every frame twice, then 3 over t: t × 2"),
        ("TempAttn", "adds zero(attention along t(x)) to x"),
    )
    for number, (name, words) in enumerate(notes):
        drawing.text(x0, 312 + 56 * number, name, 15, "start", bold=True)
        drawing.text(x0, 332 + 56 * number, words, 15, "start")
    for number, words in enumerate(
        (
            "zero: a linear layer that starts at zero. The samplers\u2019 convolutions",
            "start as the identity. Every block also gets caption and noise",
            "level: image blocks from the frozen text encoder, temporal blocks",
            "from one of their own, and they know how far the clip has gone.",
        )
    ):
        drawing.text(x0, 590 + 19 * number, words, 13.5, "start", GREY)
    drawing.save("stunet.svg")


if __name__ == "__main__":
    cascade_vs_lumiere()
    stunet()
