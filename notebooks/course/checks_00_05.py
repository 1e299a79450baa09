"""Checkers of the exercises of notebooks 00 to 05: each takes a student's answer, and says "right" or what is not yet right.

`tests/notebooks/test_checks_00_05.py` proves that each accepts the answer below its fold, and rejects tempting wrong ones.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import minilumiere as ml
from minilumiere.config import SCALES
from minilumiere.dataset.paths import reflect
from minilumiere.model import TemporalDownsample, TemporalUpsample, count_parameters, diffusion
from minilumiere.model.blocks import attend
from minilumiere.model.temporal import rotate

QUIZ = ("standing still", "moving up", "moving left quickly", "circling anticlockwise")
QUIZ_ORDER = (3, 2, 0, 1)  # of clips A, B, C, D


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# 00: quickstart


def check_x_t(x_t: Callable) -> str:
    """`x_t(video)`: (t, 3, h, w) to (t, w, 3), the brightest pixel of each column."""
    video = torch.rand(5, 3, 6, 7, generator=seeded(0))
    answer = x_t(video)
    if tuple(answer.shape) != (5, 7, 3):
        return f"not yet: a clip of 5 frames of 6×7 pixels should give (5, 7, 3), you give {tuple(answer.shape)}"
    return (
        "right" if torch.allclose(answer, video.amax(2).mT) else "not yet: the shape is right, the pixels are not the brightest"
    )


def check_shrink(shrink: Callable) -> str:
    """`shrink(video, factor)`: each pixel of the small clip is the mean of a square of the large one."""
    video = torch.rand(2, 3, 8, 8, generator=seeded(0))
    for factor in (2, 4):
        answer, wanted = shrink(video, factor), F.avg_pool2d(video, factor)
        if answer.shape != wanted.shape:
            return f"not yet: factor {factor} should give {tuple(wanted.shape)}, you give {tuple(answer.shape)}"
        if not torch.allclose(answer, wanted, atol=1e-6):
            return f"not yet: with factor {factor} a pixel is not the mean of its square"
    return "right"


def check_interval(interval: Callable) -> str:
    """`interval(right, n)`: the Wilson interval, 95 %."""
    for right, n in ((8, 16), (16, 16), (0, 10), (90, 100)):
        share, z = right / n, 1.96
        middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        wanted = [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
        low, high = interval(right, n)
        if abs(low - wanted[0]) > 0.002 or abs(high - wanted[1]) > 0.002:
            return f"not yet: {right} of {n} should give {wanted[0]:.3f} to {wanted[1]:.3f}, you give {low:.3f} to {high:.3f}"
    return "right"


# 01: moving digits


def quiz_clips() -> Tensor:
    """Clips A to D of the quiz: (4, t, 3, h, w)."""
    return ml.sample_batch(4, captions=[f"a white 0 {QUIZ[i]}" for i in QUIZ_ORDER], size=64, frames=24, seed=3).video


def check_quiz(answer: dict[str, str]) -> str:
    """Which clip shows which motion?"""
    right = sum(answer.get(name) == QUIZ[i] for name, i in zip("ABCD", QUIZ_ORDER, strict=True))
    return "right" if right == 4 else f"not yet: {right} of 4"


def check_velocity(velocity: Callable) -> str:
    """`velocity(video)`: pixels a frame, (across, down), over the first four frames."""
    asked = [f"a green 8 {motion}" for motion in ("moving right", "moving up quickly", "circling clockwise", "standing still")]
    clips = ml.sample_batch(4, captions=asked, size=64, seed=9)
    for caption, clip, (thing,) in zip(asked, clips.video, clips.objects, strict=True):
        truth = thing.centres[:4].diff(dim=0).mean(0)
        given = torch.tensor(velocity(clip))
        if (given - truth).norm() > 0.1:
            return f"not yet: {caption!r} moves by ({truth[0]:.2f}, {truth[1]:.2f}), you say ({given[0]:.2f}, {given[1]:.2f})"
    return "right"


def apparent(turns_a_frame: Tensor, distance: int) -> Tensor:
    """Turns a frame that key frames `distance` apart show."""
    turned = turns_a_frame * distance
    return (turned - turned.round()) / distance


def check_distance(largest_distance: Callable) -> str:
    """`largest_distance(period)`: of key frames that still show a circle of `period` frames a turn."""
    for period in (7.04, 8.0, 8.96, 14.1, 16.0, 17.9, 32.0):
        turns = torch.tensor(1 / period, dtype=torch.float64)
        faithful = [d for d in range(1, 33) if abs(float(apparent(turns, d) - turns)) < 1e-9 and d < period / 2]
        if largest_distance(period) != max(faithful):
            return f"not yet: for {period} frames a turn you say {largest_distance(period)}"
    return "right"


# 01b: splines, tents, walls


def check_distance_to(distance_to: Callable) -> str:
    """`distance_to(point, start, end)`: (2,) tensors, of a line segment."""
    start, end = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 1.0])
    for point, wanted in (([2.0, 3.0], 2.0), ([4.0, 2.0], 1.0), ([7.0, 5.0], 5.0), ([-2.0, 1.0], 3.0), ([3.0, 1.0], 0.0)):
        given = float(distance_to(torch.tensor(point), start, end))
        if abs(given - wanted) > 1e-5:
            return f"not yet: from {tuple(point)} to the segment (1, 1)–(4, 1) it is {wanted}, you say {given:.2f}"
    return "right"


def check_tents(tents: Callable) -> str:
    """`tents(centre, size, side)`: the matrix A of canvas pixels × patch pixels."""
    for centre, side in ((4.0, 4), (4.3, 4), (3.75, 2)):
        answer = tents(centre, 9, side)
        if tuple(answer.shape) != (9, side):
            return f"not yet: 9 canvas pixels and {side} of the patch should give (9, {side}), you give {tuple(answer.shape)}"
        middle = (answer * (torch.arange(9)[:, None] + 0.5)).sum(0) / answer.sum(0).clamp(min=1e-9)
        wanted = centre + torch.arange(side) + 0.5 - side / 2
        if not torch.allclose(answer.sum(0), torch.ones(side), atol=1e-5):
            return f"not yet: with the centre at {centre} ink is lost or made, since a column does not sum to 1"
        if not torch.allclose(middle, wanted, atol=1e-4):
            return f"not yet: with the centre at {centre} the ink lands at {[round(float(m), 2) for m in middle]}"
    return "right"


def check_fold(fold: Callable) -> str:
    """`fold(position, low, high)`: reflected between walls."""
    for start, velocity in ((11.3, 1.1), (20.0, -2.7), (8.0, 5.0)):
        straight = start + velocity * torch.arange(40.0)
        given, wanted = fold(straight, 8.0, 24.0), reflect(straight)
        if given.min() < 8 - 1e-4 or given.max() > 24 + 1e-4:
            return f"not yet: from {start} at {velocity} a frame it leaves the walls"
        if not torch.allclose(given, wanted, atol=1e-3):
            frame = int((given - wanted).abs().gt(1e-3).nonzero()[0])
            return (
                f"not yet: from {start} at {velocity} a frame, frame {frame} is at {wanted[frame]:.1f}, not {given[frame]:.1f}"
            )
    return "right"


# 02: text to image


def check_ddim_step(ddim_step: Callable) -> str:
    """`ddim_step(noisy, clean, now, after)`: log-SNRs are numbers."""
    noisy, clean = torch.randn(2, 4, 3, 8, 8, generator=seeded(0))
    for now, after in ((-4.0, -2.0), (0.0, 1.5), (3.0, 8.0)):
        levels = torch.full((4,), now), torch.full((4,), after)
        if not torch.allclose(ddim_step(noisy, clean, now, after), diffusion.ddim_step(noisy, clean, *levels), atol=1e-4):
            return f"not yet: wrong from λ = {now} to λ = {after}"
    return "right: the step of the package"


def check_guided(guided: Callable) -> str:
    """`guided(with_caption, without, weight)`: denoisers in, denoiser out."""
    noisy, level = torch.randn(4, 3, 8, 8, generator=seeded(0)), torch.zeros(4)
    with_caption, without = (lambda z, log_snr: 0.7 * z + log_snr[0] + 1), (lambda z, log_snr: 0.2 * z)
    for weight, what in ((0, "the caption is ignored"), (1, "it is the net with the caption"), (3, "it goes beyond that")):
        wanted = without(noisy, level) + weight * (with_caption(noisy, level) - without(noisy, level))
        answer = guided(with_caption, without, weight)
        if not callable(answer):
            return "not yet: return a function of noisy and log_snr"
        if not torch.allclose(answer(noisy, level), wanted, atol=1e-5):
            return f"not yet: at weight {weight} {what}"
    return "right: guidance of the package"


def check_velocity_of_noise(velocity_of_noise: Callable) -> str:
    """`velocity_of_noise(noisy, predicted_noise, log_snr)`: the v that a predicted ε stands for."""
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=seeded(10))
    for level in (-2.0, 0.0, 3.0):
        each = torch.full((4,), level)
        answer = velocity_of_noise(diffusion.add_noise(clean, noise, each), noise, level)
        if not torch.allclose(answer, diffusion.velocity(clean, noise, each), atol=1e-4):
            return f"not yet: wrong at λ = {level}"
    return "right"


def check_video_shift(video_shift: Callable) -> str:
    """`video_shift(image_shift, image_size, size, frames)`."""
    if abs(video_shift(-1.0, 16, 32, 1) + 1.0 + 2 * math.log(2)) > 1e-6:
        return "not yet: one image, twice as large"
    if abs(video_shift(-1.0, 16, 16, 8) + 1.0 + math.log(8)) > 1e-6:
        return "not yet: eight frames of the same size"
    suggested, chosen = video_shift(-2.0, 32, 32, 80), SCALES["full"].shift_of(80)
    return f"right: {suggested:.1f} for 80 frames at rest; the package has {chosen:.1f} for 80 frames that move"


# 03: inflation


def check_block(block_type: Callable) -> str:
    """`block_type(channels)`: a factorised space-time block for b c t h w, the identity at first."""
    torch.manual_seed(0)
    block, video = block_type(8), torch.randn(2, 8, 7, 9, 9)
    if not isinstance(block, nn.Module) or block(video).shape != video.shape:
        return "not yet: the output should have the shape of the input"
    if not torch.equal(block(video), video):
        return "not yet: at first the output should be the input, exactly"
    if count_parameters(block) != 13 * 8**2 + 3 * 8:
        return (
            f"not yet: 3×3 over space, 3 over time and 1×1 have {13 * 8**2 + 3 * 8} parameters, yours {count_parameters(block)}"
        )
    for _ in range(2):  # the first step moves the projection alone
        block.zero_grad()
        F.mse_loss(block(video), torch.randn_like(video)).backward()
        silent = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()]
        with torch.no_grad():
            for parameter in block.parameters():
                parameter -= 0.5 * (parameter.grad if parameter.grad is not None else 0)
    if silent:
        return f"not yet: after the first step {silent[0]} still gets no gradient"
    with torch.no_grad():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)
        other = video.clone()
        other[:, :, 3, 4, 4] += 1
        reach = (block(other) - block(video)).abs().amax((0, 1)) > 1e-5  # t y x
        if not torch.allclose(block(video), block(video[:, :, :, :, :]), atol=1e-6) or int(reach.sum()) != 27:
            return f"not yet: one place should reach 27 places, 3 frames of 3×3; yours reaches {int(reach.sum())}"
        if not reach[2:5, 3:6, 3:6].all():
            return "not yet: the 27 places reached are not the neighbours in t, y and x"
        change = block(2 * video) - 2 * block(video) + block(0 * video)
    return "right" if change.abs().max() > 1e-3 else "not yet: without a nonlinearity it is one linear layer"


def check_exact(exact_frames: Callable) -> str:
    """`exact_frames(frames, halvings)`: where the fresh STUNet equals the image net, on a clip that moves."""
    for frames, halvings in ((16, 0), (16, 1), (16, 2), (80, 2), (80, 4)):
        number = torch.arange(float(frames)).reshape(1, 1, frames, 1, 1)
        video = number
        with torch.no_grad():
            for _ in range(halvings):
                video = TemporalDownsample(1)(video)
            for _ in range(halvings):
                video = TemporalUpsample(1)(video)
        found = (video == number).flatten().nonzero()[:, 0].tolist()
        if list(exact_frames(frames, halvings)) != found:
            return f"not yet: with {frames} frames and {halvings} halvings it is {len(found)} frames"
    return "right"


def check_kernels(make_kernels: Callable) -> str:
    """`make_kernels()`: a spatial kernel (y, x) and a temporal kernel (t) that predict the next frame of a move right."""
    space, time = make_kernels()
    start = torch.rand(10, 6, generator=seeded(0))
    clip = torch.stack([F.pad(start, (t, 6 - t)) for t in range(6)])[None, None]  # b c t h w, a pixel to the right each frame

    def predict(video: Tensor) -> Tensor:
        moved = F.conv3d(video, space[None, None, None], padding=(0, 1, 1))
        return F.conv3d(moved, time[None, None, :, None, None], padding=(1, 0, 0))

    good = torch.allclose(predict(clip)[:, :, 1:], clip[:, :, 1:], atol=1e-5)
    copied = torch.allclose(
        predict(clip.flip(2))[:, :, 1:], clip.flip(2)[:, :, 1:], atol=1e-5
    )  # it moves left: not to be predicted
    if copied:
        return "not yet: copying a frame predicts nothing"
    return "right" if good else "not yet: frame t − 1, moved a pixel to the right, should be frame t"


# 04: temporal resampling


def along_time(video: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolve `b c t h w` along t with a `weight` (out, in, 3); zeros before the first and after the last frame."""
    result = F.conv1d(rearrange(video, "b c t h w -> (b h w) c t"), weight, bias, stride, padding=1)
    return rearrange(result, "(b h w) c t -> b c t h w", b=video.shape[0], h=video.shape[3])


def check_resampling(downsample: Callable, upsample: Callable) -> str:
    """`downsample(video, weight, bias)` and `upsample(video, weight, bias)`, weights (out, in, 3)."""
    torch.manual_seed(0)
    video = torch.randn(2, 4, 6, 3, 5)
    layers = (
        ("down", TemporalDownsample(4), downsample, "every second frame"),
        ("up", TemporalUpsample(4), upsample, "each twice"),
    )
    for name, layer, function, at_first in layers:
        for when in ("at first", "after training"):
            if when == "after training":
                nn.init.normal_(layer.conv.weight)
                nn.init.normal_(layer.conv.bias)
            with torch.no_grad():
                wanted, answer = layer(video), function(video, layer.conv.weight[..., 0], layer.conv.bias)
            if answer.shape != wanted.shape:
                return f"not yet: {name} should give {wanted.shape[2]} frames of 6, you give {tuple(answer.shape)}"
            if not torch.allclose(answer, wanted, atol=1e-4):
                what = f" (the identity: {at_first})" if when == "at first" else ""
                return f"not yet: {name} differs with the weights that it has {when}{what}"
    return "right: the layers of the package"


def check_pair_mean(taps: list[float]) -> str:
    """Taps with which output frame k is the mean of input frames 2k and 2k + 1."""
    weight, clip = torch.eye(2)[..., None] * torch.tensor(taps), torch.randn(1, 2, 8, 1, 1, generator=seeded(0))
    result = along_time(clip, weight, stride=2)
    if not torch.allclose(result, (clip[:, :, ::2] + clip[:, :, 1::2]) / 2, atol=1e-6):
        return "not yet: frame 0 of the result should be the mean of frames 0 and 1, and so on"
    return "right"


def check_pack(weight: Tensor) -> str:
    """The weight (2C, C, 3) of a strided convolution that keeps both frames of each pair, for C = 4."""
    clip = torch.randn(1, 4, 6, 2, 2, generator=seeded(0))
    if tuple(weight.shape) != (8, 4, 3):
        return f"not yet: the shape should be (8, 4, 3), got {tuple(weight.shape)}"
    even, odd = along_time(clip, weight, stride=2).chunk(2, dim=1)
    back = torch.stack([even, odd], dim=3).flatten(2, 3)  # b c t/2 2 h w -> b c t h w
    return "right: nothing is lost" if torch.equal(back, clip) else "not yet: the clip does not come back"


def multiply_adds(function: Callable, *shape: int) -> int:
    """Multiply-adds of a function of one tensor, counted on the `meta` device."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(torch.empty(shape))
    return counter.get_total_flops() // 2


def check_upsample_count(formula: Callable) -> str:
    """`formula(channels, frames, places)`: multiply-adds of `TemporalUpsample`."""
    for channels, frames, side in ((4, 3, 2), (8, 5, 4), (96, 4, 8)):
        with torch.device("meta"):
            layer = TemporalUpsample(channels)
        counted, answer = multiply_adds(layer, 1, channels, frames, side, side), formula(channels, frames, side * side)
        if answer != counted:
            return f"not yet: C = {channels}, T = {frames}, {side * side} places: counted {counted:,}, you say {answer:,}"
    return "right"


# 05: temporal attention


def check_rotate(rotate_one: Callable) -> str:
    """`rotate_one(x)`: rotary positions of one head, (b, t, d)."""
    x = torch.randn(2, 10, 24, generator=seeded(0))
    answer = rotate_one(x)
    if answer.shape != x.shape:
        return f"not yet: the shape should stay {tuple(x.shape)}, you give {tuple(answer.shape)}"
    if not torch.allclose(answer[:, 0], x[:, 0], atol=1e-5):
        return "not yet: frame 0 should not be turned"
    if not torch.allclose(answer.norm(dim=-1), x.norm(dim=-1), atol=1e-4):
        return "not yet: turning should change no length"
    if not torch.allclose(answer, rotate(x, 1), atol=1e-4):
        wrong = (answer - rotate(x, 1)).abs().amax((0, 1)).gt(1e-4)[:12].nonzero()[:, 0].tolist()
        return f"not yet: {len(wrong)} of the 12 pairs turn at another speed or the other way"
    return "right: the rotation of the package"


def check_along_time(attend_along_time: Callable) -> str:
    """`attend_along_time(video, attention)`: each place is a sequence of its own; `attention` takes (n, t, c)."""
    video = torch.randn(2, 4, 5, 3, 3, generator=seeded(0))
    lengths = []

    def attention(x: Tensor) -> Tensor:
        lengths.append(tuple(x.shape))
        return attend(x, x, x, 1)

    answer = attend_along_time(video, attention)
    if lengths != [(18, 5, 4)]:
        return f"not yet: 2 clips of 3×3 places are 18 sequences of 5 frames and 4 channels; you attend to {lengths}"
    if answer.shape != video.shape:
        return f"not yet: the result should have the shape of the video, you give {tuple(answer.shape)}"
    for row, column in ((0, 0), (1, 2)):
        sequence = video[:, :, :, row, column].mT  # b t c
        if not torch.allclose(answer[:, :, :, row, column].mT, attend(sequence, sequence, sequence, 1), atol=1e-5):
            return f"not yet: place ({row}, {column}) does not hold what attention makes of that place's frames"
    return "right"


def attention_cost(places: int, frames: int, channels: int) -> int:
    """Multiply-adds of self-attention with its four matrices: HW sequences of length T."""
    return places * (4 * frames * channels**2 + 2 * frames**2 * channels)


def check_equal_length(equal_length: Callable) -> str:
    """`equal_length(channels)`: the T at which attention costs 13TC² multiply-adds a place."""
    for channels in (32, 96):
        frames = round(equal_length(channels))
        attention, convolutions = attention_cost(16, frames, channels), 16 * 13 * frames * channels**2
        if frames < 1 or abs(attention / convolutions - 1) > 0.01:
            return f"not yet: C = {channels}, T = {frames}: attention {attention:,}, convolutions {convolutions:,}"
    return "right"


def check_joint(joint_attention: Callable) -> str:
    """`joint_attention(places, frames, channels)`: one sequence of all places of all frames."""
    for p, t, c in ((4, 6, 8), (16, 4, 96), (64, 20, 32)):
        wanted, answer = attention_cost(1, p * t, c), joint_attention(p, t, c)
        if wanted != answer:
            return f"not yet: HW = {p}, T = {t}, C = {c}: it is {wanted:,}, you say {answer:,}"
    return "right"
