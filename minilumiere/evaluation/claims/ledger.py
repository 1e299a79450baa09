"""Every claim of the paper that small scale can test: what is measured, and whether it holds. `minilumiere claims`.

    LEDGER ──► plan ──► measure, one row a file ──► data/claims.json ──► the tables of README.md and docs/results.md
                           runs/claims/rows/3.json      (docs/claims.py)

Killed at any moment, the same command goes on with the rows that it had not measured; one that ended begins anew. Rows of small
trainings are read from `runs/claims`, where `--train` puts them; where none are, the row in the ledger stays as it was.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilumiere.config import DATA
from minilumiere.evaluation import cascade, metrics
from minilumiere.evaluation.claims import costs, samples, trained
from minilumiere.evaluation.claims.verdicts import VERDICTS
from minilumiere.weights.checkpoint import write_atomically
from minilumiere.weights.shipped import read_manifest

LEDGER_FILE = DATA / "claims.json"
RUNS = Path("runs") / "claims"
KEYS = ("claim", "paper", "measured", "spread", "n", "verdict", "command", "settings")
Measure = Callable[[Path, bool], dict]


@dataclass(frozen=True)
class Claim:
    """One row of the ledger."""

    row: str
    about: str
    measure: Measure  # given the folder of trainings, and whether to show bars
    minutes: float  # on two idle CPU cores
    trained: bool = False  # is it read from trainings?


LEDGER = (
    Claim("1", "initialisation of temporal resampling", trained.judge_initialisation, 0, True),
    Claim("2", "factorised convolution: quality", trained.judge_factorisation, 0, True),
    Claim("2b", "factorised convolution: cost", costs.measure_factorisation, 0.2),
    Claim("3", "temporal attention over T", costs.measure_attention, 0.3),
    Claim("4", "temporal resampling: cost", costs.measure_compactness, 1),
    Claim("4b", "temporal resampling: quality", trained.judge_compact, 0, True),
    Claim("5", "one pass beside a cascade", cascade.measure_consistency, 0, True),
    Claim("6", "the cascade's domain gap", cascade.measure_domain_gap, 0, True),
    Claim("7", "seams of super-resolution", samples.measure_seams, 1),
    Claim("8", "α: style against motion", samples.measure_styles, 7.5),
    Claim("9", "frozen image weights", trained.judge_prior, 0, True),
    Claim("10", "masked conditioning", samples.measure_conditioning, 4),
    Claim("11", "where the inflated net starts", samples.measure_start, 0.5),
)
METRICS, METRICS_MINUTES = "metrics", 5.0  # the laboratory, measured last: it is no claim, and has a file of its own


def chosen(only: list[str] | None) -> tuple[list[Claim], bool]:
    """The claims asked for (default: all), and whether the laboratory is. Raises `ValueError` naming the choices."""
    rows = {claim.row: claim for claim in LEDGER}
    if unknown := [name for name in only or () if name not in (*rows, METRICS)]:
        raise ValueError(f"there is no claim {unknown[0]!r}: choose from {', '.join((*rows, METRICS))}")
    return [claim for claim in LEDGER if not only or claim.row in only], not only or METRICS in only


def read_ledger(path: Path = LEDGER_FILE) -> list[dict]:
    """The rows of a ledger, in order; none where there is no file. Raises `ValueError` for anything else in it."""
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_bytes())
        for row in rows:
            if missing := [key for key in ("row", *KEYS) if key not in row]:
                raise ValueError(f"a row has no {missing[0]!r}")
            if row["verdict"] not in VERDICTS:
                raise ValueError(f"{row['verdict']!r} is no verdict")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no ledger of claims ({error}): remove it, or give another --output") from error
    return rows


def write_ledger(path: Path, row: dict) -> None:
    """Put a row in the place of the one of its number; the others stay."""
    rows = {each["row"]: each for each in read_ledger(path)} | {row["row"]: row}
    order = [claim.row for claim in LEDGER]
    ordered = sorted(rows.values(), key=lambda each: order.index(each["row"]) if each["row"] in order else len(order))
    write_atomically(path, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())


def measure_claims(
    only: list[str] | None = None, path: Path = LEDGER_FILE, run_folder: Path = RUNS, progress: bool = True
) -> Iterator[str]:
    """Measure the claims asked for and write each into the ledger at once. Yields lines to print: a plan, then the rows.

    Raises `ValueError` for an unknown claim or a broken ledger, before anything is measured.
    """
    claims, laboratory = chosen(only)
    before = {row["row"] for row in read_ledger(path)}
    files = {claim.row: run_folder / "rows" / f"{claim.row}.json" for claim in claims}
    yield f"{'claim':<8}{'minutes':>8}  about"
    for claim in claims:
        when = "done" if files[claim.row].is_file() else "trained" if claim.trained else f"{claim.minutes:.1f}"
        yield f"{claim.row:<8}{when:>8}  {claim.about}"
    if laboratory:
        yield f"{METRICS:<8}{METRICS_MINUTES:>8.1f}  the laboratory of metrics"
    for claim in claims:
        if files[claim.row].is_file():
            row = json.loads(files[claim.row].read_bytes())
        else:
            begun = time.monotonic()
            try:
                row = {"row": claim.row} | claim.measure(run_folder, progress)
            except FileNotFoundError as missing:
                if not claim.trained:
                    raise
                kept = "the row stays as it was" if claim.row in before else "no row yet"
                yield f"{claim.row}: {missing}; {kept}"
                continue
            row["settings"].setdefault("minutes", round((time.monotonic() - begun) / 60, 2))
            row["settings"]["weights"] = shipped_weights()
            write_atomically(files[claim.row], json.dumps(row).encode())
        write_ledger(path, row)
        yield f"{claim.row}: {row['verdict']}: {row['claim']}. {row['measured']}"
    if laboratory:
        found = metrics.laboratory(progress)
        write_atomically(path.with_name("metrics.json"), (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
        yield f"{METRICS}: {path.with_name('metrics.json')}"
    for file in files.values():  # all that was asked for is in the ledger: the next call measures again
        file.unlink(missing_ok=True)


def shipped_weights() -> dict[str, str]:
    """Which weights of `tiny` a row was measured on: the first digits of their checksums."""
    found = read_manifest()
    return {name: found.get(f"tiny/{name}.safetensors", {}).get("sha256", "")[:8] for name in ("t2i", "base", "ssr")}


def short_table(rows: list[dict]) -> str:
    """Claim, paper, what was measured (in `short`, if a row has that), verdict: in Markdown, for the README."""
    lines = ["| | claim | the paper | here | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        measured = row.get("short", row["measured"])
        lines.append(f"| {row['row']} | {row['claim']} | {row['paper']} | {measured} | **{row['verdict']}** |")
    return "\n".join(lines)


def long_table(rows: list[dict]) -> str:
    """Spread, n, settings, command of each row: in Markdown, for the results."""
    lines = ["| | verdict | measured | spread (95 % intervals) | n | settings | command |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        facts = row["settings"]
        told = [f"{key} {shown(facts[key])}" for key in ("batch", "steps", "seeds", "device", "minutes") if facts.get(key)]
        found = (row["verdict"], row["measured"], row["spread"], str(row["n"]))
        cells = (row["row"], *found, "; ".join(told), f"`{row['command']}`")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: object) -> str:
    """A setting as text: lists and the values of a dict side by side."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part)}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
