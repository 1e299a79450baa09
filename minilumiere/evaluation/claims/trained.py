"""Claims 1, 2, 4b and 9: small trainings, matched but for one thing, read back and judged.

    runs/claims/ablations/nearest-0.json      one training: its recipe, its curve on the held-out clips, what it cost
    differences within a seed ──► interval over the seeds ──► verdict

`training/ablations.py` makes the files. Nets of one seed see the same batches and are measured on the same noisy clips.
"""

import json
from pathlib import Path

from minilumiere.evaluation.claims.variants import ALL_TUNED, FROZEN, FULL_3D, HE, NEAREST, NO_HALVINGS, ONE_D
from minilumiere.evaluation.claims.verdicts import Interval, above, differences, interval

SEEDS = (0, 1, 2)
COMMAND = "minilumiere claims --train --only {}"
VARIANTS_OF = {  # by claim: the nets that it compares
    "1": (NEAREST, HE),
    "2": (NEAREST, ONE_D, FULL_3D),
    "4b": (NEAREST, NO_HALVINGS),
    "9": (FROZEN, ALL_TUNED),
}


def run_path(run_folder: Path, name: str, seed: int) -> Path:
    """Where the result of one training lies."""
    return run_folder / "ablations" / f"{name.replace(' ', '-')}-{seed}.json"


def read_runs(run_folder: Path, name: str) -> list[dict]:
    """The results of a variant, by seed. Raises `FileNotFoundError` where one is missing, `ValueError` for a bad file."""
    results = []
    for seed in SEEDS:
        path = run_path(run_folder, name, seed)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: 'minilumiere claims --train' makes it")
        try:
            results.append(json.loads(path.read_bytes()))
            results[-1]["curve"][-1]["loss"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path} is no result of a training: remove it, and run 'minilumiere claims --train'") from error
    return results


def final_losses(runs: list[dict]) -> list[float]:
    return [run["curve"][-1]["loss"] for run in runs]


def higher(runs: list[dict], than: list[dict]) -> Interval:
    """By how much (a share) the final loss of each seed is higher than that of the other net."""
    return relative(final_losses(runs), final_losses(than))


def relative(losses: list[float], than: list[float]) -> Interval:
    return interval(loss / other - 1 for loss, other in zip(losses, than, strict=True))


def reached(curve: list[dict], loss: float, what: str = "step") -> float | None:
    """At which step (or what else a curve holds) a curve first gets down to a loss, between its points; None if it does not."""
    before = curve[0]
    for point in curve:
        if point["loss"] <= loss:
            share = 0.0 if point is before else (before["loss"] - loss) / (before["loss"] - point["loss"])
            return before[what] + share * (point[what] - before[what])
        before = point
    return None


def loss_at(curve: list[dict], amount: float, what: str) -> float:
    """The loss of a curve once so much of something was spent, between its points; at the ends, theirs."""
    before = curve[0]
    for point in curve:
        if point[what] >= amount:
            width = point[what] - before[what]
            share = (amount - before[what]) / width if width else 1.0
            return before["loss"] + share * (point["loss"] - before["loss"])
        before = point
    return curve[-1]["loss"]


def settings(*groups: list[dict]) -> dict:
    """What the trainings of a claim have in common, and what they took."""
    first, runs = groups[0][0], [run for group in groups for run in group]
    return {
        "parameters": {group[0]["name"]: group[0]["trainable"] for group in groups},
        "steps": {group[0]["name"]: group[0]["recipe"]["steps"] for group in groups},
        "batch": f"{first['recipe']['batch']} clips of {first['recipe']['frames']} frames of 32x32",
        "rate": first["recipe"]["rate"],
        "held_out": first["recipe"]["held_out"],
        "seeds": [run["seed"] for run in groups[0]],
        "device": first["device"],
        "minutes": round(sum(run["minutes"] for run in runs), 1),
    }


def curves(*groups: list[dict]) -> dict:
    """The curves of each net, seed by seed: steps, losses, seconds."""
    return {group[0]["name"]: [run["curve"] for run in group] for group in groups}


def judge_initialisation(run_folder: Path, progress: bool = False) -> dict:
    """Claim 1."""
    nearest, he = read_runs(run_folder, NEAREST), read_runs(run_folder, HE)
    gap, steps = higher(he, nearest), nearest[0]["recipe"]["steps"]
    ways = [reached(one["curve"], other["curve"][-1]["loss"]) for one, other in zip(nearest, he, strict=True)]
    got = [way for way in ways if way is not None]
    when = (
        f"reaches He's final loss after {sum(got) / len(got):.0f} of {steps} steps" if got else "never reaches He's final loss"
    )
    start = interval(run["curve"][0]["loss"] for run in he).mean / nearest[0]["curve"][0]["loss"]
    return {
        "claim": "nearest-neighbour initialisation of temporal resampling beats He initialisation",
        "paper": "ablation: it trains better",
        "measured": f"He starts at {start:.1f} times the loss and ends {100 * gap.mean:.1f} % higher; nearest-neighbour {when}",
        "spread": f"final loss higher by {gap.show(1, 100)} %",
        "n": len(SEEDS),
        "verdict": above(gap),
        "command": COMMAND.format(1),
        "settings": settings(nearest, he),
        "values": {"final": {NEAREST: final_losses(nearest), HE: final_losses(he)}, "curves": curves(nearest, he)},
    }


def judge_factorisation(run_folder: Path, progress: bool = False) -> dict:
    """Claim 2."""
    factorised, one_d, full = (read_runs(run_folder, name) for name in (NEAREST, ONE_D, FULL_3D))
    one_gap, full_gap = higher(one_d, factorised), higher(full, factorised)
    time_gap = equal_time(full, factorised)
    return {
        "claim": "factorised 2-D + 1-D convolution beats 1-D alone",
        "paper": "said, not measured: more expressive than 1-D, more non-linear than full 3-D",
        "measured": f"final loss of 1-D alone {100 * one_gap.mean:+.2f} %; of full 3-D {100 * full_gap.mean:+.2f} % at equal "
        f"steps, {100 * time_gap.mean:+.2f} % at equal time",
        "spread": f"1-D {one_gap.show(2, 100)} %; 3-D {full_gap.show(2, 100)} % (steps), {time_gap.show(2, 100)} % (time)",
        "n": len(SEEDS),
        "verdict": above(one_gap),
        "command": COMMAND.format(2),
        "settings": settings(factorised, one_d, full),
        "values": {
            "final": {runs[0]["name"]: final_losses(runs) for runs in (factorised, one_d, full)},
            "gflop_a_step": {runs[0]["name"]: runs[0]["flops_a_step"] / 1e9 for runs in (factorised, one_d, full)},
            "seconds_a_step": {runs[0]["name"]: seconds_a_step(runs) for runs in (factorised, one_d, full)},
            "curves": curves(factorised, one_d, full),
        },
    }


def seconds_a_step(runs: list[dict]) -> float:
    return sum(run["curve"][-1]["seconds"] / run["curve"][-1]["step"] for run in runs) / len(runs)


def equal_time(runs: list[dict], than: list[dict]) -> Interval:
    """`higher`, once both have had as many CPU seconds as the quicker of the two in all."""
    paces = seconds_a_step(runs), seconds_a_step(than)
    steps = min(run["curve"][-1]["step"] for run in (*runs, *than))
    amount = min(paces) * steps
    at = [
        [loss_at(run["curve"], amount / pace, "step") for run in group] for group, pace in zip((runs, than), paces, strict=True)
    ]
    return relative(*at)


def judge_compact(run_folder: Path, progress: bool = False) -> dict:
    """Claim 4b."""
    halved, whole = read_runs(run_folder, NEAREST), read_runs(run_folder, NO_HALVINGS)
    gap = higher(whole, halved)
    compute = {runs[0]["name"]: runs[0]["flops_a_step"] * runs[0]["curve"][-1]["step"] / 1e12 for runs in (halved, whole)}
    return {
        "claim": "at equal compute, temporal resampling costs no quality",
        "paper": "said, not measured",
        "measured": f"without resampling, the final loss is {100 * gap.mean:+.2f} % at equal training compute "
        f"({compute[NEAREST]:.1f} and {compute[NO_HALVINGS]:.1f} TFLOP; {whole[0]['recipe']['steps']} steps, not "
        f"{halved[0]['recipe']['steps']})",
        "spread": f"{gap.show(2, 100)} %",
        "n": len(SEEDS),
        "verdict": above(gap),
        "command": COMMAND.format("4b"),
        "settings": settings(halved, whole),
        "values": {
            "final": {NEAREST: final_losses(halved), NO_HALVINGS: final_losses(whole)},
            "teraflop": compute,
            "curves": curves(halved, whole),
        },
    }


def judge_prior(run_folder: Path, progress: bool = False) -> dict:
    """Claim 9."""
    frozen, tuned = read_runs(run_folder, FROZEN), read_runs(run_folder, ALL_TUNED)
    looks = {runs[0]["name"]: [share(run, "looks") for run in runs] for runs in (frozen, tuned)}
    motion = {runs[0]["name"]: [share(run, "motion") for run in runs] for runs in (frozen, tuned)}
    gap = differences(looks[FROZEN], looks[ALL_TUNED])
    unseen = relative(*([run["unseen"][-1]["loss"] for run in runs] for runs in (tuned, frozen)))
    seen = higher(tuned, frozen)
    n = len(frozen[0]["judged"]["looks"])
    shown = {name: 100 * sum(shares) / len(shares) for name, shares in looks.items()}
    return {
        "claim": "frozen text-to-image weights keep its prior",
        "paper": "said, not measured: only the temporal layers train",
        "measured": f"digit and colour right on pairs that no video showed: frozen {shown[FROZEN]:.1f} %, all fine-tuned "
        f"{shown[ALL_TUNED]:.1f} %; loss of all fine-tuned {100 * unseen.mean:+.1f} % on unseen pairs, "
        f"{100 * seen.mean:+.1f} % on seen ones",
        "spread": f"difference {gap.show(1, 100)} points; losses {unseen.show(1, 100)} %, {seen.show(1, 100)} %",
        "n": n * len(SEEDS),
        "verdict": above(gap),
        "command": COMMAND.format(9),
        "settings": settings(frozen, tuned) | {"sampling_steps": frozen[0]["recipe"]["sampling_steps"], "clips": n},
        "values": {
            "looks": looks,
            "motion": motion,
            "unseen": {runs[0]["name"]: [run["unseen"] for run in runs] for runs in (frozen, tuned)},
            "curves": curves(frozen, tuned),
        },
    }


def share(run: dict, key: str) -> float:
    right = run["judged"][key]
    return sum(right) / len(right)
