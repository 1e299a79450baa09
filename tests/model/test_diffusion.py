"""Diffusion: the equations, diffusers as an oracle, and the sampler on data whose answer is known."""

import math
from collections.abc import Iterator

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from minilumiere.config import SCALES
from minilumiere.model.diffusion import (
    MAX_LOG_SNR,
    add_noise,
    alpha_sigma,
    beyond,
    clean_and_noise,
    ddim_step,
    denoise_along,
    expected_clean,
    guided,
    log_snr_at,
    renew,
    sample,
    schedule,
    stratified_times,
    velocity,
    velocity_of_guess,
)

log_snrs = st.floats(-MAX_LOG_SNR, MAX_LOG_SNR, width=32)
times = st.floats(0, 1)
shifts = st.floats(-6, 6)
seeds = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noises(*shape: int, seed: int) -> Iterator[torch.Tensor]:
    """Normal noise without end."""
    generator = seeded(seed)
    while True:
        yield torch.randn(shape, generator=generator)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


# The equations.


@given(log_snrs)
def test_signal_and_noise_keep_the_variance(log_snr):
    alpha, sigma = alpha_sigma(torch.tensor([log_snr]), torch.zeros(1, 3, 2, 2))
    assert alpha.shape == sigma.shape == (1, 1, 1, 1)
    assert float(alpha**2 + sigma**2) == pytest.approx(1, abs=1e-6)
    assert float((alpha**2 / sigma**2).log()) == pytest.approx(log_snr, abs=1e-4)


@settings(deadline=None)
@given(log_snrs, seeds)
def test_velocity_gives_back_the_clean_data_and_the_noise(log_snr, seed):
    clean, noise = torch.randn(2, 4, 3, generator=seeded(seed))
    level = torch.full((4,), log_snr)
    found = clean_and_noise(add_noise(clean, noise, level), velocity(clean, noise, level), level)
    torch.testing.assert_close(found, (clean, noise), atol=1e-5, rtol=0)


@given(st.lists(times, min_size=2, max_size=20), shifts)
def test_later_is_noisier(some, shift):
    levels = log_snr_at(torch.tensor(sorted(some), dtype=torch.float64), shift)
    assert (levels.diff() <= 0).all()
    assert levels.abs().max() <= MAX_LOG_SNR


def test_from_clean_to_noise():
    start, middle, end = log_snr_at(torch.tensor([0.0, 0.5, 1.0]), 0.0).tolist()
    assert (start, end) == (MAX_LOG_SNR, -MAX_LOG_SNR) and middle == pytest.approx(0, abs=1e-6)
    inner = log_snr_at(torch.linspace(0.01, 0.99, 50), 0.0)
    assert (inner.diff() < 0).all()
    # The cosine schedule: the signal is the cosine of the angle.
    alpha, _ = alpha_sigma(inner, inner)
    torch.testing.assert_close(alpha, (torch.pi / 2 * torch.linspace(0.01, 0.99, 50)).cos(), atol=1e-5, rtol=0)


@given(times, shifts)
def test_a_shift_is_a_shift_where_nothing_is_clamped(time, shift):
    time = torch.tensor([time], dtype=torch.float64)
    plain, shifted = float(log_snr_at(time, 0.0)), float(log_snr_at(time, shift))
    if abs(plain) < MAX_LOG_SNR and abs(shifted) < MAX_LOG_SNR:
        assert shifted - plain == pytest.approx(shift, abs=1e-4)


def test_every_sample_has_its_own_noise_level():
    clean, noise, levels = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.tensor([-2.0, 0.0, 5.0])
    together = add_noise(clean, noise, levels)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], add_noise(clean[i : i + 1], noise[i : i + 1], levels[i : i + 1]))
    assert not torch.allclose(together, add_noise(clean, noise, levels.flip(0)))


# Against diffusers, which writes ᾱ for our α² and counts its levels.


@pytest.fixture(scope="module")
def scheduler() -> DDIMScheduler:
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(20)
    return scheduler


def log_snr_of(scheduler: DDIMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    return scheduler.alphas_cumprod.double()[timesteps].logit().float()


def test_noise_and_velocity_are_those_of_diffusers(scheduler):
    timesteps = torch.tensor([0, 10, 300, 999])
    clean, noise, levels = normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1), log_snr_of(scheduler, timesteps)
    torch.testing.assert_close(
        add_noise(clean, noise, levels), scheduler.add_noise(clean, noise, timesteps), atol=1e-5, rtol=1e-5
    )
    theirs = scheduler.get_velocity(clean, noise, timesteps)
    torch.testing.assert_close(velocity(clean, noise, levels), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("timestep", [950, 500, 50])
def test_a_ddim_step_is_that_of_diffusers(scheduler, timestep, eta):
    noisy, v, fresh = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    step = scheduler.step(v, timestep, noisy, eta=eta, variance_noise=fresh if eta else None)
    now, after = (log_snr_of(scheduler, torch.tensor([at, at])) for at in (timestep, timestep - 50))
    clean, _ = clean_and_noise(noisy, v, now)
    torch.testing.assert_close(clean, step.pred_original_sample, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ddim_step(noisy, clean, now, after, eta, fresh), step.prev_sample, atol=3e-5, rtol=1e-5)


def test_a_whole_ddim_run_is_that_of_diffusers(scheduler):
    """Twenty steps with a net that is not linear; ours takes diffusers' levels."""

    def net(noisy: torch.Tensor) -> torch.Tensor:
        return (1.3 * noisy).sin() + 0.2 * noisy.roll(1, -1)

    ours = theirs = normal(2, 3, 4, 4)
    for timestep in scheduler.timesteps[:-1]:
        theirs = scheduler.step(net(theirs), timestep, theirs).prev_sample
        now, after = (log_snr_of(scheduler, torch.stack([at, at])) for at in (timestep, timestep - 50))
        ours = ddim_step(ours, clean_and_noise(ours, net(ours), now)[0], now, after)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [2, 3, 12])
def test_the_second_order_is_the_multistep_solver_of_diffusers(steps):
    """With our levels in its place; its last step is of first order when there are few (`lower_order_final`)."""

    def net(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return (1.3 * noisy).sin() + 0.2 * noisy.roll(1, -1) + 0.1 * log_snr[:, None, None, None].tanh()

    levels, noise = schedule(steps, -3.0), normal(2, 3, 4, 4)
    theirs = DPMSolverMultistepScheduler(prediction_type="v_prediction", algorithm_type="dpmsolver++", lower_order_final=True)
    theirs.set_timesteps(steps)
    theirs.sigmas = (-levels.double() / 2).exp().float()  # they write σ/α
    x = noise
    for level, timestep in zip(levels[:-1], theirs.timesteps, strict=True):
        x = theirs.step(net(x, level.expand(2)), timestep, x).prev_sample
    ours = denoise_along(net, noise, levels, order=2, clip=False)[0]
    torch.testing.assert_close(ours, x, atol=2e-3, rtol=1e-3)
    if steps > 2:
        assert (ours - denoise_along(net, noise, levels, clip=False)[0]).abs().max() > 0.01, "and not DDIM"


def test_the_second_order_comes_nearer_with_the_same_steps():
    """x ~ N(0.4, 0.7²): where every noise ends is known exactly, and the errors fall by about 2 and 4 when steps double."""

    def v(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = alpha_sigma(log_snr, noisy)
        clean = 0.4 + alpha * 0.49 / (alpha**2 * 0.49 + sigma**2) * (noisy - alpha * 0.4)
        return (alpha * noisy - clean) / sigma

    noise = torch.linspace(-2, 2, 9)[None]

    def error(steps: int, order: int) -> float:
        levels = torch.linspace(-8, 8, steps + 1)
        start, end = (alpha_sigma(level, noise) for level in (levels[:1], levels[-1:]))
        spread = [(alpha**2 * 0.49 + sigma**2).sqrt() for alpha, sigma in (start, end)]
        exact = end[0] * 0.4 + spread[1] / spread[0] * (noise - start[0] * 0.4)
        return float((denoise_along(v, noise, levels, order=order, clip=False)[0] - exact).abs().max())

    for steps in (20, 40):
        assert error(2 * steps, 1) / error(steps, 1) == pytest.approx(1 / 2, abs=0.1)
        assert error(2 * steps, 2) / error(steps, 2) == pytest.approx(1 / 4, abs=0.1)
        assert error(steps, 2) < error(steps, 1) / 3


@pytest.mark.parametrize(("order", "renewed"), [(0, 0.0), (3, 0.0), (2, 0.5)])
def test_orders_that_there_are_not_are_errors(order, renewed):
    with pytest.raises(ValueError, match=f"got order {order} and a share {renewed}"):
        denoise_along(lambda noisy, log_snr: noisy, normal(1, 3, 4, 4), schedule(3, 0.0), order=order, renewed=renewed)


@pytest.mark.parametrize(("renewed", "fresh"), [(0.5, None), (1.0, noises(1, seed=0)), (-0.1, noises(1, seed=0))])
def test_shares_outside_their_range_and_fresh_noise_that_is_missing_are_errors(renewed, fresh):
    with pytest.raises(ValueError, match="needs fresh noise"):
        denoise_along(lambda noisy, log_snr: noisy, normal(1, 3, 4, 4), schedule(3, 0.0), renewed=renewed, fresh=fresh)


@given(now=st.floats(-12, 6), further=st.floats(0.5, 6), share=st.floats(0, 0.99))
def test_noise_drawn_anew_is_a_step_that_goes_on_and_is_noised_back(now, further, share):
    """By other means: DDIM to the weaker noise that is left without the share, then the forward process back to `after`."""
    noisy, clean, fresh = (normal(1, 3, 4, 4, seed=seed).double() for seed in range(3))
    now, after = torch.tensor([now]).double(), torch.tensor([now + further]).double()
    farther = after + beyond(share)
    there = ddim_step(noisy, clean, now, farther)
    (alpha, sigma), (alpha_there, sigma_there) = alpha_sigma(after, noisy), alpha_sigma(farther, noisy)
    kept = alpha / alpha_there
    wanted = kept * there + (sigma**2 - (kept * sigma_there) ** 2).clamp(min=0).sqrt() * fresh
    found = renew(ddim_step(noisy, clean, now, after), clean, after, share, fresh)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_noise_is_drawn_anew_after_the_steps_that_end_beyond_a_level_and_not_before():
    levels, asked = torch.tensor([-15.0, -5.0, -1.0, 3.0, 15.0]), []

    def fresh():
        for seed in range(9):
            asked.append(seed)
            yield normal(1, 3, 4, 4, seed=10 + seed)

    how = {"renewed": 0.5, "fresh": fresh(), "clip": False}
    noisy = normal(1, 3, 4, 4)
    denoise_along(gaussian(0, 0.5), noisy, levels, renewed_from=-2.0, **how)
    assert len(asked) == 3, "after -1, 3 and 15"
    early, _ = denoise_along(gaussian(0, 0.5), noisy, levels[:2], renewed_from=-2.0, **how)
    torch.testing.assert_close(early, denoise_along(gaussian(0, 0.5), noisy, levels[:2], clip=False)[0])


# Times for training.


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), seeds)
def test_the_expected_clip_is_the_mean_behind_noise_and_the_clip_itself_without(candidates, batch, seed):
    clips = torch.randn(candidates, batch, 2, 3, generator=seeded(seed))
    noise = torch.randn(batch, 2, 3, generator=seeded(seed + 1))
    for level, expected in ((-MAX_LOG_SNR, clips.mean(0)), (MAX_LOG_SNR, clips[-1])):
        levels = torch.full((batch,), level)
        found = expected_clean(add_noise(clips[-1], noise, levels), clips, levels)
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("log_snr", [-4.0, -1.0, 0.0, 2.0])
def test_the_expected_clip_is_the_posterior_mean(log_snr):
    """For x ~ N(m, s²) it has a closed form; 20,000 candidates stand for the distribution."""
    mean, deviation, level = 0.4, 0.7, torch.full((5,), log_snr)
    clips = (mean + deviation * normal(20_000, 1, 1)).expand(-1, 5, -1)
    noisy = torch.linspace(-1.5, 1.5, 5)[:, None]
    alpha, sigma = alpha_sigma(level, noisy)
    expected = mean + alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * (noisy - alpha * mean)
    torch.testing.assert_close(expected_clean(noisy, clips, level), expected, atol=0.03, rtol=0)


@settings(deadline=None)
@given(st.integers(1, 64), seeds)
def test_times_come_one_from_each_part(batch, seed):
    ordered = stratified_times(batch, seeded(seed)).double().sort().values
    part = torch.arange(batch) / batch
    assert ((ordered >= part - 1e-6) & (ordered <= part + 1 / batch + 1e-6)).all()


def test_times_are_in_random_order_and_fill_their_parts():
    generator = seeded(0)
    drawn = torch.stack([stratified_times(8, generator) for _ in range(400)])
    assert (drawn.diff() > 0).all(1).float().mean() < 0.05
    torch.testing.assert_close(drawn.mean(0), torch.full((8,), 0.5), atol=0.06, rtol=0)  # at each place of the batch
    assert torch.histc(drawn * 8 % 1, 4, 0, 1).min() > 0.2 * drawn.numel()  # within the parts, too


# Guidance.


def never(*_):
    raise AssertionError("called, though its weight is zero")


def test_guidance_of_weight_one_is_the_conditional_net_and_costs_no_other():
    noisy, level = normal(2, 3), torch.zeros(2)
    denoise = guided(lambda z, log_snr: 3 * z + log_snr[:, None], never, 1)
    torch.testing.assert_close(denoise(noisy, level), 3 * noisy)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0, 7.5])
def test_guidance_goes_on_from_the_unconditional_through_the_conditional(weight):
    noisy, level = normal(2, 3), torch.tensor([1.0, -1.0])
    conditional, unconditional = (lambda z, log_snr: z.sin() + log_snr[:, None]), (lambda z, log_snr: z.cos())
    expected = (1 - weight) * unconditional(noisy, level) + weight * conditional(noisy, level)
    torch.testing.assert_close(guided(conditional, unconditional, weight)(noisy, level), expected)


# The sampler.


def knows(clean: torch.Tensor):
    """The net that knows the answer: v of `clean` and whatever noise explains `noisy`."""

    def denoise(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = alpha_sigma(log_snr, noisy)
        return velocity(clean, (noisy - alpha * clean) / sigma, log_snr)

    return denoise


def gaussian(mean: float, deviation: float):
    """The best net there is for data N(mean, deviation²): x̂ is the exact posterior mean."""

    def denoise(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = alpha_sigma(log_snr, noisy)
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        clean = mean + gain * (noisy - alpha * mean)
        return velocity(clean, (noisy - alpha * clean) / sigma, log_snr)

    return denoise


@pytest.mark.parametrize("renewed", [0.0, 0.75])
@pytest.mark.parametrize(("steps", "shift"), [(1, 0.0), (4, -3.5), (25, -4.5), (60, 2.0)])
def test_a_net_that_knows_the_answer_is_believed(steps, shift, renewed):
    clean = normal(2, 3, 4, 4).clamp(-1, 1)
    how = {"steps": steps, "shift": shift, "renewed": renewed, "fresh": noises(2, 3, 4, 4, seed=2)}
    found = sample(knows(clean), normal(2, 3, 4, 4, seed=1), **how)
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("renewed", [0.0, 0.02])
@pytest.mark.parametrize(("mean", "deviation", "shift"), [(0.3, 0.5, 0.0), (-0.5, 0.2, -2.0), (2.0, 1.5, -2.0)])
def test_samples_are_distributed_as_the_data(mean, deviation, shift, renewed):
    """600 vectors of 16 numbers: one sigma is 1 % of the deviation for the mean, 0.7 % for the deviation.

    400 steps leave the deviation up to 4 % too small (2 % without fresh noise; narrow data suffer most).
    """
    how = {"steps": 400, "shift": shift, "renewed": renewed, "fresh": noises(600, 16, seed=1), "clip": False}
    found = sample(gaussian(mean, deviation), normal(600, 16), **how)
    assert float(found.mean()) == pytest.approx(mean, abs=0.05 * deviation)
    assert float(found.std()) == pytest.approx(deviation, rel=0.06)
    # Samples are independent of each other, and so are the numbers of one.
    off_diagonal = torch.corrcoef(found.T) - torch.eye(16)
    assert off_diagonal.abs().max() < 0.25


def test_with_noise_drawn_anew_the_first_is_forgotten_and_with_ddim_it_is_not():
    first = normal(500, 8)
    kept = sample(gaussian(0, 0.5), first, steps=40, shift=0.0, clip=False)
    forgot = sample(gaussian(0, 0.5), first, steps=40, shift=0.0, clip=False, renewed=0.4, fresh=noises(500, 8, seed=1))

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    assert correlation(first, kept) > 0.999
    assert abs(correlation(first, forgot)) < 0.1


@pytest.mark.parametrize("renewed", [0.0, 0.75])
def test_the_same_inputs_give_the_same_sample(renewed):
    """No hidden state, no global randomness, and the input is left as it was."""

    def once(seed: int = 0) -> torch.Tensor:
        torch.manual_seed(seed)
        return sample(gaussian(0.1, 0.5), noisy, steps=7, shift=-1.0, renewed=renewed, fresh=noises(2, 5, seed=3))

    noisy = normal(2, 5)
    before = noisy.clone()
    first = once()
    assert torch.equal(first, once(seed=99)) and torch.equal(noisy, before)
    if renewed:
        other = sample(gaussian(0.1, 0.5), noisy, steps=7, shift=-1.0, renewed=renewed, fresh=noises(2, 5, seed=4))
        assert not torch.allclose(first, other)


def test_the_net_is_asked_at_the_levels_of_the_schedule():
    asked = []

    def denoise(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        asked.append(log_snr.clone())
        return torch.zeros_like(noisy)

    sample(denoise, normal(3, 2), steps=4, shift=-1.0, start=0.8)
    expected = log_snr_at(torch.tensor([0.8, 0.6, 0.4, 0.2]), -1.0)
    torch.testing.assert_close(torch.stack(asked), expected[:, None].expand(4, 3))
    asked.clear()
    sample(denoise, normal(3, 2), steps=4, shift=-1.0, tail=2)
    torch.testing.assert_close(torch.stack(asked), schedule(4, -1.0, tail=2)[:-1, None].expand(4, 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 25), st.floats(0.3, 0.99), st.integers(0, 3))  # where log-SNR is not clamped
def test_a_schedule_goes_from_its_start_to_clean_in_equal_steps_and_then_in_halves(steps, start, tail):
    levels = schedule(steps, 0.0, start, tail)
    assert len(levels) == steps + 1 and (levels.diff() > 0).all() and schedule(steps, 0.0)[0] == -MAX_LOG_SNR
    torch.testing.assert_close(levels[0], log_snr_at(torch.tensor(start), 0.0), atol=1e-3, rtol=1e-3)
    assert levels[-1] == MAX_LOG_SNR
    tail = min(tail, steps - 1)
    times = torch.atan(torch.exp(-levels.double() / 2)) * 2 / math.pi  # the cosine schedule, the other way round
    equal, halved = times[: steps - tail], times[steps - tail - 1 : -1]
    torch.testing.assert_close(
        equal.diff(), torch.full((steps - tail - 1,), -start / (steps - tail)).double(), atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(halved[1:], halved[:-1] / 2, atol=1e-5, rtol=1e-3)


def test_clipping_keeps_every_prediction_within_the_range():
    seen = []

    def denoise(noisy: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return gaussian(3.0, 0.1)(noisy, log_snr)  # wants 3

    noisy = normal(4, 3)
    clipped = sample(denoise, noisy, steps=10, shift=0.0)
    assert torch.equal(clipped, torch.ones(4, 3))
    assert torch.stack(seen[-2:]).abs().max() < 2  # the steps in between, too, head for 1
    assert sample(denoise, noisy, steps=10, shift=0.0, clip=False).min() > 2.5


def test_sampling_can_start_in_the_middle():
    """Half noised data, and the best net: the data's distribution again, and nearer to where each one came from."""
    mean, deviation, start, shift = 0.4, 0.5, 0.5, 0.0
    clean = mean + deviation * normal(600, 16)
    level = log_snr_at(torch.full((600,), start), shift)
    noisy = add_noise(clean, normal(600, 16, seed=1), level)
    found = sample(gaussian(mean, deviation), noisy, steps=100, shift=shift, start=start, clip=False)
    assert float(found.mean()) == pytest.approx(mean, abs=0.05 * deviation)
    assert float(found.std()) == pytest.approx(deviation, rel=0.06)
    from_noise = sample(gaussian(mean, deviation), normal(600, 16, seed=2), steps=100, shift=shift, clip=False)
    assert (found - clean).square().mean() < 0.7 * (from_noise - clean).square().mean()


def test_starting_with_hardly_any_noise_hardly_changes_the_data():
    clean = normal(20, 4).clamp(-1, 1)
    found = sample(gaussian(0.0, 1.0), clean, steps=5, shift=0.0, start=0.02, clip=False)
    torch.testing.assert_close(found, clean, atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 4, 8, 8)])
def test_images_and_videos_alike(shape):
    clean = normal(*shape).clamp(-1, 1)
    assert sample(knows(clean), normal(*shape, seed=1), steps=3, shift=-2.0).shape == shape


def test_progress_is_shown_only_where_it_is_named(capsys):
    sample(knows(torch.zeros(1, 2)), normal(1, 2), steps=3, shift=0.0)
    assert capsys.readouterr() == ("", "")
    sample(knows(torch.zeros(1, 2)), normal(1, 2), steps=3, shift=0.0, progress="dreaming")
    assert "dreaming" in capsys.readouterr().err


# Nets that say what the clean data are


@settings(max_examples=100, deadline=None)
@given(st.floats(-12, 12), st.floats(0, 0.5), st.integers(0, 2**31))
def test_the_v_of_a_guess_is_that_of_the_formula(level, floor, seed):
    """x̂ = c z + (1 − α c) guess with c = α s² / (α² s² + σ²), in double precision; and v is what stands for it."""
    noisy, guess = torch.randn(2, 2, 3, 4, generator=seeded(seed), dtype=torch.float64)
    log_snr = torch.full((2,), level, dtype=torch.float64)
    clean, _ = clean_and_noise(noisy, velocity_of_guess(guess, noisy, log_snr, floor), log_snr)
    alpha, sigma = math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))
    share = alpha * floor**2 / (alpha**2 * floor**2 + sigma**2)
    torch.testing.assert_close(clean, share * noisy + (1 - alpha * share) * guess)


@settings(max_examples=50, deadline=None)
@given(st.floats(-10, 10), st.integers(0, 2**31))
def test_with_no_floor_the_guess_is_the_clean_data_and_the_truth_gives_the_true_v(level, seed):
    clean, noise = torch.randn(2, 2, 3, 4, generator=seeded(seed), dtype=torch.float64)
    log_snr = torch.full((2,), level, dtype=torch.float64)
    noisy = add_noise(clean, noise, log_snr)
    torch.testing.assert_close(velocity_of_guess(clean, noisy, log_snr, 0.0), velocity(clean, noise, log_snr))
    other = torch.randn_like(clean)
    torch.testing.assert_close(clean_and_noise(noisy, velocity_of_guess(other, noisy, log_snr, 0.0), log_snr)[0], other)


def test_with_a_floor_of_one_v_is_the_guess_but_for_its_sign_and_scale():
    """A net that predicts v, then: the noisy data do not come in."""
    noisy, guess, log_snr = torch.randn(4, 3, 5), torch.randn(4, 3, 5), torch.tensor([-8.0, -1.0, 2.0, 9.0])
    sigma = (-log_snr).sigmoid().sqrt()[:, None, None]
    torch.testing.assert_close(velocity_of_guess(guess, noisy, log_snr, 1.0), -sigma * guess)


def test_noise_far_below_the_floor_is_left_and_noise_far_above_it_is_taken_away_by_the_guess():
    """However wrong the guess is, nobody sees it there; and the error of v stays bounded, where 1/σ² would not."""
    clean, noise, wrong = torch.rand(3, 6) * 2 - 1, torch.randn(3, 6), torch.randn(3, 6)
    for level, left in ((14.0, True), (-6.0, False)):  # noise of 0.0009; of 0.999
        log_snr = torch.full((3,), level)
        noisy = add_noise(clean, noise, log_snr)
        v = velocity_of_guess(wrong, noisy, log_snr, floor=0.05)
        found, _ = clean_and_noise(noisy, v, log_snr)
        torch.testing.assert_close(found, noisy if left else wrong, atol=0.02, rtol=0)
        if left:
            assert (found - clean).abs().max() < 0.01 and (v - velocity(clean, noise, log_snr)).abs().max() < 10


@pytest.mark.parametrize("name", SCALES)
def test_super_resolution_guesses_and_the_image_net_says_v(name):
    assert SCALES[name].t2i.floor == 0 and 0 < SCALES[name].ssr.floor < 0.2
