"""The checkers of notebook 05b accept the notebook's answers, and reject tempting wrong ones."""

import sys
from pathlib import Path

import nbformat
import pytest
import torch
from einops import repeat
from torch import nn

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
from course import checks_05b as course  # noqa: E402
from course.small_world import COLOURS, DIGITS, draw  # noqa: E402

from minilumiere.evaluation.judge import assess, centroids  # noqa: E402
from minilumiere.model.temporal import over_time, temporal_conv  # noqa: E402


def run(answers: bool) -> dict:
    """The names that the notebook's definitions make, with answers or with stubs in their places; nothing is trained."""
    notebook = nbformat.read(NOTEBOOKS / "05b_build_your_own_stunet.ipynb", as_version=nbformat.NO_CONVERT)
    names: dict = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "answer" in cell.metadata.get("tags", []):
            source = cell.source if answers else cell.metadata["stub"]
            exec("\n".join(line for line in source.splitlines() if "course.use(" not in line), names)
        elif cell.cell_type == "code" and ("import torch" in cell.source or "def as_images" in cell.source):
            exec(cell.source, names)
    return names


@pytest.fixture(scope="module")
def solved() -> dict:
    return run(answers=True)


@pytest.fixture(scope="module")
def stubs() -> dict:
    return run(answers=False)


def verdicts(names: dict) -> list[str]:
    net = names["MySTUNet"](course.UNet(course.CONFIG, course.SIZE))
    return [
        course.check_direction(names["direction"]),
        course.check_resampling(names["Down"], names["Up"]),
        course.check_forward(names["MySTUNet"]),
        course.check_rename(names["rename"], net),
    ]


def test_the_answers_are_accepted(solved):
    assert verdicts(solved) == ["right"] * 4


def test_the_stubs_are_not(stubs, solved):
    assert "not yet" in course.check_resampling(stubs["Down"], stubs["Up"])
    assert "not yet" in course.check_direction(stubs["direction"])
    stubs |= {"Down": solved["Down"], "Up": solved["Up"]}
    assert "none of your own" in course.check_forward(stubs["MySTUNet"])
    assert "not yet" in course.check_rename(stubs["rename"], solved["MySTUNet"](course.UNet(course.CONFIG, course.SIZE)))


def test_what_is_not_right_is_replaced(capsys):
    assert course.use("right", 1, 2) == 1 and course.use("not yet: why", 1, 2) == 2
    assert "not yet: why" in capsys.readouterr().out


@pytest.mark.parametrize("colour", COLOURS)
def test_the_judge_reads_the_small_world(colour):
    captions = [f"a {colour} {digit} moving {way}" for digit in DIGITS for way in ("left", "right", "up", "down")]
    clips = ((draw(captions, course.seeded(3)) + 1) / 2).clamp(0, 1).transpose(1, 2)
    assert clips.shape == (16, 8, 3, 16, 16)
    assert all(all(assess(clip, caption)["agrees"].values()) for clip, caption in zip(clips, captions, strict=True))
    assert [course.reference_direction(clip) for clip in clips] == [caption.split()[-1] for caption in captions]


# Which way does it go?


def y_up(clip):
    return {"up": "down", "down": "up"}.get(said := course.reference_direction(clip), said)


def backwards(clip):
    return course.reference_direction(clip.flip(0))


def across_only(clip):
    path, _ = centroids(clip.amax(1))
    return "right" if path[-1, 0] > path[0, 0] else "left"


def axes_exchanged(clip):
    return course.reference_direction(clip.mT)


def place_of_the_first_frame(clip):
    """Where does it start? In the half that it moves away from: often right."""
    brightness = clip[:1].amax(1)
    x, y = centroids(torch.where(brightness > 0.25, brightness, 0))[0][0] - 16
    return ("right" if x < 0 else "left") if abs(x) > abs(y) else ("down" if y < 0 else "up")


@pytest.mark.parametrize("wrong", [y_up, backwards, across_only, axes_exchanged, place_of_the_first_frame])
def test_another_direction_is_rejected(wrong):
    assert course.check_direction(wrong).startswith("not yet")


# Fewer frames, and back


class Resample(nn.Module):
    stride, identity = 1, True

    def __init__(self, channels):
        super().__init__()
        self.conv = temporal_conv(channels, stride=self.stride, identity=self.identity)

    def forward(self, x):
        return over_time(self.conv, x)


class RandomDown(Resample):
    stride, identity = 2, False


class OddFrames(Resample):
    def forward(self, x):
        return over_time(self.conv, x)[:, :, 1::2]


class MeanOfTwo(Resample):
    def forward(self, x):
        x = over_time(self.conv, x)
        return (x[:, :, ::2] + x[:, :, 1::2]) / 2


class StrideFirst(Resample):
    def forward(self, x):
        return over_time(self.conv, x[:, :, ::2])


class NoWeights(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x[:, :, ::2]


class RandomUp(Resample):
    identity = False

    def forward(self, x):
        return over_time(self.conv, repeat(x, "b c t h w -> b c (t twice) h w", twice=2))


class ClipTwice(Resample):
    def forward(self, x):
        return over_time(self.conv, repeat(x, "b c t h w -> b c (twice t) h w", twice=2))


class ConvFirst(Resample):
    def forward(self, x):
        return repeat(over_time(self.conv, x), "b c t h w -> b c (t twice) h w", twice=2)


@pytest.mark.parametrize("wrong", [RandomDown, OddFrames, MeanOfTwo, StrideFirst, NoWeights, Resample])
def test_another_down_is_rejected(wrong, solved):
    assert course.check_resampling(wrong, solved["Up"]).startswith("not yet")


@pytest.mark.parametrize("wrong", [RandomUp, ClipTwice, ConvFirst, Resample])
def test_another_up_is_rejected(wrong, solved):
    assert course.check_resampling(solved["Down"], wrong).startswith("not yet")


# Put together: the reference, with one thing wrong


def spoiled(net_class: type[nn.Module], before: str, after: str) -> type[nn.Module]:
    """A `MySTUNet` whose `forward` is the reference's with a change in its source."""
    import inspect
    import textwrap

    source = textwrap.dedent(inspect.getsource(course.reference_forward))
    assert before in source
    names = dict(vars(course))
    exec(source.replace(before, after), names)
    return type("Spoiled", (net_class,), {"forward": names["reference_forward"]})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("over_clip(self.conv_down, h, clip)", "h"),  # a block left out
        ("h = skip = over_clip(self.conv_down, h, clip)", "skip, h = h, over_clip(self.conv_down, h, clip)"),
        ("[h, skip]", "[skip, h]"),
        ("clip.embedding[:, ::2]", "clip.embedding[:, : t // 2]"),  # the first half of the clock
        ("[h, skip]", "[h, h]"),  # the skip forgotten
        ("(b t) c h w -> b c t h w", "(t b) c h w -> b c t h w"),
    ],
)
def test_another_forward_is_rejected(before, after, solved):
    assert course.check_forward(spoiled(solved["MySTUNet"], before, after)).startswith("not yet")


def test_the_reference_forward_is_accepted(solved):
    assert course.check_forward(spoiled(solved["MySTUNet"], "net.unfold", "net.unfold")) == "right"


# Other names


@pytest.mark.parametrize(
    "wrong",
    [
        lambda name: name,
        lambda name: name.replace("image_net", "t2i"),
        lambda name: course.reference_rename(name).replace("up_inflation", "down_inflation"),
        lambda name: course.reference_rename(name).replace("t2i.text", "text"),
    ],
)
def test_other_names_are_rejected(wrong, solved):
    net = solved["MySTUNet"](course.UNet(course.CONFIG, course.SIZE))
    assert course.check_rename(wrong, net).startswith("not yet")
