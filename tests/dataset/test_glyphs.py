"""Digits drawn by splines: seeded, apart for training and testing, and the same shape at every resolution."""

import struct
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from minilumiere.config import DATA
from minilumiere.dataset import glyphs
from minilumiere.dataset.glyphs import (
    SEGMENTS,
    SKELETONS,
    DrawnWhenAsked,
    Glyphs,
    bitmaps,
    drawings,
    load_bank,
    make_glyphs,
    parse_skeleton,
    patch_size,
    save_bank,
    spline_matrix,
    trim,
)

SOME = torch.arange(0, 1000, 12)  # of the 1000 test glyphs, all ten digits


def test_the_same_seed_gives_the_same_glyphs_and_another_seed_others():
    first, again, other = make_glyphs(4, seed=5), make_glyphs(4, seed=5), make_glyphs(4, seed=6)
    assert torch.equal(first.segments, again.segments) and torch.equal(first.half_width, again.half_width)
    assert (first.segments - other.segments).flatten(1).abs().amax(1).min() > 1e-3  # every single one differs
    assert first.segments.shape == (40, SEGMENTS, 4)
    assert first.digit.tolist() == [digit for digit in range(10) for _ in range(4)]


def test_the_committed_bank_is_what_the_code_makes(tmp_path):
    save_bank(tmp_path / "glyphs.safetensors")
    made, committed = load_file(tmp_path / "glyphs.safetensors"), load_file(DATA / "glyphs.safetensors")
    assert made.keys() == committed.keys()
    for name in made:
        assert made[name].dtype == committed[name].dtype and made[name].shape == committed[name].shape
        # Another CPU may round the last bit of a half otherwise (below 0.5 that bit is 2.4e-4), rarely.
        difference = (made[name].float() - committed[name].float()).abs()
        assert difference.max() < 3e-4, name
        assert (difference > 0).float().mean() < 0.01, name


def test_the_bank_holds_as_many_of_each_digit():
    for split, each in (("train", 300), ("test", 100)):
        assert torch.bincount(load_bank(split).digit).tolist() == [each] * 10


def test_no_test_glyph_is_a_training_glyph():
    train, test = load_bank("train"), load_bank("test")
    for digit in range(10):
        a, b = (bank.segments[bank.digit == digit].float().flatten(1) for bank in (train, test))
        assert torch.cdist(a, b).min() > 1e-2, f"a {digit} is in both"


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_glyph_fits_its_digit_height_exactly(split):
    bank = load_bank(split)
    ends = bank.segments.float().unflatten(-1, (2, 2)).flatten(1, 2)  # n 2s 2
    low, high = ends.amin(1) - bank.half_width[:, None], ends.amax(1) + bank.half_width[:, None]
    torch.testing.assert_close((high - low).amax(1), torch.ones(len(low)), atol=2e-3, rtol=0)  # of half precision
    torch.testing.assert_close(high + low, torch.zeros_like(low), atol=2e-3, rtol=0)  # centred


@pytest.mark.parametrize("height", [14, 28, 56])  # at 32, 64 and 128 pixels
def test_drawn_digits_have_the_height_asked_for_and_keep_off_the_border(height):
    ink = load_bank("test").draw(height, SOME)
    assert ink.shape == (len(SOME), patch_size(height), patch_size(height))
    assert ink.min() == 0 and ink.max() == 1
    inside = ink > 0.5
    tall, wide = inside.any(2).sum(1), inside.any(1).sum(1)
    assert (torch.maximum(tall, wide) - height).abs().max() <= 1
    assert (tall >= 0.85 * height).all()  # hardly any digit is wider than tall
    border = torch.cat([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], dim=1)
    assert border.max() == 0


def test_strokes_are_as_thick_as_they_say():
    """The ink of a straight stroke: a 1 drawn large has the area of its skeleton thickened by the half width."""
    one = Glyphs(torch.tensor([[[0.0, -0.4, 0.0, 0.4]]]), torch.tensor([0.08]), torch.tensor([1]))
    height = 100.0
    area = 0.8 * 0.16 + torch.pi * 0.08**2  # a rectangle with round ends
    assert one.draw(height).sum() == pytest.approx(area * height**2, rel=0.01)


@pytest.mark.parametrize("height", [14, 24])
def test_a_drawing_twice_as_large_averages_to_the_drawing(height):
    """One soft edge, whether drawn at one or two pixels a pixel.

    Not to the last bit: slanted edges differ by 0.05 at most; where two strokes leave a gap narrower than a pixel their
    ink does not add up in the smaller drawing, and it differs by up to a half. The latter are few: hence the quantile.
    """
    small = load_bank("test").draw(height, SOME)
    large = avg_pool2d(load_bank("test").draw(2 * height, SOME)[:, None], 2)[:, 0]
    assert large.shape == small.shape
    difference = (large - small).abs()
    assert difference.mean() < 0.01  # of an average ink of about 0.15
    assert difference.flatten().kthvalue(int(0.99 * difference.numel())).values < 0.1
    torch.testing.assert_close(large.sum((1, 2)), small.sum((1, 2)), rtol=0.04, atol=0)


def test_the_ink_is_the_distance_to_the_nearest_segment_pixel_by_pixel():
    """By other means: every pixel's distance to every segment, in double precision."""
    made, height = make_glyphs(1, seed=3), 20.0
    side = patch_size(height)
    axis = (torch.arange(side, dtype=torch.float64) + 0.5 - side / 2) / height
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixel = torch.stack([x, y], dim=-1)[:, :, None]  # p p 1 2
    for number, ink in enumerate(made.draw(height)):
        start, end = made.segments[number].double().split(2, dim=-1)
        along = end - start
        share = ((pixel - start) * along).sum(-1) / along.square().sum(-1)
        distance = (pixel - start - share.clamp(0, 1)[..., None] * along).norm(dim=-1).amin(-1)
        expected = ((made.half_width[number] - distance) * height + 0.5).clamp(0, 1)
        torch.testing.assert_close(ink.double(), expected, atol=1e-5, rtol=0)  # float32, times the height


def test_a_glyph_has_the_same_bits_in_any_company():
    """So that a training run that draws its glyphs in another order, having been resumed, is the same bit for bit."""
    bank = load_bank("test")
    every, few = bank.draw(56.0, SOME), torch.tensor([17, 3, 60])
    assert torch.equal(bank.draw(56.0, SOME[few]), every[few])
    assert torch.equal(bank.draw(56.0, SOME[3:4])[0], every[3])


def test_a_cpu_draws_the_glyphs_that_are_asked_for_and_no_others():
    class Watched(Glyphs):
        def draw(self, height, indices=None):
            asked.append(indices.tolist())
            return super().draw(height, indices)

    bank, asked = load_bank("test"), []
    ink = DrawnWhenAsked(Watched(bank.segments, bank.half_width, bank.digit), 14.0)
    numbers = torch.tensor([[5, 9], [5, 200]])
    assert torch.equal(ink[numbers], bank.draw(14.0, numbers.flatten()).unflatten(0, (2, 2)))
    assert torch.equal(ink[torch.tensor([9, 7])], bank.draw(14.0, torch.tensor([9, 7])))
    assert torch.equal(ink[numbers], bank.draw(14.0, numbers.flatten()).unflatten(0, (2, 2)))
    assert asked == [[5, 9, 200], [7]], "each once"


def test_drawings_and_bitmaps_are_the_same_glyphs():
    (ink, digit), (every, same) = drawings("strokes", "test", 5.0, "cpu"), bitmaps("strokes", "test", 5.0, "cpu")
    assert torch.equal(ink[SOME], every[SOME]) and torch.equal(digit, same)
    assert drawings("strokes", "test", 5.0, "cpu")[0] is ink, "what is drawn is kept"


@pytest.mark.parametrize("height", [7.0, 14.0, 28.0, 56.0])
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_ink_lies_on_the_margin_that_is_trimmed(split, height):
    ink = load_bank(split).draw(height, torch.arange(0, 1000, 3))
    inner = trim(ink, height)
    margin = (ink.shape[-1] - inner.shape[-1]) // 2
    assert inner.shape[-1] >= height + 1 and inner.shape[-1] + 2 * margin == ink.shape[-1]
    outside = ink.clone()
    trim(outside, height).zero_()  # a view
    assert outside.max() == 0
    assert height < 56 or margin >= 6, "it is worth it"


@pytest.mark.parametrize("digit", range(10))
def test_splines_pass_through_their_control_points(digit):
    for strokes in map(parse_skeleton, SKELETONS[digit]):
        samples = [3 * (len(stroke) - 1) for stroke in strokes]  # three segments between neighbouring control points
        start, end = spline_matrix(strokes, samples)
        control = torch.tensor([point for stroke in strokes for point in stroke])
        starts, ends = start @ control, end @ control
        first = first_sample = 0
        for stroke, count in zip(strokes, samples, strict=True):
            here = slice(first_sample, first_sample + count)
            curve = torch.cat([starts[here], ends[here][-1:]])
            torch.testing.assert_close(curve[::3], control[first : first + len(stroke)], atol=1e-6, rtol=0)
            torch.testing.assert_close(starts[here][1:], ends[here][:-1])  # one unbroken line
            first, first_sample = first + len(stroke), first_sample + count


def test_a_skeleton_is_read_stroke_by_stroke():
    assert parse_skeleton("5,2 50,0 95,100 | 30,52 60,50") == [
        [(0.05, 0.02), (0.5, 0.0), (0.95, 1.0)],
        [(0.3, 0.52), (0.6, 0.5)],
    ]


@pytest.mark.parametrize("digit", range(10))
def test_skeletons_fill_the_unit_box(digit):
    for strokes in map(parse_skeleton, SKELETONS[digit]):
        xy = torch.tensor([point for stroke in strokes for point in stroke])
        assert xy.min() == 0 and xy.max() == 1 and all(len(stroke) >= 2 for stroke in strokes)


def test_splines_move_with_their_control_points():
    """Rows sum to one (so shifted control points give the shifted curve), and straight lines stay straight."""
    start, end = spline_matrix([[(0.0, 0.0), (0.5, 0.25), (1.0, 0.5)]], [7])
    for matrix in (start, end):
        torch.testing.assert_close(matrix.sum(1), torch.ones(7))
        curve = matrix @ torch.tensor([(0.0, 0.0), (0.5, 0.25), (1.0, 0.5)])
        torch.testing.assert_close(curve[:, 1], curve[:, 0] / 2)


def test_closed_strokes_have_no_corner_where_they_close():
    (stroke,) = parse_skeleton(SKELETONS[0][0])
    start, end = spline_matrix([stroke], [400])
    control = torch.tensor(stroke)
    along = (end - start) @ control
    first, last = along[0] / along[0].norm(), along[-1] / along[-1].norm()
    assert first @ last > 0.999


def test_unknown_glyphs_are_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'runes'.*'strokes'.*'mnist'"):
        bitmaps("runes", "test", 14.0, "cpu")


def test_bitmaps_are_the_bank_drawn():
    ink, digit = bitmaps("strokes", "test", 4.0, "cpu")
    assert torch.equal(ink, load_bank("test").draw(4.0)) and torch.equal(digit, load_bank("test").digit)


# MNIST, through torchvision: optional.


@pytest.fixture
def no_cache():
    """Bitmaps made from a test's own files must not outlive the test."""
    for cached in (bitmaps, drawings):
        cached.cache_clear()
    yield
    for cached in (bitmaps, drawings):
        cached.cache_clear()


@pytest.fixture
def torchvision():
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        pytest.skip(f"no working torchvision: {error}")
    return torchvision


def write_mnist(folder, split: str, images: torch.Tensor, labels: list[int]) -> None:
    """The two idx files of a split, as yann.lecun.com's: big-endian sizes, then bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = images.to(torch.uint8).numpy().tobytes()
    (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, *images.shape) + pixels)
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(labels)) + bytes(labels))


def test_mnist_without_torchvision_says_what_to_install(monkeypatch, no_cache):
    for name in ("torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, name, None)  # import fails, as where it is not installed
    with pytest.raises(ValueError, match=r"torchvision.*pip install"):
        bitmaps("mnist", "test", 14.0, "cpu")


def test_mnist_that_was_never_fetched_says_how_to(monkeypatch, tmp_path, no_cache, torchvision):
    monkeypatch.setattr(glyphs, "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"MNIST.*download=True"):
        bitmaps("mnist", "test", 14.0, "cpu")


def test_mnist_is_read_and_scaled_like_the_drawn_digits(monkeypatch, tmp_path, no_cache, torchvision):
    images = torch.zeros(3, 28, 28)
    images[:, 4:24, 9:19] = 255  # a box 20 of 28 pixels tall, as MNIST's digits are
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    write_mnist(raw, "train", images, [4, 0, 9])
    write_mnist(raw, "t10k", images[:2], [7, 1])
    monkeypatch.setattr(glyphs, "DATA", tmp_path)
    for height in (14.0, 28.0, 56.0):
        ink, digit = bitmaps("mnist", "test", height, "cpu")
        assert ink.shape == (2, patch_size(height), patch_size(height)) and digit.tolist() == [7, 1]
        assert ink.min() >= 0 and 0.99 < ink.max() <= 1 + 1e-6
        rows = (ink[0] > 0.5).any(1).nonzero()
        assert abs(len(rows) - height) <= 1  # as tall as a drawn digit
        assert abs(rows.float().mean() + 0.5 - ink.shape[-1] / 2) <= 1  # in the middle
    assert bitmaps("mnist", "train", 14.0, "cpu")[1].tolist() == [4, 0, 9]
