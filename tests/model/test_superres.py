"""Super-resolution: the condition is cut out of one global tensor, and windows are reconciled before clipping."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from minilumiere.config import SCALES
from minilumiere.model.diffusion import add_noise, sample, schedule
from minilumiere.model.multidiffusion import temporal_windows
from minilumiere.model.stunet import STUNet
from minilumiere.model.superres import AUGMENTATION, condition, super_resolve
from minilumiere.model.text import tokenise

LOW, HIGH = 8, 16  # pixels
TINY = replace(SCALES["tiny"], ssr_steps=3)
TOKENS = tokenise(["a red 3 moving right", "a blue 7"])


@pytest.fixture(scope="module")
def net(small_unet, perturb) -> STUNet:
    unet = small_unet(HIGH, in_channels=6, noise_levels=2, attention=(False,) * 3)
    return perturb(STUNet.from_t2i(unet, halvings=0, whole=False, verbose=False), 0.1).eval().requires_grad_(False)


def draw(frames: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A low-resolution clip, its captions, the noise to start from and the noise of the augmentation."""
    low = torch.rand(batch, 3, frames, LOW, LOW) * 2 - 1
    return low, TOKENS[:batch], torch.randn(batch, 3, frames, HIGH, HIGH), torch.randn_like(low)


class Watched:
    """Stands for the net: keeps what it is given, and answers with its condition, or with `answer`."""

    def __init__(self, answer=None):
        self.calls, self.answer = [], answer

    def __call__(self, both, levels, tokens):
        self.calls.append((both, levels, tokens))
        return both[:, 3:] if self.answer is None else self.answer(both)


# The condition


def test_condition_of_a_video_is_that_of_each_frame_as_an_image():
    low, noise = torch.randn(2, 2, 3, 5, LOW, LOW)
    log_snr = torch.tensor([1.0, 6.0])
    video = condition(low, HIGH, log_snr, noise)
    assert video.shape == (2, 3, 5, HIGH, HIGH)
    frames = torch.stack([condition(low[:, :, t], HIGH, log_snr, noise[:, :, t]) for t in range(5)], dim=2)
    torch.testing.assert_close(video, frames, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [16, 32])
def test_condition_is_the_noisy_image_enlarged(size):
    low, noise = torch.randn(2, 2, 3, LOW, LOW)
    log_snr = torch.tensor([1.0, 6.0])
    result = condition(low, size, log_snr, noise)
    expected = F.interpolate(add_noise(low, noise, log_snr), size=(size, size), mode="bilinear")
    torch.testing.assert_close(result, expected)
    # Noise is added before enlarging, with each clip's own level: little of it at log-SNR 6, much at 1.
    clean = F.interpolate(low, size=(size, size), mode="bilinear")
    error = (result - clean).square().mean((1, 2, 3))
    assert error[0] > 5 * error[1]


def test_condition_keeps_a_constant_but_for_its_noise():
    log_snr = torch.tensor([AUGMENTATION])
    result = condition(torch.ones(1, 3, 4, LOW, LOW), HIGH, log_snr, torch.zeros(1, 3, 4, LOW, LOW))
    torch.testing.assert_close(result, log_snr.sigmoid().sqrt().expand_as(result))


# Sampling


def test_one_window_is_plain_sampling(net):
    low, tokens, noise, augmentation_noise = draw(frames=TINY.window)
    level = torch.full((2,), AUGMENTATION)
    enlarged = condition(low, HIGH, level, augmentation_noise)

    def denoise(noisy, log_snr):
        return net(torch.cat([noisy, enlarged], dim=1), torch.stack([log_snr, level], dim=1), tokens)

    expected = sample(denoise, noise, steps=3, shift=TINY.ssr_shift, tail=TINY.tail)
    torch.testing.assert_close(super_resolve(net, low, tokens, TINY, noise, augmentation_noise), expected)


def test_result_has_the_noises_shape_and_lies_in_range(net):
    low, tokens, noise, augmentation_noise = draw(frames=16)
    result = super_resolve(net, low, tokens, TINY, noise, augmentation_noise)
    assert result.shape == (2, 3, 16, HIGH, HIGH)
    assert result.abs().max() <= 1 and result.std() > 0.05
    assert torch.equal(result, super_resolve(net, low, tokens, TINY, noise, augmentation_noise)), "all noise is given"


@pytest.mark.parametrize("per_call", [1, 2])
def test_windows_per_call_does_not_change_the_result(net, per_call):
    low, tokens, noise, augmentation_noise = draw(frames=20)
    result = super_resolve(net, low, tokens, TINY, noise, augmentation_noise, windows_per_call=per_call)
    torch.testing.assert_close(result, super_resolve(net, low, tokens, TINY, noise, augmentation_noise), atol=1e-4, rtol=1e-4)


def test_clips_of_a_batch_do_not_mix(net):
    """Windows and clips share one batch of the net: each must keep its own caption, condition and noise."""
    low, tokens, noise, augmentation_noise = draw(frames=16)
    together = super_resolve(net, low, tokens, TINY, noise, augmentation_noise)
    for i in range(2):
        one = slice(i, i + 1)
        alone = super_resolve(net, low[one], tokens[one], TINY, noise[one], augmentation_noise[one])
        torch.testing.assert_close(together[one], alone, atol=1e-4, rtol=1e-4)
    swapped = super_resolve(net, low, tokens.flip(0), TINY, noise, augmentation_noise)
    assert (swapped - together).abs().max() > 1e-3, "the caption matters, so the loop above proves something"


@pytest.mark.parametrize("per_call", [None, 1])
def test_condition_is_cut_out_of_one_global_tensor(per_call):
    low, tokens, noise, augmentation_noise = draw(frames=20)
    watched, windows = Watched(), temporal_windows(20, TINY.window, TINY.overlap)
    super_resolve(watched, low, tokens, TINY, noise, augmentation_noise, windows_per_call=per_call)
    enlarged = condition(low, HIGH, torch.full((2,), AUGMENTATION), augmentation_noise)
    given = torch.cat([both for both, _, _ in watched.calls]).unflatten(0, (TINY.ssr_steps, len(windows), 2))
    for step in given:
        for segment, window in zip(step, windows, strict=True):
            assert torch.equal(segment[:, 3:], enlarged[:, :, window])
    first = given[0, :, :, :3]  # of the first step: the noise, cut out likewise
    assert all(torch.equal(segment, noise[:, :, window]) for segment, window in zip(first, windows, strict=True))


def test_net_is_told_both_noise_levels_and_each_clips_caption():
    low, tokens, noise, augmentation_noise = draw(frames=16)
    watched = Watched()
    super_resolve(watched, low, tokens, TINY, noise, augmentation_noise)
    expected = schedule(TINY.ssr_steps, TINY.ssr_shift, tail=TINY.tail)
    for (_, levels, tokens), log_snr in zip(watched.calls, expected[:-1], strict=True):
        torch.testing.assert_close(levels, torch.stack([log_snr, torch.tensor(AUGMENTATION)]).expand(4, 2))
        assert torch.equal(tokens, TOKENS[[0, 1, 0, 1]])  # two windows of two clips


def test_windows_are_averaged_before_clipping():
    """At the first step x̂ is all but −v: windows that say 3 and −1 of a frame mean 1; clipped first they would mean 0."""
    low, tokens, _, augmentation_noise = draw(frames=16, batch=1)
    answers = iter([-3.0, 1.0])
    watched = Watched(lambda both: torch.full_like(both[:, :3], next(answers)))
    noise = torch.zeros(1, 3, 16, HIGH, HIGH)
    result = super_resolve(watched, low, tokens, TINY, noise, augmentation_noise, steps=1, windows_per_call=1)
    expected = torch.tensor([1.0] * 9 + [-1.0] * 7)  # the overlap is frames 7 and 8
    torch.testing.assert_close(result.amax((0, 1, 3, 4)), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(result.amin((0, 1, 3, 4)), expected, atol=1e-3, rtol=0)


def test_given_windows_and_steps_replace_the_presets():
    low, tokens, noise, augmentation_noise = draw(frames=16)
    watched = Watched()
    windows = [slice(0, 8), slice(8, 16)]  # no overlap: the naive tiling that notebook 07 shows to fail
    super_resolve(watched, low, tokens, TINY, noise, augmentation_noise, windows=windows, steps=2)
    assert [both.shape[0] for both, _, _ in watched.calls] == [4, 4]
    assert watched.calls[0][0].shape[2] == 8
    watched = Watched()
    super_resolve(watched, low, tokens, TINY, noise, augmentation_noise)
    assert len(watched.calls) == TINY.ssr_steps and watched.calls[0][0].shape[2] == TINY.window


def test_a_clip_shorter_than_a_window_is_one_window(net):
    low, tokens, noise, augmentation_noise = draw(frames=3)
    assert super_resolve(net, low, tokens, TINY, noise, augmentation_noise).shape == noise.shape
