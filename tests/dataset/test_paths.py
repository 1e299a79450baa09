"""How things move: as the caption says, within the walls; a second object keeps away from the first."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.dataset.captions import MOTIONS, SPEEDS, parse_caption
from minilumiere.dataset.paths import CHANCES, paths, random_paths, reflect
from minilumiere.dataset.subjects import subjects_of

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # on screen: x to the right, y down


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def paths_of(caption: str, n: int = 40, frames: int = 40, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Centres (n, frames, 2), in canvas units, of `n` objects that do what the caption of one object says."""
    return random_paths(subjects_of([parse_caption(caption)] * n), seeded(seed), frames, spread)[:, 0]


@pytest.mark.parametrize("caption", ["a red 3 circling clockwise", "a red 3 circling anticlockwise quickly"])
def test_narrow_circles_start_at_the_left_and_whole_ones_anywhere(caption):
    def starts(spread: float) -> torch.Tensor:
        circles = paths_of(caption, 200, 33, spread=spread)  # two turns or more fit in
        middle = (circles.amax(1) + circles.amin(1)) / 2
        x, y = (circles[:, 0] - middle).unbind(-1)
        return torch.atan2(y, x).remainder(2 * torch.pi) / (2 * torch.pi)  # in turns from the right end, y downwards

    assert ((starts(0.1) - 0.5).abs() < 0.1).all()  # 0.05, but for the sampling of the circle
    assert all(((starts(1.0) > i / 4) & (starts(1.0) < (i + 1) / 4)).sum() > 30 for i in range(4))


# How things move, in canvas units (the pixels of 32).


@pytest.mark.parametrize("way", [f"{motion} {speed}".strip() for motion in MOTIONS for speed in SPEEDS])
def test_centres_stay_within_the_walls(way):
    found = paths_of(f"a red 3 {way}", frames=90)
    assert found.min() >= 8 and found.max() <= 24


def test_standing_still_is_still_and_anywhere():
    found = paths_of("a red 3 standing still", n=200)
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert (found[:, 0].amin(0) < 9).all() and (found[:, 0].amax(0) > 23).all()


@pytest.mark.parametrize("direction", STEPS)
@pytest.mark.parametrize(("speed", "pace"), [("slowly", 0.5), ("", 1.0), ("quickly", 2.0)])
def test_moving_goes_the_way_and_at_the_speed_captioned(direction, speed, pace):
    found = paths_of(f"a red 3 moving {direction} {speed}", n=100, frames=60)
    step = torch.tensor(STEPS[direction], dtype=torch.float)
    ahead = (found[:, 1:4] - found[:, :3]) @ step  # 8 units of room: three steps hit no wall
    assert ahead.min() >= 0.9 * pace - 1e-4 and ahead.max() <= 1.1 * pace + 1e-4
    assert ahead.max() - ahead.min() > 0.1 * pace  # not all at one speed
    sideways = found @ (1 - step.abs())
    torch.testing.assert_close(sideways, sideways[:, :1].expand_as(sideways))
    room = (24 - found[:, 0] @ step) if step.sum() > 0 else (found[:, 0] @ -step - 8)
    assert room.min() >= 8
    # Later on the walls send it back, at the same speed except on the frames where it turns.
    along = (found[:, 1:] - found[:, :-1]) @ step
    assert (along < -0.8 * pace).any(1).all() and along.abs().max() <= 1.1 * pace + 1e-4
    assert torch.quantile((along.abs() - ahead[:, :1]).abs(), 0.7) < 1e-4


@pytest.mark.parametrize("way", ["clockwise", "anticlockwise"])
@pytest.mark.parametrize(("speed", "shortest", "longest"), [("slowly", 28, 36), ("", 14, 18), ("quickly", 7, 9)])
def test_circling_has_the_period_radius_and_sense_captioned(way, speed, shortest, longest):
    found = paths_of(f"a red 3 circling {way} {speed}", n=100).double()
    step = found[:, 1:] - found[:, :-1]
    a, b = step[:, :-1], step[:, 1:]
    turned = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1))  # y down: > 0 is clockwise
    assert (turned > 0).all() if way == "clockwise" else (turned < 0).all()
    torch.testing.assert_close(turned, turned[:, :1].expand_as(turned), atol=1e-3, rtol=0)  # an even pace
    period = 2 * math.pi / turned.abs().mean(1)
    assert period.min() > shortest and period.max() < longest
    assert period.max() - period.min() > 0.1 * shortest
    radius = step.norm(dim=-1).mean(1) / (2 * (turned.abs().mean(1) / 2).sin())
    assert radius.min() >= 4 - 1e-2 and radius.max() <= 6 + 1e-2


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


# Two objects, and clips of any length


def test_a_longer_clip_goes_on_as_the_shorter_one_began():
    """Of what moves alone: where a second object goes depends on how long it can keep away."""
    for way in ("moving left quickly", "circling clockwise", "standing still"):
        torch.testing.assert_close(paths_of(f"a red 3 {way}", frames=80)[:, :16], paths_of(f"a red 3 {way}", frames=16))


@pytest.mark.parametrize("frames", [1, 16, 80])
def test_the_second_object_takes_the_path_that_keeps_away(frames):
    """Of two that stand still one can be anywhere: the farthest of six is far off, and never on top of the other."""
    asked = subjects_of([parse_caption("a red 3 standing still and a blue 7 standing still")] * 200)
    first, second = random_paths(asked, seeded(0), frames).unbind(1)
    assert first.shape == second.shape == (200, frames, 2)
    distance = (first - second).norm(dim=-1).amin(1)
    # Two places at random in a square of 16 are 0.52 * 16 = 8.3 apart on average, one of twenty nearer than 2.3.
    assert distance.mean() > 11 and distance.min() > 4
    middle = second.mean((0, 1))
    assert ((middle - 16).abs() < 1).all()  # without favour for a side


def test_paths_of_the_same_chances_are_the_same_whatever_their_company():
    chance = torch.rand(7, 3, CHANCES, dtype=torch.float64)
    motion, speed = torch.arange(7)[:, None], torch.tensor([[0], [1], [2], [0], [1], [2], [1]])
    together = paths(motion, speed, chance, 20)
    for i in range(7):
        for j in range(3):
            assert torch.equal(paths(motion[i, 0], speed[i, 0], chance[i, j], 20), together[i, j])
