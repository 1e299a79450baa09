"""The rival of one pass: keyframes, then temporal super-resolution (TSR) in short windows. Claims 5 and 6.

    caption ─► keyframe net ─► frames 0, 8, 16 … 80, all at once
                   │ 0  8  16    │ 16 24 32          │ 64 72 80
    caption ─► TSR net         TSR net    …        TSR net            each window alone: 20 frames, 3 of them given
                   └ 0 … 15      └ 16 … 31           └ 64 … 79        what lies past the third keyframe is thrown away

What Lumiere argues against (section 1): keyframes alias fast motion, a window is too short to say what it was, and TSR learns
from real frames and is run on generated ones. The paper shows examples; here both sides are nets of one kind, and measured.

The rival is built with the same care. Both its nets are STUNets over the same frozen image net, begin with the same shipped
weights, and are sampled by the same `Pipeline`: sampler, steps, guidance, image net's guidance. The keyframe net does not halve
time, because its frames have little in common. TSR is masked conditioning, which the shipped weights know; a window has two
gaps, so that it sees which way things were going. From there both sides are trained on as many frames (`training.rival`), or
the cascade alone: what it then has had more is about one per cent of what the shipped weights have had. It has nearly twice the
parameters that train, and takes 111 frames through a net, one pass 80. All of that is in its favour. Our choice throughout: the
paper discloses no cascade. Notebook 11.
"""

import json
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from jaxtyping import Float
from torch import Tensor

from minilumiere.config import Scale, get_scale
from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, parse_caption
from minilumiere.dataset.paths import FRAMES_PER_TURN
from minilumiere.evaluation.claims.verdicts import HOLDS, OPEN, above, interval
from minilumiere.evaluation.judge import assess, fit_circle, read_motion
from minilumiere.evaluation.quality import EVALUATION_SEED, batches, real_clips, with_interval
from minilumiere.evaluation.tasks import centres
from minilumiere.model.stunet import STUNet
from minilumiere.pipeline import Pipeline
from minilumiere.torch_state import global_generator, pinned
from minilumiere.validate import check_device
from minilumiere.weights.checkpoint import load_weights, read_checkpoint, write_atomically
from minilumiere.weights.nets import trained
from minilumiere.weights.shipped import read_shipped

EVERY = 8  # frames from one keyframe to the next: fast circles turn once in 7 to 9
FRAMES = 80
STRIDE = 2 * EVERY  # frames that a window keeps: two gaps
GIVEN = (0, EVERY, 2 * EVERY)  # of a window
WINDOW = 2 * EVERY + 4  # its frames: those up to the third keyframe, and so many more that STUNets can halve them twice
KEYFRAMES = 11  # the last is the frame after the clip, where the last window ends
SEEDS = 3  # of training
ONE_PASS = "one-pass"
# What is measured, and the nets that it takes; the last is TSR fed keyframes of real clips.
SIDES = {ONE_PASS: (ONE_PASS,), "cascade": ("keyframes", "tsr"), "real keyframes": ("tsr",)}
TRAINING = ("stage", "step", "batch", "minutes", "device")  # facts that are told; a stage `base` is as shipped
CAPTIONS = 18  # a seed: three for each speed of lines, and of circles
ALLOWED = 0.14  # share by which a circle's rate may differ from its word: data have ± 12 %, and the fit's grid ± 1.3 %


def alias(turns: float, every: int = EVERY) -> float:
    """What a motion of `turns` a frame looks like to one who sees every so many-th frame: turns a look, in [-1/2, 1/2].

    Whole turns between two looks can't be seen. A circle of 9 frames turns 8/9 between keyframes, and seems to go back 1/9.
    """
    seen = turns * every
    return seen - round(seen)


@dataclass(frozen=True)
class Cascade:
    """The two nets of the rival, as pipelines of one scale."""

    keyframes: Pipeline
    tsr: Pipeline

    def generate(self, captions: list[str], seed: int = 0, frames: int = FRAMES) -> Float[Tensor, "n t 3 h w"]:
        """Base clips in [0, 1], a multiple of `STRIDE` frames long; the i-th clip hangs on seed + i alone."""
        return self.fill(self.generate_keyframes(captions, seed, frames), captions, seed)

    def generate_keyframes(self, captions: list[str], seed: int = 0, frames: int = FRAMES) -> Float[Tensor, "n k 3 h w"]:
        """Every 8th frame, up to and including the one after the last."""
        return self.keyframes.generate(captions, seed, frames=frames // EVERY + 1, super_resolution=False)

    def fill(self, keyframes: Float[Tensor, "n k 3 h w"], captions: list[str], seed: int = 0) -> Float[Tensor, "n t 3 h w"]:
        """All frames between keyframes, which come back as they are; the last is not part of the clip."""
        clips = []
        for number, (video, mask) in enumerate(windows_of(keyframes)):
            options = {"seed": 1000 * (number + 1) + seed, "super_resolution": False}
            clips.append(self.tsr.inpaint(video, mask, captions, **options)[:, :STRIDE])
        return torch.cat(clips, dim=1)


def windows_of(keyframes: Float[Tensor, "n k 3 h w"]) -> list[tuple[Tensor, Tensor]]:
    """What TSR is given, window by window: clips (n, 20, 3, h, w) that hold three keyframes, and a mask (20, 1, h, w)."""
    mask = torch.zeros(WINDOW, 1, *keyframes.shape[-2:])
    mask[list(GIVEN)] = 1
    windows = []
    for first in range(0, keyframes.shape[1] - 2, 2):
        windows.append((keyframes.new_zeros(len(keyframes), WINDOW, *keyframes.shape[2:]), mask))
        windows[-1][0][:, list(GIVEN)] = keyframes[:, first : first + 3]
    return windows


# The nets


def part_folder(run_folder: Path, part: str, seed: int) -> Path:
    """Where a net is trained."""
    return Path(run_folder) / "rival" / f"{part}-{seed}"


def read_part(run_folder: Path, part: str, seed: int, scale: Scale) -> tuple[dict[str, Tensor], dict]:
    """The weights of a trained net (EMA) and the facts of its training. `FileNotFoundError` unless it is trained to its end.

    Where the one-pass net is not trained further at all, it is the shipped one.
    """
    path = part_folder(run_folder, part, seed) / "checkpoint.safetensors"
    if part == ONE_PASS and not path.is_file():
        return read_shipped("base", scale)
    tensors, facts = read_checkpoint(path, stage=part, scale=scale.name) if path.is_file() else ({}, {})
    if not facts or facts["step"] < facts["steps"]:
        raise FileNotFoundError(f"{path.parent} is not trained to its end: 'minilumiere claims --train' goes on with it")
    return {name.removeprefix("ema."): tensor for name, tensor in tensors.items() if name.startswith("ema.")}, facts


def pipeline_of(weights: dict[str, Tensor], scale: Scale, device: torch.device, halvings: int) -> Pipeline:
    """The pipeline of a scale with other temporal layers, which halve time so many times."""
    with global_generator():
        net = STUNet.from_t2i(trained("t2i", scale), halvings, verbose=False)
    load_weights(net, weights)
    return Pipeline(scale, net.requires_grad_(False), trained("ssr", scale), device)


# What is measured


def balanced_captions(n: int) -> list[str]:
    """`n` captions of one object: lines and circles in turn, each slowly, plainly and quickly; other colours and digits."""
    kinds = [[motion for motion in MOTIONS if motion.startswith(verb)] for verb in ("moving", "circling")]
    cases, captions = list(product(range(3), range(2))), []
    for i in range(n):
        speed, kind = cases[i % len(cases)]
        motion = kinds[kind][i // len(cases) % len(kinds[kind])]
        captions.append(f"a {list(COLOURS)[i * 3 % 7]} {i * 7 % 10} {motion} {SPEEDS[speed]}".strip())
    return captions


def read_clip(clip: Float[Tensor, "t 3 h w"], caption: str) -> dict:
    """What is right about a clip of one object: `path` and `keyframe path` are RMS distances to the best ideal path in units
    of 32, of all frames and of every 8th; `period` is of circles, else None."""
    subject, reading = parse_caption(caption)[0], assess(clip, caption)
    centre = centres(clip, subject.colour)
    at_keyframes = torch.arange(len(clip), device=clip.device) % EVERY == 0
    circling = subject.motion.startswith("circling")
    return {
        "circling": circling,
        "said speed": subject.speed,
        "motion": reading["agrees"]["motion"],
        "speed": reading["agrees"]["speed"],
        "digit": reading["constant_digit"] == 1,
        "path": reading["path_rms"],
        "keyframe path": read_motion(centre, at_keyframes)[2],
        "period": period_error(centre, subject.speed) if circling else None,
    }


def period_error(centre: Float[Tensor, "t 2"], speed: str) -> float:
    """How far the rate of the nearest circle is from what its word allows, as a share of the word's rate; at most 1."""
    turns, _ = fit_circle(centre, torch.arange(len(centre), device=centre.device))
    return min(1.0, max(0.0, abs(abs(turns) * FRAMES_PER_TURN[speed] - 1) - ALLOWED))


def summary(rows: list[dict]) -> dict[str, float]:
    """The mean of each measure. `added`: how much farther from its path all of a clip is than its keyframes are."""
    means = {key: mean(row[key] for row in rows) for key in ("motion", "speed", "digit", "path", "keyframe path")}
    periods = [row["period"] for row in rows if row["period"] is not None]
    means["added"] = means["path"] - means["keyframe path"]
    return means | ({"period": mean(periods)} if periods else {})


@pinned()
def measure_side(
    run_folder: Path, side: str, seed: int, captions: list[str], scale: str = "tiny", device: str | None = None
) -> dict:
    """`rows` of `read_clip` of one side and seed, one a caption, and the `seconds` of the processor that the clips took.

    They are kept in the run's folder, batch by batch: what was measured with these weights and captions is not done again.
    """
    preset, device = get_scale(scale), check_device(device)
    path = Path(run_folder) / "rival" / f"{side.replace(' ', '-')}-{seed}.json"
    nets = [read_part(run_folder, part, seed, preset) for part in SIDES[side]]
    of = [facts["sha256"] for _, facts in nets] + captions
    stored = json.loads(path.read_text()) if path.is_file() else {}
    stored = stored if stored.get("of") == of else {"of": of, "rows": [], "seconds": 0.0}
    if len(stored["rows"]) < len(captions):
        pipes = [pipeline_of(weights, preset, device, facts["config"]["halvings"]) for weights, facts in nets]
        for part in batches(pipes[0], captions, f"{side}, seed {seed}"):
            if part.start >= len(stored["rows"]):
                begun = time.process_time()
                clips = clips_of(side, pipes, captions[part], 10_000 * seed + part.start).cpu()
                stored["seconds"] += time.process_time() - begun
                stored["rows"] += [read_clip(clip, caption) for clip, caption in zip(clips, captions[part], strict=True)]
                write_atomically(path, json.dumps(stored).encode())
    return stored


def clips_of(side: str, pipes: list[Pipeline], captions: list[str], seed: int) -> Float[Tensor, "n t 3 h w"]:
    """Base clips of 80 frames of one of the `SIDES`, by the pipelines of its nets."""
    if side == ONE_PASS:
        return pipes[0].generate(captions, EVALUATION_SEED + seed, frames=FRAMES, super_resolution=False)
    if side == "cascade":
        return Cascade(*pipes).generate(captions, EVALUATION_SEED + seed)
    real = real_clips(pipes[0], captions, seed, FRAMES + 1, large=False)
    return Cascade(*pipes, *pipes).fill(real[:, ::EVERY].to(pipes[0].device), captions, EVALUATION_SEED + seed)


def trained_seeds(run_folder: Path, sides: tuple[str, str], scale: Scale, seeds: int) -> dict[int, dict[str, dict]]:
    """The facts of the nets of two sides, by seed: of those that are trained to their end. `FileNotFoundError` for none."""
    found, missing, parts = {}, None, sorted({part for side in sides for part in SIDES[side]})
    for seed in range(seeds):
        try:
            facts = {part: read_part(run_folder, part, seed, scale)[1] for part in parts}
            found[seed] = {part: {key: fact[key] for key in TRAINING} for part, fact in facts.items()}
        except FileNotFoundError as error:
            missing = missing or error
    if not found:
        raise missing
    return found


def compare(row: str, run_folder: Path, sides: tuple[str, str], progress: bool, captions: int, seeds: int) -> dict:
    """What the two claims (`row` 5 and 6) share: both sides measured, by seed and by speed."""
    facts = trained_seeds(run_folder, sides, get_scale("tiny"), seeds)
    asked = balanced_captions(captions * seeds)
    rows, seconds = {side: [] for side in sides}, dict.fromkeys(sides, 0.0)
    for seed, side in product(facts, sides):
        stored = measure_side(run_folder, side, seed, asked[seed * captions : (seed + 1) * captions])
        rows[side].append(stored["rows"])
        seconds[side] += stored["seconds"] / captions / len(facts)
        if progress:
            print(f"{side}, seed {seed}: {len(stored['rows'])} clips")
    flat = {side: [row for each in rows[side] for row in each] for side in sides}
    return {
        "measured": "; ".join(f"{side}: {told(flat[side])}" for side in sides),
        "n": captions * len(facts),
        "command": f"minilumiere claims --train --only {row}",
        "settings": {
            "clips": f"{FRAMES} frames of 32x32, one object, {captions} captions a seed, lines and circles at three speeds",
            "seeds": list(facts),
            "minutes": round(sum(net["minutes"] for nets in facts.values() for net in nets.values()), 1),
            "training": {f"seed {seed}": nets for seed, nets in facts.items()},
            "frames through a net": {ONE_PASS: FRAMES, "cascade": KEYFRAMES + FRAMES // STRIDE * WINDOW},
            "processor seconds a clip": {side: round(value, 1) for side, value in seconds.items()},
        },
        "values": {
            "all": {side: summary(flat[side]) for side in sides},
            "by speed": {side: by_speed(flat[side]) for side in sides},
            "by seed": {side: [summary(each) | by_speed(each) for each in rows[side]] for side in sides},
        },
    }


def by_speed(rows: list[dict]) -> dict[str, dict[str, float]]:
    """The measures of each speed."""
    return {speed or "plainly": summary([row for row in rows if row["said speed"] == speed]) for speed in SPEEDS}


def told(rows: list[dict]) -> str:
    """The measures of some clips in words."""
    means, n, names = summary(rows), len(rows), {"motion": "motion right", "speed": "speed right", "digit": "digit kept"}
    shares = ", ".join(f"{name} {with_interval(means[key], n)} %" for key, name in names.items())
    return f"path error {means['path']:.2f} of 32, period error {means['period']:.2f}, {shares}"


def judged(more: list[float]) -> tuple[str, str]:
    """A difference, one for each seed of training: in words, and the verdict on "it is above 0", open below three seeds."""
    if len(more) < SEEDS:
        return f"{mean(more):.2f} ({len(more)} of {SEEDS} seeds)", OPEN
    return f"{interval(more).show()} ({len(more)} seeds)", above(interval(more))


def measure_consistency(run_folder: Path, progress: bool = True, captions: int = CAPTIONS, seeds: int = SEEDS) -> dict:
    """Claim 5. It holds if the cascade is farther from its path, and the more so, the faster things move.

    Keyframes do not alias what is slow. A cascade that is worse there, too, is one that was trained too little: that leaves the
    claim open. Raises `FileNotFoundError` where no seed is trained to its end.
    """
    found = compare("5", run_folder, (ONE_PASS, "cascade"), progress, captions, seeds)
    pairs = list(zip(*found["values"]["by seed"].values(), strict=True))
    farther, verdict = judged([after["path"] - before["path"] for before, after in pairs])
    more = [{speed: b[speed]["path"] - a[speed]["path"] for speed in ("slowly", "quickly")} for a, b in pairs]
    faster, grows = judged([each["quickly"] - each["slowly"] for each in more])
    speeds = found["values"]["by speed"]
    paths = [f"{name} {speeds[ONE_PASS][name]['path']:.2f}, {means['path']:.2f}" for name, means in speeds["cascade"].items()]
    short = f"path error by speed, one pass and cascade: {'; '.join(paths)}"
    return found | {
        "claim": "one pass is more globally consistent than keyframes and temporal super-resolution",
        "paper": "keyframes alias fast motion, and TSR's windows are too short to resolve it (section 1): examples, unmeasured",
        "measured": f"{found['measured']}; {short}",
        "short": short,
        "spread": f"the cascade's path error is larger by {farther}; by how much more for quick clips than for slow: {faster}",
        "verdict": verdict if verdict != HOLDS or grows == HOLDS else OPEN,
    }


def measure_domain_gap(run_folder: Path, progress: bool = True, captions: int = CAPTIONS, seeds: int = SEEDS) -> dict:
    """Claim 6: TSR fed real keyframes, and its own cascade's. The verdict is on what TSR adds to its keyframes' path error."""
    found = compare("6", run_folder, ("real keyframes", "cascade"), progress, captions, seeds)
    more, verdict = judged([b["added"] - a["added"] for a, b in zip(*found["values"]["by seed"].values(), strict=True)])
    added = (f"{side} {means['keyframe path']:.2f} + {means['added']:.2f}" for side, means in found["values"]["all"].items())
    short = f"path error of keyframes + what TSR adds: {', '.join(added)}"
    return found | {
        "claim": "a cascade suffers a domain gap",
        "paper": "TSR learns from real frames and is run on generated ones (section 1): an argument, unmeasured",
        "measured": f"{found['measured']}; {short}",
        "short": short,
        "spread": f"TSR adds more to generated keyframes than to real ones, by {more}",
        "verdict": verdict,
    }
