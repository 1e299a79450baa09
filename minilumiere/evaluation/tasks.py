"""Measure what given pixels are used for: image-to-video, inpainting, cinemagraphs.

Every case begins with a real clip of test glyphs and its caption, from seeds that training never uses.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from minilumiere.dataset.captions import COLOURS, parse_caption
from minilumiere.evaluation.judge import assess, centroids, colour_masses
from minilumiere.evaluation.quality import EVALUATION_SEED, batches, evaluation_captions, of_whom, real_clips
from minilumiere.model.conditioning import HALVES, changing_region, hidden_box, hidden_half
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import pinned
from minilumiere.validate import check_number

Row = tuple[str, str, float]  # task, what, value


def mean(values) -> float:
    return float(torch.as_tensor(list(values), dtype=torch.float64).mean())


def centres(video: Float[Tensor, "t 3 h w"], colour: str) -> Float[Tensor, "t 2"]:
    """The centre of what has a colour, frame by frame, in units of the canvas."""
    return centroids(colour_masses(video)[:, list(COLOURS).index(colour)])[0]


def path_error(clips: Tensor, real: Tensor, captions: list[str], frames: Tensor | None = None) -> float:
    """Mean distance of an object's centre to the real one, in units (32 are the canvas); on the `frames` (n t) asked for."""
    distance = [
        (centres(clip, parse_caption(caption)[0].colour) - centres(truth, parse_caption(caption)[0].colour)).norm(dim=-1)
        for clip, truth, caption in zip(clips, real, captions, strict=True)
    ]
    distance = torch.stack(distance)
    return float(distance.mean() if frames is None else distance[frames].mean())


def image_to_video(pipe: Pipeline, samples: int, seed: int = 0, large: bool = True) -> list[Row]:
    """The first frame of a real clip is given. Not `large`, here and below: base clips."""
    captions = evaluation_captions(samples, 1, seed + 10)
    real = real_clips(pipe, captions, seed + 10, large=large)
    clips, alone = [], []
    for part in batches(pipe, captions, "image to video"):
        options = {"seed": EVALUATION_SEED + part.start, "super_resolution": large}
        clips.append(pipe.image_to_video(real[part, 0], captions[part], **options).cpu())
        options |= {"copy_known": False, "super_resolution": False}
        alone.append(pipe.image_to_video(real[part, 0], captions[part], **options)[:, 0].cpu())
    clips = torch.cat(clips)
    given = avg_pool2d(real[:, 0], pipe.scale.upscale) if large else real[:, 0]
    rows = [assess(clip, caption) for clip, caption in zip(clips, captions, strict=True)]
    kept = [row["same_digit"] and row["agrees"]["digit"] and row["agrees"]["colour"] for row in rows]
    return [
        ("image-to-video", "largest difference on the first frame", float((clips[:, 0] - real[:, 0]).abs().max())),
        ("image-to-video", "the same of the base net alone (RMS)", float((torch.cat(alone) - given).square().mean().sqrt())),
        ("image-to-video", "digit and colour kept through the last frame", mean(kept)),
        ("image-to-video", "motion as captioned", mean(row["agrees"]["motion"] for row in rows)),
    ]


def inpainting(pipe: Pipeline, samples: int, seed: int = 0, large: bool = True) -> list[Row]:
    """Half the frame is hidden, or a box of half its side that moves. Of the object, a part must be hidden and a part known.

    PSNR asks for the mean of all that could be hidden, not for one case of it: the squared error of a perfect sample is
    twice that of the mean (Blau and Michaeli 2018), 3 dB. So the net's mean, x̂ after a single step, is measured too. And
    it asks for the exact place: real clips that are moved by 0.25, 0.5, 0.75, 1, 1.5 of 32 have 13.9, 7.9, 5.4, 3.0, 0.7 dB
    (half hidden, 64 clips of `tiny`).
    """
    rows, scale = [], replace(pipe.scale, image_share=0.0)
    video_net = Pipeline(scale, pipe.base, pipe.ssr, pipe.device, student=pipe.student)  # alone: one step is its mean
    for kind in ("half", "moving box"):
        captions, real, masks = hidden_cases(pipe, max(1, samples // 2), kind, seed + 20, large)
        clips, means = [], []
        for part in batches(pipe, captions, f"inpainting, {kind}"):
            options = {"seed": EVALUATION_SEED + part.start, "super_resolution": large}
            clips.append(pipe.inpaint(real[part], masks[part], captions[part], **options).cpu())
            means.append(video_net.inpaint(real[part], masks[part], captions[part], **options, steps=1, guidance=1.0).cpu())
        clips, means, known = torch.cat(clips), torch.cat(means), masks.bool().expand_as(real)
        rows += [
            (f"inpainting, {kind}", "largest difference on known pixels", float((clips - real)[known].abs().max())),
            (f"inpainting, {kind}", "PSNR of the hidden, above filling with the mean (dB)", psnr_gain(clips, real, masks)),
            (f"inpainting, {kind}", "the same of the net's mean, one step (dB)", psnr_gain(means, real, masks)),
            (
                f"inpainting, {kind}",
                "centre error in the hole (of 32)",
                path_error(clips, real, captions, hidden_frames(real, masks)),
            ),
        ]
    return rows


def psnr_gain(clips: Float[Tensor, "n t 3 h w"], real: Float[Tensor, "n t 3 h w"], masks: Float[Tensor, "n t 1 h w"]) -> float:
    """How many dB nearer to the truth the hidden pixels are than the mean colour of the known ones; the mean of all clips."""
    fill = (real * masks).sum((1, 3, 4), keepdim=True) / masks.sum((1, 3, 4), keepdim=True)  # n 1 3 1 1

    def error(guess: Tensor) -> Float[Tensor, " n"]:
        return ((guess - real).square() * (1 - masks)).flatten(1).sum(1)

    return float(10 * torch.log10(error(fill) / error(clips)).mean())


def hidden_frames(real: Float[Tensor, "n t 3 h w"], masks: Float[Tensor, "n t 1 h w"]) -> Tensor:
    """On which frames (n t) most of the ink is hidden."""
    ink = real.amax(2, keepdim=True)
    return (ink * (1 - masks)).sum((2, 3, 4)) > 0.5 * ink.sum((2, 3, 4))


def hidden_cases(pipe: Pipeline, n: int, kind: str, seed: int, large: bool = True) -> tuple[list[str], Tensor, Tensor]:
    """Captions, real clips and masks: most of the object is hidden on an eighth to three quarters of the frames."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED + seed)
    captions, clips, masks = [], [], []
    tried = evaluation_captions(8 * n + 16, 1, seed)
    real = real_clips(pipe, tried, seed, large=large)
    size, frames = real.shape[-1], pipe.scale.frames
    half = size // 2
    for caption, clip in zip(tried, real, strict=True):
        where = torch.randint(half + 1, (4,), generator=generator).tolist()
        if kind == "half":
            mask = hidden_half(frames, size, size, HALVES[where[0] % 2 + 2 * (where[1] % 2)])
        else:
            mask = hidden_box(frames, size, size, (half, half), tuple(where[:2]), tuple(where[2:]))
        share = float(hidden_frames(clip[None], mask[None]).float().mean())
        if 1 / 8 <= share <= 3 / 4 and len(captions) < n:
            captions, clips, masks = [*captions, caption], [*clips, clip], [*masks, mask]
    return captions, torch.stack(clips), torch.stack(masks)


def cinemagraph(pipe: Pipeline, samples: int, seed: int = 0, large: bool = True) -> list[Row]:
    """One object moves within a box around its path; every other time another one stands still."""
    moving = [caption for caption in evaluation_captions(4 * samples + 16, 1, seed + 30) if "standing" not in caption][:samples]
    colours = list(COLOURS)
    captions = []
    for i, caption in enumerate(moving):
        subject = parse_caption(caption)[0]
        other = colours[(colours.index(subject.colour) + 1 + i % 6) % 7]
        captions.append(f"{caption} and a {other} {i % 10} standing still" if i % 2 else caption)
    real = real_clips(pipe, captions, seed + 30, large=large)
    margin = 4 if large else 1
    regions = torch.stack([changing_region(clip.transpose(0, 1), margin) for clip in real])
    clips = []
    for part in batches(pipe, captions, "cinemagraph"):
        options = {"seed": EVALUATION_SEED + part.start, "super_resolution": large}
        clips.append(pipe.cinemagraph(real[part, 0], regions[part], captions[part], **options).cpu())
    clips = torch.cat(clips)
    change = ((clips - clips[:, :1]).abs() * (1 - regions[:, None])).max()
    right = [assess(clip, caption)["objects"][0]["agrees"]["motion"] for clip, caption in zip(clips, captions, strict=True)]
    return [
        ("cinemagraph", "largest change over time outside the region", float(change)),
        ("cinemagraph", "motion as captioned inside", mean(right)),
    ]


@pinned()
def evaluate_tasks(pipe: Pipeline, samples: int = 128, seed: int = 0) -> str:
    """One table of all tasks."""
    samples, seed = check_number(samples, "samples", 1, 100_000, int), check_number(seed, "seed", 0, 2**60, int)
    lines = [f"{of_whom(pipe)}: tasks, {samples} cases each, seed {seed}", ""]
    for task in (image_to_video, inpainting, cinemagraph):
        for name, what, value in task(pipe, samples, seed):
            shown = f"{value:.1%}" if what.startswith(("digit", "motion")) else f"{value:.3f}"
            lines.append(f"  {name:<24}{what:<54}{shown:>8}")
    return "\n".join(lines)
