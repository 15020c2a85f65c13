"""How many times faster one candidate is than another, and whether that is proven."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from limbeck.core.measurement import Measurement
from limbeck.core.statistics import paired_ratio

Verdict = Literal["faster", "slower", "no measurable gain", "unproven"]


class Ratio(NamedTuple):
    """How many times faster, with its 95 % interval when there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.2f}x" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else "")


def speed_ratio(fact: Measurement, reference: Measurement) -> Ratio:
    """How many times faster ``fact`` is than ``reference`` (both ``latency_p50``).

    Facts of one session were timed in turns: then the ratio is taken round by round, and what slowed the machine
    for a moment slowed both. Otherwise the interval is the widest that the two intervals allow.
    """
    mine, theirs = fact.detail.get("rounds"), reference.detail.get("rounds")
    session = fact.detail.get("session")
    together = session is not None and session == reference.detail.get("session")
    if together and mine and theirs and len(mine) == len(theirs):
        return _paired(tuple(theirs), tuple(mine))
    value = reference.value / fact.value
    if fact.low is None or fact.high is None or reference.low is None or reference.high is None:
        return Ratio(value)
    return Ratio(value, reference.low / fact.high, reference.high / fact.low)


@lru_cache(maxsize=4096)
def _paired(theirs: tuple[float, ...], mine: tuple[float, ...]) -> Ratio:
    """The bootstrap takes milliseconds and every page, table and sentence asks for the same pairs."""
    return Ratio(*(float(part) for part in paired_ratio(theirs, mine)))


def is_faster(fact: Measurement, reference: Measurement) -> tuple[Verdict, float, float | None, float | None]:
    """Judge a claim of speed: 'faster' or 'slower' only where the whole interval says so.

    >>> slow = Measurement("latency_p50", 0.008, "s", low=0.0079, high=0.0081)
    >>> fast = Measurement("latency_p50", 0.004, "s", low=0.0039, high=0.0041)
    >>> is_faster(fast, slow)[:2]
    ('faster', 2.0)
    >>> is_faster(slow, slow)[0]
    'no measurable gain'
    """
    ratio = speed_ratio(fact, reference)
    if ratio.low is None or ratio.high is None:
        return "unproven", *ratio
    if ratio.low > 1.0:
        return "faster", *ratio
    return ("slower" if ratio.high < 1.0 else "no measurable gain"), *ratio
