"""Measure styles: what the interpolation of weights and SDEdit do to a clip's look, motion and digit.

The style score is a small probe: four statistics of how a clip is drawn, projected on the line between the means of plain
and of styled drawings (Fisher's discriminant). Our choice; the paper shows examples.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import STYLES
from minilumiere.dataset.captions import parse_caption
from minilumiere.dataset.moving_digits import draw_scenes
from minilumiere.dataset.subjects import subjects_of
from minilumiere.evaluation.judge import assess
from minilumiere.evaluation.quality import EVALUATION_SEED, batches, evaluation_captions, of_whom, real_clips
from minilumiere.evaluation.tasks import mean, path_error
from minilumiere.model.stylize import DEFAULT_ALPHA, DEFAULT_STRENGTH, FROM_THE_START, STYLED_FROM
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.5)
COLUMNS = f"{'style score':>13}{'nearer':>9}{'motion':>9}{'digit':>9}"  # of `judge_styled`


def style_features(video: Float[Tensor, "t 3 h w"]) -> Float[Tensor, " 4"]:
    """How much is drawn, how bright it is, how much of it is edge, how fine: all but the first per unit of ink.

    What is darker than a tenth is not seen: a generated clip's black is not quite black.
    """
    ink = (video.amax(1) - 0.1).clamp(min=0)  # t h w
    total = ink.mean().clamp(min=1e-4)
    across, down = ink.diff(dim=2).abs().mean(), ink.diff(dim=1).abs().mean()
    bend = ink.diff(n=2, dim=2).abs().mean() + ink.diff(n=2, dim=1).abs().mean()
    return torch.stack([total, ink.square().mean() / total, (across + down) / total, bend / total]).log()


@cache
def style_probe(style: str, size: int, output_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means of the features of plain and of styled drawings, and Fisher's discriminant between them."""
    captions = evaluation_captions(128, 1, 99)
    features = []
    for drawn in ("", style):
        generator = torch.Generator().manual_seed(EVALUATION_SEED + 99)
        subjects = subjects_of([parse_caption(caption) for caption in captions])
        clips, _ = draw_scenes(subjects, generator, 4, size, output_size, "train", style=drawn)
        features.append(torch.stack([style_features(clip) for clip in clips]))
    plain, styled = (part.mean(0) for part in features)
    spread = torch.cat([features[0] - plain, features[1] - styled])
    covariance = spread.T @ spread / len(spread) + 1e-4 * torch.eye(4)
    return plain, styled, torch.linalg.solve(covariance, styled - plain)


def style_score(video: Float[Tensor, "t 3 h w"], style: str, output_size: int) -> float:
    """0: drawn as the plain digits are on average; 1: as those in the style. Above a half it is nearer to the style."""
    plain, styled, direction = style_probe(style, video.shape[-1], output_size)
    return float((style_features(video) - plain) @ direction / ((styled - plain) @ direction))


def judge_styled(pipe: Pipeline, clips: Tensor, captions: list[str], style: str) -> str:
    """Mean style score, share of clips nearer to the style, shares of right motion and right digit, in columns."""
    scores = torch.tensor([style_score(clip, style, pipe.scale.output_size) for clip in clips])
    agrees = [assess(clip, caption)["agrees"] for clip, caption in zip(clips, captions, strict=True)]
    shares = [float((scores > 0.5).float().mean()), *(mean(row[key] for row in agrees) for key in ("motion", "digit"))]
    return f"{float(scores.clamp(-1, 2).mean()):>13.2f}" + "".join(f"{share:>9.1%}" for share in shares)


def stylization(pipe: Pipeline, samples: int, few: int, seed: int = 0) -> list[str]:
    """For each style one line an α, styled from the start, over `few` captions; then plain and as shipped, over all."""
    captions = evaluation_captions(samples, 1, seed + 40)

    def generate(styled: Pipeline, captions: list[str], what: str) -> Tensor:
        return torch.cat([styled.generate(captions[i], EVALUATION_SEED + i.start).cpu() for i in batches(pipe, captions, what)])

    plain = generate(pipe, captions, "plain")
    lines = []
    for style in STYLES:
        lines.append(f"  {style:<10}{'alpha':>6}{'from log-SNR':>14}{'clips':>7}{COLUMNS}")
        sweep = [(alpha, FROM_THE_START, few) for alpha in ALPHAS]
        for alpha, start, n in [*sweep, (0.0, STYLED_FROM, samples), (DEFAULT_ALPHA[style], STYLED_FROM, samples)]:
            if alpha == 0:
                clips = plain[:n]
            else:
                clips = generate(pipe.in_style(style, alpha, start), captions[:n], f"{style} {alpha} {start:.0f}")
            lines.append(f"  {'':<10}{alpha:>6.2f}{start:>14.0f}{n:>7}" + judge_styled(pipe, clips, captions[:n], style))
    return lines


def restyling(pipe: Pipeline, samples: int, few: int, seed: int = 0) -> list[str]:
    """SDEdit of real clips. For each style one line a strength, over `few`; then the default one, over all `samples`."""
    captions = evaluation_captions(samples, 1, seed + 50)
    real = real_clips(pipe, captions, seed + 50)
    lines = []
    for style in STYLES:
        lines.append(f"  {style:<10}{'strength':>9}{'clips':>7}{COLUMNS}{'path error':>12}")
        for strength, n in [(strength, few) for strength in STRENGTHS] + [(DEFAULT_STRENGTH, samples)]:
            sources, asked = real[:n], captions[:n]
            clips = torch.cat(
                [
                    pipe.restyle(sources[i], asked[i], style, strength, seed=EVALUATION_SEED + i.start).cpu()
                    for i in batches(pipe, asked, f"{style} {strength}")
                ]
            )
            columns = judge_styled(pipe, clips, asked, style)
            lines.append(f"  {'':<10}{strength:>9.2f}{n:>7}{columns}{path_error(clips, sources, asked):>12.2f}")
    return lines


@pinned()
def evaluate_styles(pipe: Pipeline, samples: int = 128, seed: int = 0) -> str:
    """Two tables. The sweeps over α and strength take a quarter of the samples for each value."""
    samples, seed = check_number(samples, "samples", 1, 100_000, int), check_number(seed, "seed", 0, 2**60, int)
    few = max(1, samples // 4)
    lines = [f"{of_whom(pipe)}: styles, seed {seed}", ""]
    lines += ["stylization by α, styled from the start; last, plain clips and as shipped"]
    lines += [*stylization(pipe, samples, few, seed), ""]
    lines += ["SDEdit of real clips by strength; last, the default; path error in units of 32"]
    return "\n".join([*lines, *restyling(pipe, samples, few, seed)])
