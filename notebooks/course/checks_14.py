"""Checkers of the exercises of notebook 14, as those of `checks_06_12`; `tests/notebooks/test_checks_14.py` tries them."""

import torch
from course.checks_05b import use  # noqa: F401  the notebook goes on with the course's own lesson
from course.checks_06_12 import check, seeded
from torch import Tensor

from minilumiere.config import SCALES
from minilumiere.model.appearance import image_share, with_drawing, with_image_net
from minilumiere.model.diffusion import Denoiser, add_noise, alpha_sigma, ddim_step, denoise_along, guided, schedule, velocity
from minilumiere.model.text import tokenise
from minilumiere.training.distill import velocity_between


def counted_calls(levels: Tensor, guidance: float, share: float) -> tuple[int, int]:
    """How often the video net and the image net are called along the levels: by nets that count, in the package's sampler."""
    calls = {"video": 0, "image": 0}

    def net(name: str) -> Denoiser:
        def answer(noisy: Tensor, log_snr: Tensor, *words: Tensor) -> Tensor:
            calls[name] += 1
            return torch.zeros_like(noisy)

        return answer

    denoise = guided(net("video"), net("video"), guidance)
    denoise = with_image_net(denoise, net("image"), tokenise(["a red 3"]), torch.tensor([share]), SCALES["tiny"])
    denoise_along(denoise, torch.zeros(1, 3, 1, 2, 2), levels)
    return calls["video"], calls["image"]


@check
def check_calls(function) -> str:
    scale, few = SCALES["tiny"], SCALES["tiny"].few_steps()
    shift = scale.shift_of(scale.frames)
    patient, quick = (with_drawing(schedule(how.steps, shift, tail=how.tail, power=how.power)) for how in (scale, few))
    for levels, guidance, how in ((patient, scale.guidance, scale), (quick, 1.0, few), (patient, 1.0, scale)):
        share = image_share(guidance, how)
        steps, wanted, said = len(levels) - 1, counted_calls(levels, guidance, share), function(levels, guidance, share)
        video, image = (int(number) for number in said)
        where = f"{steps} steps with guidance {guidance:g}" + ", and none of the image net" * (not share)
        if video in (len(levels), 2 * len(levels)):
            return f"{where}: {len(levels)} levels are {steps} steps; at the last level nothing is left to do"
        if video == steps * (1 if guidance == 1 else 2) != wanted[0]:
            return f"{where}: where the image net draws alone, the video net is not called"
        if video != wanted[0]:
            return f"{where}: the video net is called {wanted[0]} times, not {video}"
        if image == 2 * steps != wanted[1]:
            return f"{where}: the image net is asked only where noise lets it see, or where its weight is not 0"
        if image * 2 == wanted[1] != 0:
            return f"{where}: the image net is asked with the caption and without it"
        if image != wanted[1]:
            return f"{where}: the image net is called {wanted[1]} times, not {image}"
    return ""


@check
def check_clean_between(function) -> str:
    noisy, clean = torch.randn(64, 3, generator=seeded(0)), torch.rand(64, 3, generator=seeded(1)) * 2 - 1
    for begin, end in ((-6.0, -3.0), (-3.0, 0.0), (-1.0, 2.0)):
        now, then = torch.full((64,), begin), torch.full((64,), end)
        after = ddim_step(noisy, clean, now, then)
        (_, sigma), (alpha_then, sigma_then) = alpha_sigma(now, noisy), alpha_sigma(then, noisy)
        said = function(noisy, after, now, then)
        if said.shape != clean.shape:
            return f"the shape {tuple(clean.shape)} is wanted, this has {tuple(said.shape)}"
        if torch.allclose(said, clean, atol=1e-3):
            continue
        if torch.allclose(said, after / alpha_then, atol=1e-3):
            return "z'' still holds noise, which is no part of x̂"
        if torch.allclose(said, (after - sigma_then / sigma * noisy) / alpha_then, atol=1e-3):
            return "what you take away from z'' is not noise alone: z holds α x̂ as well"
        if torch.allclose(said, velocity_between(noisy, after, now, then), atol=1e-3):
            return "this is v; x̂ is wanted"
        missed = float((ddim_step(noisy, said, now, then) - after).abs().max())
        return f"a step of DDIM with your x̂ ends up to {missed:.2f} away from z''"
    return ""


def reference_lesson(teacher: Denoiser, clean: Tensor, noise: Tensor, levels: Tensor, segment: int) -> tuple[Tensor, Tensor]:
    """What the student is shown, and the v that it should say: see the exercise."""
    begin, middle, end = levels[2 * segment : 2 * segment + 3]
    many = len(clean)
    noisy = add_noise(clean, noise, begin.expand(many))
    with torch.no_grad():
        after, _ = denoise_along(teacher, noisy, torch.stack([begin, middle, end]))
    return noisy, velocity_between(noisy, after, begin.expand(many), end.expand(many))


def slow_teacher(noisy: Tensor, log_snr: Tensor) -> Tensor:
    """The v of a teacher whose x̂ depends on where it stands: half of the noisy data, wherever that is."""
    alpha, sigma = alpha_sigma(log_snr, noisy)
    return (alpha * noisy - noisy.clamp(-1, 1) / 2) / sigma


@check
def check_lesson(function) -> str:
    clean, noise = torch.rand(32, 2, generator=seeded(2)) * 2 - 1, torch.randn(32, 2, generator=seeded(3))
    levels = schedule(6, -1.0, power=2.0)
    for segment in range(3):
        noisy, v = reference_lesson(slow_teacher, clean, noise, levels, segment)
        shown, target = function(slow_teacher, clean, noise, levels, segment)
        begin = levels[2 * segment].expand(32)
        if segment and torch.allclose(shown, add_noise(clean, noise, levels[segment].expand(32)), atol=1e-4):
            return f"segment {segment} begins where the teacher has taken {2 * segment} of its steps, not {segment}"
        if not torch.allclose(shown, noisy, atol=1e-4):
            return f"in segment {segment} the student is shown real data with the noise of its begin"
        if torch.allclose(target, velocity(clean, noise, begin), atol=1e-3):
            return "this target is the truth's: it makes another teacher, which needs as many steps as the first"
        if torch.allclose(target, slow_teacher(noisy, begin), atol=1e-3):
            return "this is what the teacher says at the begin: one of its steps, made longer"
        if not torch.allclose(target, v, atol=1e-3, rtol=1e-3):
            return f"one step with this v does not end where two steps of the teacher end, in segment {segment}"
    return ""


@check
def check_variety(function) -> str:
    same = torch.randn(1, 5, 2, generator=seeded(4)).expand(4, -1, -1)  # seeds captions values: each caption has its own place
    if float(function(same)) > 1e-4:
        return "clips that are the same whatever the seed have no variety: captions differ, and that does not count"
    for seeds in (2, 8):
        values = torch.randn(seeds, 6, 2, generator=seeded(seeds)) * torch.tensor([0.2, 1.5]) + 10 * torch.arange(6)[:, None]
        said, wanted = float(function(values)), float(values.var(0).mean().sqrt())
        if abs(said - float(values.var(0, correction=0).mean().sqrt())) < 1e-4 * wanted:
            return f"with {seeds} seeds the mean is one of the values' own: divide by {seeds - 1}, as `var` does"
        if abs(said - float(values.var(0).mean())) < 1e-4:
            return "a variance: its root has the unit of the values"
        if abs(said - float(values.std(0).mean())) < 1e-4:
            return "the mean of deviations is smaller than the deviation: take the mean of variances, then the root"
        if abs(said - wanted) > 1e-3 * wanted:
            return f"it says {said:.3f}, and the deviation over seeds is {wanted:.3f}"
    return ""
