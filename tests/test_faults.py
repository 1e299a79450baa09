"""Faults of kinds that public reports led to: what a user has set for torch, numbers, truth values, devices, guidance."""

import random
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool3d
from train_driver import SMALL, go, use_small

import minilumiere as ml
from minilumiere.config import get_scale, smoke
from minilumiere.model import STUNet, UNet
from minilumiere.model.conditioning import with_averages
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import global_generator, pinned
from minilumiere.validate import check_device, check_flag, check_mask, check_number, check_path, check_video
from minilumiere.viz import feature_explorer, filmstrip, space_time_slice
from minilumiere.weights import build

ONE, TWO = "a red 3 moving right", "a red 3 moving right and a blue 7 circling clockwise"


def fresh_pipe(perturb) -> Pipeline:
    """A pipeline of small nets that were never trained, and whose output hangs on every input."""
    torch.manual_seed(0)
    base = STUNet.from_t2i(UNet(SMALL.t2i, SMALL.size), SMALL.halvings, verbose=False)
    ssr = STUNet.from_t2i(UNet(SMALL.ssr, SMALL.output_size), halvings=0, whole=False, verbose=False)
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    return Pipeline(SMALL, perturb(base, 0.1), perturb(ssr, 0.1, seed=1), torch.device("cpu"))


@pytest.fixture(scope="module")
def pipe(perturb) -> Pipeline:
    return fresh_pipe(perturb)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """A clip of the small pipeline's base size."""
    return torch.rand(4, 3, SMALL.size, SMALL.size, generator=torch.Generator().manual_seed(5))


# Numbers, truth values, paths, devices


@pytest.mark.parametrize("given", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)], ids=repr)
def test_what_acts_like_an_integer_is_one(given):
    number = check_number(given, "n", 0, 10, int)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize("given", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)], ids=repr)
def test_what_acts_like_a_number_is_one(given):
    number = check_number(given, "n", 0, 10)
    assert number == 0.5 and type(number) is float


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize(
    "given",
    [True, np.True_, torch.tensor(True), "3", b"3", None, 1j, [3], np.array([3]), torch.tensor([3]), Ellipsis],
    ids=repr,
)
def test_what_is_no_number_is_refused(given, kind):
    with pytest.raises(TypeError, match="n must be a"):
        check_number(given, "n", 0, 10, kind)


@pytest.mark.parametrize("given", [3.0, np.float32(3), torch.tensor(3.0)], ids=repr)
def test_a_fraction_is_no_integer(given):
    with pytest.raises(TypeError, match="n must be an integer"):
        check_number(given, "n", 0, 10, int)


def test_numpy_s_numbers_are_taken_everywhere_and_mean_the_same(pipe, clip, tmp_path, monkeypatch):
    plain = {"seed": 250, "steps": 2, "guidance": 2.0, "frames": 4}
    odd = {"seed": np.uint8(250), "steps": np.int64(2), "guidance": np.float32(2), "frames": np.int16(4)}
    captions = [ONE] * 8  # 250 + 7 is more than an uint8 holds
    assert torch.equal(pipe.generate(captions, **plain), pipe.generate(captions, **odd))
    one = ml.sample_batch(2, seed=3, size=32, frames=4)
    same = ml.sample_batch(np.int64(2), seed=np.int64(3), size=np.int32(32), frames=np.uint8(4))
    assert torch.equal(one.video, same.video)
    assert len(filmstrip(clip, frames=np.int64(2)).axes) == 2
    space_time_slice(clip, row=np.int64(1))
    ml.save_video(clip, tmp_path / "out.png", fps=np.float64(16), zoom=np.int8(2))
    use_small(monkeypatch, tmp_path / "weights")
    go(tmp_path / "run", steps=np.int64(2), batch=np.int64(2), seed=np.int64(1), save_minutes=np.float32(1))


@pytest.mark.parametrize("name", ["super_resolution", "progress", "copy_known"])
@pytest.mark.parametrize("given", ["no", "", 1, 0, None, 1.0])
def test_a_truth_value_is_true_or_false(pipe, clip, name, given):
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        pipe.inpaint(clip, torch.ones(1), ONE, **{name: given})
    assert check_flag(np.False_, name) is False


@pytest.mark.parametrize("name", ["from_shipped", "progress"])
def test_a_truth_value_of_training_is_true_or_false(tmp_path, name):
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        go(tmp_path / "run", **{name: "no"})


@pytest.mark.parametrize("given", ["cuda:99", "abacus", "meta", "", "cuda:", "cpu,cuda", "vulkan"])
@pytest.mark.parametrize("use", ["check", "load", "train"])
def test_a_device_that_is_not_there_is_a_value_error(tmp_path, given, use):
    uses = {"check": check_device, "load": lambda d: ml.load(device=d), "train": lambda d: go(tmp_path / "run", device=d)}
    with pytest.raises(ValueError, match="choose"):
        uses[use](given)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda(tmp_path):
    with pytest.raises(ValueError, match="no CUDA device"):
        ml.load(device="cuda")


@pytest.mark.parametrize("given", [3, b"cpu", 0.5, ["cpu"]])
def test_a_device_of_another_type(given):
    with pytest.raises(TypeError, match="device must be a name"):
        ml.load(device=given)
    assert check_device("cpu:0") == check_device(torch.device("cpu")) == torch.device("cpu")


def test_without_standard_error_there_are_no_bars(pipe, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    pipe.generate(ONE, steps=2, frames=4, progress=True)


def test_a_damaged_glyph_bank_is_named(tmp_path, monkeypatch):
    from minilumiere.dataset import glyphs

    (tmp_path / "glyphs.safetensors").write_bytes((glyphs.DATA / "glyphs.safetensors").read_bytes()[:-100])
    monkeypatch.setattr(glyphs, "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"glyphs\.safetensors is damaged"):
        glyphs.load_bank.__wrapped__("train")
    (tmp_path / "glyphs.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"python -m minilumiere\.dataset\.glyphs"):
        glyphs.load_bank.__wrapped__("train")


def test_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(check_path("~/a b.gif")) == "/somewhere/a b.gif"
    assert str(check_path("~nobody-of-that-name/a")) == "~nobody-of-that-name/a"
    with pytest.raises(ValueError, match="empty"):
        check_path("")


@pytest.mark.parametrize("word", ["", "0", "false", "False", "FALSE", "no", "No", "off", "OFF", " 0 ", "n", "f"])
def test_words_for_off_are_off(monkeypatch, word):
    monkeypatch.setenv("MINILUMIERE_SMOKE", word)
    assert smoke(100) == 100


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "2"])
def test_words_for_on_are_on(monkeypatch, word):
    monkeypatch.setenv("MINILUMIERE_SMOKE", word)
    assert smoke(100) == 4


# Clips of every float type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_taken_wherever_a_clip_is(pipe, clip, dtype):
    rounded = clip.to(dtype)
    same = rounded.to(torch.float32)
    known = torch.ones(1, 1, SMALL.size, SMALL.size)
    known[..., 8:] = 0
    for use in (
        lambda video: pipe.inpaint(video, known.to(dtype), ONE, steps=2),
        lambda video: pipe.image_to_video(video[0], ONE, steps=2, frames=4),
        lambda video: pipe.cinemagraph(video[0], 1 - known[0].to(dtype), ONE, steps=2, frames=4),
        lambda video: pipe.upscale(video, ONE),
    ):
        assert torch.equal(use(rounded), use(same))
    large = ml.sample_batch(1, size=64, captions=[ONE], seed=0).video[0].to(dtype)
    assert ml.assess(large, ONE) == ml.assess(large.float(), ONE)
    filmstrip(rounded), space_time_slice(rounded.requires_grad_())


@pytest.mark.parametrize("options", [{"dtype": torch.complex64}, {"dtype": torch.int64}, {"device": "meta"}, {"sparse": True}])
def test_other_tensors_are_refused_with_what_is_wanted(options):
    bad = torch.zeros(4, 3, 8, 8).to_sparse() if "sparse" in options else torch.zeros(4, 3, 8, 8, **options)
    for use in (lambda: check_video(bad, "video", (None, 3, 8, 8)), lambda: ml.assess(bad, ONE), lambda: filmstrip(bad)):
        with pytest.raises(ValueError, match="wanted"):
            use()
    if bad.dtype != torch.int64:
        with pytest.raises(ValueError, match="wanted"):
            check_mask(bad, "mask", (4, 3, 8, 8))


# What a user has set for torch, and what is left as it was


def used(pipe: Pipeline, clip: torch.Tensor) -> list[torch.Tensor]:
    """What many calls of the package return."""
    with torch.device("cpu"):
        known = torch.ones(1, 1, SMALL.size, SMALL.size)
        known[..., 8:] = 0
    batch = ml.sample_batch(2, seed=1, size=64)
    ml.assess(batch.video[0], ONE), filmstrip(clip), space_time_slice(clip)
    return [
        batch.video,
        batch.objects[0][0].centres,
        pipe.generate(ONE, steps=2, frames=4),
        pipe.generate(TWO, steps=3, frames=4),
        pipe.generate_image(ONE, steps=2),
        pipe.inpaint(clip, known, ONE, steps=2),
        pipe.image_to_video(clip[0], ONE, steps=2, frames=4),
        pipe.cinemagraph(clip[0], known[0], ONE, steps=2, frames=4),
        pipe.upscale(clip, ONE),
    ]


SETTINGS = {
    "double": lambda: torch.set_default_dtype(torch.float64),
    "half": lambda: torch.set_default_dtype(torch.bfloat16),
    "device": lambda: torch.set_default_device("meta"),
    "no gradient": lambda: torch.set_grad_enabled(False),
}


@pytest.fixture
def reset():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("setting", SETTINGS)
def test_defaults_of_a_user_change_nothing_and_stay(perturb, pipe, clip, tmp_path, monkeypatch, reset, setting):
    expected = used(pipe, clip)
    with monkeypatch.context() as patch:
        use_small(patch, tmp_path / "weights")
        trained = go(tmp_path / "plain").state_dict()
    SETTINGS[setting]()
    before = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    found = used(pipe, clip)
    assert [value.dtype for value in found] == [torch.float32] * len(found)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    use_small(monkeypatch, tmp_path / "weights")
    again = go(tmp_path / "set").state_dict()
    assert all(torch.equal(again[name], trained[name]) for name in trained)
    assert before == (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())


def test_defaults_that_are_set_before_the_package_is_imported(tmp_path):
    script = """
        import sys, torch
        if sys.argv[1] == "set":
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
        import minilumiere as ml
        from minilumiere.weights import build
        from minilumiere.config import get_scale
        clip = ml.sample_batch(1, captions=["a red 3 moving right"], size=64, seed=0).video[0]
        net = build("t2i", get_scale("tiny"))
        print(ml.assess(clip, "a red 3 moving right"), {(p.dtype, p.device) for p in net.parameters()})
    """
    runs = [
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), how], capture_output=True, text=True)
        for how in ("set", "plain")
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


def test_pins_of_threads_do_not_get_in_each_other_s_way(reset):
    torch.set_default_dtype(torch.float64)
    entered, leave, found = threading.Event(), threading.Event(), []

    def other() -> None:
        with pinned():
            entered.set()
            leave.wait(10)
            found.append(torch.ones(1).dtype)

    thread = threading.Thread(target=other)
    with pinned():
        thread.start()
        entered.wait(10)
    leave.set()
    thread.join()
    assert found == [torch.float32] and torch.get_default_dtype() == torch.float64


def generators() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def test_no_call_moves_a_global_generator(perturb, pipe, clip, tmp_path, monkeypatch):
    box = {}
    calls = {
        "load": lambda: ml.load("tiny", device="cpu"),
        "judge": lambda: ml.assess(ml.sample_batch(1, size=64, captions=[ONE]).video[0], ONE),
        "pipeline": lambda: used(pipe, clip),
        "files": lambda: [ml.save_video(clip, tmp_path / f"out.{ending}") for ending in ("gif", "png", "webp")],
        "build": lambda: build("t2i", get_scale("tiny")),
        "explorer": lambda: feature_explorer(pipe.base, clip, ONE, (0.0,)),
        "style": lambda: box["load"].in_style("neon"),
        "train": lambda: go(tmp_path / "run"),
        "resume": lambda: go(tmp_path / "run", steps=5),
    }
    from minilumiere.evaluation import judge

    judge.load_judge.cache_clear()
    for name, call in calls.items():
        if name == "train":
            use_small(monkeypatch, tmp_path / "weights")
        before = generators()
        box[name] = call()
        assert generators() == before, name


def test_fresh_weights_come_from_torch_s_generator_or_a_seed():
    torch.manual_seed(3)
    one = build("judge", SMALL).state_dict()
    with global_generator(3):
        other = build("judge", SMALL).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    torch.manual_seed(4)
    assert any(not torch.equal(one[name], value) for name, value in build("judge", SMALL).state_dict().items())


# Guidance: one option, one meaning


def test_guidance_0_is_without_a_caption(pipe, clip):
    """The same clip whatever a caption says; of two objects, which are sampled apart, another than of one."""
    ones = [pipe.generate(caption, guidance=0, steps=3, frames=4) for caption in (ONE, "a white 8 circling clockwise slowly")]
    twos = [pipe.generate(caption, guidance=0, steps=3, frames=4) for caption in (TWO, "a cyan 1 and a green 0 moving up")]
    images = [pipe.generate_image(caption, guidance=0, steps=3) for caption in (ONE, "a white 8")]
    known = torch.ones(1, 1, SMALL.size, 1)
    given = [pipe.inpaint(clip, known, caption, guidance=0, steps=2) for caption in (ONE, "a white 8")]
    for first, second in (ones, twos, images, given):
        assert torch.equal(first, second)
    captioned = [pipe.generate(caption, guidance=0.5, steps=3, frames=4) for caption in (ONE, "a white 8")]
    assert not torch.equal(*captioned)


@pytest.mark.parametrize("caption", [ONE, TWO])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.0, 3.0, 10.0])
def test_guidance_does_not_jump(pipe, caption, guidance):
    there, near, far = (
        pipe.generate(caption, guidance=guidance + step, steps=3, frames=4, super_resolution=True) for step in (0, 1e-4, 1e-1)
    )
    assert (near - there).abs().max() < 0.01 < 10 * (far - there).abs().max() + 0.01


def test_strength_1_of_restyling_is_the_limit_of_strength_below_1(pipe, clip, monkeypatch):
    monkeypatch.setattr(Pipeline, "in_style", lambda self, *_: self)
    almost, full = (
        pipe.restyle(clip, TWO, "neon", strength=strength, steps=3, super_resolution=False) for strength in (0.99999, 1)
    )
    assert (almost - full).abs().max() < 0.02


# Base size in, base size out


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_averages_become_those_given_exactly(factor):
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(2, 3, 2, 4 * factor, 4 * factor, generator=generator)
    large[0, :, :, :factor, :factor], large[0, :, :, -factor:, -factor:] = 0, 1
    small = torch.rand(2, 3, 2, 4, 4, generator=generator)
    small[1] = small[1].round()  # black and white
    mask = (torch.rand(2, 1, 2, 4, 4, generator=generator) < 0.5).float()
    found = with_averages(large, small, mask)
    assert found.min() >= 0 and found.max() <= 1
    error = (avg_pool3d(found, (1, factor, factor)) - small).abs() * mask
    assert error.max() < 1e-5
    there = mask.repeat_interleave(factor, -1).repeat_interleave(factor, -2).expand_as(found) == 1
    assert torch.equal(found[~there], large[~there])
    kept = with_averages(large, avg_pool3d(large, (1, factor, factor)), torch.ones_like(mask))
    assert (kept - large).abs().max() < 1e-5


def test_what_is_given_at_base_size_comes_back_at_base_size(pipe, clip):
    factor = SMALL.upscale
    half = torch.ones(4, 1, SMALL.size, SMALL.size)
    half[..., 8:] = 0
    region = 1 - half[0]
    for video, mask in (
        (pipe.inpaint(clip, half, ONE, steps=2), half),
        (pipe.inpaint(clip, torch.ones(1), ONE, steps=2), torch.ones_like(half)),
        (pipe.image_to_video(clip[0], ONE, steps=2, frames=4)[:1] - 0, torch.ones(1, 1, 1, 1)),
    ):
        assert video.shape[-1] == SMALL.output_size
        given = clip[: len(video)]
        error = (torch.nn.functional.avg_pool2d(video, factor) - given).abs() * mask[: len(video)]
        assert error.max() < 1e-5
    moving = pipe.cinemagraph(clip[0], region, ONE, steps=2, frames=4)
    assert ((torch.nn.functional.avg_pool2d(moving, factor) - clip[0]).abs() * half).max() < 1e-5
    free = pipe.inpaint(clip, half, ONE, steps=2, copy_known=False)
    assert ((torch.nn.functional.avg_pool2d(free, factor) - clip).abs() * half).max() > 1e-3


def test_a_wrong_size_says_that_the_base_size_works_too(pipe):
    with pytest.raises(ValueError, match=r"\(3, 64, 64\) or of base size \(16, 16\)"):
        pipe.image_to_video(torch.zeros(3, 20, 20), ONE)
    with pytest.raises(ValueError, match=r"wanted \(3, 16, 16\), float"):  # of base size it is: what is wrong is the type
        pipe.image_to_video(torch.zeros(3, 16, 16, dtype=torch.uint8), ONE)


def test_what_is_wrong_is_shown_in_a_line_and_not_in_full(pipe):
    many = torch.rand(99, 99)
    for use in (
        lambda: pipe.generate(many),
        lambda: pipe.generate(ONE, seed=many),
        lambda: pipe.generate(ONE, progress=many),
        lambda: ml.save_video("clip.gif", many),
        lambda: ml.load("tiny", device=many),
        lambda: ml.sample_batch(1, captions=[ONE] * 99),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            use()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("style", ["nosuch", "", 3, None, ["neon"], ("neon",)])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_an_unknown_style_names_the_choices(pipe, clip, style, alpha):
    for use in (
        lambda: pipe.stylize(ONE, style=style, alpha=alpha),
        lambda: pipe.in_style(style, alpha),
        lambda: pipe.restyle(clip, ONE, style, alpha=alpha),
    ):
        with pytest.raises(ValueError, match="outline, dotted, neon"):
            use()
