"""From numbers to a verdict, by rule: an interval decides, or leaves the claim open.

    interval of what the claim says is above a threshold        ├──┤ holds
    threshold                                              ─────┼─────
                                       does not hold ├──┤    ├──┼──┤ too small to tell

The threshold is 0 where two things are compared: no effect. Our choice; the paper gives no intervals.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

HOLDS, FAILS, OPEN = VERDICTS = ("holds", "does not hold", "too small to tell")
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 % of t, of 1 to 10 degrees of freedom


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def show(self, digits: int = 2, factor: float = 1.0) -> str:
        """As text, times a factor (100 for per cent)."""
        return f"{factor * self.mean:.{digits}f} [{factor * self.low:.{digits}f}, {factor * self.high:.{digits}f}]"


def interval(values: Iterable[float]) -> Interval:
    """The mean of values and its 95 % interval, by Student's t. Raises `ValueError` for fewer than two, or one not finite."""
    values = [float(value) for value in values]
    n = len(values)
    if n < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs two finite values or more, got {values}")
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = student(n - 1) * spread
    return Interval(mean, mean - half, mean + half, n)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t (from 11 on by its series in 1 / freedom: right to three decimals)."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = 1.959964
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / freedom**power for power, term in enumerate(terms))


def differences(larger: Iterable[float], smaller: Iterable[float]) -> Interval:
    """The mean of paired differences, with its interval: of the same seeds, clips or captions."""
    return interval(a - b for a, b in zip(larger, smaller, strict=True))


def above(value: Interval, threshold: float = 0.0) -> str:
    """The verdict on "it is above the threshold"."""
    return HOLDS if value.low > threshold else FAILS if value.high < threshold else OPEN


def below(value: Interval, threshold: float = 0.0) -> str:
    """The verdict on "it is below the threshold"."""
    return HOLDS if value.high < threshold else FAILS if value.low > threshold else OPEN


def together(*verdicts: str) -> str:
    """The verdict on a claim of several parts: it holds if all do, and does not if one does not."""
    return FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS
