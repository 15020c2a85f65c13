"""What each step gained: every measured candidate beside the measured relative that lacks only that step.

This is the "is it faster?" gate told in words: a gain inside the noise is called none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.statistics import unpack
from limbeck.report.speed_up import Ratio, Verdict, is_faster
from limbeck.report.summary import RunSummary


@dataclass(frozen=True)
class Gain:
    """What one step (or two that belong together) changed, all other steps being the same."""

    key: str
    without: str
    steps: tuple[str, ...]
    verdict: Verdict
    speed: Ratio
    points: float | None
    points_low: float | None
    points_high: float | None
    sentence: str


def gains(summary: RunSummary) -> list[Gain]:
    """What each step of each measured candidate gained, against the measured relative that lacks only that step.

    Where none was measured without a step alone (nobody measures a pruned model before it is distilled), the step
    is taken together with those after it: 'prune → distill'.
    """
    signatures = {key: _signature(summary.lineage(key)) for key in summary.candidates}
    owner = {signature: key for key, signature in reversed(signatures.items())}
    found = []
    for key in summary.candidates:
        mine = signatures[key]
        for start in range(1, len(mine)):
            for stop in range(start + 1, len(mine) + 1):
                relative = owner.get(mine[:start] + mine[stop:])
                if relative is not None and relative != key:
                    found += _gain(summary, key, relative, tuple(step for step, _ in mine[start:stop]))
                    break
    return found


def _signature(chain: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """A lineage as comparable values: which step, with which parameters."""
    return tuple((record.step, json.dumps(record.parameters, sort_keys=True, default=str)) for record in chain)


def _gain(summary: RunSummary, key: str, relative: str, steps: tuple[str, ...]) -> list[Gain]:
    mine, theirs = summary.records[key], summary.records[relative]
    fact, reference = mine.fact("latency_p50"), theirs.fact("latency_p50")
    if fact is None or reference is None:
        return []
    verdict, value, low, high = is_faster(fact, reference)
    speed = Ratio(value, low, high)
    points = quality_change(mine.fact("quality", summary.split), theirs.fact("quality", summary.split))
    same_work = mine.shape == theirs.shape and mine.traits == theirs.traits
    sentence = "; ".join(
        part for part in (_speed_words(verdict, speed, same_work), _points_words(summary, points)) if part
    )
    return [Gain(key, relative, steps, verdict, speed, *points, sentence)]


def quality_change(
    mine: Measurement | None, theirs: Measurement | None
) -> tuple[float | None, float | None, float | None]:
    """Points of the metric gained (negative: lost), with a 95 % interval when both kept their answers.

    The answers are paired: for each example, was one right and the other wrong? Its spread is much smaller than
    that of two independent accuracies.
    """
    if mine is None or theirs is None:
        return None, None, None
    points = (mine.value - theirs.value) * 100
    first, second = correct(mine), correct(theirs)
    if first is None or second is None or len(first) != len(second) or mine.detail.get("metric") != "accuracy":
        return points, None, None
    difference = (first.astype(float) - second.astype(float)) * 100
    margin = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return points, points - margin, points + margin


def correct(fact: Measurement) -> np.ndarray | None:
    """Which examples were answered rightly, in the order of the split."""
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


def signed(value: float) -> str:
    """One decimal with a real minus sign.

    >>> signed(-0.44), signed(0.44), signed(-0.04)
    ('−0.4', '+0.4', '0.0')
    """
    text = f"{value:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")
