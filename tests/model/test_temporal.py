"""The temporal layers: exact at initialisation, aware of order afterwards, and plain convolutions underneath."""

import math
import subprocess
import sys

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from minilumiere.model import SpaceTimeConv, TemporalAttention, TemporalDownsample, TemporalUpsample, temporal
from minilumiere.model.blocks import Context
from minilumiere.model.temporal import CaptionByPlace, over_time, places, rotate, since_start, temporal_conv

CHANNELS, EMBEDDING, TEXT = 8, 12, 16
FRAMES = 9


def make_context(batch: int = 1, words: int = 5, real: int = 3) -> Context:
    features = torch.randn(batch, words, TEXT)
    return Context(torch.randn(batch, 1, EMBEDDING), features, (torch.arange(words) < real).expand(batch, words))


def conv_block() -> SpaceTimeConv:
    return SpaceTimeConv(CHANNELS, EMBEDDING)


def reading_block() -> SpaceTimeConv:
    return SpaceTimeConv(CHANNELS, EMBEDDING, TEXT, heads=2)


def attention_block() -> TemporalAttention:
    return TemporalAttention(CHANNELS, EMBEDDING, TEXT, heads=2)


every_block = pytest.mark.parametrize("make", [conv_block, reading_block, attention_block])


def frame_changes(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """The frames of b c t h w that differ."""
    change = (before - after).abs().amax((0, 1, 3, 4))
    assert ((change > 1e-4) | (change < 1e-6)).all(), f"neither clearly changed nor clearly the same: {change}"
    return (change > 1e-4).nonzero()[:, 0].tolist()


# Resampling


def test_downsample_starts_as_every_second_frame():
    x = torch.randn(2, CHANNELS, 6, 3, 5)
    assert torch.equal(TemporalDownsample(CHANNELS)(x), x[:, :, ::2])


def test_upsample_starts_as_every_frame_twice():
    x = torch.randn(2, CHANNELS, 3, 3, 5)
    assert torch.equal(TemporalUpsample(CHANNELS)(x), x.repeat_interleave(2, dim=2))


@pytest.mark.parametrize("resample", [TemporalDownsample, TemporalUpsample])
def test_resampling_has_gain_one_up_to_the_borders(resample):
    x = torch.randn(1, CHANNELS, 1, 2, 2).expand(-1, -1, 6, -1, -1)  # the same frame six times
    y = resample(CHANNELS)(x)
    assert torch.equal(y, x[:, :, :1].expand_as(y))


@pytest.mark.parametrize("frames", [1, 3, 15])
def test_downsample_refuses_an_odd_number_of_frames(frames):
    with pytest.raises(ValueError, match=f"{frames} frames"):
        TemporalDownsample(CHANNELS)(torch.randn(1, CHANNELS, frames, 2, 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_temporal_conv_is_conv1d_over_time_and_conv3d(stride):
    conv = temporal_conv(CHANNELS, stride)
    x = torch.randn(2, CHANNELS, 6, 3, 5)
    weight, bias = conv.weight[..., 0], conv.bias  # out in 3
    sequences = rearrange(x, "b c t h w -> (b h w) c t")
    by_conv1d = rearrange(F.conv1d(sequences, weight, bias, stride, padding=1), "(b h w) c t -> b c t h w", b=2, h=3)
    by_conv3d = F.conv3d(x, weight[..., None, None], bias, (stride, 1, 1), (1, 0, 0))
    torch.testing.assert_close(over_time(conv, x), by_conv1d, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(over_time(conv, x), by_conv3d, atol=1e-5, rtol=1e-5)


# Both inflation blocks


@every_block
def test_block_is_the_identity_at_first(make):
    x = torch.randn(2, CHANNELS, FRAMES, 3, 5)
    assert torch.equal(make()(x, make_context(2)), x)


@every_block
@pytest.mark.parametrize("frames", [1, 2, 7, 33])
def test_block_takes_any_number_of_frames(make, perturb, frames):
    x = torch.randn(1, CHANNELS, frames, 3, 5)
    y = perturb(make())(x, make_context())
    assert y.shape == x.shape and y.isfinite().all() and not torch.allclose(x, y)


@every_block
def test_block_knows_the_order_of_frames(make, perturb):
    block, context = perturb(make()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 3, 3)
    order = torch.tensor([3, 1, 4, 0, 5, 8, 2, 6, 7])
    straight, shuffled = block(x, context), block(x[:, :, order], context)
    assert (shuffled - straight[:, :, order]).abs().max() > 1e-2


def test_attention_knows_the_order_from_its_positions_alone(perturb, monkeypatch):
    """Without `rotate` a shuffled video gives the shuffled output, so the test above proves what it says."""
    monkeypatch.setattr(temporal, "rotate", lambda x, heads: x)
    block, context = perturb(attention_block()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 3, 3)
    order = torch.tensor([3, 1, 4, 0, 5, 8, 2, 6, 7])
    torch.testing.assert_close(block(x[:, :, order], context), block(x, context)[:, :, order], atol=1e-5, rtol=1e-5)


@every_block
def test_noise_level_and_caption_summary_reach_the_block(make, perturb):
    block, context = perturb(make()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 3, 3)
    other = context._replace(embedding=torch.randn(1, 1, EMBEDDING))
    assert frame_changes(block(x, context), block(x, other)) == list(range(FRAMES))


@every_block
def test_one_embedding_for_all_frames_is_the_same_one_for_each(make, perturb):
    block, context = perturb(make()), make_context(2)
    x = torch.randn(2, CHANNELS, FRAMES, 3, 3)
    repeated = context._replace(embedding=context.embedding.repeat(1, FRAMES, 1))
    torch.testing.assert_close(block(x, repeated), block(x, context), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("make", "seen_by"), [(conv_block, [3, 4, 5]), (attention_block, list(range(FRAMES)))])
def test_each_frame_has_an_embedding_of_its_own(make, seen_by, perturb):
    block, context = perturb(make()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 3, 3)
    embedding = torch.randn(1, FRAMES, EMBEDDING)
    other = embedding.clone()
    other[:, 4] = 3 * torch.randn(EMBEDDING)
    before, after = (block(x, context._replace(embedding=each)) for each in (embedding, other))
    assert frame_changes(before, after) == seen_by


@every_block
def test_what_a_caption_says_everywhere_it_says_as_the_embedding_does(make, perturb):
    block, context = perturb(make()), make_context(2)
    x, more = torch.randn(2, CHANNELS, FRAMES, 3, 5), torch.randn(2, EMBEDDING)
    everywhere = context._replace(here=more[:, None, None].expand(-1, 3, 5, -1))
    added = context._replace(embedding=context.embedding + more[:, None])
    torch.testing.assert_close(block(x, everywhere), block(x, added), atol=1e-5, rtol=1e-5)


@every_block
def test_what_a_caption_says_at_one_place_changes_that_place_alone(make, perturb):
    block, context = perturb(make()), make_context()
    x, here = torch.randn(1, CHANNELS, FRAMES, 3, 5), torch.zeros(1, 3, 5, EMBEDDING)
    other = here.clone()
    other[:, 1, 3] = torch.randn(EMBEDDING)
    change = (block(x, context._replace(here=other)) - block(x, context._replace(here=here))).abs().amax((0, 1, 2))
    assert change[1, 3] > 1e-2 and change.flatten().topk(2).values[1] < 1e-5


def test_a_caption_says_nothing_about_places_at_first_and_then_something_else_at_each(perturb):
    layer, summary = CaptionByPlace(TEXT, EMBEDDING), torch.randn(2, TEXT)
    assert not layer(summary, 4, 4).any()
    nets = perturb(layer)(summary, 4, 4)  # b h w e
    difference = nets[0] - nets[1]
    assert (difference - difference.mean((0, 1))).abs().max() > 0.1, "how captions differ depends on the place"
    torch.testing.assert_close(
        layer(summary.mean(0, keepdim=True), 4, 4)[0], nets.mean(0), atol=1e-5, rtol=1e-5
    )  # linear in the caption


@every_block
def test_clips_of_a_batch_do_not_mix(make, perturb):
    block, context = perturb(make()), make_context(2)._replace(here=torch.randn(2, 3, 5, EMBEDDING))
    x = torch.randn(2, CHANNELS, FRAMES, 3, 5)
    alone = torch.cat([block(x[i : i + 1], Context(*(part[i : i + 1] for part in context))) for i in range(2)])
    torch.testing.assert_close(block(x, context), alone, atol=1e-5, rtol=1e-5)


# SpaceTimeConv


@pytest.mark.parametrize("frame", [0, 4, FRAMES - 1])
def test_space_time_conv_sees_three_frames(perturb, frame):
    block, context = perturb(conv_block()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 4, 4)
    moved = x.clone()
    moved[:, :, frame] = torch.randn(1, CHANNELS, 4, 4)
    seen_by = [t for t in (frame - 1, frame, frame + 1) if 0 <= t < FRAMES]
    assert frame_changes(block(x, context), block(moved, context)) == seen_by


def test_space_time_conv_sees_neighbouring_places(perturb):
    """It is a 3x3 convolution in space too, not a temporal one alone. (Group norm reaches every place a little.)"""
    block, context = perturb(conv_block()), make_context()
    x = torch.randn(1, CHANNELS, 3, 5, 5)
    moved = x.clone()
    moved[..., 2, 2] += torch.randn(1, CHANNELS, 3)
    change = (block(moved, context) - block(x, context)).square().sum((0, 1, 2))
    near = torch.zeros(5, 5, dtype=torch.bool)
    near[1:4, 1:4] = True
    near[2, 2] = False
    assert change[near].mean() > 5 * change[[0, 0, 4, 4], [0, 4, 0, 4]].mean()


def test_backward_behind_a_frozen_channels_last_stem_does_not_crash():
    """torch 2.13's group norm segfaults there on CPU unless `SpaceTimeConv` guards against it (MEASURED.md)."""
    script = f"""
import torch
from torch import nn
from minilumiere.model.blocks import Context
from minilumiere.model.temporal import SpaceTimeConv

stem = nn.Conv2d(3, 32, 3, padding=1).to(memory_format=torch.channels_last).requires_grad_(False)
block = SpaceTimeConv(32, {EMBEDDING}).to(memory_format=torch.channels_last)
nn.init.normal_(block.project.weight)
images = stem(torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last))
assert images.is_contiguous(memory_format=torch.channels_last) and not images.requires_grad
video = images.unflatten(0, (2, 4)).movedim(2, 1)  # b c t h w, a view
block(video, Context(torch.randn(2, 1, {EMBEDDING}), None, None)).square().sum().backward()
assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in block.modulation.norm.parameters())
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-500:]}"
    assert done.stdout.strip() == "whole"


# TemporalAttention


@pytest.mark.parametrize("frame", [0, 4, FRAMES - 1])
def test_attention_sees_every_frame(perturb, frame):
    block, context = perturb(attention_block()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 2, 2)
    moved = x.clone()
    moved[:, :, frame] = 3 * torch.randn(1, CHANNELS, 2, 2)
    assert frame_changes(block(x, context), block(moved, context)) == list(range(FRAMES))


def test_attention_looks_along_time_at_each_place_alone(perturb):
    block, context = perturb(attention_block()), make_context(2)
    x = torch.randn(2, CHANNELS, FRAMES, 3, 5)
    moved = x.clone()
    moved[1, :, 4, 2, 3] += torch.randn(CHANNELS)
    change = (block(moved, context) - block(x, context)).abs().amax(1)  # b t h w
    assert (change[1, :, 2, 3] > 1e-4).all(), "one frame of a place is felt on all frames of that place"
    change[1, :, 2, 3] = 0
    assert change.max() < 1e-6, "and nowhere else"


@pytest.mark.parametrize("make", [reading_block, attention_block])
def test_words_reach_the_block_and_padding_does_not(make, perturb):
    block, context = perturb(make()), make_context()
    x = torch.randn(1, CHANNELS, FRAMES, 2, 2)
    before = block(x, context)
    padding, word = context.words.clone(), context.words.clone()
    padding[:, 3:] = 1e3 * torch.randn(1, 2, TEXT)
    word[:, 2] = torch.randn(1, TEXT)
    assert torch.equal(block(x, context._replace(words=padding)), before)
    assert frame_changes(block(x, context._replace(words=word)), before) == list(range(FRAMES))


def test_clock_decays_from_one_and_does_not_depend_on_the_length_of_the_clip():
    clock = since_start(80)
    assert clock.shape == (80, 6) and torch.equal(clock[0], torch.ones(6))
    torch.testing.assert_close(clock[[2, 4, 8, 16, 32, 64], range(6)], torch.full((6,), 1 / math.e))  # time constants
    assert (clock.diff(dim=0) <= 0).all() and (clock[:, -1].diff() < -1e-3).all(), "no two frames share a time"
    assert torch.equal(since_start(16), clock[:16])


@every_block
def test_block_knows_where_a_place_is(make, perturb):
    """On a video without any content, far from its edges: only the place can make a difference."""
    block, context = perturb(make()), make_context()
    change = block(torch.zeros(1, CHANNELS, FRAMES, 9, 9), context)[0, :, 4, 2:-2, 2:-2].flatten(1)  # c (h w)
    assert (change[:, :, None] - change[:, None]).abs().amax(0).add(torch.eye(25)).min() > 1e-4, "no two places look alike"


def test_places_are_the_same_at_every_resolution():
    """A coarse place is where the four fine ones are that it covers, and no two places share their features."""
    assert places(16, 8).shape == (16, 8, 8)
    fine = places(16, 16)
    assert (fine.flatten(0, 1)[:, None] - fine.flatten(0, 1)).norm(dim=-1).add(torch.eye(256)).min() > 0.1
    means = F.avg_pool2d(fine.permute(2, 0, 1), 2).permute(1, 2, 0)
    torch.testing.assert_close(means / means.norm(dim=-1, keepdim=True), places(8, 8) / 2, atol=5e-3, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([(8, 1), (8, 2), (24, 3), (32, 4)]), st.integers(0, 2**31))
def test_rotate_keeps_lengths_and_scores_depend_on_distance_alone(frames, sizes, seed):
    channels, heads = sizes
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, channels, generator=generator, dtype=torch.float64).expand(-1, -1, frames, -1)

    def split(x):
        return rearrange(x, "1 t (heads d) -> heads t d", heads=heads)

    turned_query, turned_key = split(rotate(query, heads)), split(rotate(key, heads))
    torch.testing.assert_close(turned_query.norm(dim=-1), split(query).norm(dim=-1))
    torch.testing.assert_close(rotate(query, heads)[:, 0], query[:, 0])  # the first frame is not turned
    scores = turned_query @ turned_key.mT  # heads t t, the same two vectors at every pair of frames
    for distance in range(1 - frames, frames):
        along = scores.diagonal(distance, 1, 2)
        torch.testing.assert_close(along, along[:, :1].expand_as(along), atol=1e-4, rtol=1e-4)


def test_rotated_scores_tell_all_distances_of_a_long_clip_apart():
    x = torch.randn(1, 1, 16).expand(1, 80, 16)
    turned = rotate(x, heads=2)[0]
    scores = turned[0] @ turned.T  # of frame 0 with frame 0, 1, 2, ...
    assert scores.argmax() == 0
    assert (turned[:, None] - turned).norm(dim=-1).add(torch.eye(80)).min() > 0.05, "no two frames are turned alike"


def test_attention_equals_softmax_attention_with_rotated_queries_and_keys(perturb):
    """The block's self-attention, written out for one place."""
    block = perturb(attention_block())
    x, context = torch.randn(1, CHANNELS, FRAMES, 1, 1), make_context()
    for layer in (block.read.out, block.mlp[-1]):  # leave the self-attention alone
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    scale, shift = block.scale_shift(context.embedding[0]).chunk(2, dim=-1)
    h = (F.layer_norm(x[0, :, :, 0, 0].T, (CHANNELS,)) + block.place(places(1, 1)[0])) * (1 + scale) + shift  # t c
    query, key, value = block.qkv(h).chunk(3, dim=-1)
    query, key = rotate(query[None], 2)[0], rotate(key[None], 2)[0]
    found = []
    for head in range(2):
        part = slice(head * CHANNELS // 2, (head + 1) * CHANNELS // 2)
        weights = (query[:, part] @ key[:, part].T / (CHANNELS // 2) ** 0.5).softmax(dim=-1)
        found.append(weights @ value[:, part])
    expected = x[0, :, :, 0, 0].T + block.project(h + block.out(torch.cat(found, dim=-1)))
    torch.testing.assert_close(block(x, context)[0, :, :, 0, 0].T, expected, atol=1e-5, rtol=1e-4)
