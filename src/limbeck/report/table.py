"""A run as a table: one row per measured candidate, with the Pareto front and its hypervolume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from limbeck.core import pareto
from limbeck.core.answer_changes import DRIFT, FLIPS
from limbeck.core.candidate import Record
from limbeck.core.measurement import CASCADE, Measurement
from limbeck.core.paired import evidence
from limbeck.core.pareto import beyond, hypervolume
from limbeck.core.speed_up import Ratio, speed_ratio
from limbeck.core.target import LatencyStatistic, TestedLimit
from limbeck.report.display_names import names
from limbeck.report.early_exits import exits_of
from limbeck.report.summary import RunSummary, once


@dataclass(frozen=True)
class Row:
    """One measured candidate, with its display name and figures."""

    key: str
    name: str
    quality: Mapping[str, Measurement]  # by split
    p50: Measurement | None
    p90: Measurement | None
    p99: Measurement | None
    mean: Measurement | None
    size: Measurement | None
    parameters: Measurement | None
    speedup: Ratio | None  # over the reference in PyTorch
    speedup_int8: Ratio | None  # over the reference in INT8
    drop: float | None  # points of the metric below the reference, on the headline split
    on_front: bool
    problems: tuple[str, ...]
    chosen: bool
    teacher: bool
    reference: bool  # the model that speed-ups and losses are relative to
    predicted: Measurement | None = None  # the latency that a search predicted
    within: Mapping[TestedLimit, float] = field(default_factory=dict)
    """Probabilities that limits of the budget hold, by the answers to the headline split."""
    portability: Measurement | None = None  # fraction of answers unchanged on processors without VNNI
    throughput: Measurement | None = None  # texts per second in batches sorted by length
    changes: Mapping[tuple[str, str], Measurement] = field(default_factory=dict)
    """Flips and drift against the reference, by name and split."""
    statistic: LatencyStatistic = "p50"  # which of its latencies the budget is about
    shows_mean: bool = False  # whether the mean of its latency says what median and 99th percentile do not

    @property
    def latency(self) -> Measurement | None:
        """The latency that the budget is about, which front, order and speed-ups are of."""
        return {"p50": self.p50, "mean": self.mean, "p99": self.p99}[self.statistic]

    @property
    def as_predicted(self) -> bool | None:
        """Whether the measured median lies in the interval of the predicted one; None if either is missing."""
        if self.p50 is None or self.predicted is None or self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= self.p50.value <= self.predicted.high

    @property
    def without_vnni(self) -> str:
        """Effect of x86 processors without VNNI on the answers, in a sentence; empty if it was not measured."""
        if self.portability is None:
            return ""
        detail, count = self.portability.detail, self.portability.n
        if not detail["pairs"]:
            return "Processors without VNNI compute the same sums: with these weights no two products overflow 16 bits."
        texts, moved = f"{count} {self.portability.split} texts", f"logits move by up to {detail['largest']:.2g}"
        if not detail["differ"]:
            return f"In the arithmetic of processors without VNNI the answers to {texts} stay the same ({moved})."
        return (
            f"Warning: processors without VNNI answer {detail['differ']} of {texts} differently ({moved}). To serve "
            "there, quantize with reduce_range: true, or set ONNX Runtime's session option session.x64quantprecision "
            "to 1, which is exact but slower."
        )

    @property
    def meets_budget(self) -> bool:
        """Whether all limits that can be checked are met."""
        return not self.problems


@once
def rows(summary: RunSummary) -> tuple[Row, ...]:
    """Return one row per measured candidate, slowest first."""
    display, reference = names(summary), summary.records.get(summary.reference or "")
    int8 = summary.records.get(int8_reference(summary) or "")
    whole = reference.fact("quality", summary.split) if reference is not None else None
    front = _front(summary)
    table = []
    for key in summary.candidates:
        record = summary.records[key]
        quality = {fact.split: fact for fact in record.facts if fact.name == "quality"}
        headline = quality.get(summary.split)
        limited = (summary.budget.latency_fact, "size")
        values = {name: fact.value for name in limited if (fact := record.fact(name)) is not None}
        values |= {"quality": headline.value} if headline is not None else {}
        changes = changes_of(record, summary.reference)
        values |= {"flips": flips.value} if (flips := changes.get((FLIPS, summary.split))) is not None else {}
        tests = evidence(summary.budget, headline, whole, changes.get((FLIPS, summary.split)))
        drop = (whole.value - headline.value) * 100 if headline is not None and whole is not None else None
        table.append(
            Row(
                key=key,
                name=display[key],
                quality=quality,
                p50=record.fact("latency_p50"),
                p90=record.fact("latency_p90"),
                p99=record.fact("latency_p99"),
                mean=record.fact("latency_mean"),
                size=record.fact("size"),
                parameters=record.fact("parameters"),
                speedup=_speedup(record, reference, summary.budget.latency_fact),
                speedup_int8=_speedup(record, int8, summary.budget.latency_fact),
                drop=drop,
                on_front=key in front,
                problems=(
                    *summary.budget.violations(values, whole.value if whole is not None else None, tests),
                    *baseline_problems(summary, headline),
                ),
                chosen=key in summary.chosen,
                teacher=key == summary.teacher,
                reference=key == summary.reference,
                predicted=predicted(summary, key),
                within={limit: test.probability for limit, test in tests.items()},
                portability=record.fact("portability"),
                throughput=record.fact("throughput"),
                changes=changes,
                statistic=summary.budget.latency_statistic,
                shows_mean=summary.budget.latency_statistic == "mean" or exits_of(summary, key) is not None,
            )
        )
    return tuple(sorted(table, key=lambda row: -(row.latency.value if row.latency is not None else float("inf"))))


def changes_of(record: Record, reference: str | None) -> dict[tuple[str, str], Measurement]:
    """Return a record's flips and drift against a reference, by name and split.

    Args:
        record: The record.
        reference: Key of the reference.
    """
    return {
        (fact.name, fact.split): fact
        for fact in record.facts
        if fact.name in (FLIPS, DRIFT) and fact.detail.get("reference") == reference
    }


def baseline_problems(summary: RunSummary, fact: Measurement | None) -> tuple[str, ...]:
    """Return a message if a quality is no better than that of the best constant answer, or else nothing."""
    constant = summary.baseline.quality.get(summary.split) if summary.baseline is not None else None
    if summary.baseline is None or fact is None or constant is None or fact.value > constant.value:
        return ()
    return (f"no better than a constant answer ({summary.baseline.answer})",)


def better_than_baseline(summary: RunSummary) -> bool | None:
    """Return whether the first chosen candidate beats the best constant answer; None if either is unknown."""
    record = summary.records.get(summary.chosen[0]) if summary.chosen else None
    fact = record.fact("quality", summary.split) if record is not None else None
    if fact is None or summary.baseline is None or summary.split not in summary.baseline.quality:
        return None
    return not baseline_problems(summary, fact)


@once
def int8_reference(summary: RunSummary) -> str | None:
    """Return the key of the measured candidate that is the reference in INT8, with nothing else changed.

    If there are several, plain dynamic quantization comes first, as users try it first; then static, then
    smoothed.
    """
    references = []
    for key in summary.candidates:
        chain = summary.lineage(key)
        keys = [record.key for record in chain]
        if summary.reference not in keys or "int8" not in chain[-1].traits:
            continue
        start = keys.index(summary.reference)
        path = list(zip(chain[start:], chain[start + 1 :], strict=False))
        formats = {"onnx", "int8"}
        if all((child.traits - parent.traits) & formats and child.shape == parent.shape for parent, child in path):
            parameters = chain[-1].parameters
            references.append((len(path), parameters.get("mode") == "static", bool(parameters.get("smooth")), key))
    return min(references)[-1] if references else None


def predicted(summary: RunSummary, key: str) -> Measurement | None:
    """Return the latency predicted for a candidate's shape, in its number format and on the run's target.

    A search predicts it for a slice that is yet to be trained, exported and quantized. The prediction holds for
    descendants of the same shape, once they have the number format, and not for latencies of another machine.
    """
    record = summary.records[key]
    if record.fact(CASCADE) is not None:  # of two shapes
        return None
    served = ("onnx" in record.traits) == (summary.target.runtime != "torch")
    number_format = "int8" if "int8" in record.traits else "float"
    for ancestor in reversed(summary.lineage(key)):
        if ancestor.shape != record.shape:
            return None
        fact = ancestor.fact("latency_predicted")
        if fact is not None:
            holds = served and fact.detail.get("number_format") == number_format and not fact.detail.get("elsewhere")
            return fact if holds else None
    return None


def _speedup(record: Record, reference: Record | None, name: str) -> Ratio | None:
    """Compute the speed-up over a reference in one latency; None for the reference itself."""
    latency = record.fact(name)
    if latency is None or reference is None or record.key == reference.key:
        return None
    reference_latency = reference.fact(name)
    return speed_ratio(latency, reference_latency) if reference_latency is not None else None


class Volume(NamedTuple):
    """Hypervolume of a front (unit of the metric x seconds), and the reference point that it is measured from."""

    value: float
    quality: float
    latency: float


@once
def volume(summary: RunSummary) -> Volume | None:
    """Compute the hypervolume of quality and latency; None with fewer than two candidates."""
    points = list(_points(summary).values())
    if len(points) < 2:
        return None
    latency, quality = beyond(points, ("min", "max"))
    return Volume(hypervolume(points, (latency, quality), ("min", "max")), quality, latency)


@once
def _points(summary: RunSummary) -> Mapping[str, tuple[float, float]]:
    """Return latency and quality of every candidate that has both."""
    points = {}
    for key in summary.candidates:
        record = summary.records[key]
        latency, quality = record.fact(summary.budget.latency_fact), record.fact("quality", summary.split)
        if latency is not None and quality is not None:
            points[key] = (latency.value, quality.value)
    return points


@once
def _front(summary: RunSummary) -> frozenset[str]:
    """Return the keys of the candidates that no other dominates in latency and quality."""
    points = _points(summary)
    on_front = pareto.front(list(points.values()), ("min", "max")) if points else ()
    return frozenset(key for key, is_member in zip(points, on_front, strict=True) if is_member)
