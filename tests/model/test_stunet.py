"""The inflated net: the image net where it must be, frozen where it must be, a video net after training."""

import copy
import re

import pytest
import torch
from einops import rearrange

from minilumiere.config import SCALES
from minilumiere.model import STUNet, UNet, count_parameters, null_tokens, tokenise

CAPTIONS = ["a red 3 moving right", "a blue 7 circling clockwise quickly and a white 1"]


@pytest.fixture
def inputs():
    """A function that draws noisy clips, their noise levels and their captions' tokens."""

    def draw(frames: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.randn(batch, 3, frames, 16, 16), torch.tensor([-2.0, 3.0])[:batch], tokenise(CAPTIONS[:batch])

    return draw


@pytest.fixture
def trained(small_unet, perturb):
    """A function that builds a STUNet whose temporal layers do something."""

    def build(halvings: int = 2, **changes) -> STUNet:
        stunet = STUNet.from_t2i(small_unet(**changes), halvings, verbose=False)
        image_weights = copy.deepcopy(stunet.t2i.state_dict())
        perturb(stunet, 0.1, seed=1).t2i.load_state_dict(image_weights)
        return stunet

    return build


def each_frame_as_image(unet: UNet, video: torch.Tensor, log_snr: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    frames = video.shape[2]
    images = rearrange(video, "b c t h w -> (b t) c h w")
    result = unet(images, log_snr.repeat_interleave(frames), tokens.repeat_interleave(frames, 0))
    return rearrange(result, "(b t) c h w -> b c t h w", t=frames)


# At initialisation


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
@pytest.mark.parametrize("frames", [4, 8, 12, 20])
def test_at_first_every_nth_frame_is_the_image_nets_and_no_other(small_unet, inputs, halvings, frames):
    unet = small_unet()
    video, log_snr, tokens = inputs(frames)
    expected = each_frame_as_image(unet, video, log_snr, tokens)
    assert expected.std() > 0.1, "an image net that answers nothing would prove nothing"
    stunet = STUNet.from_t2i(unet, halvings, verbose=False)
    error = (stunet(video, log_snr, tokens) - expected).abs().amax((0, 1, 3, 4))  # t
    factor = 2**halvings
    assert stunet.temporal_factor == factor
    same = torch.arange(frames) % factor == 0
    assert error[same].max() < 1e-4
    assert same.all() or error[~same].min() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_at_first_a_static_video_gives_the_image_nets_answer_on_all_frames(small_unet, inputs, halvings):
    unet = small_unet()
    video, log_snr, tokens = inputs(8)
    video = video[:, :, :1].expand(-1, -1, 8, -1, -1)
    expected = each_frame_as_image(unet, video, log_snr, tokens)
    stunet = STUNet.from_t2i(unet, halvings, verbose=False)
    torch.testing.assert_close(stunet(video, log_snr, tokens), expected, atol=1e-4, rtol=1e-4)


# What trains


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_only_temporal_parameters_get_gradients_and_all_of_them_do(trained, inputs, halvings):
    stunet = trained(halvings)
    stunet(*inputs(8), given=torch.randn(2, 4, 8, 16, 16)).square().mean().backward()
    without = [name for name, p in stunet.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without, f"trainable, but without gradient: {without}"
    assert all(p.grad is None for p in stunet.t2i.parameters())


def test_temporal_parameters_are_exactly_the_trainable_ones(small_unet):
    unet = small_unet()
    image_parameters = {id(p) for p in unet.parameters()}
    stunet = STUNet.from_t2i(unet, verbose=False)
    temporal = {id(p) for p in stunet.temporal_parameters()}
    assert temporal == {id(p) for p in stunet.parameters() if p.requires_grad}
    assert temporal == {id(p) for p in stunet.parameters()} - image_parameters
    assert {id(p) for p in stunet.t2i.parameters()} == image_parameters, "inflation keeps the very weights"


def test_training_steps_move_the_video_net_and_leave_the_image_net_bit_for_bit(trained, inputs):
    stunet = trained()
    image_weights, optimiser = copy.deepcopy(stunet.t2i.state_dict()), torch.optim.AdamW(stunet.temporal_parameters(), 0.1)
    given = inputs(4)
    before = stunet(*given).detach()
    for _ in range(2):
        optimiser.zero_grad()
        stunet(*given).square().mean().backward()
        optimiser.step()
    assert (stunet(*given) - before).abs().max() > 1e-2
    assert all(torch.equal(value, image_weights[name]) for name, value in stunet.t2i.state_dict().items())


def test_table_is_printed_and_sums_to_the_total(small_unet, capsys):
    stunet = STUNet.from_t2i(small_unet())
    printed = capsys.readouterr().out
    assert printed.strip() == stunet.table().strip()
    rows = [re.fullmatch(r"(\S+)\s+([\d,]+)\s+([\d,]+)", line).groups() for line in stunet.table().splitlines()[1:]]
    numbers = {name: (int(frozen.replace(",", "")), int(trains.replace(",", ""))) for name, frozen, trains in rows}
    total = numbers.pop("total")
    assert total == (sum(frozen for frozen, _ in numbers.values()), sum(trains for _, trains in numbers.values()))
    assert total == (count_parameters(stunet.t2i), sum(p.numel() for p in stunet.temporal_parameters()))
    assert sum(total) == count_parameters(stunet)
    assert numbers["t2i"] == (total[0], 0), "all of the image net is frozen"
    assert all(frozen == 0 and trains > 0 for name, (frozen, trains) in numbers.items() if name != "t2i")


def test_no_table_unless_asked(small_unet, capsys):
    STUNet.from_t2i(small_unet(), verbose=False)
    assert capsys.readouterr().out == ""


# As a video net


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_order_of_frames_matters(trained, inputs, halvings):
    stunet = trained(halvings)
    video, log_snr, tokens = inputs(8)
    # Whole groups of frames change places, so that resampling in time alone would not see it.
    order = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    straight, shuffled = stunet(video, log_snr, tokens), stunet(video[:, :, order], log_snr, tokens)
    assert (shuffled - straight[:, :, order]).abs().amax((0, 1, 3, 4)).min() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_every_frame_is_made_with_a_look_at_every_other(trained, inputs, halvings):
    stunet = trained(halvings)
    video, log_snr, tokens = inputs(16, batch=1)
    before = stunet(video, log_snr, tokens)
    for frame in (0, 7, 15):
        moved = video.clone()
        moved[:, :, frame] = 3 * torch.randn_like(moved[:, :, frame])
        assert ((stunet(moved, log_snr, tokens) - before).abs().amax((0, 1, 3, 4)) > 1e-5).all()


@torch.no_grad()
@pytest.mark.parametrize(("halvings", "frames"), [(0, 1), (0, 9), (0, 15), (1, 2), (1, 6), (1, 18), (2, 4), (2, 28), (2, 80)])
def test_any_number_of_frames_that_the_factor_divides(trained, inputs, halvings, frames):
    video, log_snr, tokens = inputs(frames)
    result = trained(halvings)(video, log_snr, tokens)
    assert result.shape == video.shape and result.isfinite().all()


@pytest.mark.parametrize(
    ("halvings", "frames", "factor", "nearest"),
    [
        (1, 1, 2, [2]),
        (1, 15, 2, [14, 16]),
        (2, 0, 4, [4]),
        (2, 2, 4, [4]),
        (2, 5, 4, [4, 8]),
        (2, 18, 4, [16, 20]),
        (2, 79, 4, [76, 80]),
    ],
)
def test_other_numbers_of_frames_are_an_error_that_helps(trained, inputs, halvings, frames, factor, nearest):
    stunet = trained(halvings)
    with pytest.raises(ValueError, match=f"^{frames} frames") as error:
        stunet(*inputs(frames))
    numbers = [int(number) for number in re.findall(r"\d+", str(error.value))]
    assert numbers == [frames, factor, *nearest]


@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(trained, inputs):
    stunet = trained()
    video, log_snr, tokens = inputs(8)
    together = stunet(video, log_snr, tokens)
    for i in range(2):
        alone = stunet(video[i : i + 1], log_snr[i : i + 1], tokens[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], stunet(video[:1], log_snr[1:], tokens[:1])[0], atol=1e-2)


@torch.no_grad()
def test_temporal_layers_see_the_noise_level(trained, inputs):
    """The image net's own view of the noise level is held fast, so that only the temporal layers can tell."""
    stunet = trained()
    video, log_snr, tokens = inputs(8)
    fixed = stunet.t2i.context(log_snr, tokens)
    stunet.t2i.context = lambda *_: fixed
    change = (stunet(video, log_snr, tokens) - stunet(video, log_snr + 3, tokens)).abs().amax((1, 2, 3, 4))
    assert (change > 1e-2).all()


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_every_temporal_layer_gets_the_clock_of_its_own_frames(trained, inputs, halvings):
    stunet = trained(halvings)
    video, log_snr, tokens = inputs(8)
    whole = stunet.contexts(log_snr, tokens, 8, 16, 16)[0].embedding  # b t e
    assert (whole.diff(dim=1).abs().amax(-1) > 1e-3).all(), "each frame has its own time"
    seen = []

    def look(block, given):
        x, context = given
        expected = whole[:, :: 8 // x.shape[2]]
        seen.append(x.shape[2])
        torch.testing.assert_close(context.embedding, expected)

    for block in (*stunet.down_inflation, *stunet.middle_inflation, *stunet.up_inflation):
        block.register_forward_pre_hook(look)
    stunet(video, log_snr, tokens)
    coarse, middle, fine = 8 // 2**halvings, 8 // 2 ** min(halvings, 1), 8
    assert seen == [fine, middle, coarse, coarse, coarse, middle, fine]


@torch.no_grad()
def test_a_net_for_windows_has_no_clock_and_takes_no_given_pixels(small_unet, inputs):
    """As for super-resolution, whose windows begin anywhere in the video."""
    stunet = STUNet.from_t2i(small_unet(), whole=False, verbose=False)
    _, log_snr, tokens = inputs(8)
    assert all(c.embedding.shape[1] == 1 and c.here is None for c in stunet.contexts(log_snr, tokens, 8, 16, 16))
    assert not [name for name, _ in stunet.named_parameters() if name.startswith(("clock", "given", "here"))]
    assert stunet(*inputs(8)).isfinite().all()


@torch.no_grad()
def test_temporal_layers_see_the_caption(trained, inputs):
    """The image net is made deaf to captions, so that only the temporal layers can tell two apart."""
    stunet = trained()
    deaf = stunet.t2i
    deaf.noise.caption.weight.zero_()
    for attention in (*deaf.down_attention, deaf.middle_attention, *deaf.up_attention):
        if hasattr(attention, "cross_out"):
            attention.cross_out.weight.zero_()
    video, log_snr, tokens = inputs(8)
    other = tokenise(["a red 3 moving left", "a blue 7 circling anticlockwise quickly and a white 1"])
    assert torch.allclose(deaf(video[:, :, 0], log_snr, tokens), deaf(video[:, :, 0], log_snr, other), atol=1e-6)
    change = (stunet(video, log_snr, tokens) - stunet(video, log_snr, other)).abs().amax((1, 2, 3, 4))
    assert (change > 1e-3).all()
    assert stunet(video, log_snr, null_tokens(2)).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_every_temporal_layer_of_whole_clips_gets_what_the_caption_says_at_its_places(trained, inputs, halvings):
    stunet = trained(halvings)
    video, log_snr, tokens = inputs(8)
    summary = stunet.text(tokens)[2]

    def look(block, given):
        x, context = given
        torch.testing.assert_close(context.here, stunet.here(summary, *x.shape[-2:]))
        assert context.here.flatten(1, 2).std(1).min() > 1e-3, "something else at each place"

    for block in (*stunet.down_inflation, *stunet.middle_inflation, *stunet.up_inflation):
        block.register_forward_pre_hook(look)
    stunet(video, log_snr, tokens)


def test_convolution_blocks_read_the_caption_where_the_image_net_does(small_unet):
    stunet = STUNet.from_t2i(small_unet(attention=(False, True, True)), verbose=False)
    for blocks in (stunet.down_inflation, stunet.up_inflation):
        assert [block.read is not None for block in blocks] == [False, True]


@torch.no_grad()
def test_a_conditioned_net_with_two_noise_levels_inflates_too(trained):
    """The super-resolution net: six channels in, three out, two noise levels, no attention, no halving."""
    stunet = trained(0, in_channels=6, noise_levels=2, attention=(False,) * 3)
    video, levels, tokens = torch.randn(2, 6, 5, 16, 16), torch.tensor([[-1.0, 5.0], [2.0, 5.0]]), tokenise(CAPTIONS)
    result = stunet(video, levels, tokens)
    assert result.shape == (2, 3, 5, 16, 16)
    assert not torch.allclose(result, stunet(video, levels + torch.tensor([0.0, -3.0]), tokens), atol=1e-3)


@pytest.mark.parametrize("halvings", [-1, 3])
def test_halvings_outside_the_levels_are_an_error(small_unet, halvings):
    with pytest.raises(ValueError, match=rf"0 to 2 .* got {halvings}"):
        STUNet.from_t2i(small_unet(), halvings, verbose=False)


def test_only_a_unet_is_inflated():
    with pytest.raises(TypeError, match="inflate a UNet, not int"):
        STUNet.from_t2i(3)


@pytest.mark.parametrize("name", SCALES)
def test_presets_halve_their_own_frames(name):
    scale = SCALES[name]
    assert scale.frames % scale.temporal_factor == 0
    assert scale.halvings < len(scale.t2i.channels)
