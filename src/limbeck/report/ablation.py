"""Ablation: compare every measured candidate with the measured candidate that lacks only one of its steps.

Verdicts on speed are those of ``is_faster``: a gain within the noise does not count as one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.metrics import counts_rows
from limbeck.core.paired import ResampledLoss, loss_against
from limbeck.core.speed_up import Ratio, Verdict, is_faster
from limbeck.core.statistics import LEVEL, difference_of_shares, unpack
from limbeck.report.formatting import signed
from limbeck.report.summary import RunSummary, once


@dataclass(frozen=True)
class Gain:
    """Effect of one step, or of several that are only measured together, all other steps being equal."""

    key: str
    without: str
    steps: tuple[str, ...]
    verdict: Verdict
    speed: Ratio
    points: float | None
    points_low: float | None
    points_high: float | None
    sentence: str


@once
def gains(summary: RunSummary) -> tuple[Gain, ...]:
    """Compute the effect of each step of each measured candidate.

    If no candidate was measured that lacks a step alone (pruned models are not measured before distillation), the step
    is taken together with the ones after it: 'prune → distill'.
    """
    signatures = {key: _signature(summary.lineage(key)) for key in summary.candidates}
    owner = {signature: key for key, signature in reversed(signatures.items())}
    gains: list[Gain] = []
    for key in summary.candidates:
        signature = signatures[key]
        for start in range(1, len(signature)):
            for stop in range(start + 1, len(signature) + 1):
                relative = owner.get(signature[:start] + signature[stop:])
                if relative is not None and relative != key:
                    gains += _gain(summary, key, relative, tuple(step for step, _ in signature[start:stop]))
                    break
    return tuple(gains)


def _signature(chain: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Return a lineage as comparable values: each step with its parameters."""
    return tuple((record.step, json.dumps(record.parameters, sort_keys=True, default=str)) for record in chain)


def _gain(summary: RunSummary, key: str, relative: str, steps: tuple[str, ...]) -> list[Gain]:
    record, other = summary.records[key], summary.records[relative]
    name = summary.budget.latency_fact
    fact, reference = record.fact(name), other.fact(name)
    if fact is None or reference is None:
        return []
    verdict, value, low, high = is_faster(fact, reference)
    speed = Ratio(value, low, high)
    points = quality_change(record.fact("quality", summary.split), other.fact("quality", summary.split))
    same_work = record.shape == other.shape and record.traits == other.traits
    sentence = "; ".join(
        part for part in (_speed_words(verdict, speed, same_work), _points_words(summary, points)) if part
    )
    return [Gain(key, relative, steps, verdict, speed, *points, sentence)]


def quality_change(
    fact: Measurement | None, reference: Measurement | None
) -> tuple[float | None, float | None, float | None]:
    """Compute the change of quality in points of the metric, with a 95 % interval if both have stored answers.

    Both models are compared on the same examples, or on the same resamples of them, which has a much smaller spread
    than two independent values.
    """
    if fact is None or reference is None:
        return None, None, None
    points = (fact.value - reference.value) * 100
    if isinstance(loss := loss_against(fact, reference), ResampledLoss):
        low, high = np.quantile(-loss.values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return points, float(low), float(high)
    after, before = correct(fact), correct(reference)
    if after is None or before is None or len(after) != len(before) or not counts_rows(fact.detail.get("metric")):
        return points, None, None
    change = difference_of_shares(after, before)
    return points, change.low * 100, change.high * 100


def correct(fact: Measurement) -> np.ndarray | None:
    """Return which examples were answered correctly [examples], bool, in the order of the split."""
    packed = fact.detail.get("correct")
    return unpack(packed, fact.n) if packed and fact.n else None


def _speed_words(verdict: Verdict, speed: Ratio, same_work: bool) -> str:
    if verdict == "faster":
        return f"{speed.value:.2f}x faster {str(speed).split(' ', 1)[1]}"
    if verdict == "slower":
        return f"slower: {speed}"
    if verdict == "unproven":
        return f"{speed} (measured without an interval, so nothing is proven)"
    return f"speed as before: {speed}" if same_work else f"no measurable gain: {speed}"


def _points_words(summary: RunSummary, change: tuple[float | None, float | None, float | None]) -> str:
    points, low, high = change
    if points is None:
        return ""
    text = f"{summary.metric} {signed(points)} points"
    if low is None or high is None:
        return text
    return f"{text} [{signed(low)}, {signed(high)}]" + (" (within the noise)" if low <= 0.0 <= high else "")
