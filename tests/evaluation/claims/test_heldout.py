"""Every net sees the same clips and the same noise."""

import pytest
import torch
from einops import rearrange, repeat
from torch import nn

from minilumiere.evaluation.claims.heldout import held_out, losses
from minilumiere.model.diffusion import clean_and_noise
from minilumiere.model.stunet import STUNet
from minilumiere.model.unet import UNet


def test_unseen_pairs_come_with_the_same_motions_and_noise(mini):
    seen, unseen = held_out(mini, 6, 8), held_out(mini, 6, 8, unseen=True)
    torch.testing.assert_close(seen.log_snr, unseen.log_snr, rtol=0, atol=0)
    noise, same = (clean_and_noise(each.noisy, each.v, each.log_snr)[1] for each in (seen, unseen))
    torch.testing.assert_close(noise, same, atol=1e-4, rtol=0)
    assert not torch.equal(seen.noisy, unseen.noisy) and not torch.equal(seen.tokens, unseen.tokens)
    differing = (seen.tokens != unseen.tokens).sum(1)
    assert differing.min() >= 1 and differing.max() <= 2, "colour and digit at most"


def test_clips_are_the_same_every_time_and_levels_are_in_their_band(mini):
    once, again = (held_out(mini, 5, 8, band=(-6.0, -2.0)) for _ in range(2))
    assert torch.equal(once.noisy, again.noisy) and torch.equal(once.tokens, again.tokens)
    assert (once.log_snr >= -6).all() and (once.log_snr <= -2).all() and once.log_snr.unique().numel() == 5


class Says(nn.Module):
    """A net that knows the answer, but for an error on one clip."""

    def __init__(self, held, error: float):
        super().__init__()
        self.answers = {float(level): v for level, v in zip(held.log_snr, held.v, strict=True)}
        self.worst, self.error = float(held.log_snr[2]), error

    def forward(self, noisy, log_snr, tokens):
        return torch.stack([self.answers[float(level)] + self.error * (float(level) == self.worst) for level in log_snr])


def test_losses_are_of_each_clip(mini):
    held = held_out(mini, 10, 4)  # more than go through a net at once
    assert losses(Says(held, 0.5), held).tolist() == pytest.approx([0, 0, 0.25, *[0] * 7], abs=1e-6)


def test_an_image_net_sees_frame_by_frame_what_a_video_net_without_time_is(mini, perturb):
    held, image_net = held_out(mini, 3, 4), perturb(UNet(mini.t2i, mini.size), 0.05)
    found = losses(image_net, held)
    torch.testing.assert_close(found, losses(STUNet.from_t2i(image_net, 0, verbose=False), held))
    with torch.no_grad():
        frames = image_net(
            rearrange(held.noisy, "b c t h w -> (b t) c h w"),
            repeat(held.log_snr, "b -> (b t)", t=4),
            repeat(held.tokens, "b n -> (b t) n", t=4),
        )
    error = (frames - rearrange(held.v, "b c t h w -> (b t) c h w")).square().unflatten(0, (3, 4)).flatten(1).mean(1)
    torch.testing.assert_close(found, error)
