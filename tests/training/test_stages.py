"""The recipes of the stages: what a batch of each holds, and what is special about images in a style and about crops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train_driver import SMALL

from minilumiere.config import SCALES, STAGES, STYLES
from minilumiere.dataset.captions import COLOURS
from minilumiere.evaluation.judge import colour_masses
from minilumiere.model.diffusion import clean_and_noise
from minilumiere.model.text import MAX_TOKENS, VOCABULARY
from minilumiere.training.stages import (
    READ_FRAMES,
    RECIPES,
    STYLE_DIGITS,
    STYLED,
    get_stage,
    some_style,
    somewhere_else,
    style_images,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_there_is_a_recipe_for_every_stage_at_every_scale_and_for_no_other():
    assert set(RECIPES) == set(STAGES)
    for stage in RECIPES.values():
        assert set(stage.steps) == set(stage.batch) == set(SCALES) and stage.minutes > 0
        for scale in SCALES.values():
            assert stage.default_batch(scale, "cpu") == stage.batch[scale.name]
            assert stage.default_batch(scale, "cuda") == stage.batch[scale.name] * stage.on_gpu
    with pytest.raises(ValueError, match=r"unknown stage 'video'.*judge, t2i"):
        get_stage("video")


@pytest.mark.parametrize("name", STAGES)
def test_a_batch_holds_as_many_of_everything_and_the_net_learns_from_it(name):
    """At sizes of a few thousand parameters; the loss is one number, of which every clip has its share."""
    batch = RECIPES[name].draw(SMALL, 6, seeded(), "cpu")
    (n,) = {len(value) for value in batch.values()}
    assert n == 6 if name in ("judge", "t2i", "video-features") else 1 <= n <= 6
    assert all(value.isfinite().all() for value in batch.values())
    if name == "judge":
        assert batch["crops"].shape == (6, 1, SMALL.judge.crop, SMALL.judge.crop) and batch["digit"].shape == (6,)
        return
    if name == "video-features":
        assert batch["clips"].shape == (6, 3, READ_FRAMES, SMALL.size, SMALL.size)
        assert batch["words"].shape == (6, len(VOCABULARY))
        return
    size = SMALL.output_size if name.startswith("ssr") else SMALL.size
    assert batch["noisy"].shape[-2:] == batch["v"].shape[-2:] == (size, size)
    assert batch["noisy"].shape[1] == (6 if name.startswith("ssr") else 3) and batch["v"].shape[1] == 3
    assert batch["tokens"].shape == (n, MAX_TOKENS)
    if name.startswith("ssr"):  # the enlarged low resolution stands beside, and shows the same
        clean = clean_and_noise(batch["noisy"][:, :3], batch["v"], batch["log_snr"][:, 0])[0]
        beside = batch["noisy"][:, 3:]
        own, other = (torch.corrcoef(torch.stack([one.flatten(), beside.flatten()]))[0, 1] for one in (clean, clean.roll(1, 0)))
        assert own > 0.7 and other < 0.3  # it is noisy itself


@pytest.mark.parametrize("name", [name for name in STAGES if RECIPES[name].curriculum])
def test_a_curriculum_goes_on_until_its_share_of_the_steps_is_done(name):
    asked = []

    def watch(number):
        return lambda scale, n, generator, device, progress=None: asked.append((number, progress)) or {}

    stage = RECIPES[name]
    until = [share for share, _ in stage.curriculum]
    assert until == sorted(until) and until[-1] < 1
    watched = type(stage)(
        **(vars(stage) | {"draw": watch(-1), "curriculum": tuple((share, watch(i)) for i, share in enumerate(until))})
    )
    for progress in [0.0, *until, 0.999]:
        watched.draw_at(progress, SMALL, 1, seeded(), "cpu")
    assert asked == [(0, 0.0), *((i + 1, share) for i, share in enumerate(until[:-1])), (-1, None), (-1, None)]


# Images in a style


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_learnt_from_every_colour_of_a_few_digits(style):
    asked, images = style_images(SMALL, "cpu", style)
    assert {(thing.colour, thing.digit) for (thing,) in asked.words()} == {(c, d) for c in COLOURS for d in STYLE_DIGITS}
    assert images.shape == (35, 3, SMALL.size, SMALL.size) and style_images(SMALL, "cpu", style)[1] is images
    plain = style_images(SMALL, "cpu", "")[1]
    assert ((images - plain).abs().amax((1, 2, 3)) > 0.1).all()


def test_what_is_moved_somewhere_else_is_whole_and_can_be_anywhere():
    image = torch.zeros(1, 3, 12, 10)
    image[0, :, 5:8, 2:6] = torch.rand(3, 3, 4) * 0.5 + 0.5
    moved = somewhere_else(image.repeat(2000, 1, 1, 1), seeded())
    corners = set()
    for one in moved:
        rows, columns = one.amax((0, 2)).nonzero()[:, 0], one.amax((0, 1)).nonzero()[:, 0]
        top, left = int(rows[0]), int(columns[0])
        assert torch.equal(one[:, top : top + 3, left : left + 4], image[0, :, 5:8, 2:6])
        one[:, top : top + 3, left : left + 4] = 0
        assert not one.any()
        corners.add((top, left))
    assert corners == {(top, left) for top in range(10) for left in range(7)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8), st.integers(0, 8))
def test_what_is_moved_stays_whole_wherever_it_was(seed, height, width, top, left):
    image = torch.zeros(1, 3, 16, 16)
    drawn = torch.rand(3, height, width, generator=seeded(seed)) * 0.9 + 0.1
    image[0, :, top : top + height, left : left + width] = drawn
    for moved in somewhere_else(image.repeat(20, 1, 1, 1), seeded(seed)):
        y, x = (int((moved.amax(0) > 0).any(axis).nonzero()[0, 0]) for axis in (1, 0))
        assert torch.equal(moved[:, y : y + height, x : x + width], drawn) and moved.count_nonzero() == image.count_nonzero()


def test_a_black_image_stays_black():
    assert not somewhere_else(torch.zeros(3, 3, 8, 8), seeded()).any()


def test_some_batches_are_drawn_in_a_style_any_as_often():
    generator = seeded()
    drawn = [some_style(generator) for _ in range(3000)]
    assert abs(sum(map(bool, drawn)) / 3000 - STYLED) < 4 * (STYLED * (1 - STYLED) / 3000) ** 0.5
    shares = [drawn.count(style) / 3000 for style in STYLES]
    assert all(abs(share - STYLED / len(STYLES)) < 0.03 for share in shares)


# The judge's


def test_crops_show_the_object_in_front_and_are_named_by_its_digit():
    """Its own digit, not the other's: a net that was told the wrong one half the time would learn nothing."""
    batch = RECIPES["judge"].draw(SCALES["tiny"], 200, seeded(), "cpu")
    assert batch["digit"].bincount(minlength=10).min() >= 8  # 20 of each are expected
    ink = batch["crops"][:, 0]
    assert ink.shape == (200, 28, 28) and ink.sum((1, 2)).min() > 10
    ones, zeros = (ink[batch["digit"] == digit] for digit in (1, 0))
    middle = slice(12, 16)
    # A 0 has a hole where a 1 has its stroke.
    assert ones[:, middle, middle].amax(1).mean() > 3 * zeros[:, middle, middle].mean()


def test_the_words_are_those_of_the_captions_whose_clips_are_shown():
    batch = RECIPES["video-features"].draw(SCALES["tiny"], 40, seeded(), "cpu")
    names = list(VOCABULARY)
    for clip, words in zip((batch["clips"] + 1) / 2, batch["words"], strict=True):
        said = {name for name, there in zip(names, words.tolist(), strict=True) if there}
        masses = colour_masses(clip.transpose(0, 1)).sum((0, 2, 3))
        colours = {colour for colour in COLOURS if colour in said}
        assert "a" in said and len(colours) == 1 + ("and" in said) and sum(name.isdigit() for name in said) in (1, len(colours))
        assert {list(COLOURS)[i] for i in masses.topk(len(colours)).indices} == colours


def test_images_of_the_text_to_image_model_are_of_the_objects_that_the_caption_names():
    batch = RECIPES["t2i"].draw(SCALES["tiny"], 60, seeded(), "cpu")
    clean = (clean_and_noise(batch["noisy"], batch["v"], batch["log_snr"])[0].clamp(-1, 1) + 1) / 2
    checked = 0
    for image, tokens in zip(clean, batch["tokens"], strict=True):
        said = {colour for colour in COLOURS if VOCABULARY[colour] in tokens}
        masses = colour_masses(image[None])[0].sum((1, 2))
        # Where one object hides the other in part, blended pixels can look like a third colour: few.
        seen = {colour for colour, mass in zip(COLOURS, masses.tolist(), strict=True) if mass > 8}
        if said:  # else the caption was dropped
            assert seen == said, f"{said} said, {seen} seen"
            checked += 1
    assert checked > 40
