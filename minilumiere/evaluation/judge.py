"""The judge: reads digit, colour, motion, speed and identity over time off a video.

    video ─► hue of each pixel ─► mass of each colour ─► the object's colour
                                    ├─► centroid per frame ─► best ideal path ─► motion, speed, distance to the path
                                    └─► crop per frame ─► small classifier ─► digit, the same on every frame?

Only the digit needs a trained net (stage `judge`); the rest is arithmetic. Objects are told apart by colour. FVD, the
paper's automatic measure, is biased towards content over motion (Ge et al. 2024), and needs a pretrained video net.
Our choice throughout.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from minilumiere.config import get_scale
from minilumiere.dataset.captions import COLOURS, Subject, parse_caption
from minilumiere.dataset.paths import CANVAS, FRAMES_PER_TURN, UNITS_PER_FRAME, WALLS, reflect
from minilumiere.model.digit_classifier import DigitClassifier
from minilumiere.torch_state import pinned
from minilumiere.validate import check_video
from minilumiere.weights.nets import trained

CROP = 20.0  # units of the canvas that a crop shows
DARK = 0.25  # pixels with less brightness have no colour
FAINT = 8.0  # square units of ink a frame: less is no object (drawn ones have 19 or more, stray pixels up to 4)
STILL = 0.8  # units: an object whose centre strays less than this (RMS) stands still
PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device="cpu")


@dataclass(frozen=True)
class Reading:
    """What the judge reads of one object. Too little ink is none: no digit, no words, and nothing that a caption could say."""

    digit: int | None
    colour: str
    motion: str
    speed: str
    same_digit: bool  # on the first frame as on the last
    constant_digit: float  # share of the frames that do not hide most of it which show the digit read
    path_rms: float  # units: RMS distance of the centroid to the best ideal path


def colour_masses(video: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t colours h w"]:
    """The brightness of each pixel, in the channel of the colour that its direction in RGB is nearest to."""
    palette = PALETTE.to(video)
    cosine = torch.einsum("tchw,kc->tkhw", video, palette / palette.norm(dim=1, keepdim=True))
    brightness = video.amax(dim=1, keepdim=True)
    nearest = cosine.argmax(dim=1, keepdim=True)
    return torch.zeros_like(cosine).scatter_(1, nearest, torch.where(brightness > DARK, brightness, 0))


def centroids(mass: Float[Tensor, "t h w"]) -> tuple[Float[Tensor, "t 2"], Float[Tensor, " t"]]:
    """Centre of mass (x, y) per frame in canvas units, and the mass itself; frames without mass repeat the mean."""
    h, w = mass.shape[1:]
    x = (torch.arange(w, device=mass.device) + 0.5) * CANVAS / w
    y = (torch.arange(h, device=mass.device) + 0.5) * CANVAS / h
    total = mass.sum((1, 2))
    centre = torch.stack([(mass.sum(1) * x).sum(1), (mass.sum(2) * y).sum(1)], dim=1) / total.clamp(min=1e-6)[:, None]
    seen = total > 0
    fallback = centre[seen].mean(0) if seen.any() else centre.new_full((2,), CANVAS / 2)
    return torch.where(seen[:, None], centre, fallback), total


def crops(mass: Float[Tensor, "n h w"], centre: Float[Tensor, "n 2"], pixels: int) -> Float[Tensor, "n 1 pixels pixels"]:
    """Square crops of `CROP` units around centres (in canvas units)."""
    theta = torch.zeros(len(mass), 2, 3, device=mass.device)
    theta[:, 0, 0] = theta[:, 1, 1] = CROP / CANVAS
    theta[:, :, 2] = centre / CANVAS * 2 - 1
    shrink = 2 ** max(0, int(math.log2(mass.shape[-1] * CROP / CANVAS / pixels)))  # divides the size: no rim is lost
    grid = F.affine_grid(theta, [len(mass), 1, pixels, pixels], align_corners=False)
    return F.grid_sample(F.avg_pool2d(mass[:, None], shrink), grid, align_corners=False)


@pinned()
@torch.no_grad()
def read(video: Float[Tensor, "t 3 h w"], classifier: DigitClassifier, objects: int = 1) -> list[Reading]:
    """Read the `objects` most massive colours of a video in [0, 1]."""
    masses = colour_masses(video)
    order = masses.sum((0, 2, 3)).argsort(descending=True)[:objects].tolist()
    return [_read_object(masses[:, colour], list(COLOURS)[colour], classifier) for colour in order]


def _read_object(mass: Tensor, colour: str, classifier: DigitClassifier) -> Reading:
    centre, total = centroids(mass)
    if float(total.mean()) * (CANVAS / mass.shape[-1]) ** 2 < FAINT:
        return Reading(None, "", "", "", False, 0.0, 0.0)
    logits = classifier(crops(mass, centre, classifier.crop))  # t 10
    visible = total > 0.7 * total.median()  # the other frames show it in part, behind another object
    shown = visible if visible.any() else torch.ones_like(visible)
    digit = int(logits[shown].log_softmax(1).mean(0).argmax())
    per_frame = logits.argmax(1)
    motion, speed, rms = read_motion(centre, visible)
    same = bool(per_frame[0] == per_frame[-1])
    return Reading(digit, colour, motion, speed, same, float((per_frame[shown] == digit).float().mean()), rms)


def read_motion(centre: Float[Tensor, "t 2"], visible: Tensor) -> tuple[str, str, float]:
    """The motion and speed whose ideal path (rest, reflected line or circle) is nearest, and its RMS distance in units."""
    if visible.sum() < 3:
        visible = torch.ones_like(visible)
    time = torch.arange(len(centre), device=centre.device)[visible]
    centre = centre[visible]
    rest = (centre - centre.mean(0)).square().sum(1).mean().sqrt()
    if rest < STILL:
        return "standing still", "", float(rest)
    lines, circles = _fit_lines(centre, time), _fit_circles(centre, time)
    return min(lines, circles, key=lambda fit: fit[2])


def _fit_lines(centre: Tensor, time: Tensor) -> tuple[str, str, float]:
    """Try every direction, pace and start; the offset of the centroid from the digit's centre is solved for."""
    pace = torch.arange(0.3, 2.7, min(0.05, 0.8 / (int(time[-1]) + 1)), device=centre.device)  # finer for a longer clip
    share = torch.arange(0.0, 8.01, 0.5, device=centre.device)
    low, high = WALLS
    best = ("", "", math.inf)
    for name, axis, sign in (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)):
        # In the half it moves away from, as every clip does: else "left from the left wall" is "right", reflected at once.
        start = low + share if sign > 0 else high - share
        along = reflect(start[None, :, None] + sign * pace[:, None, None] * time)  # paces starts t
        offset = (centre[:, axis] - along).mean(-1, keepdim=True).clamp(-3, 3)
        across = centre[:, 1 - axis] - centre[:, 1 - axis].mean()
        error = (centre[:, axis] - along - offset).square().mean(-1) + across.square().mean()  # paces starts
        rms = float(error.min().sqrt())
        if rms < best[2]:
            units = float(pace[error.argmin() // len(start)])
            best = (f"moving {name}", _nearest(UNITS_PER_FRAME, units), rms)
    return best


def _fit_circles(centre: Tensor, time: Tensor) -> tuple[str, str, float]:
    """The nearest circle, as words."""
    turns, rms = fit_circle(centre, time)
    way = "clockwise" if turns > 0 else "anticlockwise"
    return f"circling {way}", _nearest(FRAMES_PER_TURN, 1 / abs(turns)), rms


def fit_circle(centre: Float[Tensor, "t 2"], time: Int[Tensor, " t"]) -> tuple[float, float]:
    """The circle nearest to centres (x, y) in units: turns a frame, clockwise above 0, and the RMS distance to it in units.

    Least squares for each period of 6 to 42 frames: x + iy = middle + radius · exp(iωt), linear in two complex unknowns.
    """
    turns = torch.arange(1 / 42, 1 / 6, 1 / (16 * max(int(time[-1]) + 1, 16)), device=centre.device)  # a frame
    omega = 2 * math.pi * torch.cat([turns, -turns])  # y points down, so that clockwise is positive
    turn = torch.polar(torch.ones(len(omega), len(time), device=centre.device), omega[:, None] * time)
    place = torch.complex(centre[:, 0], centre[:, 1])
    turn, place = turn - turn.mean(1, keepdim=True), place - place.mean()
    radius = (place * turn.conj()).sum(1) / turn.abs().square().sum(1).clamp(min=1e-6)
    error = (place - radius[:, None] * turn).abs().square().mean(1)
    error = torch.where((radius.abs() > 2) & (radius.abs() < 9), error, math.inf)
    best = int(error.argmin())
    return float(torch.cat([turns, -turns])[best]), float(error[best].sqrt())


def _nearest(table: dict[str, float], value: float) -> str:
    return min(table, key=lambda speed: abs(math.log(table[speed] / value)))


def compare(readings: list[Reading], subjects: tuple[Subject, ...]) -> list[dict]:
    """Match readings to a caption's subjects by colour, and say of each attribute whether it agrees.

    An attribute that the caption leaves open agrees, if there is anything; a plain "moving right" means the middle speed.
    """
    left = list(readings)
    matched = [next((reading for reading in left if reading.colour == subject.colour), None) for subject in subjects]
    left = [reading for reading in left if reading not in matched]
    result = []
    for subject, reading in zip(subjects, matched, strict=True):
        reading = reading or left.pop(0)
        there = reading.colour != ""
        timed = subject.motion != "standing still" and (subject.motion or subject.speed)
        moves = reading.motion != "standing still"
        agrees = {
            "digit": reading.digit == subject.digit,
            "colour": reading.colour == subject.colour,
            "motion": there and subject.motion in ("", reading.motion),
            "speed": there and (not timed or (moves and reading.speed == subject.speed)),
        }
        result.append(asdict(reading) | {"agrees": agrees})
    return result


def judge_crops(
    images: Float[Tensor, "n 3 h w"], colours: Int[Tensor, " n"], pixels: int
) -> Float[Tensor, "n 1 pixels pixels"]:
    """The crop of the object of a given colour (its number) of each image, as `read` makes it: for training the classifier."""
    masses = colour_masses(images)[torch.arange(len(images), device=images.device), colours]
    return crops(masses, centroids(masses)[0], pixels)


@cache
def load_judge(device: str = "cpu") -> DigitClassifier:
    """The shipped digit classifier (of scale `tiny`; its crops are the same at every scale)."""
    return trained("judge", get_scale("tiny")).eval().to(device)


@pinned()
def assess(video: Float[Tensor, "t 3 h w"], caption: str, classifier: DigitClassifier | None = None) -> dict:
    """Read a video (T, 3, H, W) in [0, 1] and compare it with a caption.

    Returns `digit`, `colour`, `motion`, `speed`, `same_digit` ... of the first object of the caption (see `Reading`),
    `agrees` (a bool for each of the first four: do all objects agree?), and `objects`, the same for each object.
    Raises `ValueError` for a bad video or caption, or a caption with two objects of one colour; `TypeError` for another type.
    """
    if not isinstance(classifier, DigitClassifier | None):
        raise TypeError(f"classifier must be a DigitClassifier, not {type(classifier).__name__}")
    video = check_video(video, "video", (None, 3, None, None))
    subjects = parse_caption(caption)
    if len({subject.colour for subject in subjects}) < len(subjects):
        raise ValueError(f"the judge tells objects apart by colour, and caption {caption!r} has two of one colour")
    objects = compare(read(video, classifier or load_judge(str(video.device)), len(subjects)), subjects)
    agrees = {key: all(thing["agrees"][key] for thing in objects) for key in objects[0]["agrees"]}
    return objects[0] | {"agrees": agrees, "objects": objects}
