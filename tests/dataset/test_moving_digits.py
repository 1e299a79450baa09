"""Moving digits: the video shows what the caption says, and the truth is where the ink is."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from minilumiere.dataset import moving_digits
from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, parse_caption
from minilumiere.dataset.glyphs import bitmaps, load_bank
from minilumiere.dataset.moving_digits import (
    UNSEEN_PAIRS,
    draw_scenes,
    place,
    random_paths,
    random_subjects,
    reflect,
    sample_batch,
)

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # on screen: x to the right, y down


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def paths_of(caption: str, n: int = 40, frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Centres (n, frames, 2), in canvas units, of `n` objects that do what the caption of one object says."""
    return random_paths(list(parse_caption(caption)) * n, seeded(seed), frames)


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
def few_glyphs(monkeypatch):
    """Draws ten glyphs of a digit only, which is quick at any size. The calls of `bitmaps` are recorded."""
    calls = []

    def draw(source, split, height, device):
        calls.append((source, split, height, device))
        bank = load_bank(split)
        some = torch.arange(0, len(bank.digit), len(bank.digit) // 100)
        return bank.draw(height, some), bank.digit[some]

    monkeypatch.setattr(moving_digits, "bitmaps", draw)
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


@pytest.mark.parametrize("caption", ["a red 3 circling clockwise", "a red 3 circling anticlockwise quickly"])
def test_narrow_circles_start_at_the_left_and_whole_ones_anywhere(caption):
    subjects = list(parse_caption(caption)) * 200

    def starts(spread: float) -> torch.Tensor:
        paths = random_paths(subjects, seeded(0), 33, spread)  # two turns or more fit in
        middle = (paths.amax(1) + paths.amin(1)) / 2
        x, y = (paths[:, 0] - middle).unbind(-1)
        return torch.atan2(y, x).remainder(2 * torch.pi) / (2 * torch.pi)  # in turns from the right end, y downwards

    assert ((starts(0.1) - 0.5).abs() < 0.1).all()  # 0.05, but for the sampling of the circle
    assert all(((starts(1.0) > i / 4) & (starts(1.0) < (i + 1) / 4)).sum() > 30 for i in range(4))


def test_the_seed_decides_everything_and_nothing_else_does():
    torch.manual_seed(7)
    first = sample_batch(4, seed=11)
    untouched = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(untouched, torch.rand(3)), "the global random state was used"
    again, other = sample_batch(4, seed=11), sample_batch(4, seed=12)
    assert torch.equal(first.video, again.video) and first.captions == again.captions
    assert first.captions != other.captions


def test_the_same_seed_at_another_size_is_the_exact_area_average():
    large = sample_batch(3, seed=5, size=64, frames=6)
    for size in (32, 16, 8):
        small = sample_batch(3, seed=5, size=size, frames=6)
        assert small.captions == large.captions
        averaged = avg_pool2d(large.video.flatten(0, 1), 64 // size).unflatten(0, (3, 6))
        torch.testing.assert_close(small.video, averaged, atol=1e-6, rtol=0)
        for a, b in zip(itertools.chain(*small.objects), itertools.chain(*large.objects), strict=True):
            torch.testing.assert_close(a.centres * 64 / size, b.centres)


def test_frames_can_be_any_number():
    assert sample_batch(2, seed=0, frames=1).video.shape[1] == 1
    assert sample_batch(2, seed=0, frames=23).video.shape[1] == 23


def test_full_scale_and_training_glyphs(few_glyphs):
    batch = sample_batch(1, scale="full", split="train", frames=2, captions=["a cyan 4 moving up"])
    assert batch.video.shape == (1, 2, 3, 32, 32)
    assert sample_batch(1, scale="full", frames=2, size=128).video.shape == (1, 2, 3, 128, 128)
    assert few_glyphs == [("strokes", "train", 56.0, "cpu"), ("strokes", "test", 56.0, "cpu")]  # 14 of 32 units
    offset = ink_centroids(batch.video[0]) - batch.objects[0][0].centres
    assert offset.norm(dim=-1).max() < 3.2


def test_the_source_of_glyphs_is_passed_on(few_glyphs):
    sample_batch(1, glyphs="mnist", frames=1)
    assert few_glyphs == [("mnist", "test", 28.0, "cpu")]


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
    frame = sample_batch(1, captions=[f"a {colour} 8 standing still"], frames=1, size=64).video[0, 0].flatten(1)
    torch.testing.assert_close(frame.amax(1), torch.tensor(COLOURS[colour]), atol=0.01, rtol=0)
    assert (frame.sum(0) == 0).float().mean() > 0.5


def test_the_digit_drawn_is_the_digit_said():
    """Of all glyphs, the one that the picture shows is one of that digit."""
    digits = [1, 3, 4, 7]
    batch = sample_batch(4, captions=[f"a white {digit} standing still" for digit in digits], frames=1, size=64, seed=2)
    ink, of_digit = bitmaps("strokes", "test", 28.0, "cpu")
    some = torch.isin(of_digit, torch.tensor(digits))
    for digit, video, (thing,) in zip(digits, batch.video, batch.objects, strict=True):
        candidates = place(ink[some], thing.centres.expand(int(some.sum()), 1, 2), 64)[:, 0]
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


# How things move, in canvas units (the pixels of 32).


@pytest.mark.parametrize("way", [f"{motion} {speed}".strip() for motion in MOTIONS for speed in SPEEDS])
def test_centres_stay_within_the_walls(way):
    paths = paths_of(f"a red 3 {way}", frames=90)
    assert paths.min() >= 8 and paths.max() <= 24


def test_standing_still_is_still_and_anywhere():
    paths = paths_of("a red 3 standing still", n=200)
    assert torch.equal(paths, paths[:, :1].expand_as(paths))
    assert (paths[:, 0].amin(0) < 9).all() and (paths[:, 0].amax(0) > 23).all()


@pytest.mark.parametrize("direction", STEPS)
@pytest.mark.parametrize(("speed", "pace"), [("slowly", 0.5), ("", 1.0), ("quickly", 2.0)])
def test_moving_goes_the_way_and_at_the_speed_captioned(direction, speed, pace):
    paths = paths_of(f"a red 3 moving {direction} {speed}", n=100, frames=60)
    step = torch.tensor(STEPS[direction], dtype=torch.float)
    ahead = (paths[:, 1:4] - paths[:, :3]) @ step  # 8 units of room: three steps hit no wall
    assert ahead.min() >= 0.9 * pace - 1e-4 and ahead.max() <= 1.1 * pace + 1e-4
    assert ahead.max() - ahead.min() > 0.1 * pace  # not all at one speed
    sideways = paths @ (1 - step.abs())
    torch.testing.assert_close(sideways, sideways[:, :1].expand_as(sideways))
    room = (24 - paths[:, 0] @ step) if step.sum() > 0 else (paths[:, 0] @ -step - 8)
    assert room.min() >= 8
    # Later on the walls send it back, at the same speed except on the frames where it turns.
    along = (paths[:, 1:] - paths[:, :-1]) @ step
    assert (along < -0.8 * pace).any(1).all() and along.abs().max() <= 1.1 * pace + 1e-4
    assert torch.quantile((along.abs() - ahead[:, :1]).abs(), 0.7) < 1e-4


@pytest.mark.parametrize("way", ["clockwise", "anticlockwise"])
@pytest.mark.parametrize(("speed", "shortest", "longest"), [("slowly", 28, 36), ("", 14, 18), ("quickly", 7, 9)])
def test_circling_has_the_period_radius_and_sense_captioned(way, speed, shortest, longest):
    paths = paths_of(f"a red 3 circling {way} {speed}", n=100).double()
    step = paths[:, 1:] - paths[:, :-1]
    a, b = step[:, :-1], step[:, 1:]
    turned = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1))  # y down: > 0 is clockwise
    assert (turned > 0).all() if way == "clockwise" else (turned < 0).all()
    torch.testing.assert_close(turned, turned[:, :1].expand_as(turned), atol=1e-3, rtol=0)  # an even pace
    period = 2 * math.pi / turned.abs().mean(1)
    assert period.min() > shortest and period.max() < longest
    assert period.max() - period.min() > 0.1 * shortest
    radius = step.norm(dim=-1).mean(1) / (2 * (turned.abs().mean(1) / 2).sin())
    assert radius.min() >= 4 - 1e-2 and radius.max() <= 6 + 1e-2


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
    asked = [parse_caption("a white 0 moving right")] * 40
    video, objects = draw_scenes(asked, seeded(0), 16, 32, 64, "test", still=True)
    centres = torch.stack([scene[0].centres for scene in objects])
    assert video.shape == (40, 1, 3, 32, 32) and centres.shape == (40, 1, 2)
    assert (ink_centroids(video) - centres).norm(dim=-1).max() < 1
    assert centres[..., 0].max() > 20 and centres[..., 0].min() < 12  # not first frames only, which are in the left half


# What captions are drawn.


def test_unseen_pairs_are_twelve_pairs():
    assert len(set(UNSEEN_PAIRS)) == len(UNSEEN_PAIRS) == 12
    assert all(colour in COLOURS and digit in range(10) for colour, digit in UNSEEN_PAIRS)
    # Every colour and every digit is seen, and every one is in an unseen pair.
    assert {colour for colour, _ in UNSEEN_PAIRS} == set(COLOURS)
    assert {digit for _, digit in UNSEEN_PAIRS} == set(range(10))


def test_unseen_pairs_are_never_drawn_where_they_are_left_out():
    generator = seeded(0)
    drawn = {(s.colour, s.digit) for _ in range(2000) for s in random_subjects(generator, unseen=False)}
    assert drawn == set(itertools.product(COLOURS, range(10))) - set(UNSEEN_PAIRS)


def test_unseen_pairs_are_drawn_otherwise():
    generator = seeded(0)
    drawn = {(s.colour, s.digit) for _ in range(1000) for s in random_subjects(generator)}
    assert drawn == set(itertools.product(COLOURS, range(10)))


def test_random_subjects_are_one_or_two_of_different_colours():
    generator = seeded(1)
    drawn = [random_subjects(generator) for _ in range(400)]
    pairs = [subjects for subjects in drawn if len(subjects) == 2]
    assert {len(subjects) for subjects in drawn} == {1, 2} and 150 < len(pairs) < 250
    assert all(one.colour != other.colour for one, other in pairs)
    assert {len(random_subjects(generator, two=0)) for _ in range(20)} == {1}
    assert {len(random_subjects(generator, two=1)) for _ in range(20)} == {2}
    assert {subject.motion for subjects in drawn for subject in subjects} == set(MOTIONS)
    assert {subject.speed for subjects in drawn for subject in subjects} == set(SPEEDS)
    assert not any(s.speed for subjects in drawn for s in subjects if s.motion == "standing still")


def test_captions_of_stills_leave_the_motion_out_every_other_time():
    generator = seeded(2)
    without = [not random_subjects(generator, bare=0.5)[0].motion for _ in range(400)]
    assert 150 < sum(without) < 250


# The parts.


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


positions = st.floats(-500, 500)


@settings(max_examples=200, deadline=None)
@given(positions, st.floats(-4, 4))
def test_reflection_stays_within_the_walls_and_is_continuous(position, step):
    here, there = reflect(torch.tensor([position, position + step], dtype=torch.float64))
    assert 8 <= here <= 24
    assert abs(there - here) <= abs(step) + 1e-9
    if 8 <= position <= 24:
        assert here == pytest.approx(position)


@settings(deadline=None)
@given(st.floats(0, 16))
def test_reflection_goes_back_as_far_as_it_would_have_gone_on(beyond):
    past = reflect(torch.tensor([24 + beyond, 8 - beyond], dtype=torch.float64))
    torch.testing.assert_close(past, torch.tensor([24 - beyond, 8 + beyond], dtype=torch.float64))


# Bad input.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n must.*got 0"),
        ({"n": -3}, "n must.*got -3"),
        ({"n": 2.5}, "n must.*integer.*got 2.5"),
        ({"frames": 0}, "frames must.*got 0"),
        ({"frames": 4.0}, "frames must.*integer.*got 4.0"),
        ({"size": 7}, "size must.*8 to 64.*got 7"),
        ({"size": 24}, "divide.*64.*got 24"),
        ({"size": 128}, "size must.*8 to 64.*got 128"),
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
