"""Where places look among the words: the weights of the blocks' own attention."""

import pytest
import torch
from einops import rearrange
from torch import nn

from minilumiere.model import STUNet, tokenise
from minilumiere.viz.words import record_word_attention, render_words

CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise quickly and a white 1"]
WORDS = [5, 10]


@pytest.fixture
def inputs():
    """Two noisy clips of 8 frames, wider than high, their noise levels and their captions' tokens."""
    return torch.randn(2, 3, 8, 16, 16), torch.tensor([-2.0, 3.0]), tokenise(CAPTIONS)


@pytest.fixture
def stunet(small_unet, perturb) -> STUNet:
    return perturb(STUNet.from_t2i(small_unet(attention=(False, True, True)), verbose=False), 0.3, seed=1).eval()


def test_every_layer_that_reads_words_has_a_map_that_sums_to_one_over_the_words(stunet, inputs):
    with record_word_attention(stunet) as maps:
        stunet(*inputs)
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == {
        "down.1.image-attention": (2, 2, 4, 4, 4, 14),
        "down.1.space-time": (2, 2, 4, 4, 4, 14),
        "middle.0.time-attention": (2, 2, 2, 2, 2, 14),
        "middle.1.image-attention": (2, 2, 2, 2, 2, 14),
        "middle.1.time-attention": (2, 2, 2, 2, 2, 14),
        "middle.2.time-attention": (2, 2, 2, 2, 2, 14),
        "up.1.image-attention": (2, 2, 4, 4, 4, 14),
        "up.1.space-time": (2, 2, 4, 4, 4, 14),
    }
    for weights in maps.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        for clip, words in enumerate(WORDS):
            assert (weights[clip, ..., words:] == 0).all() and (weights[clip, ..., :words] > 0).all()
        assert weights.std() > 0.01 and not weights.requires_grad  # places differ in where they look


def blocks(stunet):
    return {
        "down.1.image-attention": (stunet.t2i.down_attention[1], "(b t) (h w) c -> b c t h w"),
        "up.1.space-time": (stunet.up_inflation[1].read, "b (t h w) c -> b c t h w"),
        "middle.1.time-attention": (stunet.middle_inflation[1].read, "b (h w t) c -> b c t h w"),
    }


@pytest.mark.parametrize("name", ["down.1.image-attention", "up.1.space-time", "middle.1.time-attention"])
def test_with_the_values_of_the_words_they_give_what_the_block_reads(stunet, inputs, name):
    """Also of which place and frame: axes that were mixed up would give what another place reads."""
    block, axes = blocks(stunet)[name]
    seen, out = {}, "cross_out" if "image" in name else "out"
    hooks = [
        block.key_value.register_forward_hook(lambda module, args, output: seen.update(value=output.chunk(2, -1)[1])),
        getattr(block, out).register_forward_pre_hook(lambda module, args: seen.update(read=args[0])),
    ]
    with record_word_attention(stunet) as maps:
        stunet(*inputs)
    for hook in hooks:
        hook.remove()
    frames, side = maps[name].shape[2:4]
    value = rearrange(seen["value"], "b n (heads d) -> b heads n d", heads=2)
    value = value[:: len(value) // 2]  # of an image net, once for each frame: all the same
    expected = rearrange(torch.einsum("bethwn,bend->bethwd", maps[name], value), "b e t h w d -> b (e d) t h w")
    read = rearrange(seen["read"], axes, b=2, t=frames, h=side)
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-4)


def test_recording_changes_nothing_and_leaves_nothing(stunet, inputs):
    before = stunet(*inputs)
    with record_word_attention(stunet) as maps:
        assert torch.equal(stunet(*inputs), before)
        first = dict(maps)
        stunet(noisy=inputs[0][1:], log_snr=inputs[1][1:], tokens=inputs[2][1:])
        assert all(torch.allclose(maps[name], first[name][1:], atol=1e-5) for name in first)  # of the last call only
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stunet.modules())
    for other in (nn.Linear(1, 1), None):
        with pytest.raises(TypeError, match="UNet or a STUNet"), record_word_attention(other):
            pass


def test_an_image_net_has_one_frame(small_unet):
    unet = small_unet(attention=(False, True, True))
    with record_word_attention(unet) as maps:
        unet(torch.randn(2, 3, 16, 16), torch.zeros(2), tokenise(CAPTIONS))
    assert maps["up.1.image-attention"].shape == (2, 2, 1, 4, 4, 14)


def test_a_line_for_each_word_and_an_image_for_each_frame(pictures):
    weights = torch.rand(2, 4, 8, 8, 14)  # heads t h w n
    figure = render_words(weights, CAPTIONS[0], "some layer", row=3, head=1)
    strip, slices = pictures(figure)
    assert strip.shape == (5 * 8 + 4, 4 * 8 + 3) and slices.shape == (5 * 5 - 1, 8)
    assert torch.equal(strip[9:17, 18:26], weights[1, 2, :, :, 1])  # of the second word, the third frame
    assert torch.equal(slices[10:14], weights[1, :, 3, :, 2])  # of the third word, row 3 over time
    shares = weights[1].mean((0, 1, 2))
    beside = [f"{word} {share:.2f}" for word, share in zip(CAPTIONS[0].split(), shares, strict=False)]
    assert [text.get_text() for text in figure.texts][:5] == beside
    mean, _ = pictures(render_words(weights, CAPTIONS[0]))
    torch.testing.assert_close(mean[:8, :8], weights[:, 0, :, :, 0].mean(0))
    with pytest.raises(ValueError, match="row must be from 0 to 7"):
        render_words(weights, CAPTIONS[0], row=8)
    with pytest.raises(ValueError, match="head must be from 0 to 1"):
        render_words(weights, CAPTIONS[0], head=2)
