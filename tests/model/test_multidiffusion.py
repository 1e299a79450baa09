"""Windows cover every frame, and their reconciliation is the least-squares solution that the paper states."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.config import SCALES
from minilumiere.model import multidiffusion, temporal_windows
from minilumiere.model.diffusion import clean_and_noise, ddim_step

SHAPE = (2, 3, 16, 2, 2)  # b c t h w
WINDOWS = temporal_windows(16, 6, 2)  # 0-6, 4-10, 8-14, 10-16: the last one is clamped, frames 10-13 lie in two


def identity(segments, windows):
    return segments


def disagreeing(segments, windows):
    """A net that depends on its whole window, so that windows disagree where they overlap."""
    return (segments + segments.mean((3, 4, 5), keepdim=True)).sin() * torch.linspace(1, 2, segments.shape[3])[:, None, None]


def bounds(windows: list[slice]) -> list[tuple[int, int]]:
    return [(window.start, window.stop) for window in windows]


# Windows


@st.composite
def tilings(draw):
    window = draw(st.integers(1, 40))
    return draw(st.integers(1, 200)), window, draw(st.integers(0, window - 1))


@settings(max_examples=300, deadline=None)
@given(tilings())
def test_windows_cover_every_frame_evenly_and_overlap_enough(tiling):
    frames, window, overlap = tiling
    pairs = bounds(temporal_windows(frames, window, overlap))
    assert pairs[0][0] == 0 and pairs[-1][1] == frames
    assert {stop - start for start, stop in pairs} == {min(window, frames)}
    for (start, stop), (next_start, next_stop) in pairwise(pairs):
        assert start < next_start and stop < next_stop, "no window twice"
        assert stop - next_start >= overlap
    assert {frame for start, stop in pairs for frame in range(start, stop)} == set(range(frames))
    stride = window - overlap
    assert len(pairs) == max(1, -(-(frames - overlap) // stride) if frames > window else 1), "no more windows than needed"


@pytest.mark.parametrize(
    ("frames", "window", "expected"),
    [
        (80, 15, [(0, 15), (13, 28), (26, 41), (39, 54), (52, 67), (65, 80)]),
        (16, 9, [(0, 9), (7, 16)]),
        (17, 9, [(0, 9), (7, 16), (8, 17)]),
        (9, 9, [(0, 9)]),
        (5, 9, [(0, 5)]),
    ],
)
def test_windows_of_known_cases(frames, window, expected):
    assert bounds(temporal_windows(frames, window, 2)) == expected


@pytest.mark.parametrize("name", SCALES)
def test_presets_tile_evenly(name):
    scale = SCALES[name]
    windows = temporal_windows(scale.frames, scale.window, scale.overlap)
    assert len(windows) > 1
    assert all(a.stop - b.start == scale.overlap == 2 for a, b in pairwise(windows))


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(0, 5, 2), (-1, 5, 2), (10, 5, 5), (10, 5, 6), (10, 5, -1), (10, 0, 0)]
)
def test_bad_tilings_are_errors(frames, window, overlap):
    with pytest.raises(ValueError, match=f"num_frames={frames}, window={window}, overlap={overlap}"):
        temporal_windows(frames, window, overlap)


# Reconciliation


@settings(max_examples=30, deadline=None)
@given(tilings(), st.integers(0, 2**31))
def test_result_solves_the_papers_least_squares_problem(tiling, seed):
    """argmin over J' of Σᵢ ‖J'|ᵢ − Φᵢ‖², solved from its normal equations' own matrix, not by averaging."""
    frames, window, overlap = tiling
    frames = min(frames, 40)
    windows = temporal_windows(frames, window, overlap)
    generator = torch.Generator().manual_seed(seed)
    length = min(window, frames)
    answers = torch.randn(len(windows), 1, 2, length, 1, 3, generator=generator, dtype=torch.float64)  # n b c s h w
    video = torch.zeros(1, 2, frames, 1, 3, dtype=torch.float64)
    selection = torch.cat([torch.eye(frames, dtype=torch.float64)[window] for window in windows])  # (n s) t
    wanted = answers.movedim(3, 1).reshape(len(windows) * length, -1)  # (n s) (b c h w)
    solution = torch.linalg.lstsq(selection, wanted).solution.reshape(frames, 1, 2, 1, 3).movedim(0, 2)
    torch.testing.assert_close(multidiffusion(lambda segments, some: answers, video, windows), solution)


def test_each_frame_is_the_mean_over_the_windows_that_hold_it():
    video = torch.zeros(1, 1, 5, 1, 1)
    answers = torch.tensor([[1.0, 2, 3], [10, 20, 30]])[:, None, None, :, None, None]
    result = multidiffusion(lambda segments, windows: answers, video, [slice(0, 3), slice(2, 5)])
    assert result.flatten().tolist() == [1, 2, 6.5, 20, 30]


@pytest.mark.parametrize("per_call", [None, 1, 3])
def test_identity_stays_identity(per_call):
    video = torch.randn(SHAPE)
    torch.testing.assert_close(multidiffusion(identity, video, WINDOWS, per_call), video)


def test_one_window_is_no_windows():
    video = torch.randn(SHAPE)
    result = multidiffusion(disagreeing, video, temporal_windows(16, 16, 2))
    assert torch.equal(result, disagreeing(video[None], None)[0])


def test_input_is_left_alone():
    video = torch.randn(SHAPE)
    before = video.clone()
    multidiffusion(lambda segments, windows: segments.mul_(2), video, WINDOWS)
    assert torch.equal(video, before)


@pytest.mark.parametrize(("per_call", "sizes"), [(None, [4]), (1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1]), (99, [4])])
def test_windows_per_call_changes_the_calls_and_not_the_result(per_call, sizes):
    video, seen = torch.randn(SHAPE), []

    def watched(segments, windows):
        assert segments.shape == (len(windows), 2, 3, 6, 2, 2)
        seen.append(windows)
        return disagreeing(segments, windows)

    result = multidiffusion(watched, video, WINDOWS, per_call)
    torch.testing.assert_close(result, multidiffusion(disagreeing, video, WINDOWS))
    assert [len(windows) for windows in seen] == sizes
    assert [window for windows in seen for window in windows] == WINDOWS, "each window once, in order"


def test_denoise_gets_each_windows_frames_and_its_slice():
    video = torch.randn(SHAPE)

    def check(segments, windows):
        for segment, window in zip(segments, windows, strict=True):
            assert torch.equal(segment, video[:, :, window])
        return segments

    multidiffusion(check, video, WINDOWS, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_result_has_the_type_of_the_video(dtype):
    assert multidiffusion(identity, torch.zeros(SHAPE, dtype=dtype), WINDOWS).dtype == dtype


@pytest.mark.parametrize(
    "windows",
    [
        [],
        [slice(0, 9)],  # frames 9-15 uncovered
        [slice(0, 6), slice(7, 13), slice(10, 16)],  # frame 6 uncovered
        [slice(0, 9), slice(6, 16)],  # uneven
        [slice(0, 9), slice(9, 18)],  # past the end
    ],
)
def test_windows_that_do_not_fit_the_video_are_errors(windows):
    with pytest.raises(ValueError, match="16 frames"):
        multidiffusion(identity, torch.zeros(SHAPE), windows)


@pytest.mark.parametrize("change", [lambda x: x[..., :1], lambda x: x[:, :1], lambda x: x[:1]])
def test_a_net_that_makes_another_shape_is_an_error_and_is_not_broadcast(change):
    with pytest.raises(ValueError, match="denoise made"):
        multidiffusion(lambda segments, windows: change(segments), torch.zeros(SHAPE), WINDOWS)


@pytest.mark.parametrize("per_call", [-1, -4])
def test_a_negative_number_of_windows_per_call_is_an_error_not_a_black_video(per_call):
    with pytest.raises(ValueError):
        multidiffusion(identity, torch.ones(SHAPE), WINDOWS, per_call)


# Together with the sampler

NOW, AFTER = torch.tensor([-1.0, -1.0]), torch.tensor([0.5, 0.5])


def reconcile(function, noisy):
    """`function(noisy, v)` of each window, averaged; v is what a net that sees one window at a time says."""
    return multidiffusion(lambda segments, windows: apply(function, segments, windows), noisy, WINDOWS)


def apply(function, segments, windows):
    return torch.stack([function(z, v) for z, v in zip(segments, 3 * disagreeing(segments, windows), strict=True)])


def test_averaging_v_the_clean_video_or_the_next_noisy_one_is_the_same_for_deterministic_ddim():
    noisy = torch.randn(SHAPE)

    def step(z, v):
        return ddim_step(z, clean_and_noise(z, v, NOW)[0], NOW, AFTER)

    mean_v = reconcile(lambda z, v: v, noisy)
    mean_clean = reconcile(lambda z, v: clean_and_noise(z, v, NOW)[0], noisy)
    mean_next = reconcile(step, noisy)
    torch.testing.assert_close(step(noisy, mean_v), mean_next, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ddim_step(noisy, mean_clean, NOW, AFTER), mean_next, atol=1e-5, rtol=1e-5)


def test_clipping_each_window_is_not_clipping_their_mean():
    noisy = torch.randn(SHAPE)

    def clipped(z, v):
        return ddim_step(z, clean_and_noise(z, v, NOW)[0].clamp(-1, 1), NOW, AFTER)

    mean_clean = reconcile(lambda z, v: clean_and_noise(z, v, NOW)[0], noisy)
    right, wrong = ddim_step(noisy, mean_clean.clamp(-1, 1), NOW, AFTER), reconcile(clipped, noisy)
    difference = (right - wrong).abs().amax((0, 1, 3, 4))
    overlaps = [frame for frame in range(16) if sum(w.start <= frame < w.stop for w in WINDOWS) > 1]
    assert (difference > 1e-2).nonzero()[:, 0].tolist() == overlaps
    # By hand, for one frame on which two windows say 3 and -1: their mean 1 needs no clipping; clipped first they give 0.
    answers = torch.tensor([3.0, -1.0])[:, None, None, None, None, None]
    frame, both = torch.zeros(1, 1, 1, 1, 1), [slice(0, 1), slice(0, 1)]
    assert multidiffusion(lambda *_: answers, frame, both).clamp(-1, 1).item() == 1
    assert multidiffusion(lambda *_: answers.clamp(-1, 1), frame, both).item() == 0


def test_noise_drawn_in_each_window_is_too_weak_in_overlaps_and_one_global_noise_is_not():
    """Averaging two independent noises leaves 1/√2 = 0.71 of the standard deviation; the mean of three would leave 0.58.

    Each frame has 2·3·64·64 = 24,576 values, so an estimated deviation has a standard error of 1/√(2·24,576) = 0.45 %:
    the tolerance of 2.5 % is more than 5 of them, and far less than the 29 % to be shown.
    """
    nothing, windows = torch.zeros(2, 3, 16, 64, 64), temporal_windows(16, 9, 2)

    def stochastic(z):
        return ddim_step(z, torch.zeros_like(z), NOW, AFTER, eta=1.0, noise=torch.randn_like(z))

    one_global = stochastic(multidiffusion(identity, nothing, windows)).std((0, 1, 3, 4))
    per_window = multidiffusion(lambda segments, _: torch.stack([stochastic(z) for z in segments]), nothing, windows)
    ratio = per_window.std((0, 1, 3, 4)) / one_global.mean()
    torch.testing.assert_close(one_global / one_global.mean(), torch.ones(16), atol=0.025, rtol=0)
    expected = torch.ones(16)
    expected[7:9] = 0.5**0.5
    torch.testing.assert_close(ratio, expected, atol=0.025, rtol=0)
