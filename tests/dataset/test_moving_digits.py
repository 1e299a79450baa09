"""Moving digits: the video shows what the caption says, and the truth is where the ink is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from minilumiere.config import SCALES, STYLES
from minilumiere.dataset import moving_digits
from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, parse_caption
from minilumiere.dataset.glyphs import bitmaps, drawings
from minilumiere.dataset.moving_digits import draw_scenes, nudge, place, random_glyphs, sample_batch
from minilumiere.dataset.subjects import random_subjects, subjects_of

SIZE = SCALES["tiny"].output_size  # pixels at which scenes are drawn


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ink_centroids(video: torch.Tensor) -> torch.Tensor:
    """Centroid (..., 2) of the light of frames (..., 3, h, w), in pixels: the middle of the first pixel is at 0.5."""
    ink = video.mean(-3)
    axis = torch.arange(ink.shape[-1]) + 0.5
    total = ink.sum((-2, -1))
    return torch.stack([(ink.sum(-2) * axis).sum(-1), (ink.sum(-1) * axis).sum(-1)], -1) / total[..., None]


def centres_of(batch) -> torch.Tensor:
    """Centres (n, t, 2) of the only object of each clip."""
    return torch.stack([scene[0].centres for scene in batch.objects])


@pytest.fixture
def sources(monkeypatch):
    """Records what glyphs are asked for, and gives those of the bank."""
    calls = []

    def record(source, split, height, device):
        calls.append((source, split, height, device))
        return drawings("strokes", split, height, device)

    monkeypatch.setattr(moving_digits, "drawings", record)
    return calls


@pytest.fixture(scope="module")
def every_motion():
    """One-object clips of every digit with every motion and speed that goes with it."""
    ways = [f"{motion} {speed}".strip() for motion in MOTIONS[1:] for speed in SPEEDS] + [MOTIONS[0]]
    captions = [f"a white {digit} {way}" for digit in range(10) for way in ways]
    return sample_batch(len(captions), captions=captions, seed=1)


# What a batch is.


def test_a_batch_is_captioned_video_in_torchvisions_order():
    batch = sample_batch(5, seed=3)
    assert batch.video.shape == (5, 16, 3, 32, 32) and batch.video.dtype == torch.float32
    assert batch.video.min() == 0 and 0.5 < batch.video.max() <= 1
    assert len(batch.captions) == len(batch.objects) == 5
    for caption, scene in zip(batch.captions, batch.objects, strict=True):
        subjects = parse_caption(caption)
        said = [(thing.digit, thing.colour, thing.motion, thing.speed) for thing in scene]
        assert said == [(subject.digit, subject.colour, subject.motion, subject.speed) for subject in subjects]
        assert all(thing.centres.shape == (16, 2) for thing in scene)


def test_the_seed_decides_everything_and_nothing_else_does():
    torch.manual_seed(7)
    first = sample_batch(4, seed=11)
    untouched = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(untouched, torch.rand(3)), "the global random state was used"
    again, other = sample_batch(4, seed=11), sample_batch(4, seed=12)
    assert torch.equal(first.video, again.video) and first.captions == again.captions
    assert first.captions != other.captions


def assert_area_averages(draw, sizes) -> None:
    """What `draw(size)` makes at every size is the average of what it makes at the size at which scenes are drawn."""
    large = draw(SIZE)
    for size in sizes:
        factor = SIZE // size
        averaged = avg_pool2d(large.flatten(0, 1), factor).unflatten(0, large.shape[:2])
        # Of the same sums in another order: of 256 numbers, at size 8. A wrong share of one pixel would be 4e-3 there.
        torch.testing.assert_close(draw(size), averaged, atol=2e-6, rtol=0)


def test_the_same_seed_at_another_size_is_the_same_scene():
    large = sample_batch(6, seed=5, size=SIZE, frames=6)
    assert {len(scene) for scene in large.objects} == {1, 2}
    for size in (64, 32, 16, 8):
        small = sample_batch(6, seed=5, size=size, frames=6)
        assert small.captions == large.captions
        for a, b in zip(itertools.chain(*small.objects), itertools.chain(*large.objects), strict=True):
            torch.testing.assert_close(a.centres * SIZE / size, b.centres)
            assert (a.digit, a.colour, a.motion, a.speed) == (b.digit, b.colour, b.motion, b.speed)
    assert_area_averages(lambda size: sample_batch(6, seed=5, size=size, frames=6).video, (64, 32, 16, 8))


@pytest.mark.parametrize("style", ["", *STYLES])
def test_a_smaller_clip_is_the_exact_area_average_in_every_style(style):
    """Of one object and of two, of which the second is hidden in part: the average of a product is not that of its factors."""
    captions = ["a red 8 moving right quickly and a blue 0 moving left quickly", "a green 3 circling clockwise"] * 2
    asked, lost = subjects_of([parse_caption(caption) for caption in captions]), []

    def draw(size: int) -> torch.Tensor:
        video = draw_scenes(asked, seeded(4), 8, size, SIZE, "test", style=style)[0]
        lost.append(1 - video[::2, :, 2].sum((-2, -1)).amin(1) / video[::2, :, 2].sum((-2, -1)).amax(1))  # of the blue ones
        return video

    assert_area_averages(draw, (64, 32, 16))
    assert lost[0].max() > 0.1, "one object hides the other somewhere"


def test_frames_can_be_any_number():
    assert sample_batch(2, seed=0, frames=1).video.shape[1] == 1
    assert sample_batch(2, seed=0, frames=23).video.shape[1] == 23


def test_scenes_are_drawn_at_the_output_size_of_the_scale_with_the_glyphs_of_the_split(sources):
    batch = sample_batch(1, scale="full", split="train", frames=2, captions=["a cyan 4 moving up"])
    assert batch.video.shape == (1, 2, 3, 32, 32)
    assert sample_batch(1, scale="full", frames=2, size=128).video.shape == (1, 2, 3, 128, 128)
    assert sources == [("strokes", "train", 56.0, "cpu"), ("strokes", "test", 56.0, "cpu")]  # 14 of 32 units
    offset = ink_centroids(batch.video[0]) - batch.objects[0][0].centres
    assert offset.norm(dim=-1).max() < 3.2


def test_the_source_of_glyphs_is_passed_on(sources):
    sample_batch(1, glyphs="mnist", frames=1)
    assert sources == [("mnist", "test", 56.0, "cpu")]


# Captions asked for.


def test_captions_asked_for_are_drawn_in_order():
    captions = ["a red 3 moving right", "a blue 7 circling clockwise quickly and a green 1 standing still"]
    batch = sample_batch(2, captions=captions, seed=0)
    assert batch.captions == captions
    assert [[(thing.digit, thing.colour) for thing in scene] for scene in batch.objects] == [
        [(3, "red")],
        [(7, "blue"), (1, "green")],
    ]
    assert (batch.objects[1][1].motion, batch.objects[1][1].speed) == ("standing still", "")
    assert torch.equal(batch.objects[1][1].centres[0], batch.objects[1][1].centres[-1])


def test_captions_come_back_as_they_were_asked_for_even_where_a_word_has_no_meaning():
    """What stands still has no speed: the word is no error, it stays in the caption, and the truth is without it."""
    batch = sample_batch(1, captions=["a red 3 standing still quickly"], frames=3)
    assert batch.captions == ["a red 3 standing still quickly"] and batch.objects[0][0].speed == ""


def test_what_a_caption_leaves_open_is_drawn_at_random_and_stays_unsaid():
    batch = sample_batch(40, captions=["A Red 3"] * 40, frames=2)
    assert set(batch.captions) == {"a red 3"}
    assert {scene[0].motion for scene in batch.objects} == set(MOTIONS)
    assert {scene[0].speed for scene in batch.objects} == {""}
    assert {(scene[0].digit, scene[0].colour) for scene in batch.objects} == {(3, "red")}


def test_a_speed_without_a_motion_is_never_given_to_standing_still():
    batch = sample_batch(40, captions=["a red 3 quickly"] * 40, frames=2)
    assert {scene[0].motion for scene in batch.objects} == set(MOTIONS) - {"standing still"}
    assert {scene[0].speed for scene in batch.objects} == {"quickly"}


# The pixels.


def test_the_truth_is_where_the_ink_is(every_motion):
    """A glyph's centroid is not the middle of its box (for a 7 by up to a tenth of its height), but moves with it."""
    offset = ink_centroids(every_motion.video) - centres_of(every_motion)  # n t 2, in pixels of 32
    assert offset.norm(dim=-1).max() < 3.2
    assert offset.norm(dim=-1).mean() < 1
    assert offset.mean((0, 1)).abs().max() < 0.5  # no direction is favoured: a half pixel's shift would show
    assert (offset - offset[:, :1]).norm(dim=-1).max() < 0.1


def test_no_digit_leaves_the_picture(every_motion):
    mass = every_motion.video.sum((2, 3, 4))  # n t
    torch.testing.assert_close(mass, mass[:, :1].expand_as(mass), rtol=1e-4, atol=0)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_digit_has_its_colour_on_black(colour):
    frame = sample_batch(1, captions=[f"a {colour} 8 standing still"], frames=1, size=SIZE).video[0, 0].flatten(1)
    torch.testing.assert_close(frame.amax(1), torch.tensor(COLOURS[colour]), atol=0.01, rtol=0)
    assert (frame.sum(0) == 0).float().mean() > 0.5


def test_the_digit_drawn_is_the_digit_said():
    """Of all glyphs, the one that the picture shows is one of that digit."""
    digits = [1, 3, 4, 7]
    batch = sample_batch(4, captions=[f"a white {digit} standing still" for digit in digits], frames=1, size=SIZE, seed=2)
    ink, of_digit = bitmaps("strokes", "test", SIZE * 14 / 32, "cpu")
    some = torch.isin(of_digit, torch.tensor(digits))
    for digit, video, (thing,) in zip(digits, batch.video, batch.objects, strict=True):
        candidates = place(ink[some], thing.centres.expand(int(some.sum()), 1, 2), SIZE)[:, 0]
        difference = (candidates - video[0, 0]).abs().amax((1, 2))
        assert difference.min() < 1e-4
        assert of_digit[some][difference.argmin()] == digit


def test_the_first_object_is_in_front():
    """Unmix the two colours: the front one's ink stays whole, the back one's is hidden where they meet."""
    n = 12
    caption = "a red 8 circling clockwise quickly and a blue 0 moving left"
    batch = sample_batch(n, captions=[caption] * n, seed=0)
    assert [thing.colour for thing in batch.objects[0]] == ["red", "blue"]
    palette = torch.tensor([COLOURS["red"], COLOURS["blue"]]).T  # 3 2
    ink = torch.einsum("kc,ntchw->ntkhw", torch.linalg.pinv(palette), batch.video).sum((-2, -1))  # n t 2
    lost = 1 - ink.amin(1) / ink.amax(1)  # n 2
    assert lost[:, 0].max() < 1e-3
    assert lost[:, 1].max() > 0.1


@pytest.mark.parametrize(("way", "sign"), [("clockwise", 1), ("anticlockwise", -1)])
def test_clockwise_is_clockwise_on_screen(way, sign):
    """As on a clock's face: at the top of its circle the ink moves right, at the bottom left."""
    batch = sample_batch(6, captions=[f"a white 0 circling {way} quickly"] * 6, frames=20)
    centroids = ink_centroids(batch.video)
    across = centroids[:, 2:, 0] - centroids[:, :-2, 0]  # around each inner frame
    height = centroids[:, 1:-1, 1]  # a smaller one is further up
    clip = torch.arange(6)
    assert (sign * across[clip, height.argmin(1)] > 0).all()
    assert (sign * across[clip, height.argmax(1)] < 0).all()


def test_a_still_is_a_frame_of_the_clip():
    """The text-to-image model learns from single frames, of any time of a clip."""
    asked = subjects_of([parse_caption("a white 0 moving right")] * 40)
    video, truth = draw_scenes(asked, seeded(0), 16, 32, SIZE, "test", still=True)
    centres = torch.stack([scene[0].centres for scene in truth.objects()])
    assert video.shape == (40, 1, 3, 32, 32) and centres.shape == (40, 1, 2)
    assert (ink_centroids(video) - centres).norm(dim=-1).max() < 1
    assert centres[..., 0].max() > 20 and centres[..., 0].min() < 12  # not first frames only, which are in the left half


def test_some_frames_of_a_clip_are_those_of_the_whole_clip():
    asked = random_subjects(3, seeded(5), two=0.5)
    whole, truth = draw_scenes(asked, seeded(6), 24, 32, SIZE, "test")
    shown = torch.tensor([[0, 8, 16], [5, 6, 7], [23, 0, 23]])
    some, part = draw_scenes(asked, seeded(6), 24, 32, SIZE, "test", shown=shown)
    for number, frames in enumerate(shown.tolist()):
        assert torch.equal(some[number], whole[number, frames])
        assert torch.equal(part.centres[number], truth.centres[number][:, frames])


# The parts.


def test_glyphs_are_of_the_digit_asked_for_and_any_as_likely():
    """Whatever order they lie in; those of a digit that has more glyphs are rarer each."""
    shows = torch.tensor([3, 1, 3, 3, 1, 0])
    digit = torch.tensor([3, 1]).expand(3_000, 2)
    found = random_glyphs(shows, digit, seeded(0))
    assert torch.equal(shows[found], digit)
    for column, numbers in ((0, [0, 2, 3]), (1, [1, 4])):
        counts = found[:, column].bincount(minlength=6)
        assert counts.nonzero()[:, 0].tolist() == numbers
        share = 1 / len(numbers)
        assert (counts[numbers] / 3_000 - share).abs().max() < 4 * (share * (1 - share) / 3_000) ** 0.5


def test_the_truth_of_both_objects_is_in_pixels_of_the_clip():
    asked = random_subjects(5, seeded(1), two=1.0)
    small, large = (draw_scenes(asked, seeded(2), 4, size, SIZE, "test")[1] for size in (32, 64))
    assert small.centres.shape == (5, 2, 4, 2) and len(small.objects()[0]) == 2
    torch.testing.assert_close(small.centres * 2, large.centres)
    assert torch.equal(torch.stack([thing.centres for thing in small.objects()[3]]), small.centres[3])


@settings(max_examples=60, deadline=None)
@given(st.floats(4, 16), st.floats(4, 16), st.integers(0, 2**31))
def test_placing_keeps_the_ink_and_moves_its_centroid_by_the_centre(x, y, seed):
    ink = torch.rand(1, 8, 8, generator=seeded(seed))
    cover = place(ink, torch.tensor([[[x, y]]]), 20)
    assert cover.shape == (1, 1, 20, 20) and cover.min() >= 0 and cover.max() <= ink.max() + 1e-5
    torch.testing.assert_close(cover.sum(), ink.sum(), rtol=1e-4, atol=0)

    def centroid(image):
        axis = torch.arange(image.shape[-1]) + 0.5
        return torch.stack([(image.sum(0) * axis).sum(), (image.sum(1) * axis).sum()]) / image.sum()

    torch.testing.assert_close(centroid(cover[0, 0]), torch.tensor([x, y]) + centroid(ink[0]) - 4, atol=1e-3, rtol=0)


def test_placing_at_a_pixel_corner_is_copying():
    ink = torch.rand(1, 4, 4, generator=seeded(0))
    cover = place(ink, torch.tensor([[[5.0, 3.0]]]), 10)
    expected = torch.zeros(10, 10)
    expected[1:5, 3:7] = ink[0]  # rows are y, columns x
    torch.testing.assert_close(cover[0, 0], expected)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_placing_small_is_placing_large_and_averaging(factor):
    ink, centres = torch.rand(3, 10, 10), 8 + 16 * torch.rand(3, 5, 2)
    large, small = place(ink, centres, 32), place(ink, centres, 32, factor)
    torch.testing.assert_close(small, avg_pool2d(large, factor), atol=1e-6, rtol=0)
    assert small.shape == (3, 5, 32 // factor, 32 // factor)


@settings(max_examples=60, deadline=None)
@given(st.floats(-12, 40), st.floats(-12, 40), st.integers(0, 2**31))
def test_ink_beyond_the_edge_is_cut_off(x, y, seed):
    """As if the canvas were larger, and were cropped."""
    ink = torch.rand(1, 6, 6, generator=seeded(seed))
    whole = place(ink, torch.tensor([[[x + 20, y + 20]]]), 68)
    # Positions up to 60 are rounded by 2e-6 each.
    torch.testing.assert_close(place(ink, torch.tensor([[[x, y]]]), 28), whole[..., 20:48, 20:48], atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_nudging_is_placing_by_part_of_a_pixel(x, y, seed):
    ink, shift = torch.rand(2, 7, 7, generator=seeded(seed)), torch.tensor([[x, y], [y, x], [1.0, 0.0]]).expand(2, 3, 2)
    torch.testing.assert_close(nudge(ink, shift), place(ink, 3.5 + shift, 8), atol=2e-6, rtol=0)


# Bad input.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n must.*got 0"),
        ({"n": -3}, "n must.*got -3"),
        ({"n": 2.5}, "n must.*integer.*got 2.5"),
        ({"frames": 0}, "frames must.*got 0"),
        ({"frames": 4.0}, "frames must.*integer.*got 4.0"),
        ({"size": 7}, "size must.*8 to 128.*got 7"),
        ({"size": 24}, "divide.*128.*got 24"),
        ({"size": 256}, "size must.*8 to 128.*got 256"),
        ({"size": 0}, "size.*got 0"),
        ({"size": -32}, "size.*got -32"),
        ({"captions": ["a red 3"]}, "list of n = 2"),
        ({"captions": []}, "list of n = 2"),
        ({"captions": "a red 3"}, "list of n = 2"),
        ({"captions": ["a red 3", "a read 3"]}, "'read'.*'red'"),
        ({"captions": ["a red 3", ""]}, "empty"),
        ({"split": "validation"}, "'validation'.*'train' or 'test'"),
        ({"scale": "huge"}, "'huge'.*tiny, full"),
        ({"glyphs": "runes"}, "'runes'.*'strokes'"),
    ],
)
def test_bad_arguments_are_refused_with_what_is_wanted(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sample_batch(**{"n": 2, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"captions": ["a red 3", 3]}, "caption is a string"),
        ({"captions": 5}, "captions must be a list"),
        ({"size": "32"}, "size must"),
        ({"size": 16.0}, "size must"),
        ({"seed": "x"}, "seed must"),
        ({"seed": 1.5}, "seed must"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_with_what_is_wanted(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sample_batch(**{"n": 2, "frames": 2, **given})
