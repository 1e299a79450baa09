"""The shipped `tiny` weights, used as a user would."""

from dataclasses import replace

import pytest
import torch

import minilumiere as ml
from minilumiere.config import SCALES
from minilumiere.model.diffusion import alpha_sigma
from minilumiere.pipeline import Pipeline
from minilumiere.weights import trained

CAPTION = "a red 3 moving right"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return ml.load("tiny", device="cpu")


def test_a_clip_has_the_contract_s_shape_range_and_dtype(pipe):
    video = pipe.generate(CAPTION, seed=0, steps=2)
    assert video.shape == (16, 3, 128, 128) and video.dtype == torch.float32
    assert video.min() >= 0 and video.max() <= 1


def test_a_list_gives_a_batch_whose_clips_do_not_depend_on_their_company(pipe):
    both = pipe.generate([CAPTION, "a blue 7 moving left"], seed=3, steps=2, super_resolution=False)
    assert both.shape == (2, 16, 3, 32, 32)
    torch.testing.assert_close(both[0], pipe.generate(CAPTION, seed=3, steps=2, super_resolution=False), atol=1e-4, rtol=0)
    alone = pipe.generate("a blue 7 moving left", seed=4, steps=2, super_resolution=False)  # the i-th clip has seed + i
    torch.testing.assert_close(both[1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("caption", [CAPTION, "a red 3 moving right and a blue 7 moving up"])
def test_the_sampler_is_of_the_scale_s_order(pipe, caption):
    assert pipe.scale.order == 2
    first = Pipeline(replace(pipe.scale, order=1), pipe.base, pipe.ssr, pipe.device)
    one, other = (each.generate(caption, steps=8, frames=4, super_resolution=False) for each in (first, pipe))
    assert (one - other).abs().max() > 0.01 and (one - other).square().mean().sqrt() < 0.1


@pytest.mark.parametrize("caption", [CAPTION, "a red 3 moving right and a blue 7 moving up"])
def test_a_scale_may_draw_noise_anew(pipe, caption):
    """In steps of the first order, reproducibly, and each clip of a list with its own."""
    kept, renewing = (
        Pipeline(replace(pipe.scale, order=1, renewed=share), pipe.base, pipe.ssr, pipe.device) for share in (0.0, 0.9)
    )
    assert replace(renewing.scale, order=2).sampler_of(4)["order"] == 1
    how = {"steps": 4, "frames": 4, "super_resolution": False}
    clip, other = renewing.generate(caption, **how), kept.generate(caption, **how)
    assert torch.equal(clip, renewing.generate(caption, **how)) and (clip - other).abs().max() > 0.05
    torch.testing.assert_close(renewing.generate([caption, CAPTION], **how)[0], clip, atol=1e-4, rtol=0)
    assert renewing.in_style("neon").scale.renewed == 0 and torch.equal(renewing.stylize(caption, "neon", 0, 0, **how), clip)


def test_same_seed_same_clip_other_seed_other_clip(pipe):
    first, again, other = (pipe.generate(CAPTION, seed=seed, steps=2, super_resolution=False) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.001


def test_captions_are_case_and_space_insensitive(pipe):
    plain = pipe.generate(CAPTION, seed=0, steps=1, super_resolution=False)
    assert torch.equal(plain, pipe.generate("  A Red 3   moving RIGHT ", seed=0, steps=1, super_resolution=False))


def test_images_come_from_the_text_to_image_model_alone(pipe):
    image = pipe.generate_image("a red 3", seed=0, steps=2)
    assert image.shape == (3, 32, 32)
    assert pipe.generate_image(["a red 3", "a blue 1"], seed=0, steps=2).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("frames", [4, 24])
def test_other_lengths_than_trained(pipe, frames):
    assert pipe.generate(CAPTION, frames=frames, steps=1).shape == (frames, 3, 128, 128)


def test_shipped_models_make_the_clip_that_is_asked_for(pipe):
    """Not a measurement (that is `minilumiere evaluate`): colour, digit and motion of most of eight must be right."""
    captions = [
        "a red 1 moving right", "a green 7 moving left", "a blue 1 moving up", "a yellow 7 moving down",
        "a white 0 standing still", "a cyan 4 moving right", "a purple 1 moving left", "a red 0 moving down",
    ]  # fmt: skip
    clips = pipe.generate(captions, seed=100)
    results = [ml.assess(clip, caption)["agrees"] for clip, caption in zip(clips, captions, strict=True)]
    assert sum(result["colour"] for result in results) >= 7
    assert sum(result["digit"] for result in results) >= 5
    assert sum(result["motion"] for result in results) >= 5


def test_super_resolution_agrees_with_what_it_enlarges(pipe):
    base = pipe.generate(CAPTION, seed=0, super_resolution=False)
    large = pipe.upscale(base, CAPTION)
    assert large.shape == (16, 3, 128, 128)
    assert (torch.nn.functional.avg_pool2d(large, 4) - base).abs().mean() < 0.05


def test_unknown_scale_and_untrained_scale():
    with pytest.raises(ValueError, match="tiny, full"):
        ml.load("huge")
    with pytest.raises(ValueError):
        ml.load(None)
    if not (SCALES["full"] and ml.config.DATA.joinpath("weights/full/base.safetensors").is_file()):
        with pytest.raises(FileNotFoundError, match="minilumiere train"):
            ml.load("full")


@pytest.mark.parametrize("caption", ["", "a pink 3", "a red 3 and a blue 4 and a white 5", "a red 12", "red 3", "a 3 red"])
def test_bad_captions(pipe, caption):
    with pytest.raises(ValueError):
        pipe.generate(caption)
    with pytest.raises(ValueError):
        pipe.generate_image(caption)


@pytest.mark.parametrize("caption", [3, None, b"a red 3", ["a red 3", 5], [], {"a": 1}])
def test_captions_of_the_wrong_type(pipe, caption):
    with pytest.raises((TypeError, ValueError)):
        pipe.generate(caption)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0}, {"steps": -1}, {"steps": 1001}, {"steps": 2.5}, {"steps": "3"}, {"steps": True},
        {"guidance": -1}, {"guidance": 1e9}, {"guidance": float("nan")}, {"guidance": "2"},
        {"seed": -1}, {"seed": 1.5}, {"seed": None}, {"frames": 0}, {"frames": "16"},
    ],
)  # fmt: skip
def test_options_out_of_range(pipe, options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        pipe.generate(CAPTION, **options)


@pytest.mark.parametrize(
    "task", ["generate", "generate_image", "inpaint", "image_to_video", "cinemagraph", "stylize", "restyle"]
)
@pytest.mark.parametrize("option", ["start", "stepz"])
def test_an_unknown_option_is_an_error_that_names_the_task(pipe, task, option):
    with pytest.raises(TypeError, match=rf"Pipeline\.{task}\(\) got an unexpected keyword argument '{option}'"):
        getattr(pipe, task)(**{option: 0.5})


def test_frames_not_divisible_name_the_factor_and_the_nearest_counts(pipe):
    with pytest.raises(ValueError, match=r"factor 4.*16 or 20"):
        pipe.generate(CAPTION, frames=18)


@pytest.mark.parametrize(
    "video",
    [
        torch.zeros(3, 32, 32), torch.zeros(16, 1, 32, 32), torch.zeros(16, 3, 31, 32), torch.zeros(16, 3, 32, 32).byte(),
        torch.full((4, 3, 32, 32), 2.0), torch.full((4, 3, 32, 32), float("nan")), torch.zeros(0, 3, 32, 32),
    ],
)  # fmt: skip
def test_bad_videos_name_what_was_given_and_wanted(pipe, video):
    with pytest.raises(ValueError, match=r"\(any, 3, 32, 32\)"):
        pipe.upscale(video, CAPTION)


def test_a_video_of_the_wrong_type(pipe):
    with pytest.raises(TypeError, match="list"):
        pipe.upscale([[1]], CAPTION)


def test_a_trained_stunet_keeps_the_image_weights_frozen():
    base = trained("base", SCALES["tiny"])
    assert {name for name, parameter in base.named_parameters() if not parameter.requires_grad} == {
        f"t2i.{name}" for name, _ in base.t2i.named_parameters()
    }


# The few-step student


@pytest.fixture(scope="module")
def fast() -> Pipeline:
    return ml.load("tiny", device="cpu", fast=True)


def counted(net) -> tuple[list[int], object]:
    """The batch size of every call of a net from now on, and the handle that ends the count."""
    calls = []
    return calls, net.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))


@pytest.mark.parametrize("caption", [CAPTION, "a red 3 moving right and a blue 7 moving up"])
def test_the_student_calls_the_video_net_once_a_step_and_the_image_net_in_the_last(fast, caption):
    calls, images = counted(fast.base), counted(fast.t2i)
    video = fast.generate(caption, seed=0, super_resolution=False)
    assert video.shape == (16, 3, 32, 32)
    parts = 2 if " and " in caption else 1
    assert calls[0] == [parts] * 4, "two objects apart"
    assert images[0] == [16 * parts] * 4, "frames, with the caption and without: beside the last call, and then alone"
    calls[1].remove(), images[1].remove()


def test_a_clip_of_the_student_is_what_it_is_whatever_its_company(fast):
    """Its steps draw fresh noise, from the clip's own seed."""
    captions, how = ["a red 3 moving right and a blue 7 moving up", "a green 1"], {"frames": 8, "super_resolution": False}
    together = fast.generate(captions, seed=2, **how)
    assert torch.equal(together, fast.generate(captions, seed=2, **how))
    for place, caption in enumerate(captions):
        torch.testing.assert_close(fast.generate(caption, seed=2 + place, **how), together[place], atol=1e-4, rtol=0)


def test_the_student_draws_fresh_noise_after_its_steps_and_its_teacher_keeps_the_first(pipe, fast, monkeypatch):
    """A net that sees black everywhere leaves noise alone. What of the first noise is there in the last step?"""
    for each, keeps in ((pipe, True), (fast, False)):
        seen = []

        def black(noisy, log_snr, *_, seen=seen, **__):
            alpha, sigma = alpha_sigma(log_snr, noisy)
            seen.append(noisy)
            return alpha / sigma * noisy  # x̂ = 0

        with monkeypatch.context() as patched:
            patched.setattr(each.base, "forward", black)
            patched.setattr(each, "scale", replace(each.scale, image_share=0.0))
            each.generate(CAPTION, frames=8, super_resolution=False)
        alike = torch.corrcoef(torch.stack([seen[0].flatten(), seen[-1].flatten()]))[0, 1]
        assert alike > 0.99 if keeps else abs(alike) < 0.3


def test_the_student_s_images_are_the_image_net_s_own(pipe, fast):
    assert torch.equal(pipe.generate_image("a red 3", seed=1), fast.generate_image("a red 3", seed=1))
    fast.generate_image("a red 3", seed=1, steps=1, guidance=2.0)


def test_guidance_of_the_student_is_an_error_before_anything_is_sampled(fast):
    calls, handle = counted(fast.base)
    for task in (
        lambda: fast.generate(CAPTION, guidance=3.0),
        lambda: fast.stylize(CAPTION, "neon", guidance=0),
        lambda: fast.image_to_video(torch.zeros(3, 32, 32), CAPTION, guidance=2),
    ):
        with pytest.raises(ValueError, match="guidance inside"):
            task()
    handle.remove()
    assert calls == []


def test_every_task_is_done_by_the_student(fast):
    image, clip = torch.rand(3, 32, 32), torch.rand(8, 3, 32, 32)
    how = {"super_resolution": False}
    assert torch.equal(fast.image_to_video(image, CAPTION, frames=8, **how)[0], image)
    half = torch.ones(8, 1, 32, 32)
    half[..., 16:] = 0
    assert torch.equal(fast.inpaint(clip, half, CAPTION, **how)[..., :16], clip[..., :16])
    assert fast.cinemagraph(image, half[0], CAPTION, frames=8, **how).shape == clip.shape
    styled, plain = (make(CAPTION, seed=2, **how) for make in (lambda *a, **k: fast.stylize(*a, "neon", **k), fast.generate))
    assert fast.in_style("neon").student and (styled - plain).abs().max() > 0.05
    assert fast.restyle(clip, CAPTION, "neon", **how).shape == clip.shape
    assert fast.generate(CAPTION, frames=4).shape == (4, 3, 128, 128)


def test_fast_is_a_truth_value():
    with pytest.raises(TypeError, match="fast"):
        ml.load("tiny", fast="yes")
