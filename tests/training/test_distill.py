"""The few-step student: what its target is, what it is drawn from, and that a killed run goes on bit for bit."""

import itertools
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_driver import SMALL, go, step_by_step, use_small

from minilumiere.config import SCALES
from minilumiere.dataset.chance import normal
from minilumiere.model.appearance import DRAWN, with_drawing
from minilumiere.model.diffusion import ddim_step, schedule
from minilumiere.model.stylize import with_style
from minilumiere.model.text import NULL, VOCABULARY, tokenise
from minilumiere.training import distill
from minilumiere.training.distill import draw_segments, guided_denoiser, segments_of, teacher, velocity_between
from minilumiere.weights import nets
from minilumiere.weights.checkpoint import read_checkpoint
from minilumiere.weights.nets import student
from minilumiere.weights.shipped import read_shipped, ship, weights_path

FEW = SMALL.few_steps()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of the shipped weights of a small image net and a small base net on top of it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        use_small(patch, folder / "weights")
        for stage in ("t2i", "base"):
            go(folder / stage, stage, steps=20)
            ship(folder / stage, stage, SMALL)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch, trained):
    use_small(monkeypatch, trained / "weights")


@pytest.fixture
def no_student(tmp_path, monkeypatch, trained):
    """A folder of the same weights, in which there is no student."""
    shutil.copytree(trained / "weights", tmp_path / "weights", ignore=shutil.ignore_patterns("fast*"))
    use_small(monkeypatch, tmp_path / "weights")


@pytest.fixture
def student_there(tmp_path, no_student):
    """The same, and a student."""
    go(tmp_path / "fast", "fast", steps=5)
    ship(tmp_path / "fast", "fast", SMALL)


def batches(count: int, n: int = 8, own: bool = False) -> list[dict[str, torch.Tensor]]:
    return [draw_segments(SMALL, n, torch.Generator().manual_seed(seed), "cpu", own) for seed in range(count)]


def go_along(denoise, state: torch.Tensor, levels: torch.Tensor, fresh=None, fresh_from: float = 0.0) -> torch.Tensor:
    """DDIM, written out; with `fresh` noise, steps that end beyond a level go on to weaker noise, and are noised back."""
    for here, there in itertools.pairwise(levels):
        with torch.no_grad():
            v = denoise(state, here.expand(len(state)))
        clean = (here.sigmoid().sqrt() * state - (-here).sigmoid().sqrt() * v).clamp(-1, 1)
        renewed = fresh is not None and bool(there > fresh_from)
        farther = there - math.log(1 - FEW.renewed) if renewed else there
        state = ddim_step(state, clean, here.expand(len(state)), farther.expand(len(state)))
        if renewed:
            kept = (there.sigmoid() / farther.sigmoid()).sqrt()
            state = kept * state + ((-there).sigmoid() - kept**2 * (-farther).sigmoid()).sqrt() * next(fresh)
    return state


def segment_of(batch: dict[str, torch.Tensor]) -> int:
    """Which of the student's steps begins at the one level of a batch."""
    now = batch["log_snr"]
    assert (now == now[0]).all(), "of one level"
    (number,) = [i for i, levels in enumerate(segments_of(SMALL, batch["noisy"].shape[2])) if levels[0] == now[0]]
    return number


@given(now=st.floats(-15, 10), further=st.floats(0.5, 10), clean=st.floats(-1, 1), noise=st.floats(-3, 3))
def test_one_step_with_the_target_arrives_where_it_is_to(now, further, clean, noise):
    """For any pair of states: `velocity_between` is the inverse of a step of DDIM."""
    levels = torch.tensor([now, now + further])
    noisy, after = torch.tensor([[noise]]), torch.tensor([[clean]])
    v = velocity_between(noisy.double(), after.double(), levels[:1], levels[1:])
    alpha, sigma = (levels[:1].double().sigmoid().sqrt(), (-levels[:1].double()).sigmoid().sqrt())
    arrived = ddim_step(noisy.double(), alpha * noisy - sigma * v, levels[:1], levels[1:])
    torch.testing.assert_close(arrived, after.double(), atol=1e-4, rtol=1e-4)


def test_a_teacher_that_is_right_is_copied():
    """Where two steps of the teacher have the same x̂, one step has that x̂, too."""
    clean, noise, levels = torch.rand(3, 5) * 2 - 1, torch.randn(3, 5), torch.tensor([-6.0, -4.0, -1.0])
    alpha, sigma = levels.sigmoid().sqrt(), (-levels).sigmoid().sqrt()
    states = [a * clean + s * noise for a, s in zip(alpha, sigma, strict=True)]
    v = velocity_between(states[0], states[2], levels[:1].expand(3), levels[2:].expand(3))
    torch.testing.assert_close(v, alpha[0] * noise - sigma[0] * clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("frames", [4, 16, 80, 320])
def test_the_segments_are_the_steps_of_sampling_one_after_the_other(scale, frames):
    few, segments = scale.few_steps(), segments_of(scale, frames)
    sampled = with_drawing(schedule(few.steps, scale.shift_of(frames), tail=few.tail, power=few.power))
    assert sampled[-2] >= DRAWN and len(segments) == len(sampled) - 1
    for levels, begin, end in zip(segments, sampled[:-1], sampled[1:], strict=True):
        if end > scale.shift_of(frames):  # where a part of the noise is drawn anew, the way leads on to what is without it
            end = end - math.log(1 - few.renewed)
        torch.testing.assert_close(levels[[0, -1]], torch.stack([begin, end]), atol=1e-4, rtol=0)
        assert len(levels) > 2 and (levels.diff() > 0).all(), "more than one step of the teacher"


def test_a_batch_leads_to_where_the_guided_steps_of_the_teacher_lead():
    seen = set()
    for batch in batches(12):
        levels = segments_of(SMALL, batch["noisy"].shape[2])[segment_of(batch)]
        two = (batch["tokens"] == VOCABULARY["and"]).any(1)
        denoise = guided_denoiser(teacher(SMALL, "cpu"), SMALL, batch["tokens"], batch["given"], ~two)
        wanted = go_along(denoise, batch["noisy"], levels)
        now, then = (level.expand(len(two)) for level in levels[[0, -1]])
        guess = now[0].sigmoid().sqrt() * batch["noisy"] - (-now[0]).sigmoid().sqrt() * batch["v"]
        torch.testing.assert_close(ddim_step(batch["noisy"], guess, now, then), wanted, atol=1e-3, rtol=0)
        seen.add((segment_of(batch), bool(batch["given"].any())))
    assert {number for number, _ in seen} >= set(range(FEW.steps)), "every step of the student"
    assert (FEW.steps, False) not in seen, "the image net draws alone there, where nothing is given"


def test_clips_come_where_a_step_begins_in_the_student_s_own_steps(student_there, monkeypatch):
    """From the noise of the first one, in which it reaches farther."""
    asked, drawn = [0], []
    monkeypatch.setattr(distill, "pick", lambda coins, n: torch.tensor(min(asked[0], n - 1)))
    monkeypatch.setattr(distill, "normal", lambda *of: drawn.append(normal(*of)) or drawn[-1])
    for seed in range(3):
        asked[0] = 0
        first = batches(3, own=True)[seed]
        two = (first["tokens"] == VOCABULARY["and"]).any(1)
        assert 0.9 < first["noisy"].std() < 1.1, "pure noise"
        denoise = guided_denoiser(student(SMALL).eval(), FEW, first["tokens"], first["given"], ~two)
        for asked[0] in range(1, FEW.steps):
            real = batches(3)[seed]
            drawn.clear()
            batch = draw_segments(SMALL, 8, torch.Generator().manual_seed(seed), "cpu", True)
            begins = torch.stack([levels[0] for levels in segments_of(SMALL, batch["noisy"].shape[2])])
            fresh = {"fresh": iter(drawn[1:]), "fresh_from": SMALL.shift_of(batch["noisy"].shape[2])}
            led = go_along(denoise, first["noisy"], begins[: segment_of(batch) + 1], **fresh)
            torch.testing.assert_close(batch["noisy"], led, atol=1e-3, rtol=0)
            assert not torch.allclose(batch["noisy"], real["noisy"], atol=0.05)


def test_captions_are_never_dropped_and_only_clips_with_given_pixels_have_two_objects():
    seen = set()
    for batch in batches(24):
        assert (batch["tokens"] != NULL).all()
        seen.add((not batch["given"].any(), bool((batch["tokens"] == VOCABULARY["and"]).any())))
    assert {(False, True), (True, False)} <= seen and (True, True) not in seen


def test_the_student_begins_as_its_teacher_ends_on_its_own_and_resumes_bit_for_bit(tmp_path):
    before = read_shipped("base", SMALL)
    go(tmp_path / "fast", "fast")
    tensors, metadata = read_checkpoint(tmp_path / "fast" / "checkpoint.safetensors")
    assert metadata["from"] == before[1]["sha256"]
    states = step_by_step(tmp_path / "stopped", "fast")
    assert all(torch.equal(tensors[name], states[-1][name]) for name in tensors)
    moved = [(tensors[f"model.{name}"] - value.float()).abs().max() for name, value in before[0].items()]
    assert 0 < max(moved) < 0.1
    path = ship(tmp_path / "fast", "fast", SMALL)
    assert path.name == "fast.safetensors"
    assert read_shipped("base", SMALL)[1]["sha256"] == before[1]["sha256"], "the teacher stays"


def test_on_policy_goes_on_from_the_student_takes_its_place_and_resumes_bit_for_bit(tmp_path, student_there):
    before = read_shipped("fast", SMALL)
    go(tmp_path / "own", "on-policy")
    tensors, metadata = read_checkpoint(tmp_path / "own" / "checkpoint.safetensors")
    assert metadata["from"] == before[1]["sha256"] and metadata["teacher"] == read_shipped("base", SMALL)[1]["sha256"]
    states = step_by_step(tmp_path / "stopped", "on-policy")
    assert all(torch.equal(tensors[name], states[-1][name]) for name in tensors)
    moved = [(tensors[f"model.{name}"] - value.float()).abs().max() for name, value in before[0].items()]
    assert 0 < max(moved) < 0.1
    assert ship(tmp_path / "own", "on-policy", SMALL) == weights_path("fast", SMALL)
    after = read_shipped("fast", SMALL)
    assert after[1]["trained"] == "on-policy" and after[1]["sha256"] != before[1]["sha256"]
    student(SMALL)


def test_where_there_is_no_student_its_command_is_named(no_student):
    with pytest.raises(FileNotFoundError, match="train fast"):
        student(SMALL)


def test_the_student_s_first_step_is_as_far_from_its_teacher_as_its_reach_says(tmp_path, student_there):
    used, learnt, teaching = student(SMALL), nets.trained("fast", SMALL), nets.trained("base", SMALL)
    for mine, own, base in zip(used.first.parameters(), learnt.parameters(), teaching.parameters(), strict=True):
        torch.testing.assert_close(mine, base + FEW.reach * (own - base))
    assert used.first.t2i is used.t2i, "one image net"
    assert all(torch.equal(*pair) for pair in zip(used.t2i.parameters(), teaching.t2i.parameters(), strict=True))

    noisy, tokens = torch.randn(2, 3, 8, SMALL.size, SMALL.size), tokenise(["a red 3 moving right", "a blue 7"])
    begin, later = (torch.full((2,), float(level)) for level in schedule(FEW.steps, SMALL.shift_of(8), power=FEW.power)[:2])
    with torch.no_grad():
        assert torch.equal(used(noisy, later, tokens), learnt(noisy, later, tokens))
        assert torch.equal(used(noisy, begin, tokens), used.first(noisy, begin, tokens))
        assert not torch.equal(used(noisy, begin, tokens), learnt(noisy, begin, tokens))
        styled = with_style(used, used.t2i, 0.5)
        for weight in styled.t2i.head.parameters():
            weight.zero_()
        assert not torch.equal(styled(noisy, begin, tokens), used(noisy, begin, tokens)), "another image net, at all steps"

    go(tmp_path / "base", "base", steps=3)  # other weights of the teacher
    ship(tmp_path / "base", "base", SMALL)
    with pytest.raises(ValueError, match="other base weights"):
        student(SMALL)


def test_new_weights_of_the_teacher_are_read(monkeypatch):
    reads = []
    distill._shipped.cache_clear()
    monkeypatch.setattr(distill, "trained", lambda stage, scale: reads.append(stage) or torch.nn.Linear(1, 1))
    path = weights_path("base", SMALL)
    for later in (1, 1, 2):
        os.utime(path, ns=(later, later))
        teacher(SMALL, "cpu")
    assert reads == ["base", "base"]


def test_few_steps_are_fewer_and_hardly_guided():
    assert FEW.steps < SMALL.steps and FEW.ssr_steps < SMALL.ssr_steps
    assert FEW.guidance == 1 and 0 < FEW.image_guidance < SMALL.image_guidance
    assert replace(SMALL, image_share=0.5).few_steps().image_share == 0.5, "as without few steps"
    assert math.isclose(float(schedule(4, -5.0, power=2.0)[2]), float(schedule(4, -5.0)[3]), abs_tol=1e-5), "time 1/4"
