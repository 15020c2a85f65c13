"""Speed-up of one candidate over another, and whether it is significant."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from limbeck.core.measurement import Measurement
from limbeck.core.statistics import interval_of, paired_ratio, unpack_numbers

Verdict = Literal["faster", "slower", "no measurable gain", "unproven"]


class Ratio(NamedTuple):
    """A speed-up with its 95 % interval, if there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.2f}x" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else "")


def speed_ratio(fact: Measurement, reference: Measurement) -> Ratio:
    """Compute how many times faster ``fact`` is than ``reference`` (both ``latency_p50``).

    Measurements of one session alternated, so their ratio is taken round by round: a momentary slowdown of the machine
    affects both. If it depends on what a text says how much one of the models computes, it is taken on resamples of
    rounds and texts, the same of both. Otherwise the interval is the widest that the two intervals allow.
    """
    rounds, reference_rounds = fact.detail.get("rounds"), reference.detail.get("rounds")
    session = fact.detail.get("session")
    together = session is not None and session == reference.detail.get("session")
    value = reference.value / fact.value
    if fact.detail.get("by_text") or reference.detail.get("by_text"):
        above, below = reference.detail.get("resampled"), fact.detail.get("resampled")
        if together and above and below and len(above) == len(below):
            return _resampled(value, above, below)
    elif together and rounds and reference_rounds and len(rounds) == len(reference_rounds):
        return _paired(tuple(reference_rounds), tuple(rounds))
    if fact.low is None or fact.high is None or reference.low is None or reference.high is None:
        return Ratio(value)
    return Ratio(value, reference.low / fact.high, reference.high / fact.low)


@lru_cache(maxsize=4096)
def _paired(reference_rounds: tuple[float, ...], rounds: tuple[float, ...]) -> Ratio:
    """Compute the ratio round by round; cached, because page, table and sentences need the same pairs."""
    return Ratio(*(float(part) for part in paired_ratio(reference_rounds, rounds)))


@lru_cache(maxsize=4096)
def _resampled(value: float, reference: str, own: str) -> Ratio:
    """Return a ratio with its interval on the same resamples of rounds and texts, as :func:`pack_numbers` has them.

    Args:
        value: The ratio.
        reference: Times of the reference on the resamples.
        own: Those of the model.
    """
    return Ratio(*interval_of(value, unpack_numbers(reference) / unpack_numbers(own)))


def is_faster(fact: Measurement, reference: Measurement) -> tuple[Verdict, float, float | None, float | None]:
    """Test a difference in speed: 'faster' or 'slower' only if the whole interval is on that side of 1.

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
