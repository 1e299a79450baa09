"""The text-to-image U-Net: it sees its image, its caption and its noise level, and nothing of its batch mates."""

import pytest
import torch
from torch import nn

from minilumiere.config import SCALES, UNetConfig
from minilumiere.model import UNet, count_parameters, null_tokens, tokenise
from minilumiere.model.blocks import Context
from minilumiere.model.text import MAX_TOKENS, PAD
from minilumiere.model.unet import Attention, ResBlock

TINY = UNetConfig(
    channels=(16, 16, 24), attention=(False, True, True), embedding=16, text_width=16, text_layers=1
)  # two channels or more a group: a norm of single channels hides the bias before it
SUPERRES = UNetConfig(
    in_channels=6,
    patch=4,
    channels=(16, 24),
    attention=(False, False),
    embedding=16,
    noise_levels=2,
    text_width=16,
    text_layers=1,
)
CAPTIONS = ["a red 3 moving right", "a blue 7", "a green 1 circling clockwise quickly and a white 0 standing still"]


def perturb(model: nn.Module) -> nn.Module:
    """Away from the initialisation, where zeros hide much: every parameter moved at random."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def build(config: UNetConfig, size: int) -> UNet:
    torch.manual_seed(0)
    return UNet(config, size)


@pytest.fixture
def fresh() -> UNet:
    return build(TINY, 16)


@pytest.fixture
def unet(fresh) -> UNet:
    return perturb(fresh)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 3, 16, 16, generator=generator), torch.tensor([-3.0, 0.0, 4.0]), tokenise(CAPTIONS)


def test_it_predicts_an_image_of_the_size_given(unet, inputs):
    v = unet(*inputs)
    assert v.shape == (3, 3, 16, 16) and v.dtype == torch.float32
    assert v.isfinite().all() and v.std() > 0.01


def test_the_untrained_net_predicts_zero(fresh, inputs):
    """The head starts at zero: the first loss is that of predicting nothing, whatever the widths."""
    assert torch.equal(fresh(*inputs), torch.zeros(3, 3, 16, 16))


def test_an_untrained_block_is_identity():
    torch.manual_seed(0)
    block, x = ResBlock(16, 16, embedding=8), torch.randn(2, 16, 4, 4)
    context = Context(torch.randn(2, 8), torch.randn(2, MAX_TOKENS, 8), torch.ones(2, MAX_TOKENS, dtype=torch.bool))
    torch.testing.assert_close(block(x, context), x)


def test_it_depends_on_image_noise_level_and_caption(unet, inputs):
    noisy, log_snr, tokens = inputs
    v = unet(noisy, log_snr, tokens)
    others = {
        "image": unet(noisy.flip(-1), log_snr, tokens),
        "noise level": unet(noisy, log_snr + 1, tokens),
        "caption": unet(noisy, log_snr, tokens[[2, 0, 1]]),
        "no caption": unet(noisy, log_snr, null_tokens(3)),
    }
    for what, other in others.items():
        assert (v - other).abs().amax((1, 2, 3)).min() > 1e-3, f"{what} makes no difference to some sample"


def test_detail_goes_past_the_coarser_levels(unet, inputs):
    """With nothing coming up from below, the image still reaches the output: by the skip at the finest level."""
    noisy, log_snr, tokens = inputs
    for parameter in unet.upsamples.parameters():
        nn.init.zeros_(parameter)
    difference = unet(noisy.flip(-1), log_snr, tokens) - unet(noisy, log_snr, tokens)
    assert difference.abs().amax((1, 2, 3)).min() > 1e-3


def test_the_order_of_the_captions_words_reaches_the_pixels(unet, inputs):
    noisy, log_snr, _ = inputs
    one, other = (
        unet(noisy[:1], log_snr[:1], tokenise([caption])) for caption in ("a red 3 and a blue 7", "a blue 3 and a red 7")
    )
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("part", ["summary", "words"])
def test_the_caption_comes_in_by_both_ways(unet, inputs, part):
    """By the summary into every block, and by cross-attention to the words."""
    noisy, log_snr, tokens = inputs
    context = unet.context(log_snr, tokens)
    other = unet.context(log_snr, tokens[[2, 0, 1]])
    mixed = (
        Context(other.embedding, context.words, context.real)
        if part == "summary"
        else Context(context.embedding, other.words, other.real)
    )
    before = unet(noisy, log_snr, tokens)
    unet.context = lambda *_: mixed
    assert (unet(noisy, log_snr, tokens) - before).abs().amax((1, 2, 3)).min() > 1e-4


def test_a_sample_does_not_depend_on_its_batch_mates(unet, inputs):
    together = unet(*inputs)
    for i in range(3):
        alone = unet(*(part[i : i + 1] for part in inputs))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(unet, inputs):
    before = unet(*inputs)
    with torch.no_grad():
        unet.text.words.weight[PAD] += torch.randn(TINY.text_width)
    torch.testing.assert_close(unet(*inputs), before, atol=1e-5, rtol=1e-4)


def test_training_and_evaluation_predict_the_same(unet, inputs):
    """No dropout, no batch statistics; and PyTorch's fast path for inference agrees with the slow one."""
    trained = unet.train()(*inputs)
    with torch.no_grad():
        torch.testing.assert_close(unet.eval()(*inputs), trained, atol=1e-5, rtol=1e-4)


def test_a_conditioning_image_and_a_second_noise_level():
    """As the super-resolution net has them."""
    net = perturb(build(SUPERRES, 32))
    generator = torch.Generator().manual_seed(3)
    noisy, levels = torch.randn(2, 6, 32, 32, generator=generator), torch.tensor([[-1.0, 5.0], [2.0, 3.5]])
    tokens = tokenise(CAPTIONS[:2])
    v = net(noisy, levels, tokens)
    assert v.shape == (2, 3, 32, 32)
    for changed in (levels + torch.tensor([1.0, 0.0]), levels + torch.tensor([0.0, 1.0]), levels.flip(1)):
        assert (net(noisy, changed, tokens) - v).abs().amax((1, 2, 3)).min() > 1e-4
    condition = torch.cat([noisy[:, :3], noisy[:, 3:] + 1], dim=1)
    assert (net(condition, levels, tokens) - v).abs().max() > 1e-3
    alone = net(noisy[1:], levels[1:], tokens[1:])
    torch.testing.assert_close(v[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [16, 32])
def test_attention_learns_a_vector_for_each_place(size):
    net = build(TINY, size)
    places = [module.position.shape for module in net.modules() if isinstance(module, Attention)]
    quarter, eighth = (size // 4) ** 2, (size // 8) ** 2  # two pixels a fold, then halved once or twice
    assert sorted(places) == sorted([(quarter, 16), (eighth, 24), (quarter, 16)])
    assert net(torch.randn(1, 3, size, size), torch.zeros(1), tokenise(["a red 3"])).shape == (1, 3, size, size)


@pytest.mark.parametrize("silenced", ["out", "cross_out"])
def test_attention_tells_places_apart(silenced):
    """The same features everywhere: only the learned places can make the output differ from place to place.

    With cross-attention silenced, self-attention does, and the other way round.
    """
    torch.manual_seed(0)
    layer = perturb(Attention(16, 4, text_width=8, places=16))
    nn.init.zeros_(getattr(layer, silenced).weight)
    context = Context(torch.zeros(1, 8), torch.randn(1, MAX_TOKENS, 8), torch.ones(1, MAX_TOKENS, dtype=torch.bool))
    out = layer(torch.ones(1, 16, 4, 4), context).flatten(2)
    assert (out - out[..., :1]).abs().amax(1)[0, 1:].min() > 1e-5


def test_attention_looks_at_all_places_and_at_real_words_only():
    torch.manual_seed(0)
    layer = perturb(Attention(16, 4, text_width=8, places=16))
    layer.norm = nn.Identity()  # a group norm, too, would carry news from one place to the others
    x, words, real = torch.randn(1, 16, 4, 4), torch.randn(1, MAX_TOKENS, 8), torch.arange(MAX_TOKENS)[None] < 5
    before = layer(x, Context(torch.zeros(1, 8), words, real))
    moved = x.clone()
    moved[..., 0, 0] += 1
    difference = (layer(moved, Context(torch.zeros(1, 8), words, real)) - before).abs().amax(1)
    assert difference.min() > 1e-6
    for word, seen in ((4, True), (5, False)):
        other = words.clone()
        other[:, word] += 1
        assert torch.equal(layer(x, Context(torch.zeros(1, 8), other, real)), before) != seen


def test_an_image_of_another_size_is_refused(unet):
    with pytest.raises(ValueError, match=r"attention is over 16 places, not 8 x 8: another image size"):
        unet(torch.randn(1, 3, 32, 32), torch.zeros(1), tokenise(["a red 3"]))


@pytest.mark.parametrize(("config", "size"), [(TINY, 16), (SUPERRES, 32)])
def test_the_gradient_reaches_every_parameter(config, size):
    net = perturb(build(config, size))
    generator = torch.Generator().manual_seed(4)
    noisy = torch.randn(3, config.in_channels, size, size, generator=generator)
    levels = torch.randn(3, config.noise_levels, generator=generator)
    net(noisy, levels, tokenise(CAPTIONS)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{name} is not used"
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 1e-9, f"no gradient at {name}"


def test_parameters_are_counted():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    assert count_parameters(model) == 3 * 4 + 4 + 4 * 2
    model[0].requires_grad_(False)
    assert count_parameters(model, trainable=True) == 8
    assert count_parameters(model, trainable=False) == 16


@pytest.mark.parametrize("name", SCALES)
def test_the_presets_can_be_built(name):
    """At their real sizes; on no device, so that it costs nothing."""
    scale = SCALES[name]
    with torch.device("meta"):
        for config, size in ((scale.t2i, scale.size), (scale.ssr, scale.output_size)):
            net = UNet(config, size)
            noisy, levels = torch.empty(2, config.in_channels, size, size), torch.empty(2, config.noise_levels)
            assert net(noisy, levels, null_tokens(2)).shape == (2, 3, size, size)
