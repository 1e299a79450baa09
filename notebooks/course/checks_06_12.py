"""Checkers of the exercises of notebooks 06 to 12.

Each takes the student's function, and returns "right ..." or "not yet: ..." with what is wrong. Nothing is raised: what the
function raises is told as well. `tests/notebooks/test_checks_06_12.py` runs each on its answer and on tempting wrong ones.
"""

import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor
from torch.nn import functional as F

from minilumiere.dataset.captions import MOTIONS
from minilumiere.dataset.moving_digits import sample_batch
from minilumiere.evaluation.quality import wilson
from minilumiere.model import multidiffusion, temporal_windows
from minilumiere.model.conditioning import given_pixels as package_given_pixels
from minilumiere.model.diffusion import add_noise, alpha_sigma, ddim_step, expected_clean, log_snr_at

RIGHT = "right"


def check(checker: Callable[[Callable], str]) -> Callable[[Callable], str]:
    """A checker returns what is wrong, or "" (or a remark that begins with "right")."""

    @wraps(checker)
    def told(function: Callable) -> str:
        try:
            said = checker(function)
        except Exception as error:
            return f"not yet: {type(error).__name__}: {error}"
        return said if said.startswith(RIGHT) else f"not yet: {said}" if said else RIGHT

    return told


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# 06 · training


@check
def check_stratified(function) -> str:
    generator = seeded(0)
    drawn = torch.stack([function(8, generator) for _ in range(200)])
    if drawn.shape != (200, 8) or drawn.min() < 0 or drawn.max() > 1:
        return "8 times in [0, 1] are wanted"
    parts = (drawn * 8).long().clamp(max=7)
    if not torch.equal(parts.sort(dim=1).values, torch.arange(8).expand(200, -1)):
        return "some part of [0, 1] has two times of a batch, and another has none"
    if drawn[:, 0].std() < 0.2:
        return "the first clip of a batch always gets a time from the same part: shuffle"
    if (drawn * 8 - parts).std() < 0.2:
        return "within its part a time should be random"
    return ""


@check
def check_clip_gradients(function) -> str:
    large = [10 * torch.randn(3, 4, generator=seeded(5)), torch.randn(5, generator=seeded(6))]
    small = [0.01 * gradient for gradient in large]
    for gradients, limit in ((large, 1.0), (large, 2.5), (small, 1.0)):
        kept = [gradient.clone() for gradient in gradients]
        holders = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for holder, gradient in zip(holders, gradients, strict=True):
            holder.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(holders, limit)
        clipped = function(gradients, limit)
        if not all(torch.equal(gradient, before) for gradient, before in zip(gradients, kept, strict=True)):
            return "the gradients that were given should stay as they are: return new ones"
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in clipped))
        if norm > limit * 1.01:
            return f"the norm over all is {norm:.2f}, and the limit is {limit}"
        if not all(torch.allclose(c, h.grad, atol=1e-4, rtol=1e-3) for c, h in zip(clipped, holders, strict=True)):
            return "small gradients should stay as they are" if gradients is small else "one factor for all of them"
    return ""


@check
def check_half_life(function) -> str:
    for decay in (0.9, 0.99, 0.999):
        if abs(decay ** function(decay) - 0.5) > 1e-3:
            return f"with decay {decay}, {decay ** function(decay):.2f} is left after {function(decay):.0f} steps"
    return f"right: {function(0.999):.0f} steps for the package's 0.999"


@check
def check_batch_indices(function) -> str:
    epochs = [[i for step in range(e * 6, e * 6 + 6) for i in function(0, step, 24, 4)] for e in (0, 1)]
    if any(sorted(epoch) != list(range(24)) for epoch in epochs):
        return "an epoch should show every item once"
    if epochs[0] == epochs[1] or epochs[0] == sorted(epochs[0]):
        return "every epoch should have an order of its own"
    if function(0, 9, 24, 4) != epochs[1][12:16]:
        return "it should depend on nothing but its arguments"
    return "another seed should give another order" if function(1, 9, 24, 4) == function(0, 9, 24, 4) else ""


# 06b · words and two objects


@check
def check_stable_target(function) -> str:
    candidates = torch.randn(4, 3, 3, 2, 4, 4, generator=seeded(0)).clamp(-1, 1)  # k n c t h w
    for level in (-12.0, -3.0, 1.0):
        log_snr = torch.full((3,), level)
        noisy = add_noise(candidates[0], torch.randn(candidates[0].shape, generator=seeded(1)), log_snr)
        wanted, target = expected_clean(noisy, candidates, log_snr), function(noisy, candidates, level)
        if target.shape != wanted.shape:
            return f"a target of shape {tuple(wanted.shape)} is wanted, this one has {tuple(target.shape)}"
        if torch.allclose(target, candidates.mean(0), atol=1e-4) and not torch.allclose(wanted, target, atol=1e-3):
            return f"at log-SNR {level:g} the noisy clip says which candidate it was made of: weigh them"
        if not torch.allclose(target, wanted, atol=1e-3):
            return f"at log-SNR {level:g} it differs by up to {float((target - wanted).abs().max()):.2f}"
    return ""


@check
def check_scenes_needed(function) -> str:
    for share, wanted in ((0.25, 16), (0.1, 100), (0.3, 12)):
        if function(share) != wanted:
            return f"for a deviation of {share:g} of that of one clip it takes {wanted} scenes"
    return "right: the package's 16 make a quarter"


@check
def check_caption_by_place(function) -> str:
    weights = [torch.randn(shape, generator=seeded(i), dtype=torch.float64) for i, shape in enumerate(((5, 6), (5, 8), (7, 5)))]
    caption, other = torch.randn(2, 6, generator=seeded(3), dtype=torch.float64)
    place = torch.randn(4, 4, 8, generator=seeded(4), dtype=torch.float64)  # h w features
    made = function(caption, place, *weights)
    if made.shape != (4, 4, 7):
        return f"a vector of 7 at each of 4 x 4 places is wanted, this has the shape {tuple(made.shape)}"
    if not torch.allclose(function(caption + other, place, *weights), made + function(other, place, *weights)):
        return "it should be linear in the caption"
    if torch.allclose(made[0, 0] - made[1, 1], function(other, place, *weights)[0, 0] - function(other, place, *weights)[1, 1]):
        return "the difference of two places should depend on the caption: multiply, do not add"
    wanted = torch.einsum("er,rc,rp,c,hwp->hwe", weights[2], weights[0], weights[1], caption, place)
    return "" if torch.allclose(made, wanted) else "it is no U (A c * B p)"


@check
def check_compose(function) -> str:
    front, back = torch.zeros(1, 3, 1, 1, 3), torch.zeros(1, 3, 1, 1, 3)  # n c t h w
    front[0, 0, 0, 0, :2] = torch.tensor([1.0, 0.5])  # red: whole, half, nothing
    back[0, 2] = 0.8  # blue everywhere
    wanted = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.4, 0.8]])  # c x
    kept = front.clone()
    made = function(front, back)
    if not torch.equal(front, kept):
        return "the clips that were given should stay as they are"
    if made.shape != front.shape:
        return f"a clip of shape {tuple(front.shape)} is wanted, this has {tuple(made.shape)}"
    if made[0, 2, 0, 0, 0] > 0.01:
        return "where the first is bright, nothing of the second should be seen"
    if abs(float(made[0, 2, 0, 0, 1]) - 0.4) > 1e-4:
        return "where the first is half bright in one colour, half of the second should be seen, in all colours"
    return "" if torch.allclose(made[0, :, 0, 0], wanted) else "the first should be as it was"


# 07 · windows


@check
def check_windows(function) -> str:
    for frames in range(1, 60):
        for window in range(1, 16):
            for overlap in range(window):
                windows = list(function(frames, window, overlap))
                missing = set(range(frames)) - {frame for piece in windows for frame in range(frames)[piece]}
                case = f"T = {frames}, T' = {window}, overlap {overlap}"
                if missing:
                    return f"{case}: frames in no window: {sorted(missing)}"
                if any(piece.stop > frames or piece.start < 0 for piece in windows):
                    return f"{case}: a window reaches beyond the clip"
                if len({piece.stop - piece.start for piece in windows}) > 1:
                    return f"{case}: the windows are not of one length"
                if windows != temporal_windows(frames, window, overlap):
                    return f"{case}: {len(temporal_windows(frames, window, overlap))} windows are enough"
    return ""


@check
def check_mean_over_windows(function) -> str:
    for frames, window, overlap in ((20, 9, 2), (16, 9, 2), (12, 8, 6)):
        windows = temporal_windows(frames, window, overlap)
        answers = torch.randn(len(windows), 2, 3, window, 2, 2, generator=seeded(0), dtype=torch.float64)
        wanted = multidiffusion(
            lambda segments, some, answers=answers: answers, torch.zeros(2, 3, frames, 2, 2, dtype=torch.float64), windows
        )
        made = function(answers, windows, frames)
        if made.shape != wanted.shape:
            return f"a clip of shape {tuple(wanted.shape)} is wanted, this has {tuple(made.shape)}"
        wrong = ((made - wanted).abs().amax((0, 1, 3, 4)) > 1e-9).nonzero()[:, 0].tolist()
        if wrong:
            return f"T = {frames}, T' = {window}, overlap {overlap}: not the mean on frames {wrong}"
    return ""


NOW, AFTER = torch.tensor([-1.0]), torch.tensor([0.5])  # log-SNR before and after a step


@check
def check_stochastic_step(function) -> str:
    windows, zeros = temporal_windows(20, 9, 2), torch.zeros(1, 1, 20, 1, 1)

    def predict_clean(segment: Tensor, window: slice) -> Tensor:
        return torch.full_like(segment, 0.1 * window.start)  # windows disagree

    def of_all(segments: Tensor, some: list[slice]) -> Tensor:
        return torch.stack([predict_clean(z, w) for z, w in zip(segments, some, strict=True)])

    result = function(torch.zeros(1, 3, 20, 64, 64), windows, predict_clean, seeded(1))
    expected = ddim_step(zeros, multidiffusion(of_all, zeros, windows), NOW, AFTER, eta=1.0, noise=zeros).flatten()
    strength = float(ddim_step(zeros, zeros, NOW, AFTER, eta=1.0, noise=torch.ones_like(zeros))[0, 0, 0, 0, 0])
    deviation = result.std((0, 1, 3, 4))
    if (deviation / deviation[0] - 1).abs().max() > 0.05:
        return f"in overlaps the standard deviation is {deviation.min() / deviation[0]:.2f} of that elsewhere"
    if abs(float(deviation[0]) / strength - 1) > 0.05:
        return "the noise has the wrong strength"
    if (result.mean((0, 1, 3, 4)) - expected).abs().max() > 0.05:
        return "the mean is not the mean over windows"
    return ""


@check
def check_weighted(function) -> str:
    windows = temporal_windows(20, 9, 2)
    answers = torch.randn(3, 1, 2, 9, 1, 3, generator=seeded(2), dtype=torch.float64)
    weight = 1 + torch.minimum(torch.arange(9), torch.arange(9).flip(0)).double()  # a tent: 1 2 3 4 5 4 3 2 1
    selection = torch.cat([torch.eye(20, dtype=torch.float64)[window] for window in windows])
    root = weight.sqrt().repeat(3)[:, None]  # least squares with weights: scale rows by their square roots
    wanted = answers.movedim(3, 1).flatten(0, 1).flatten(1)
    expected = torch.linalg.lstsq(root * selection, root * wanted).solution.unflatten(1, (1, 2, 1, 3)).movedim(0, 2)
    difference = float((function(answers, windows, 20, weight) - expected).abs().max())
    return "" if difference < 1e-9 else f"off by up to {difference:.2f} from the least-squares solution"


# 08 · stylization


@check
def check_interpolate(function) -> str:
    original, style = (
        {"a": torch.randn(2, 3, generator=seeded(i)), "b": torch.randn(4, generator=seeded(9 + i))} for i in (0, 1)
    )
    for alpha, wanted in ((0.0, original), (1.0, style)):
        made = function(original, style, alpha)
        if made.keys() != original.keys() or not all(torch.allclose(made[name], wanted[name], atol=1e-6) for name in wanted):
            return f"α = {alpha:g} should give the {'original' if alpha == 0 else 'style'}"
    for alpha in (0.25, 0.5):
        same = function(original, original, alpha)
        if not all(torch.allclose(same[name], original[name], atol=1e-6) for name in original):
            return "between a net and itself there is nothing but itself"
        made = function(original, style, alpha)
        if not all(torch.allclose(made[n], torch.lerp(original[n], style[n], alpha), atol=1e-5) for n in original):
            return f"α = {alpha:g} should lie on the line between the two"
    return ""


@check
def check_take_over(function) -> str:
    denoise = function(lambda z, level: "plain", lambda z, level: "styled", -3.0)
    for level, wanted in ((-15.0, "plain"), (-3.1, "plain"), (-3.0, "styled"), (3.0, "styled")):
        said = denoise(None, torch.tensor([level, level]))
        if said != wanted:
            return f"at log-SNR {level:g} the {wanted} net should answer, and {said!r} did"
    return ""


@check
def check_noised_source(function) -> str:
    clean, noise = torch.randn(2, 2, 3, 4, 8, 8, generator=seeded(0))
    for strength in (0.05, 0.2, 0.8):
        level = log_snr_at(torch.tensor([strength]), -5.0)
        wanted, made = add_noise(clean, noise, level.expand(2)), function(clean, noise, strength, -5.0)
        if made.shape != wanted.shape or not torch.allclose(made, wanted, atol=1e-4):
            alpha, sigma = (float(part.flatten()[0]) for part in alpha_sigma(level, clean))
            return f"at strength {strength:g}, log-SNR {float(level):.1f}, it should be {alpha:.2f} clean + {sigma:.2f} noise"
    return ""


@check
def check_even_time(function) -> str:
    for shift in (-5.0, -2.0, 0.0):
        level = float(log_snr_at(torch.tensor([float(function(shift))]), shift))
        if abs(level) > 0.05:
            return f"with shift {shift:g} the log-SNR at {function(shift):.3f} is {level:.2f}, not 0"
    return ""


# 09 · conditioning


@check
def check_given_pixels(function) -> str:
    video = torch.randn(2, 3, 4, 2, 2, generator=seeded(0))
    mask = torch.zeros(2, 1, 4, 2, 2)
    mask[:, :, 0] = 1
    mask[1, :, :, 0, 1] = 1
    made, wanted = function(video, mask), package_given_pixels(video, mask)
    if made.shape != wanted.shape:
        return f"four channels are wanted, shape {tuple(wanted.shape)}, not {tuple(made.shape)}"
    if not torch.equal(made[:, 3:], mask):
        return "the last channel should be the mask"
    if (made[:, :3] * (1 - mask)).abs().max() > 0:
        return "what is to be generated can still be seen: the net would only have to copy it"
    return "" if torch.equal(made, wanted) else "given pixels should be as they are"


@check
def check_extend(function) -> str:
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 8, 3, padding=1)
    extended = function(plain)
    if not isinstance(extended, torch.nn.Conv2d) or extended.in_channels != 7:
        return "a convolution of 7 input channels is wanted"
    noisy, given = torch.randn(1, 3, 9, 9), torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        if not torch.allclose(extended(torch.cat([noisy, given], 1)), plain(noisy), atol=1e-6):
            return "at first it should answer as the plain one, whatever is given"
        if not torch.allclose(extended.weight[:, :3], plain.weight):
            return "the first three channels should keep their weights"
    return ""


@check
def check_last_frame(function) -> str:
    mask = function(4, 2, 3)
    if mask.shape != (4, 1, 2, 3):
        return f"a mask of shape (4, 1, 2, 3) is wanted, not {tuple(mask.shape)}"
    if mask[-1].min() < 1:
        return "1 is given: the last frame should be ones"
    return "" if mask[:-1].max() == 0 else "0 is to be generated: the others should be zeros"


@check
def check_shrink_mask(function) -> str:
    mask = torch.ones(1, 1, 4, 8)
    mask[..., 0, 0] = 0
    mask[..., 2:, 4:6] = 0
    expected = torch.ones(1, 1, 2, 4)
    expected[..., 0, 0] = expected[..., 1, 2] = 0
    made = function(mask)
    if made.shape != expected.shape:
        return f"shape {tuple(expected.shape)} is wanted, not {tuple(made.shape)}"
    if not ((made == 0) | (made == 1)).all():
        return "a pixel is known or not: 0 or 1"
    return "" if torch.equal(made, expected) else "a small pixel is known only where all of its four are"


# 10 · features


@check
def check_as_clip(function) -> str:
    images = torch.arange(2 * 3 * 4 * 5 * 6).reshape(6, 4, 5, 6).float()  # (b t) c h w, of 2 clips of 3 frames
    clip = function(images, 2)
    if clip.shape != (2, 4, 3, 5, 6):
        return f"shape (2, 4, 3, 5, 6) is wanted, not {tuple(clip.shape)}"
    if not torch.equal(clip[0, :, 1], images[1]) or not torch.equal(clip[1, :, 0], images[3]):
        return "frame 1 of clip 0 is image 1, frame 0 of clip 1 is image 3: the axes are mixed up"
    return ""


@check
def check_change(function) -> str:
    feature = torch.zeros(4, 3, 2, 2)
    feature[:2, 1, 0, 1] = 2.0  # two of four channels, at one place, in frame 1 only
    feature[2, 2, 1, 0] = -1.0
    expected = torch.zeros(2, 2, 2)
    expected[:, 0, 1], expected[1, 1, 0] = 2**0.5, 0.5
    made = function(feature)
    if made.shape != expected.shape:
        return f"from 3 frames, 2 changes of 2 x 2 places: {tuple(expected.shape)}, not {tuple(made.shape)}"
    return "" if torch.allclose(made, expected) else "it is not the root of the mean over channels of the squared difference"


@check
def check_sign(function) -> str:
    for direction in (torch.tensor([0.5, -0.8, 0.33]), torch.tensor([0.9, -0.1, 0.4])):
        if not torch.equal(function(direction), function(-direction)):
            return "a direction and its opposite should become the same"
        if function(direction)[direction.abs().argmax()] < 0:
            return "the largest entry should be positive"
        if not any(torch.equal(function(direction), sign * direction) for sign in (1, -1)):
            return "all entries change their sign together, or none does"
    return ""


@check
def check_distance(function) -> str:
    for weights, wanted in (
        (torch.eye(4), 0.0),
        (torch.full((4, 4), 0.25), 1.25),
        (torch.eye(4).roll(1, dims=1), 1.5),  # 1, 1, 1 and 3 frames away
    ):
        if abs(float(function(weights)) - wanted) > 1e-5:
            return f"for {weights.tolist()} it is {wanted}"
    return ""


@check
def check_nearest(function) -> str:
    pattern = torch.randn(16, 5, 6, generator=seeded(0)) * torch.rand(1, 5, 6, generator=seeded(1)).add(0.3)
    moves = [(0, 0), (1, 2), (-2, 3)]  # rows, columns of each frame
    feature = torch.stack([pattern.roll(move, dims=(1, 2)) for move in moves], dim=1)  # c t h w
    for row, column in ((0, 1), (3, 4)):
        wanted = torch.tensor([((row + down) % 5, (column + right) % 6) for down, right in moves])
        made = function(feature, row, column)
        if not isinstance(made, Tensor) or made.shape != (3, 2):
            return "a row and a column for each of 3 frames are wanted: a tensor of shape (3, 2)"
        if not torch.equal(made.long(), wanted):
            return f"place ({row}, {column}) of frame 0 is found at {made.tolist()}, and it goes to {wanted.tolist()}"
    return ""


# 12 · where next


def promise_kept_by(interval: Callable, share: float, n: int) -> float:
    """The probability that `interval(found, n)` holds `share`, if each of n clips is right with that probability."""
    kept = 0.0
    for right in range(n + 1):
        low, high = interval(right / n, n)
        kept += (low <= share <= high) * math.comb(n, right) * share**right * (1 - share) ** (n - right)
    return kept


@check
def check_promise(function) -> str:
    intervals = {
        "Wilson's interval": wilson,
        "found ± 0.05": lambda found, n: (found - 0.05, found + 0.05),
        "[0, found]": lambda found, n: (0, found),
    }
    for name, interval in intervals.items():
        for share, n in ((0.75, 32), (0.97, 64)):
            kept, wanted = function(interval, share, n), promise_kept_by(interval, share, n)
            if abs(kept - wanted) > 0.015:
                return f"{name} holds a share of {share:.0%} with probability {wanted:.3f} if n is {n}, yours says {kept:.3f}"
    return ""


@check
def check_clips_needed(function) -> str:
    def apart(lower: float, higher: float, n: int) -> bool:
        return wilson(round(lower * n) / n, n)[1] < wilson(round(higher * n) / n, n)[0]

    for lower, higher in ((0.75, 0.80), (0.5, 0.9)):
        n = function(lower, higher)
        if not apart(lower, higher, n):
            return f"with {n} clips, {lower:.0%} and {higher:.0%} still overlap"
        if n & (n - 1) or (n > 1 and apart(lower, higher, n // 2)):
            return f"fewer than {n} are enough for {lower:.0%} and {higher:.0%}"
    return ""


def frechet(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (n, d)."""
    mean = (first.mean(0) - second.mean(0)).square().sum()
    a, b = torch.cov(first.T), torch.cov(second.T)
    mixed = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    return max(0.0, float(mean + a.trace() + b.trace() - 2 * mixed))  # rounding may end below 0


def frame_features(videos: Tensor) -> Tensor:
    """Each frame as 4x4 coarse pixels: (n t, 48)."""
    return F.adaptive_avg_pool2d(videos.flatten(0, 1), 4).flatten(1).double()


def clips_and_rivals() -> tuple[list[str], Tensor, dict[str, Tensor]]:
    """Captions, real clips of them, and three rivals: other real clips, the same shuffled in time, the same dimmed."""
    captions = [f"a {colour} 3 {motion}" for colour in ("red", "cyan", "white", "green") for motion in MOTIONS[1:]]
    clips, others = (sample_batch(len(captions), seed=seed, captions=captions).video for seed in (0, 1))
    order = torch.randperm(clips.shape[1], generator=seeded(2))
    return captions, clips, {"other real clips": others, "frames shuffled": clips[:, order], "dimmed by a fifth": 0.8 * clips}


@check
def check_clip_features(function) -> str:
    _, clips, rivals = clips_and_rivals()
    features = {name: function(videos) for name, videos in ({"real": clips} | rivals).items()}
    if features["real"].ndim != 2 or features["real"].shape[1] > 48:
        return "rows of at most 48 features are wanted"
    distance = {name: frechet(features["real"].double(), values.double()) for name, values in features.items()}
    if distance["frames shuffled"] < 2 * distance["other real clips"]:
        return "shuffled frames should be at least twice as far as other real clips"
    return "" if distance["dimmed by a fifth"] > 1e-6 else "dimming should be noticed still"


@check
def check_pairs(function) -> str:
    if function(2, 3) != 18**2:
        return "2 frames of 3x3 positions are 18 positions, and 324 pairs"
    factor = function(80, 128) / function(80, 128, 8, 8)
    if factor != 512**2:
        return f"compressed 8x8x8 there are fewer pairs by a factor of {512**2:,}, and not of {factor:,.0f}"
    return f"right: fewer pairs by a factor of {512**2:,}, positions by 512"
