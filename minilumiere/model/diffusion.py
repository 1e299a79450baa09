"""Diffusion in continuous time: how noise is added, what the net predicts, and the sampler on one page.

    z = α x + σ ε        α² = sigmoid(λ),  σ² = sigmoid(−λ),  λ = log(α²/σ²) = log-SNR
    v = α ε − σ x        x̂ = α z − σ v̂,   ε̂ = σ z + α v̂
    λ(time) = −2 log tan(π time / 2) + shift        time from 0 (clean) to 1 (noise)

v-prediction (Salimans and Ho 2022; Imagen Video uses it), cosine schedule shifted towards noise as the data grow
redundant (Hoogeboom et al. 2023), DDIM (Song et al. 2021) or its second order (Lu et al. 2022), classifier-free guidance
(Ho and Salimans 2022). The Lumiere paper discloses none of these: our choice. The diffusion time is `time`, never `t`: t is
the axis of the frames. Images and videos are in [-1, 1] here. Built in notebook 02.
"""

import math
import sys
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

MAX_LOG_SNR = 15.0
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (noisy (b ...), log_snr (b,)) -> predicted v (b ...)


def log_snr_at(time: Tensor, shift: float) -> Tensor:
    """Log-SNR at diffusion times in [0, 1]; clamped to ±`MAX_LOG_SNR`."""
    angle = (math.pi / 2 * time.double()).clamp(1e-6, math.pi / 2 - 1e-6)
    return (-2 * angle.tan().log() + shift).clamp(-MAX_LOG_SNR, MAX_LOG_SNR).float()


def alpha_sigma(log_snr: Float[Tensor, " b"], like: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ, shaped to multiply `like` (b ...)."""
    log_snr = log_snr.reshape(-1, *[1] * (like.dim() - 1))
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def add_noise(clean: Tensor, noise: Tensor, log_snr: Float[Tensor, " b"]) -> Tensor:
    """z = α x + σ ε."""
    alpha, sigma = alpha_sigma(log_snr, clean)
    return alpha * clean + sigma * noise


def velocity(clean: Tensor, noise: Tensor, log_snr: Float[Tensor, " b"]) -> Tensor:
    """v = α ε − σ x, what the net learns to predict."""
    alpha, sigma = alpha_sigma(log_snr, clean)
    return alpha * noise - sigma * clean


def velocity_of_guess(guess: Tensor, noisy: Tensor, log_snr: Float[Tensor, " b"], floor: float) -> Tensor:
    """The v of a net that says what the clean data are, `guess`, instead of v.

        x̂ = c z + (1 − α c) guess,   c = α s² / (α² s² + σ²)        v = (α z − x̂) / σ = σ (α (1 − s²) z − guess) / (α² s² + σ²)

    Noise far above the `floor` s is taken away by the guess alone, noise far below it is left: nobody sees it, and an error of
    the guess would count for 1/σ². A v holds all of the noise, so that a net must carry it from end to end; a guess does not,
    so that few channels suffice. After the preconditioning of Karras et al. 2022 (there c is the same, for data of std s).
    """
    alpha, sigma = alpha_sigma(log_snr, noisy)
    return sigma * (alpha * (1 - floor**2) * noisy - guess.to(noisy.dtype)) / (alpha**2 * floor**2 + sigma**2)


def clean_and_noise(noisy: Tensor, v: Tensor, log_snr: Float[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """x̂ and ε̂ that a predicted v stands for."""
    alpha, sigma = alpha_sigma(log_snr, noisy)
    return alpha * noisy - sigma * v, sigma * noisy + alpha * v


def expected_clean(
    noisy: Float[Tensor, "b ..."], candidates: Float[Tensor, "k b ..."], log_snr: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """E[x | z] if x were one of k candidates, all equally likely before z was seen: the mean, weighted by N(z; α x, σ²).

    As a training target in place of the one x that z was made of (one of the candidates, which are exchangeable), this has the
    same mean and less variance: the "stable target field" (Xu, Tong and Jaakkola 2023). It matters where noise hides most of x.
    """
    alpha, sigma = alpha_sigma(log_snr, noisy)
    distance = ((noisy - alpha * candidates) / sigma).square().flatten(2).sum(-1)  # k b
    return torch.einsum("kb,kb...->b...", (-distance / 2).softmax(0), candidates)


def stratified_times(batch: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """One uniform time from each of `batch` equal parts of [0, 1], in random order: less noise in the loss."""
    strata = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return strata[torch.randperm(batch, generator=generator)]


def ddim_step(
    noisy: Tensor, clean: Tensor, now: Tensor, after: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """From log-SNR `now` to the larger `after`, given x̂. `eta` 0 is deterministic, 1 is ancestral (needs `noise`)."""
    alpha, sigma = alpha_sigma(now, noisy)
    alpha_after, sigma_after = alpha_sigma(after, noisy)
    predicted = (noisy - alpha * clean) / sigma
    if eta == 0:
        return alpha_after * clean + sigma_after * predicted
    fresh = eta * (sigma_after / sigma) * (1 - (alpha / alpha_after) ** 2).clamp(min=0).sqrt()
    return alpha_after * clean + (sigma_after**2 - fresh**2).clamp(min=0).sqrt() * predicted + fresh * noise


def renew(noisy: Tensor, clean: Tensor, log_snr: Tensor, share: float, noise: Tensor) -> Tensor:
    """Draw a share of the noise (of its variance) anew, given x̂: z = α x̂ + σ (√(1 − share) ε̂ + √share ε).

    As if the step had gone on, to a log-SNR that is larger by `beyond(share)`, and fresh `noise` had brought it back.
    """
    alpha, sigma = alpha_sigma(log_snr, noisy)
    return alpha * clean + math.sqrt(1 - share) * (noisy - alpha * clean) + math.sqrt(share) * sigma * noise


def beyond(share: float) -> float:
    """How much larger is the log-SNR without this share of the noise?"""
    return -math.log(1 - share)


def guided(conditional: Denoiser, unconditional: Denoiser, weight: float) -> Denoiser:
    """Classifier-free guidance: v = v_uncond + weight (v_cond − v_uncond). Weight 1 is no guidance, and costs none."""
    if weight == 1:
        return conditional

    def denoise(noisy: Tensor, log_snr: Tensor) -> Tensor:
        without = unconditional(noisy, log_snr)
        return without + weight * (conditional(noisy, log_snr) - without)

    return denoise


def schedule(steps: int, shift: float, start: float = 1.0, tail: int = 0, power: float = 1.0) -> Float[Tensor, " steps+1"]:
    """The log-SNR before the first of `steps` steps and after each: diffusion times from `start` (1 = pure noise) to 0.

    Shares of the start are equally spaced, then raised to a `power`, but for the last `tail` steps before 0, each of which
    halves the time: what noise is left at the end cannot be taken away at once.
    """
    if steps < 1:
        raise ValueError(f"sampling takes at least one step, got {steps}")
    tail = min(tail, steps - 1)
    times = start * torch.linspace(1, 0, steps - tail + 1, dtype=torch.float64) ** power
    halved = times[-2] / 2 ** torch.arange(1, tail + 1)
    return log_snr_at(torch.cat([times[:-1], halved, times[-1:]]), shift)


def denoise_along(
    denoise: Denoiser,
    noisy: Float[Tensor, "b ..."],
    levels: Float[Tensor, " steps+1"],
    *,
    order: int = 1,
    renewed: float = 0.0,
    renewed_from: float = -MAX_LOG_SNR,
    fresh: Iterator[Float[Tensor, "b ..."]] | None = None,
    clip: bool = True,
    progress: str = "",
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """DDIM from the first of the `levels` to the last: what is noisy then, and the last x̂ (`noisy` itself after no step).

    Pure: all randomness comes from `noisy` and from `fresh`: normal noise for each step. Of that, a share `renewed`, 0 to
    below 1, comes in place of the noise that is left after each step (see `renew`) that ends beyond log-SNR `renewed_from`.
    `clip` keeps x̂ within [-1, 1] at every step. `progress` names a progress bar; none without.

    `order` 2: DPM-Solver++(2M) (Lu et al. 2022), half as many steps for the same accuracy. DDIM takes x̂ to be constant
    during a step; here it goes on as it went in the step before, and counts as it would be in the middle of the step. The
    first step has none before it, and the last, to no noise at all, is too long for that: these are DDIM's.

    Raises `ValueError` for another order, the second with renewed noise, a share outside its range or without `fresh` noise.
    """
    if order not in (1, 2) or (order == 2 and renewed > 0):
        raise ValueError(f"the order is 1, or without renewed noise also 2; got order {order} and a share {renewed} renewed")
    if not 0 <= renewed < 1 or (renewed > 0 and fresh is None):
        raise ValueError(f"the renewed share is from 0 to below 1, and above 0 needs fresh noise; got {renewed}")
    batch, clean, renews = noisy.shape[0], noisy, [renewed > 0 and level > renewed_from for level in levels[1:].tolist()]
    levels, lengths = levels.to(noisy.device), levels.diff().tolist()
    for i in tqdm(range(len(lengths)), progress, disable=not progress or sys.stderr is None, leave=False):
        now, after, clean_before = levels[i].expand(batch), levels[i + 1].expand(batch), clean
        clean, _ = clean_and_noise(noisy, denoise(noisy, now), now)
        if clip:
            clean = clean.clamp(-1, 1)
        middle = clean
        if order == 2 and 0 < i < len(lengths) - 1:
            middle = clean + lengths[i] / (2 * lengths[i - 1]) * (clean - clean_before)
            middle = middle.clamp(-1, 1) if clip else middle
        noisy = ddim_step(noisy, middle, now, after)
        if renews[i]:
            noisy = renew(noisy, middle, after, renewed, next(fresh))
    return noisy, clean


def sample(
    denoise: Denoiser,
    noisy: Float[Tensor, "b ..."],
    *,
    steps: int,
    shift: float,
    start: float = 1.0,
    tail: int = 0,
    power: float = 1.0,
    **options,
) -> Float[Tensor, "b ..."]:
    """Clean data from `noisy`, at diffusion time `start` (1 = pure noise). See `schedule`; `options` of `denoise_along`."""
    return denoise_along(denoise, noisy, schedule(steps, shift, start, tail, power), **options)[1]
