"""Masks, what they let through, and the tasks that they make: the extended net, and known pixels that come back."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minilumiere as ml
from minilumiere.config import SCALES
from minilumiere.model import STUNet, conditioning, tokenise
from minilumiere.model.conditioning import (
    changing_region,
    extents,
    first_frames,
    given_pixels,
    hidden_box,
    moving_boxes,
    outside_region,
    shrink,
)
from minilumiere.pipeline import Pipeline
from minilumiere.viz import save_video

CAPTION = "a red 3 moving right"
SIZE = SCALES["tiny"].output_size


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def plain(pipe):
    return pipe.generate(CAPTION, seed=2, steps=1, super_resolution=False)


# Masks


def test_pictures_in_the_docstrings_are_true():
    result = doctest.testmod(conditioning)
    assert result.attempted >= 4 and result.failed == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_hidden_box_hides_its_area_on_every_frame_and_goes_where_it_is_sent(frames, height, width, data):
    sides = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    start, end = [(data.draw(st.integers(0, height - sides[0])), data.draw(st.integers(0, width - sides[1]))) for _ in range(2)]
    hidden = 1 - hidden_box(frames, height, width, sides, start, end)
    assert (hidden.sum((1, 2, 3)) == sides[0] * sides[1]).all()
    assert hidden[0, 0, start[0], start[1]] == 1
    if frames > 1:
        assert hidden[-1, 0, end[0], end[1]] == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_shrunk_masks_know_a_pixel_only_if_all_it_averages_is_known(seed):
    generator = torch.Generator().manual_seed(seed)
    video = torch.rand(1, 3, 2, 8, 8, generator=generator)
    mask = (torch.rand(1, 1, 2, 8, 8, generator=generator) < 0.8).float()
    low, known = shrink(video, mask, 4)
    for row in range(4):
        for column in range(4):
            block = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
            assert (known[..., row, column] == mask[..., block[0], block[1]].amin((-2, -1))).all()
            torch.testing.assert_close(low[..., row, column], video[..., block[0], block[1]].mean((-2, -1)))
    assert torch.equal(shrink(low, known, 4)[0], low) and torch.equal(shrink(low, known, 4)[1], known)


def test_the_region_that_changes_holds_the_whole_path_and_nothing_that_rests():
    batch = ml.sample_batch(1, captions=["a red 3 moving right and a blue 1 standing still"], seed=3)
    region = changing_region(batch.video[0].transpose(0, 1))
    change = (batch.video[0] - batch.video[0, :1]).abs().amax((0, 1))
    assert (region[0][change > 0.05] == 1).all() and 0 < region.mean() < 1
    still = ml.sample_batch(1, captions=["a blue 1 standing still"]).video[0].transpose(0, 1)
    assert changing_region(still).sum() == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.floats(0, 0.2), st.integers(0, 2**31))
def test_extents_are_the_first_and_last_place_that_changes(frames, height, width, margin, threshold, seed):
    """Of each clip its own; by other means: all places are gone through."""
    generator = torch.Generator().manual_seed(seed)
    video = 0.25 * torch.rand(2, 3, frames, height, width, generator=generator)
    for clip, box in zip(video, extents(video, torch.tensor([margin, margin]), threshold), strict=True):
        moved = [
            (y, x)
            for y in range(height)
            for x in range(width)
            if any((clip[:, i, y, x] - clip[:, 0, y, x]).abs().max() > threshold for i in range(frames))
        ]
        if moved:
            rows, columns = zip(*moved, strict=True)
            expected = [[min(rows) - margin, min(columns) - margin], [max(rows) + 1 + margin, max(columns) + 1 + margin]]
            assert box.tolist() == expected
        else:  # hides nothing
            nothing = moving_boxes(torch.zeros(1), torch.cat([box, box])[None], frames, height, width)
            assert (box[0] >= box[1]).all() and (nothing == 1).all()


def frame_by_frame(frames: int, height: int, width: int, sides: list[int], start: tuple, end: tuple) -> torch.Tensor:
    """A hidden box, cut out of one frame after another: what the drawing of many at once is compared with."""
    mask = torch.ones(frames, 1, height, width)
    for frame, share in zip(mask, torch.linspace(0, 1, frames), strict=True):
        top, left = torch.lerp(torch.tensor(start).float(), torch.tensor(end).float(), share).round().int().tolist()
        frame[:, top : top + sides[0], left : left + sides[1]] = 0
    return mask


boxes = st.tuples(*[st.integers(0, 12)] * 4, st.integers(1, 8), st.integers(1, 8), st.integers(0, 6))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.lists(boxes, min_size=1, max_size=4))
def test_boxes_of_many_clips_are_hidden_boxes_after_their_first_frames(frames, height, width, rows):
    top, left, last_top, last_left, tall, wide, given = torch.tensor(rows).unbind(1)
    corners = [torch.stack(pair, 1) for pair in ((top, left), (top + tall, left + wide))]
    corners += [torch.stack(pair, 1) for pair in ((last_top, last_left), (last_top + tall, last_left + wide))]
    masks = moving_boxes(given.float(), torch.stack(corners, 1).float(), frames, height, width)
    assert masks.shape == (len(rows), 1, frames, height, width)
    for mask, (y, x, y_last, x_last, *sides, whole) in zip(masks, rows, strict=True):
        box = frame_by_frame(frames, height, width, sides, (y, x), (y_last, x_last))
        assert torch.equal(hidden_box(frames, height, width, tuple(sides), (y, x), (y_last, x_last)), box)
        assert torch.equal(mask.transpose(0, 1), torch.maximum(box, first_frames(frames, height, width, whole)))


# The extended net


def test_the_extended_net_is_the_base_net_before_it_is_tuned(small_unet):
    stunet = STUNet.from_t2i(small_unet(), verbose=False)
    noisy, mask = torch.randn(2, 3, 8, 16, 16), (torch.rand(2, 1, 8, 16, 16) < 0.5).float()
    log_snr, tokens = torch.tensor([-3.0, 1.0]), tokenise([CAPTION, "a blue 7 moving up"])
    known = given_pixels(torch.rand_like(noisy) * 2 - 1, mask)
    assert torch.equal(stunet(noisy, log_snr, tokens, known), stunet(noisy, log_snr, tokens))


def test_given_pixels_extend_the_first_convolution_from_three_channels_to_seven(small_unet):
    """Two convolutions, added, are one with all channels of ⟨J, C, M⟩; the fold comes before it."""
    stunet = STUNet.from_t2i(small_unet(), verbose=False)
    torch.nn.init.normal_(stunet.given.weight)
    stem, extra = stunet.t2i.stem, stunet.given
    extended = torch.nn.Conv2d(7 * 4, stem.out_channels, 3, padding=1)
    extended.weight.data, extended.bias.data = torch.cat([stem.weight, extra.weight], dim=1).data, stem.bias.data
    noisy, known = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    folded = torch.nn.functional.pixel_unshuffle(torch.cat([noisy, known], 1), 2)  # channels first, then the patch
    two = stunet.t2i.fold(noisy) + extra(torch.nn.functional.pixel_unshuffle(known, 2))
    torch.testing.assert_close(extended(folded), two, atol=1e-5, rtol=1e-5)


def test_given_pixels_reach_every_frame_once_the_net_is_tuned(small_unet, perturb):
    stunet = perturb(STUNet.from_t2i(small_unet(), verbose=False), 0.1)
    noisy, log_snr, tokens = torch.randn(1, 3, 16, 16, 16), torch.tensor([-3.0]), tokenise([CAPTION])
    mask = first_frames(16, 16, 16).transpose(0, 1)[None]
    dark, bright = (stunet(noisy, log_snr, tokens, given_pixels(torch.full_like(noisy, x), mask)) for x in (-1.0, 1.0))
    assert (dark - bright).abs().amax((0, 1, 3, 4)).min() > 1e-4


# The tasks


def test_nothing_given_is_plain_generation(pipe, plain):
    video = torch.rand(16, 3, 32, 32)
    same = pipe.inpaint(video, torch.zeros(1), CAPTION, seed=2, steps=1, super_resolution=False)
    assert torch.equal(same, plain)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([(), (1,), (32,), (32, 1), (1, 32, 32), (16, 1, 1, 1), (16, 1, 32, 32)]), st.integers(0, 2**31))
def test_known_pixels_come_back_exactly_for_any_mask_that_broadcasts(pipe, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < 0.5
    video = torch.rand(16, 3, 32, 32, generator=generator)
    result = pipe.inpaint(video, mask, CAPTION, steps=1, super_resolution=False)
    everywhere = mask.expand(16, 3, 32, 32)
    assert result.shape == video.shape and torch.equal(result[everywhere], video[everywhere])
    assert bool(everywhere.all()) == torch.equal(result, video)


def test_all_given_is_the_input_after_super_resolution_too(pipe):
    video = torch.rand(16, 3, SIZE, SIZE)
    assert torch.equal(pipe.inpaint(video, torch.ones(1), CAPTION, steps=1), video)


def test_an_image_comes_first_be_it_rendered_generated_or_a_file(pipe, tmp_path):
    rendered = ml.sample_batch(1, captions=[CAPTION], size=SIZE).video[0, 0]
    video = pipe.image_to_video(rendered, CAPTION, steps=1)
    assert video.shape == (16, 3, SIZE, SIZE) and torch.equal(video[0], rendered)
    save_video(rendered[None], tmp_path / "image.png")
    from_file = pipe.image_to_video(tmp_path / "image.png", CAPTION, steps=1)
    assert (from_file[0] - rendered).abs().max() < 0.2  # a palette of 64 colours
    small = pipe.generate_image("a red 3", steps=1)
    assert torch.equal(pipe.image_to_video(small, CAPTION, steps=1, super_resolution=False)[0], small)
    assert pipe.image_to_video(small, CAPTION, steps=1, frames=8).shape == (8, 3, SIZE, SIZE)


def test_a_cinemagraph_rests_outside_its_region(pipe):
    image = ml.sample_batch(1, captions=[CAPTION], size=SIZE).video[0, 0]
    region = torch.zeros(1, SIZE, SIZE)
    region[:, 40:100, 20:120] = 1
    video = pipe.cinemagraph(image, region, CAPTION, steps=1)
    outside = (region == 0).expand(3, -1, -1)
    assert all(torch.equal(frame[outside], image[outside]) for frame in video)
    assert torch.equal(video[0], image) and not torch.equal(video[8], image)


def test_lists_of_captions_take_a_video_each_and_clips_do_not_depend_on_their_company(pipe):
    video, mask = torch.rand(2, 16, 3, 32, 32), (torch.rand(2, 16, 1, 32, 32) < 0.5).float()
    captions = [CAPTION, "a blue 7 moving left"]
    both = pipe.inpaint(video, mask, captions, seed=4, steps=1, super_resolution=False)
    alone = pipe.inpaint(video[1], mask[1], captions[1], seed=5, steps=1, super_resolution=False)
    torch.testing.assert_close(both[1], alone, atol=1e-4, rtol=0)
    many = pipe.image_to_video(video[:, 0], captions, steps=1, super_resolution=False)
    assert torch.equal(many[:, 0], video[:, 0])


@pytest.mark.parametrize(
    ("video", "mask", "says"),
    [
        (torch.rand(16, 3, 48, 48), torch.ones(1), r"shape \(16, 3, 48, 48\).*\(any, 3, 128, 128\)"),
        (torch.rand(16, 1, 32, 32), torch.ones(1), "wanted"),
        (torch.rand(3, 32, 32), torch.ones(1), "wanted"),
        (torch.rand(15, 3, 32, 32), torch.ones(1), "factor 4.*12 or 16"),
        (torch.rand(16, 3, 32, 32) + 1, torch.ones(1), "values from"),
        (torch.full((16, 3, 32, 32), float("nan")), torch.ones(1), "values from"),
        (torch.rand(16, 3, 32, 32), torch.ones(15, 1, 32, 32), r"mask has shape \(15, 1, 32, 32\).*\(16, 1, 32, 32\)"),
        (torch.rand(16, 3, 32, 32), torch.ones(2, 16, 1, 32, 32), "mask has shape"),
        (torch.rand(16, 3, 32, 32), torch.full((1,), 0.5), "of 0 and 1"),
        (torch.rand(16, 3, 32, 32), torch.full((1,), float("nan")), "of 0 and 1"),
    ],
)
def test_bad_videos_and_masks_are_refused(pipe, video, mask, says):
    with pytest.raises(ValueError, match=says):
        pipe.inpaint(video, mask, CAPTION)


def test_wrong_types_are_refused(pipe, tmp_path):
    video = torch.rand(16, 3, 32, 32)
    with pytest.raises(TypeError, match=r"mask must be a torch\.Tensor"):
        pipe.inpaint(video, 1, CAPTION)
    with pytest.raises(TypeError, match=r"video must be a torch\.Tensor"):
        pipe.inpaint([1], torch.ones(1), CAPTION)
    with pytest.raises(TypeError, match="speed"):
        pipe.inpaint(video, torch.ones(1), CAPTION, speed=2)
    with pytest.raises(TypeError, match="caption"):
        pipe.inpaint(video, torch.ones(1), 3)
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(ValueError, match="no image"):
        pipe.image_to_video(tmp_path / "no.png", CAPTION)
    with pytest.raises(ValueError, match="region has shape"):
        pipe.cinemagraph(video[0], torch.ones(1, 8, 8), CAPTION)


def test_region_masks_keep_the_first_frame():
    region = (torch.rand(2, 1, 4, 4) < 0.5).float()
    mask = outside_region(region, 3)
    assert mask.shape == (2, 3, 1, 4, 4) and (mask[:, 0] == 1).all()
    assert torch.equal(mask[:, 1:], (1 - region)[:, None].expand(-1, 2, -1, -1, -1))
