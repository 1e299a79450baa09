"""The judge is right about videos whose truth is known, credits nothing that is not there, and survives bad videos.

What a digit is needs a trained net; everything else is arithmetic, and is tested with a net that was never trained.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from minilumiere.config import JudgeConfig
from minilumiere.dataset import parse_caption, sample_batch
from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, Subject
from minilumiere.dataset.moving_digits import Batch
from minilumiere.dataset.paths import random_paths
from minilumiere.dataset.subjects import subjects_of
from minilumiere.evaluation import assess
from minilumiere.evaluation.judge import Reading, centroids, colour_masses, compare, crops, judge_crops, read, read_motion
from minilumiere.model.digit_classifier import DigitClassifier

KINDS = [(motion, speed) for motion in MOTIONS for speed in (SPEEDS if motion != "standing still" else ("",))]
VISIBLE = torch.ones(16, dtype=torch.bool)


@pytest.fixture(scope="module")
def untrained() -> DigitClassifier:
    torch.manual_seed(0)
    return DigitClassifier().eval()


def one_object(number: int) -> list[str]:
    """Captions that go round all colours, digits, motions and speeds."""
    kinds = [KINDS[i % len(KINDS)] for i in range(number)]
    return [str(Subject(list(COLOURS)[i % 7], i % 10, *kind)) for i, kind in enumerate(kinds)]


def of(colour: str, n: int = 1) -> Tensor:
    """The number of a colour, for `n` images."""
    return torch.full((n,), list(COLOURS).index(colour))


def mistakes(batch: Batch, classifier: nn.Module) -> tuple[list[str], list[str], list[str], Tensor]:
    """What is read wrongly: colours, motions, speeds; and the distances to the best path of what is read rightly."""
    colours, motions, speeds, distances = [], [], [], []
    for video, objects in zip(batch.video, batch.objects, strict=True):
        readings = {reading.colour: reading for reading in read(video, classifier, len(objects))}
        for thing in objects:
            truth = f"{thing.colour} {thing.digit} {thing.motion} {thing.speed}"
            if thing.colour not in readings:
                colours.append(f"{truth} -> {', '.join(readings)}")
                continue
            reading = readings[thing.colour]
            distances.append(reading.path_rms)
            if reading.motion != thing.motion:
                motions.append(f"{truth} -> {reading.motion} (off by {reading.path_rms:.2f})")
            if reading.speed != thing.speed:
                speeds.append(f"{truth} -> {reading.motion} {reading.speed} (off by {reading.path_rms:.2f})")
    return colours, motions, speeds, torch.tensor(distances)


# Ground truth


@pytest.mark.parametrize(("size", "frames", "number"), [(32, 16, 152), (64, 16, 76), (32, 80, 38), (128, 16, 38)])
def test_reads_one_object_rightly(untrained, size, frames, number):
    batch = sample_batch(number, seed=1, captions=one_object(number), size=size, frames=frames)
    colours, motions, speeds, distances = mistakes(batch, untrained)
    print(f"{size} px, {frames} frames: distance to the path {distances.median():.3f} typical, {distances.max():.3f} at most")
    assert not colours
    assert len(motions) <= 0.02 * number, f"{len(motions)} of {number} motions: {motions}"
    assert len(speeds) <= 0.02 * number, f"{len(speeds)} of {number} speeds: {speeds}"
    assert distances.median() < 0.3 and distances.max() < 0.6, "units of 32 a canvas; a digit is 14 tall"


def test_reads_two_objects_rightly(untrained):
    batch = sample_batch(60, seed=2, captions=[f"{a} and {b}" for a, b in zip(*[iter(one_object(120))] * 2, strict=True)])
    colours, motions, speeds, _ = mistakes(batch, untrained)
    assert not colours
    assert len(motions) <= 0.05 * 120, motions  # in front of each other, they hide where they are
    assert len(speeds) <= 0.05 * 120, speeds


@pytest.mark.parametrize(("motion", "speed"), KINDS)
def test_reads_ideal_paths(motion, speed):
    """Straight from the centres, as if seen perfectly, but for a steady offset of the ink from its box."""
    asked = subjects_of([(Subject("red", 3, motion, speed),)] * 20)
    paths = random_paths(asked, torch.Generator().manual_seed(3), 16)[:, 0]
    offsets = torch.rand(20, 1, 2) * 2 - 1
    readings = [read_motion(path, VISIBLE)[:2] for path in paths + offsets]
    assert readings == [(motion, speed)] * 20


@pytest.mark.parametrize(
    ("way", "start", "step"), [("right", 8, (1, 0)), ("left", 24, (-1, 0)), ("down", 8, (0, 1)), ("up", 24, (0, -1))]
)
@pytest.mark.parametrize("pace", [0.5, 1.0])
def test_an_object_that_leaves_a_wall_does_not_move_towards_it(way, start, step, pace):
    """A path that starts at the wall and is reflected at once would explain it as well: nobody would call it that."""
    path = torch.tensor([16.0, 16.0])
    path = torch.where(torch.tensor(step) != 0, float(start), path) + torch.arange(16)[:, None] * pace * torch.tensor(step)
    assert read_motion(path, VISIBLE)[0] == f"moving {way}"


def test_paces_between_the_speeds_go_to_the_nearest():
    for pace, speed in [(0.4, "slowly"), (0.62, "slowly"), (0.8, ""), (1.25, ""), (1.6, "quickly"), (2.4, "quickly")]:
        x = 8 + torch.arange(7) * pace
        path = torch.stack([x, torch.full_like(x, 16.0)], dim=1)
        assert read_motion(path, VISIBLE[:7])[:2] == ("moving right", speed), pace


def test_trembling_stands_still():
    path = 16 + 0.3 * torch.randn(16, 2)
    assert read_motion(path, VISIBLE)[:2] == ("standing still", "")


def test_frames_that_are_half_hidden_are_left_out_of_the_motion():
    path = torch.stack([9 + torch.arange(16.0) * 0.9, torch.full((16,), 12.0)], dim=1)
    hidden = path.clone()
    hidden[4:8, 1] += 6
    visible = VISIBLE.clone()
    visible[4:8] = False
    assert read_motion(hidden, visible) == pytest.approx(read_motion(path, visible))
    assert read_motion(hidden, visible)[2] < 0.1 < read_motion(hidden, VISIBLE)[2]


# Colours, centres, crops


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("brightness", [1.0, 0.5])
def test_colours_are_told_even_when_dim(colour, brightness):
    pixel = brightness * torch.tensor(COLOURS[colour])[:, None, None].expand(1, 3, 4, 4)
    masses = colour_masses(pixel)
    assert masses.sum((0, 2, 3)).nonzero().flatten().tolist() == [list(COLOURS).index(colour)]
    assert masses.sum() == pytest.approx(16 * brightness * max(COLOURS[colour]))


def test_dark_pixels_have_no_colour():
    assert colour_masses(torch.full((1, 3, 4, 4), 0.1)).sum() == 0


@pytest.mark.parametrize("size", [32, 64])
def test_centroids_are_in_units_of_the_canvas(size):
    """Of a truth whose centres are in pixels; a digit's ink is off the middle of its box by 2 units at most."""
    batch = sample_batch(10, seed=0, captions=[f"a white {i} moving right" for i in range(10)], size=size, frames=8)
    for video, (thing,) in zip(batch.video, batch.objects, strict=True):
        offset = centroids(video.amax(1))[0] - thing.centres * 32 / size
        assert offset.abs().max() < 2
        assert offset.std(0).max() < 0.1, "and steadily so"


def test_frames_without_ink_repeat_the_mean_centre():
    mass = torch.zeros(4, 32, 32)
    mass[0, 8, 4] = mass[1, 8, 6] = mass[2, 8, 8] = 1
    centre, total = centroids(mass)
    assert centre.tolist() == [[4.5, 8.5], [6.5, 8.5], [8.5, 8.5], [6.5, 8.5]]
    assert total.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_crops_are_centred_at_every_resolution(size):
    captions = [f"a white {i % 10} moving right" for i in range(20)]
    video = sample_batch(20, seed=0, captions=captions, size=size, frames=8).video.flatten(0, 1)
    ink = judge_crops(video, of("white", 160), 28)[:, 0]  # n 28 28
    pixel = torch.arange(28.0)
    across = (ink.sum(1) * pixel).sum(1) / ink.sum((1, 2))
    down = (ink.sum(2) * pixel).sum(1) / ink.sum((1, 2))
    assert (across - 13.5).abs().max() < 0.3 and (down - 13.5).abs().max() < 0.3  # pixels


def test_crops_show_twenty_units():
    """A digit of 14 units is 14/20 of the crop's height, whatever the resolution of the video."""
    for size in (32, 64):
        mass = torch.zeros(1, size, size)
        unit = size // 32
        mass[0, 9 * unit : 23 * unit, 15 * unit : 17 * unit] = 1
        rows = crops(mass, torch.tensor([[16.0, 16.0]]), 40)[0, 0].amax(1)
        assert (rows > 0.5).sum() == 28


def test_a_crop_shows_one_colour_alone():
    batch = sample_batch(8, seed=0, captions=["a red 3 standing still and a blue 7 moving right"] * 8)
    image = batch.video[:, 0]
    alone = image * (colour_masses(image).argmax(1, keepdim=True) == list(COLOURS).index("red"))
    torch.testing.assert_close(judge_crops(image, of("red", 8), 28), judge_crops(alone, of("red", 8), 28))


# The digit


class Scripted(nn.Module):
    """Stands for a trained classifier: says a given digit for each frame, or one that depends on the crop."""

    crop = 28

    def __init__(self, say):
        super().__init__()
        self.say = say

    def forward(self, given: Tensor) -> Tensor:
        said = self.say(given) if callable(self.say) else torch.tensor(self.say)
        return 5 * torch.nn.functional.one_hot(said, 10).float()


@pytest.mark.parametrize(
    ("said", "digit", "same", "constant"),
    [
        ([4, 4, 4, 4], 4, True, 1.0),
        ([4, 4, 4, 9], 4, False, 0.75),
        ([4, 9, 9, 4], None, True, 0.5),
        ([1, 4, 4, 4], 4, False, 0.75),
    ],
)
def test_digit_is_what_most_frames_show(said, digit, same, constant):
    video = sample_batch(1, captions=["a red 4"], frames=4).video[0]
    reading = read(video, Scripted(said))[0]
    assert digit is None or reading.digit == digit
    assert (reading.same_digit, reading.constant_digit) == (same, constant)


def test_digit_is_not_read_off_frames_that_hide_most_of_it():
    video = sample_batch(1, captions=["a red 4 standing still"], frames=9).video[0].clone()
    video[1:5, :, :, :16] *= 0  # four of nine frames in part
    video[1:5, :, 16:] *= 0
    whole = float(judge_crops(video[:1], of("red"), 28).sum())

    def say(crop):
        return torch.where(crop.sum((1, 2, 3)) < 0.7 * whole, 1, 4)

    assert read(video, Scripted(say))[0].digit == 4
    assert read(video, Scripted(say))[0].constant_digit == 1, "all frames that show it agree"


def test_classifier_of_another_crop_works():
    video = sample_batch(1, captions=["a red 4"]).video[0]
    assert read(video, DigitClassifier(JudgeConfig(crop=20, channels=(8, 8))))[0].colour == "red"


def test_classifier_learns_to_tell_two_digits_apart():
    """A few steps of training on crops separate zeros from ones: crops and net carry what is needed."""
    captions = ["a white 0 standing still", "a white 1 standing still"] * 16
    ink = judge_crops(sample_batch(32, captions=captions, split="train", frames=1).video[:, 0], of("white", 32), 28)
    labels = torch.tensor([0, 1] * 16)
    net = DigitClassifier()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(ink), labels).backward()
        optimiser.step()
    test = judge_crops(sample_batch(32, seed=1, captions=captions, frames=1).video[:, 0], of("white", 32), 28)
    assert (net(test).argmax(1) == labels).float().mean() > 0.9


# Agreement with a caption


def reading(colour: str = "red", digit: int = 3, motion: str = "moving right", speed: str = "") -> Reading:
    return Reading(digit, colour, motion, speed, True, 1.0, 0.1)


def agreement(readings: list[Reading], caption: str) -> list[dict[str, bool]]:
    return [thing["agrees"] for thing in compare(readings, parse_caption(caption))]


ALL = {"digit": True, "colour": True, "motion": True, "speed": True}


@pytest.mark.parametrize(
    ("given", "caption", "wrong"),
    [
        (reading(), "a red 3 moving right", set()),
        (reading(), "a red 5 moving right", {"digit"}),
        (reading(), "a blue 3 moving right", {"colour"}),
        (reading(), "a red 3 moving left", {"motion"}),
        (reading(), "a red 3 moving right quickly", {"speed"}),
        (reading(speed="quickly"), "a red 3 moving right", {"speed"}),  # a plain motion means the middle speed
        (reading(speed="quickly"), "a red 3 moving right quickly", set()),
        (reading(speed="quickly"), "a red 3", set()),  # what the caption leaves open agrees
        (reading(speed="quickly"), "a red 3 quickly", set()),
        (reading(speed="slowly"), "a red 3 quickly", {"speed"}),
        (reading(motion="standing still"), "a red 3 standing still", set()),
        (reading(motion="standing still"), "a red 3 standing still quickly", set()),  # as `sample_batch` draws it
        (reading(), "a red 3 standing still", {"motion"}),
        (reading("blue", 4, "moving up", "slowly"), "a red 3 moving right quickly", {"digit", "colour", "motion", "speed"}),
    ],
)
def test_each_attribute_agrees_or_not(given, caption, wrong):
    assert agreement([given], caption) == [{key: key not in wrong for key in ALL}]


@pytest.mark.parametrize("caption", ["a red 3 moving right", "a red 3 circling clockwise"])
def test_standing_still_is_not_the_middle_speed(caption):
    """Else a net that only makes still images would be credited with a third of the speeds."""
    assert not agreement([reading(motion="standing still")], caption)[0]["speed"]


def test_readings_are_matched_by_colour_whatever_their_order():
    red, blue = reading(), reading("blue", 7, "moving up", "slowly")
    for readings in ([red, blue], [blue, red]):
        assert agreement(readings, "a red 3 moving right and a blue 7 moving up slowly") == [ALL, ALL]
        assert [thing["colour"] for thing in compare(readings, parse_caption("a blue 7 and a red 3"))] == ["blue", "red"]


def test_a_colour_that_is_missing_is_compared_with_what_is_left():
    green, blue = reading("green", 5), reading("blue", 7)
    first, second = compare([blue, green], parse_caption("a red 5 and a blue 7"))
    assert first["colour"] == "green" and first["agrees"] == ALL | {"colour": False}
    assert second["colour"] == "blue" and second["agrees"] == ALL


def test_assess_agrees_with_ground_truth_but_for_the_digit(untrained):
    batch = sample_batch(19, seed=4, captions=one_object(19))
    for video, caption, (thing,) in zip(batch.video, batch.captions, batch.objects, strict=True):
        found = assess(video, caption, untrained)
        assert (found["colour"], found["speed"]) == (thing.colour, thing.speed)
        assert found["agrees"] | {"digit": True} == ALL and found["motion"] == thing.motion
        assert 0 <= found["digit"] <= 9 and len(found["objects"]) == 1


def test_assess_wants_every_object_to_agree(untrained):
    batch = sample_batch(1, seed=0, captions=["a red 3 standing still and a blue 7 moving right"])
    found = assess(batch.video[0], "a red 3 standing still and a blue 7 moving left", untrained)
    assert [thing["agrees"]["motion"] for thing in found["objects"]] == [True, False]
    assert found["agrees"]["motion"] is False and found["agrees"]["colour"] is True


@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_has_no_colour(untrained, colour):
    assert not assess(torch.zeros(16, 3, 32, 32), f"a {colour} 3", untrained)["agrees"]["colour"]


@pytest.mark.parametrize("colour", [colour for colour in COLOURS if colour != "red"])
def test_an_object_that_is_missing_is_not_credited(untrained, colour):
    video = sample_batch(1, captions=["a red 3 moving right"]).video[0]
    found = assess(video, f"a red 3 and a {colour} 7", untrained)
    assert found["objects"][0]["agrees"]["colour"] is True
    assert found["objects"][1]["agrees"]["colour"] is False


# Bad videos and bad captions


@pytest.mark.parametrize("frames", [1, 2, 16])
@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("kind", ["black", "white", "noise", "one bright frame"])
def test_no_video_crashes_the_judge(untrained, frames, objects, kind):
    video = {"black": torch.zeros, "white": torch.ones, "noise": torch.rand}.get(kind, torch.zeros)(frames, 3, 32, 32)
    if kind == "one bright frame":
        video[frames // 2] = 1
    caption = "a red 3 moving right and a blue 7"[: 20 if objects == 1 else None]
    for found in assess(video, caption, untrained)["objects"]:
        assert found["motion"] in ("", *MOTIONS) and found["speed"] in SPEEDS
        assert math.isfinite(found["path_rms"]) and 0 <= found["constant_digit"] <= 1


@pytest.mark.parametrize("caption", ["a red 1 standing still", "a red 1", "a blue 1 moving right"])
def test_nothing_is_no_digit_that_stands_still(caption):
    video = torch.zeros(16, 3, 32, 32)
    video[:, 0, 3, 3] = 1  # a stray pixel
    found = assess(video, caption)
    assert (found["digit"], found["colour"], found["motion"], found["same_digit"]) == (None, "", "", False)
    assert found["constant_digit"] == 0 and not any(found["agrees"].values())


def test_noise_has_no_clear_path(untrained):
    assert read(torch.rand(16, 3, 32, 32), untrained)[0].path_rms < 0.8, "its centroid hardly strays: it stands still"


def test_two_objects_of_one_colour_cannot_be_judged(untrained):
    with pytest.raises(ValueError, match=r"colour.*a red 3 and a red 5"):
        assess(torch.zeros(16, 3, 32, 32), "a red 3 and a red 5", untrained)


@pytest.mark.parametrize(
    "video",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 16, 3, 32, 32),
        torch.zeros(16, 1, 32, 32),
        torch.zeros(0, 3, 32, 32),
        torch.full((16, 3, 32, 32), 2.0),
        torch.full((16, 3, 32, 32), float("nan")),
        torch.zeros(16, 3, 32, 32, dtype=torch.uint8),
    ],
    ids=["rank 3", "rank 5", "grey", "no frames", "range", "nan", "bytes"],
)
def test_bad_videos_are_errors_that_say_what_is_wanted(untrained, video):
    with pytest.raises(ValueError, match=r"wanted \(any, 3, any, any\)"):
        assess(video, "a red 3", untrained)


def test_another_classifier_is_an_error():
    with pytest.raises(TypeError, match="classifier must be a DigitClassifier, not str"):
        assess(torch.zeros(16, 3, 32, 32), "a red 3", "judge")
