"""Styles: how they are drawn, how weights are interpolated and shipped, and what the pipeline makes of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minilumiere as ml
from minilumiere.config import SCALES, STYLES
from minilumiere.dataset import parse_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.styles import styled
from minilumiere.dataset.subjects import subjects_of
from minilumiere.evaluation.quality import evaluation_captions
from minilumiere.evaluation.style_scores import evaluate_styles, style_score
from minilumiere.model import interpolate_weights
from minilumiere.model.diffusion import clean_and_noise
from minilumiere.model.stylize import DEFAULT_ALPHA, FROM_THE_START, STYLED_FROM, plain_until
from minilumiere.model.text import VOCABULARY
from minilumiere.pipeline import Pipeline
from minilumiere.training import get_stage
from minilumiere.training.stages import STYLE_DIGITS, draw_styled_images
from minilumiere.weights import trained

CAPTION = "a red 3 moving right"
SIZE = SCALES["tiny"].output_size


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


def draw(style: str, captions: list[str], frames: int = 4) -> torch.Tensor:
    generator, asked = torch.Generator().manual_seed(3), subjects_of([parse_caption(caption) for caption in captions])
    return draw_scenes(asked, generator, frames, SIZE, SIZE, "test", style=style)[0]


# Drawing


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("pixels", [1.0, 2.0, 4.0])
def test_cover_and_paint_are_shares_and_nothing_is_cut_at_the_rim(style, pixels):
    ink = torch.zeros(2, round(16 * pixels), round(16 * pixels))
    ink[:, round(2 * pixels) : round(14 * pixels), round(7 * pixels) : round(9 * pixels)] = 1
    cover, paint = styled(ink, style, pixels)
    assert cover.shape == paint.shape and cover.shape[-1] > ink.shape[-1]
    assert paint.min() >= 0 and (paint <= cover + 1e-6).all() and cover.max() <= 1
    rim = torch.ones_like(cover, dtype=torch.bool)
    rim[:, 1:-1, 1:-1] = False
    assert cover[rim].max() < 0.06


def test_an_outline_is_dark_within_dots_have_gaps_and_neon_glows():
    ink = torch.zeros(1, 32, 32)
    ink[:, 4:28, 14:18] = 1
    outline, dotted, neon = (styled(ink, style, 2.0)[1][0, 6:-6, 6:-6] for style in ("outline", "dotted", "neon"))
    stroke = ink[0] == 1
    assert outline[stroke].max() < 0.35 and outline[16, 12] == 1 and outline[16, 19] == 1
    along = dotted[4:28, 16]
    assert along.min() < 0.1 and along.max() > 0.9 and (along.diff().sign().diff() != 0).sum() >= 5
    assert dotted[~stroke].max() == 0
    assert (neon[stroke] == 1).all() and 0.2 < neon[16, 12] < 0.8 and neon[16, 2] < 0.05


def test_plain_drawing_is_what_it_was():
    assert torch.equal(draw("", [CAPTION]), ml.sample_batch(1, captions=[CAPTION], seed=3, size=SIZE, frames=4).video)


@pytest.mark.parametrize("style", STYLES)
def test_the_style_score_tells_styled_drawings_from_plain_ones(style):
    captions = evaluation_captions(40, 1, 5)
    scores = [[style_score(clip, style, SIZE) for clip in draw(drawn, captions)] for drawn in ("", style)]
    assert max(scores[0]) < 0.5 < min(scores[1])


# Weights

tensors = st.integers(0, 2**31).map(
    lambda seed: [
        {"a": torch.randn(3, 4, generator=g), "b": torch.randn(5, generator=g)}
        for g in [torch.Generator().manual_seed(seed)]
        for _ in range(2)
    ]
)


@settings(max_examples=30, deadline=None)
@given(tensors, st.floats(0, 1))
def test_interpolated_weights_lie_on_the_line_between(two, alpha):
    original, style = two
    found = interpolate_weights(original, style, alpha)
    for name in original:
        torch.testing.assert_close(found[name], alpha * style[name] + (1 - alpha) * original[name], atol=1e-5, rtol=1e-5)
    assert all(torch.equal(interpolate_weights(original, style, 0)[name], original[name]) for name in original)
    assert all(torch.equal(interpolate_weights(original, style, 1)[name], style[name]) for name in original)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "1", None])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises((ValueError, TypeError), match="alpha must be"):
        interpolate_weights({}, {}, alpha)


def test_state_dicts_of_other_nets_are_refused():
    with pytest.raises(ValueError, match="b is in one"):
        interpolate_weights({"a": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(1)}, 0.5)
    with pytest.raises(ValueError, match=r"a has shape \(2,\)"):
        interpolate_weights({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, 0.5)


@pytest.mark.parametrize("style", STYLES)
def test_only_the_last_level_is_learnt_with_a_style(style):
    original, net = trained("t2i", SCALES["tiny"]), trained(f"style-{style}", SCALES["tiny"])
    learnt = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learnt and all(name.startswith(("up_blocks.0.", "head.")) for name in learnt)
    before, after = original.state_dict(), net.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == learnt


def test_a_style_is_learnt_from_some_digits_in_the_same_few_images_moved_about():
    scale, many = SCALES["tiny"], 400
    batch = draw_styled_images(scale, many, torch.Generator().manual_seed(0), "cpu", style="neon")
    captioned = batch["tokens"] != 0
    digits = {VOCABULARY[str(digit)]: digit for digit in range(10)}
    assert {digits[token] for token in batch["tokens"][captioned].tolist() if token in digits} == set(STYLE_DIGITS)
    clean, _ = clean_and_noise(batch["noisy"], batch["v"], batch["log_snr"])
    ink = clean[batch["log_snr"] > 0].add(1).sum((1, 2, 3))
    assert len(ink) > 20 and len((ink / 2).round().unique()) <= 7 * len(STYLE_DIGITS) + 5
    assert get_stage("style-neon").draw.keywords == {"style": "neon"}


# Use


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_alpha_0_is_plain_generation_and_alpha_1_is_not(pipe, steps):
    options = {"seed": 1, "steps": steps, "super_resolution": False}
    plain = pipe.generate(CAPTION, **options)
    none, full = (pipe.stylize(CAPTION, "outline", alpha, **options) for alpha in (0.0, 1.0))
    assert torch.equal(none, plain) and (full - plain).abs().mean() > 1e-3
    assert torch.equal(pipe.generate(CAPTION, **options), plain), "the pipeline keeps its weights"


def test_styled_weights_come_in_at_a_noise_level(pipe):
    options = {"seed": 1, "steps": 6, "super_resolution": False, "guidance": 1.0}  # 1: without image guidance
    last, later, always = (
        pipe.stylize(CAPTION, "outline", 1.0, styled_from=level, **options) for level in (15, STYLED_FROM, FROM_THE_START)
    )
    plain = pipe.generate(CAPTION, **options)
    changes = [float((clip - plain).abs().mean()) for clip in (last, later, always)]
    assert 0 < changes[0] < changes[1] < changes[2], "the last step is always styled"
    styled = pipe.in_style("outline", 1.0)
    assert torch.equal(later, styled.generate(CAPTION, **options)), "the default"
    assert styled.plain is pipe.base and not torch.equal(styled.base.t2i.head.weight, pipe.t2i.head.weight)
    for again in (lambda: styled.in_style("neon"), lambda: styled.stylize(CAPTION, "neon")):
        with pytest.raises(ValueError, match="in a style already"):
            again()


@given(level=st.floats(-15, 15), start=st.floats(-15, 15))
def test_below_the_level_the_plain_denoiser_answers_and_from_it_on_the_styled_one(level, start):
    one, other = torch.zeros(1), torch.ones(1)
    answer = plain_until(lambda noisy, log_snr: one, lambda noisy, log_snr: other, start)(torch.zeros(1), torch.tensor([level]))
    assert answer is (other if torch.tensor(level) >= start else one)


@pytest.mark.parametrize("style", STYLES)
def test_shipped_styles_look_like_their_style(pipe, style):
    """Not a measurement (that is `minilumiere evaluate --styles`): images, which do not depend on temporal layers."""
    captions = ["a red 3", "a green 7", "a blue 0", "a white 5", "a cyan 2", "a yellow 1"]
    styled_images = pipe.in_style(style, 1.0).generate_image(captions, seed=0)
    plain = pipe.generate_image(captions, seed=0)
    scores = [[style_score(image[None], style, SIZE) for image in images] for images in (plain, styled_images)]
    assert sum(score > 0.5 for score in scores[1]) >= 5 and sum(score < 0.5 for score in scores[0]) >= 5


def test_restyling_weakly_gives_the_clip_back_and_fully_forgets_it(pipe):
    video = ml.sample_batch(1, captions=[CAPTION], seed=2, size=SIZE).video[0]
    options = {"alpha": 0.0, "steps": 4, "super_resolution": False}
    small = torch.nn.functional.avg_pool2d(video, SIZE // 32)
    weak, strong = (pipe.restyle(video, CAPTION, "outline", strength, **options) for strength in (0.05, 1.0))
    assert weak.shape == (16, 3, 32, 32) and (weak - small).abs().mean() < 0.02
    plain = pipe.generate(CAPTION, seed=0, steps=4, super_resolution=False)
    # Of the clip, noise of the strongest level leaves 0.0006: not nothing, and not to be seen.
    assert (strong - plain).abs().mean() < 1e-3 < (weak - plain).abs().mean()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda pipe, video: pipe.stylize(CAPTION, "cubist"), "outline, dotted, neon"),
        (lambda pipe, video: pipe.stylize(CAPTION, 3), "outline, dotted, neon"),
        (lambda pipe, video: pipe.stylize(CAPTION, "outline", 1.5), "alpha must be from 0 to 1"),
        (lambda pipe, video: pipe.stylize(CAPTION, "outline", styled_from=16), "styled_from must be from -15"),
        (lambda pipe, video: pipe.restyle(video, CAPTION, "outline", 0), "strength must be"),
        (lambda pipe, video: pipe.restyle(video, CAPTION, "outline", 1.2), "strength must be"),
        (lambda pipe, video: pipe.restyle(video[:3], CAPTION, "outline"), "factor 4"),
        (lambda pipe, video: pipe.restyle(video * 2, CAPTION, "outline"), "values from"),
    ],
)
def test_bad_styles_and_ranges_are_refused(pipe, call, says):
    with pytest.raises(ValueError, match=says):
        call(pipe, torch.ones(16, 3, 32, 32))


def test_every_style_has_a_default_alpha_in_the_paper_s_range():
    assert set(DEFAULT_ALPHA) == set(STYLES) and all(0.5 <= alpha <= 1 for alpha in DEFAULT_ALPHA.values())


def test_the_tables_hold_every_alpha_and_strength(pipe, monkeypatch):
    monkeypatch.setenv("MINILUMIERE_SMOKE", "1")
    table = evaluate_styles(pipe, samples=2)
    assert all(table.count(f"  {style}  ") == 2 for style in STYLES)
    assert table.count(" 0.25           -15      1 ") == len(STYLES) and table.count("      2 ") == 3 * len(STYLES)
