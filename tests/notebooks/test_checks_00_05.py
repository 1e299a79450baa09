"""The checkers of notebooks 00 to 05 accept the answers folded there, and reject the stubs and tempting wrong answers."""

import math
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
from course import checks_00_05 as course  # noqa: E402

from minilumiere.dataset.paths import CANVAS  # noqa: E402
from minilumiere.evaluation.judge import centroids  # noqa: E402
from minilumiere.model.temporal import rotate  # noqa: E402

FILES = {path.name[: path.name.index("_")]: path for path in NOTEBOOKS.glob("0*.ipynb")}
ANSWER = re.compile(r"<summary>Answer</summary>\s*```python\n(.*?)```", re.DOTALL)


def alpha_sigma(log_snr: float) -> tuple[float, float]:
    return (1 / (1 + math.exp(-log_snr))) ** 0.5, (1 / (1 + math.exp(log_snr))) ** 0.5


def names() -> dict:
    """What the notebooks have imported or defined where the exercises stand."""
    known = {"torch": torch, "nn": nn, "F": F, "math": math, "rearrange": rearrange, "Tensor": Tensor}
    return known | {"centroids": centroids, "CANVAS": CANVAS, "alpha_sigma": alpha_sigma, "along_time": course.along_time}


@cache
def exercises() -> list[tuple[str, str, str, str]]:
    """Notebook, checker call, stub and answer of each exercise."""
    found = []
    for number in ("00", "01", "01b", "02", "03", "04", "05"):
        cells = nbformat.read(FILES[number], as_version=nbformat.NO_CONVERT).cells
        for cell, after in pairwise(cells):
            call = re.search(r"^print\((check_\w+\(.*\))\)$", cell.source, re.MULTILINE)
            if cell.cell_type == "code" and call:
                found.append((number, call[1], cell.source.replace(call[0], ""), ANSWER.search(after.source)[1]))
    return found


def verdict(call: str, source: str) -> str:
    """What the checker says of the code."""
    space = names() | {name: getattr(course, name) for name in dir(course) if name.startswith("check_")}
    exec(source, space)
    return eval(call, space)


CALLS = [(number, call) for number, call, *_ in exercises()]


@pytest.mark.parametrize(("number", "call"), CALLS)
def test_the_folded_answer_is_accepted_and_the_stub_is_not(number, call):
    stub, answer = next((stub, answer) for n, c, stub, answer in exercises() if (n, c) == (number, call))
    assert verdict(call, answer).startswith("right")
    assert verdict(call, stub).startswith("not yet")


@pytest.mark.parametrize("number", ["00", "01", "01b", "02", "03", "04", "05"])
def test_an_exercise_has_difficulty_minutes_and_two_hints(number):
    cells = nbformat.read(FILES[number], as_version=nbformat.NO_CONVERT).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    parts = re.split(r"^### Exercise ", text, flags=re.MULTILINE)[1:]
    assert len(parts) == sum(n == number for n, _ in CALLS) >= 3
    for i, part in enumerate(parts, start=1):
        assert part.startswith(f"{i} · ")
        assert re.search(r"\*[●○]{3} · \d+ minutes\.\*", part)
        assert part.count("<summary>Hint 1</summary>") == part.count("<summary>Hint 2</summary>") == 1
        assert part.count("<summary>Answer</summary>") == 1


class Block(nn.Module):
    """The answer of notebook 03, to be spoilt."""

    def __init__(self, channels, time=(3, 1, 1), space=(1, 3, 3)):
        super().__init__()
        self.spatial = nn.Conv3d(channels, channels, space, padding=tuple(k // 2 for k in space))
        self.temporal = nn.Conv3d(channels, channels, time, padding=tuple(k // 2 for k in time))
        self.project = nn.Conv3d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x):
        return x + self.project(F.silu(self.temporal(F.silu(self.spatial(x)))))


class RandomProjection(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.project.reset_parameters()


class WithoutInput(Block):
    def forward(self, x):
        return super().forward(x) - x


class TwoZeros(Block):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.zeros_(self.temporal.weight)
        nn.init.zeros_(self.temporal.bias)


class Linear(Block):
    def forward(self, x):
        return x + self.project(self.temporal(self.spatial(x)))


class AlongWidth(Block):
    def __init__(self, channels):
        super().__init__(channels, time=(1, 1, 3))


class Full(Block):
    def __init__(self, channels):
        super().__init__(channels, space=(3, 3, 3))


def plain_interval(right, n):
    share = right / n
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    return share - half, share + half


def infinite_line(point, start, end):
    along = end - start
    return (point - start - ((point - start) * along).sum() / along.square().sum() * along).norm()


def nearest_pixel(centre, size, side):
    patch = torch.arange(side) + 0.5 - side / 2 + centre
    return (torch.arange(size)[:, None] == patch.floor()).float()


def other_way(centre, size, side):
    patch = centre - (torch.arange(side) + 0.5 - side / 2)
    return (1 - (torch.arange(size)[:, None] + 0.5 - patch).abs()).clamp(min=0)


def swapped_ddim(noisy, clean, now, after):
    (alpha, sigma), (alpha_after, sigma_after) = alpha_sigma(now), alpha_sigma(after)
    return alpha * clean + sigma * (noisy - alpha_after * clean) / sigma_after


def undivided_ddim(noisy, clean, now, after):
    (alpha, _), (alpha_after, sigma_after) = alpha_sigma(now), alpha_sigma(after)
    return alpha_after * clean + sigma_after * (noisy - alpha * clean)


def fresh_noise(noisy, clean, now, after):
    alpha_after, sigma_after = alpha_sigma(after)
    return alpha_after * clean + sigma_after * torch.randn_like(clean)


def beyond_the_caption(with_caption, without, weight):
    return lambda z, log_snr: with_caption(z, log_snr) + weight * (with_caption(z, log_snr) - without(z, log_snr))


def backwards_guidance(with_caption, without, weight):
    return lambda z, log_snr: with_caption(z, log_snr) + weight * (without(z, log_snr) - with_caption(z, log_snr))


def noise_as_v(noisy, noise, log_snr):
    return noise


def undivided_v(noisy, noise, log_snr):
    alpha, sigma = alpha_sigma(log_snr)
    return alpha * noise - sigma * (noisy - sigma * noise)


def kernels(row, column, frame):
    def make():
        space, time = torch.zeros(3, 3), torch.zeros(3)
        space[row, column] = time[frame] = 1
        return space, time

    return make


def down(video, weight, bias):
    return course.along_time(video, weight, bias, stride=2)


def up(video, weight, bias):
    return course.along_time(video.repeat_interleave(2, dim=2), weight, bias)


def up_of_the_whole_clip(video, weight, bias):
    return course.along_time(video.repeat(1, 1, 2, 1, 1), weight, bias)


def up_after(video, weight, bias):
    return course.along_time(video, weight, bias).repeat_interleave(2, dim=2)


def down_to_the_odd(video, weight, bias):
    return course.along_time(video, weight, bias)[:, :, 1::2]


def down_by_means(video, weight, bias):
    return (video[:, :, ::2] + video[:, :, 1::2]) / 2


def packed(first, second):
    weight = torch.zeros(8, 4, 3)
    weight[:4, :, first] = weight[4:, :, second] = torch.eye(4)
    return weight


def turned_alike(x):
    angle = torch.arange(x.shape[1])[:, None]
    real, imaginary = x.chunk(2, dim=-1)
    turned = real * angle.cos() - imaginary * angle.sin(), real * angle.sin() + imaginary * angle.cos()
    return torch.cat(turned, dim=-1)


def turned_from_one(x):
    return rotate(torch.cat([x[:, :1], x], dim=1), 1)[:, 1:]


def turned_back(x):
    real, imaginary = rotate(torch.cat([x.chunk(2, -1)[0], -x.chunk(2, -1)[1]], -1), 1).chunk(2, -1)
    return torch.cat([real, -imaginary], dim=-1)


def along_space(video, attention):
    b, _, t, h, _ = video.shape
    return rearrange(attention(rearrange(video, "b c t h w -> (b t) (h w) c")), "(b t) (h w) c -> b c t h w", b=b, t=t, h=h)


def reshaped(video, attention):
    b, c, t, h, w = video.shape
    return attention(video.reshape(b * h * w, t, c)).reshape(b, c, t, h, w)


def flipped_back(video, attention):
    sequences = attention(rearrange(video, "b c t h w -> (b h w) t c"))
    return rearrange(sequences, "(b w h) t c -> b c t h w", b=video.shape[0], h=video.shape[3])


WRONG = [
    (course.check_x_t, lambda video: video.mean(2).mT),
    (course.check_x_t, lambda video: video.amax(3).mT),
    (course.check_x_t, lambda video: video.amax(2)),
    (course.check_shrink, lambda video, factor: F.max_pool2d(video, factor)),
    (course.check_shrink, lambda video, factor: F.avg_pool2d(video, 2)),
    (course.check_shrink, lambda video, factor: F.avg_pool2d(video, factor) * factor**2),
    (course.check_interval, plain_interval),
    (course.check_interval, lambda right, n: (right / n - 1 / n**0.5, right / n + 1 / n**0.5)),
    (course.check_quiz, {"A": "circling anticlockwise", "B": "moving left quickly", "C": "moving up", "D": "standing still"}),
    (course.check_quiz, dict.fromkeys("ABCD", "standing still")),
    (course.check_velocity, lambda video: tuple(centroids(video.amax(1)[:4])[0].diff(dim=0).mean(0).tolist())),
    (course.check_velocity, lambda video: tuple((centroids(video.amax(1))[0].diff(dim=0).mean(0) * 2).tolist())),
    (course.check_velocity, lambda video: tuple((centroids(video.amax(1)[:4])[0].diff(dim=0).mean(0) * 2).flip(0).tolist())),
    (course.check_distance, lambda period: int(period / 2)),
    (course.check_distance, lambda period: int(period) - 1),
    (course.check_distance, lambda period: 3),
    (course.check_distance_to, infinite_line),
    (course.check_distance_to, lambda point, start, end: torch.minimum((point - start).norm(), (point - end).norm())),
    (course.check_tents, nearest_pixel),
    (course.check_tents, other_way),
    (course.check_tents, lambda centre, size, side: torch.full((size, side), 1 / size)),
    (course.check_fold, lambda position, low, high: low + (position - low) % (high - low)),
    (course.check_fold, lambda position, low, high: torch.where(position > high, 2 * high - position, position)),
    (course.check_ddim_step, swapped_ddim),
    (course.check_ddim_step, undivided_ddim),
    (course.check_ddim_step, fresh_noise),
    (course.check_guided, beyond_the_caption),
    (course.check_guided, backwards_guidance),
    (course.check_guided, lambda with_caption, without, weight: weight),
    (course.check_velocity_of_noise, noise_as_v),
    (course.check_velocity_of_noise, undivided_v),
    (course.check_video_shift, lambda shift, image_size, size, frames: shift - math.log(size / image_size) - math.log(frames)),
    (course.check_video_shift, lambda shift, image_size, size, frames: shift - 2 * math.log(size / image_size)),
    (
        course.check_video_shift,
        lambda shift, image_size, size, frames: shift + 2 * math.log(size / image_size) + math.log(frames),
    ),
    *((course.check_block, wrong) for wrong in (RandomProjection, WithoutInput, TwoZeros, Linear, AlongWidth, Full)),
    (course.check_exact, lambda frames, halvings: range(0, frames, 2 * halvings or 1)),
    (course.check_exact, lambda frames, halvings: range(0, frames, 4)),
    (course.check_kernels, kernels(1, 2, 0)),
    (course.check_kernels, kernels(1, 0, 2)),
    (course.check_kernels, kernels(1, 1, 0)),
    (course.check_pair_mean, [0.5, 0.5, 0.0]),
    (course.check_pair_mean, [0.25, 0.5, 0.25]),
    (course.check_pair_mean, [0.0, 1.0, 1.0]),
    (course.check_pack, packed(1, 0)),
    (course.check_pack, packed(2, 1)),
    (course.check_pack, torch.eye(4).repeat(2, 1)[..., None].expand(-1, -1, 3)),
    (course.check_upsample_count, lambda channels, frames, places: 3 * channels**2 * frames * places),
    (course.check_upsample_count, lambda channels, frames, places: 9 * channels**2 * 2 * frames * places),
    (course.check_rotate, turned_alike),
    (course.check_rotate, turned_from_one),
    (course.check_rotate, turned_back),
    (course.check_along_time, along_space),
    (course.check_along_time, reshaped),
    (course.check_along_time, flipped_back),
    (course.check_equal_length, lambda channels: 2 * channels),
    (course.check_equal_length, lambda channels: 9 * channels),
    (course.check_joint, lambda places, frames, channels: places * course.attention_cost(1, frames, channels)),
    (course.check_joint, lambda places, frames, channels: frames * course.attention_cost(1, places, channels)),
]


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_tempting_wrong_answer_is_rejected(check, wrong):
    assert check(wrong).startswith("not yet")


@pytest.mark.parametrize(
    ("wrong_down", "wrong_up"), [(down, up_of_the_whole_clip), (down, up_after), (down_to_the_odd, up), (down_by_means, up)]
)
def test_wrong_resampling_is_rejected(wrong_down, wrong_up):
    assert course.check_resampling(down, up).startswith("right")
    assert course.check_resampling(wrong_down, wrong_up).startswith("not yet")


def test_every_checker_rejects_at_least_two():
    checkers = {getattr(course, name) for name in dir(course) if name.startswith("check_")} - {course.check_resampling}
    assert {check for check, _ in WRONG} == checkers
    assert all(sum(check is each for each, _ in WRONG) >= 2 for check in checkers)
