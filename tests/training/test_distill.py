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

from minilumiere.model.diffusion import ddim_step, schedule
from minilumiere.model.stylize import with_style
from minilumiere.model.text import NULL, VOCABULARY, tokenise
from minilumiere.training import distill
from minilumiere.training.distill import SUBSTEPS, draw_segments, guided_teacher, teacher, velocity_between
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


def batches(count: int, n: int = 8) -> list[dict[str, torch.Tensor]]:
    return [draw_segments(SMALL, n, torch.Generator().manual_seed(seed), "cpu") for seed in range(count)]


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


def test_the_student_s_steps_are_every_second_of_the_teacher_s():
    fine, coarse = (schedule(steps, -5.0, power=FEW.power) for steps in (FEW.steps * SUBSTEPS, FEW.steps))
    torch.testing.assert_close(fine[::SUBSTEPS], coarse)


def test_a_batch_is_one_segment_that_leads_to_where_two_guided_steps_lead():
    for batch in batches(6):
        frames, now = batch["noisy"].shape[2], batch["log_snr"]
        levels = schedule(FEW.steps * SUBSTEPS, SMALL.shift_of(frames), power=FEW.power)
        (begin,) = (levels[::SUBSTEPS][:-1] == now[0]).nonzero()[0].tolist()
        assert (now == now[0]).all(), "of one level"
        two = (batch["tokens"] == VOCABULARY["and"]).any(1)
        denoise = guided_teacher(teacher(SMALL, "cpu"), SMALL, batch["tokens"], batch["given"], ~two)
        state, at = batch["noisy"], levels[begin * SUBSTEPS : (begin + 1) * SUBSTEPS + 1]
        for here, there in itertools.pairwise(at):  # DDIM, written out
            with torch.no_grad():
                v = denoise(state, here.expand(len(state)))
            clean = (here.sigmoid().sqrt() * state - (-here).sigmoid().sqrt() * v).clamp(-1, 1)
            state = ddim_step(state, clean, here.expand(len(state)), there.expand(len(state)))
        alpha, sigma = now[:1].sigmoid().sqrt(), (-now[:1]).sigmoid().sqrt()
        guess = alpha * batch["noisy"] - sigma * batch["v"]
        torch.testing.assert_close(ddim_step(batch["noisy"], guess, now, at[-1:].expand(len(now))), state, atol=1e-3, rtol=0)


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


def test_the_student_s_first_step_is_as_far_from_its_teacher_as_its_reach_says(tmp_path, monkeypatch, trained):
    shutil.copytree(trained / "weights", tmp_path / "weights", ignore=shutil.ignore_patterns("fast*"))
    use_small(monkeypatch, tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="train fast"):
        student(SMALL)
    go(tmp_path / "fast", "fast", steps=5)
    ship(tmp_path / "fast", "fast", SMALL)
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
