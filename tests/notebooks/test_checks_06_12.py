"""The checkers of notebooks 06 to 12 accept the answers under the folds, and reject the stubs and tempting wrong answers."""

import math
import re
import sys

import pytest
import torch
from notebook_exercises import NOTEBOOKS, accepts, checkers, exercises, parameters
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(NOTEBOOKS))
from course import checks_06_12 as course

from minilumiere.evaluation.quality import wilson
from minilumiere.model import conditioning, diffusion, multidiffusion, temporal_windows
from minilumiere.training import loop

FILES = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if re.match(r"(06b?|07|08|09|10|12)_", path.name))


def positions(frames, side, by_time=1, by_side=1):
    return (frames // by_time) * (side // by_side) ** 2


def names_of_the_notebooks() -> dict:
    """What the cells of exercises find defined in their notebooks."""
    names = {"torch": torch, "Tensor": torch.Tensor, "nn": nn, "F": F, "math": math, "loop": loop, "positions": positions}
    names |= {"multidiffusion": multidiffusion, "temporal_windows": temporal_windows, "package_wilson": wilson}
    names |= {"frame_features": course.frame_features, "now": course.NOW, "after": course.AFTER}
    names |= {name: getattr(diffusion, name) for name in ("add_noise", "ddim_step", "log_snr_at")}
    names |= {name: getattr(conditioning, name) for name in ("first_frames",)}

    def mean_over_windows(answers, windows, num_frames):
        video = answers.new_zeros(*answers.shape[1:3], num_frames, *answers.shape[4:])
        return multidiffusion(lambda segments, some: answers, video, windows)

    return names | {"mean_over_windows": mean_over_windows}


@pytest.mark.parametrize("exercise", parameters(*FILES))
def test_the_answer_is_accepted_and_the_stub_is_not(exercise):
    accepts(course, exercise, names_of_the_notebooks())


def test_each_notebook_has_three_exercises_and_each_checker_one():
    found = [exercises(path) for path in FILES]
    assert all(len(of_one) >= 3 for of_one in found)
    assert sorted(exercise.checker for of_one in found for exercise in of_one) == checkers(course)


def halves(gradients, limit):  # one norm for each tensor
    return [g * min(1.0, limit / float(g.norm())) for g in gradients]


def always_to_the_limit(gradients, limit):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    return [g * limit / norm for g in gradients]


def in_place(gradients, limit):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    return [g.mul_(min(1, limit / norm)) for g in gradients]


def unshuffled(batch, generator):
    return (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch


def middles(batch, generator):
    return ((torch.arange(batch) + 0.5) / batch)[torch.randperm(batch, generator=generator)]


def without_alpha(noisy, candidates, log_snr):
    distance = (noisy - candidates).square().flatten(2).sum(2) / torch.tensor(-log_snr).sigmoid()
    return torch.einsum("kn,kn...->n...", (-distance / 2).softmax(0), candidates)


def over_the_batch(noisy, candidates, log_snr):
    level = torch.tensor(log_snr)
    distance = (noisy - level.sigmoid().sqrt() * candidates).square().flatten(2).sum(2) / (-level).sigmoid()
    return torch.einsum("kn,kn...->n...", (-distance / 2).softmax(1), candidates)


def own_noise(noisy, windows, predict_clean, generator):  # averages, and loses the noise in overlaps
    def each(segments, some):
        return torch.stack(
            [
                diffusion.ddim_step(
                    z, predict_clean(z, w), course.NOW, course.AFTER, eta=1.0, noise=torch.randn(z.shape, generator=generator)
                )
                for z, w in zip(segments, some, strict=True)
            ]
        )

    return multidiffusion(each, noisy, windows)


def no_noise(noisy, windows, predict_clean, generator):
    def each(segments, some):
        return torch.stack([predict_clean(z, w) for z, w in zip(segments, some, strict=True)])

    return diffusion.ddim_step(noisy, multidiffusion(each, noisy, windows), course.NOW, course.AFTER)


def last_wins(answers, windows, frames):
    clip = answers.new_zeros(*answers.shape[1:3], frames, *answers.shape[4:])
    for window, answer in zip(windows, answers, strict=True):
        clip[:, :, window] = answer
    return clip


def summed(answers, windows, frames):
    clip = answers.new_zeros(*answers.shape[1:3], frames, *answers.shape[4:])
    for window, answer in zip(windows, answers, strict=True):
        clip[:, :, window] += answer
    return clip


def unnormalised(answers, windows, frames, weight):
    return summed(answers * weight[:, None, None], windows, frames)


def too_many_windows(frames, window, overlap):
    if frames <= window:
        return [slice(0, frames)]
    return [slice(start, start + window) for start in range(frames - window + 1)]


def beyond(frames, window, overlap):
    return [slice(start, start + window) for start in range(0, frames, window - overlap)]


def short_last(frames, window, overlap):
    return [slice(start, min(start + window, frames)) for start in range(0, frames, window - overlap)]


def fresh_convolution(plain):
    return nn.Conv2d(7, plain.out_channels, 3, padding=1)


def copied_without_bias(plain):
    extended = nn.Conv2d(7, plain.out_channels, 3, padding=1, bias=False)
    extended.weight.data.zero_()
    extended.weight.data[:, :3] = plain.weight.data
    return extended


def new_first(plain):
    extended = nn.Conv2d(7, plain.out_channels, 3, padding=1)
    extended.weight.data.zero_()
    extended.weight.data[:, 4:] = plain.weight.data
    extended.bias.data = plain.bias.data.clone()
    return extended


def largest_product(feature, row, column):  # a large feature is like everything
    product = torch.einsum("c,cthw->thw", feature[:, 0, row, column], feature).flatten(1)
    return torch.stack([product.argmax(1) // feature.shape[3], product.argmax(1) % feature.shape[3]], dim=1)


def columns_first(feature, row, column):
    alike = F.cosine_similarity(feature[:, :1, row, column, None, None], feature, dim=0).flatten(1)
    return torch.stack([alike.argmax(1) % feature.shape[3], alike.argmax(1) // feature.shape[3]], dim=1)


def given_inverted(video, mask):
    return torch.cat([video * (1 - mask), mask], dim=1)


WRONG = {
    "check_stratified": [unshuffled, middles, lambda n, g: torch.rand(n, generator=g)],
    "check_clip_gradients": [halves, always_to_the_limit, in_place],
    "check_half_life": [lambda d: 0.5 / (1 - d), lambda d: math.log(0.5) * math.log(d)],
    "check_batch_indices": [
        lambda seed, step, items, batch: list(range(step * batch % items, step * batch % items + batch)),
        lambda seed, step, items, batch: torch.randperm(items, generator=loop.step_generator(seed, step)).tolist()[:batch],
    ],
    "check_stable_target": [lambda z, x, s: x.mean(0), without_alpha, over_the_batch],
    "check_scenes_needed": [lambda share: math.ceil(1 / share), lambda share: int(1 / share**2)],
    "check_caption_by_place": [
        lambda c, p, A, B, U: (A @ c + p @ B.T) @ U.T,
        lambda c, p, A, B, U: ((A @ c).tanh() * (p @ B.T)) @ U.T,
        lambda c, p, A, B, U: ((A @ c) * (p @ B.T)).sum(-1, keepdim=True) * U.sum(1),
    ],
    "check_compose": [torch.maximum, torch.add, lambda a, b: a + (1 - a) * b, lambda a, b: compose(b, a)],
    "check_windows": [too_many_windows, beyond, short_last],
    "check_mean_over_windows": [last_wins, summed, lambda a, w, n: summed(a, w, n) / len(w)],
    "check_stochastic_step": [own_noise, no_noise],
    "check_weighted": [unnormalised, lambda a, w, n, weight: unnormalised(a, w, n, weight / weight.sum())],
    "check_interpolate": [
        lambda o, s, a: {n: a * s[n] + (1 - a) - o[n] for n in o},
        lambda o, s, a: {n: a * o[n] + (1 - a) * s[n] for n in o},
        lambda o, s, a: s if a > 0.5 else o,
    ],
    "check_take_over": [
        lambda p, s, at: lambda z, level: s(z, level) if level[0] > at else p(z, level),
        lambda p, s, at: lambda z, level: p(z, level) if level[0] >= at else s(z, level),
    ],
    "check_noised_source": [
        lambda x, e, s, shift: (1 - s) * x + s * e,
        lambda x, e, s, shift: diffusion.add_noise(x, e, diffusion.log_snr_at(torch.tensor([1 - s]), shift).expand(len(x))),
        lambda x, e, s, shift: diffusion.add_noise(x, e, diffusion.log_snr_at(torch.tensor([s]), 0.0).expand(len(x))),
    ],
    "check_even_time": [lambda shift: 0.5, lambda shift: 0.05],
    "check_given_pixels": [
        lambda v, m: torch.cat([v, m], dim=1),
        lambda v, m: torch.cat([m, v * m], dim=1),
        given_inverted,
    ],
    "check_extend": [fresh_convolution, copied_without_bias, new_first],
    "check_last_frame": [
        lambda t, h, w: conditioning.first_frames(t, h, w),
        lambda t, h, w: 1 - conditioning.first_frames(t, h, w).flip(0),
        lambda t, h, w: conditioning.first_frames(t, h, w).flip(0)[:, 0],
    ],
    "check_shrink_mask": [
        lambda m: F.avg_pool2d(m, 2),
        lambda m: F.max_pool2d(m, 2),
        lambda m: F.avg_pool2d(m, 2).round(),
        lambda m: m[..., 1::2, 1::2],
    ],
    "check_as_clip": [
        lambda x, b: x.reshape(b, x.shape[1], -1, *x.shape[2:]),
        lambda x, b: x.unflatten(0, (-1, b)).permute(1, 2, 0, 3, 4),
        lambda x, b: x.unflatten(0, (b, -1)),
    ],
    "check_change": [
        lambda x: x.diff(dim=1).mean(0),
        lambda x: x.diff(dim=1).square().mean(0),
        lambda x: x.diff(dim=1).square().sum(0).sqrt(),
        lambda x: x.diff(dim=1).abs().mean(0),
    ],
    "check_sign": [torch.abs, lambda d: d * d.sum().sign(), lambda d: -d],
    "check_distance": [
        lambda w: float((w * torch.arange(4.0)).sum(1).mean()),
        lambda w: 1 - float(w.diagonal().mean()),
        lambda w: float((w * (torch.arange(4)[:, None] - torch.arange(4)).abs()).sum()),
    ],
    "check_nearest": [
        lambda f, y, x: torch.tensor([[y, x]] * f.shape[1]),
        largest_product,
        columns_first,
    ],
    "check_promise": [
        lambda interval, share, n: 0.95,
        lambda interval, share, n: sum(interval(k / n, n)[0] <= share <= interval(k / n, n)[1] for k in range(n + 1)) / (n + 1),
        lambda interval, share, n: float(interval(share, n)[0] <= share <= interval(share, n)[1]),
    ],
    "check_clips_needed": [lambda a, b: 1024, lambda a, b: 4096, lambda a, b: 2 ** math.ceil(-2 * math.log2(b - a))],
    "check_clip_features": [
        course.frame_features,
        lambda v: v.mean(1).flatten(1)[:, :48],
        lambda v: course.frame_features(v).view(*v.shape[:2], -1).mean(1),
    ],
    "check_pairs": [
        positions,
        lambda *a, **k: positions(*a, **k) * (positions(*a, **k) - 1) // 2,
        lambda frames, side, by_time=1, by_side=1: (frames // by_time) ** 2 * (side // by_side) ** 2,
    ],
}


def compose(front, back):
    return front + (1 - front.amax(1, keepdim=True)) * back


def test_at_least_two_wrong_answers_for_each_checker():
    assert WRONG.keys() == {name for name in vars(course) if name.startswith("check_")}
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


@pytest.mark.parametrize(("checker", "number"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))])
def test_a_wrong_answer_is_rejected(checker, number):
    assert getattr(course, checker)(WRONG[checker][number]).startswith("not yet")


@pytest.mark.parametrize("checker", WRONG)
def test_an_answer_that_fails_is_told_and_not_raised(checker):
    def fails(*args, **options):
        raise RuntimeError("no such thing")

    assert getattr(course, checker)(fails) == "not yet: RuntimeError: no such thing"
