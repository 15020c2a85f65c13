"""A run as a table: a row for every measured candidate, which of them are on the front, and how much that dominates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.pareto import beyond, front, hypervolume
from limbeck.report.display_names import names
from limbeck.report.speed_up import Ratio, speed_ratio
from limbeck.report.summary import RunSummary


@dataclass(frozen=True)
class Row:
    """One measured candidate, in the words and numbers of a table."""

    key: str
    name: str
    quality: Mapping[str, Measurement]  # by split
    p50: Measurement | None
    p90: Measurement | None
    p99: Measurement | None
    size: Measurement | None
    parameters: Measurement | None
    speedup: Ratio | None  # over the teacher in PyTorch
    speedup_int8: Ratio | None  # over the teacher in INT8
    drop: float | None  # points of the metric below the teacher, on the headline split
    on_front: bool
    problems: tuple[str, ...]
    chosen: bool
    teacher: bool
    predicted: Measurement | None = None  # the latency that a search foretold of it
    portability: Measurement | None = None  # share of answers that stay on processors without VNNI

    @property
    def as_predicted(self) -> bool | None:
        """Whether the measured median lies within the interval of the predicted one; None where one is missing."""
        if self.p50 is None or self.predicted is None or self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= self.p50.value <= self.predicted.high

    @property
    def without_vnni(self) -> str:
        """What ONNX Runtime answers on x86 processors without VNNI, in a sentence; empty where nobody looked."""
        if self.portability is None:
            return ""
        found, count = self.portability.detail, self.portability.n
        if not found["pairs"]:
            return "Processors without VNNI compute the same sums: with its weights no two products overflow 16 bits."
        texts, moved = f"{count} {self.portability.split} texts", f"logits move by up to {found['largest']:.2g}"
        if not found["differ"]:
            return f"In the arithmetic of processors without VNNI the answers to {texts} stay the same ({moved})."
        return (
            f"Warning: processors without VNNI answer {found['differ']} of {texts} differently ({moved}). To serve "
            "there, quantize with reduce_range: true, or set ONNX Runtime's session option session.x64quantprecision "
            "to 1, which is exact but slower."
        )

    @property
    def meets_budget(self) -> bool:
        """Whether the limits that can be checked are kept."""
        return not self.problems


def rows(summary: RunSummary) -> list[Row]:
    """A row for every measured candidate, slowest first."""
    named, teacher = names(summary), summary.records.get(summary.teacher or "")
    int8 = summary.records.get(int8_reference(summary) or "")
    reference = teacher.fact("quality", summary.split) if teacher is not None else None
    winners = _front(summary)
    made = []
    for key in summary.candidates:
        record = summary.records[key]
        quality = {fact.split: fact for fact in record.facts if fact.name == "quality"}
        mine = quality.get(summary.split)
        values = {name: fact.value for name in ("latency_p50", "size") if (fact := record.fact(name)) is not None}
        values |= {"quality": mine.value} if mine is not None else {}
        drop = (reference.value - mine.value) * 100 if mine is not None and reference is not None else None
        made.append(
            Row(
                key=key,
                name=named[key],
                quality=quality,
                p50=record.fact("latency_p50"),
                p90=record.fact("latency_p90"),
                p99=record.fact("latency_p99"),
                size=record.fact("size"),
                parameters=record.fact("parameters"),
                speedup=_over(record, teacher),
                speedup_int8=_over(record, int8),
                drop=drop,
                on_front=key in winners,
                problems=(
                    *summary.budget.violations(values, reference.value if reference is not None else None),
                    *no_better(summary, mine),
                ),
                chosen=key in summary.chosen,
                teacher=key == summary.teacher,
                predicted=predicted(summary, key),
                portability=record.fact("portability"),
            )
        )
    return sorted(made, key=lambda row: -(row.p50.value if row.p50 is not None else float("inf")))


def no_better(summary: RunSummary, fact: Measurement | None) -> tuple[str, ...]:
    """Say so where a candidate is no better than the best constant answer on the headline split."""
    constant = summary.baseline.quality.get(summary.split) if summary.baseline is not None else None
    if fact is None or constant is None or fact.value > constant.value:
        return ()
    return (f"no better than a constant answer ({summary.baseline.answer})",)


def better_than_baseline(summary: RunSummary) -> bool | None:
    """Say whether the first chosen candidate is better than the best constant answer; None where one is not known."""
    record = summary.records.get(summary.chosen[0]) if summary.chosen else None
    fact = record.fact("quality", summary.split) if record is not None else None
    if fact is None or summary.baseline is None or summary.split not in summary.baseline.quality:
        return None
    return not no_better(summary, fact)


def int8_reference(summary: RunSummary) -> str | None:
    """The measured candidate that is the teacher itself in INT8: nothing but the number format was changed.

    Dynamic ranges go before static ones, and inputs as they are before smooth ones: what a user does first.
    """
    found = []
    for key in summary.candidates:
        chain = summary.lineage(key)
        keys = [record.key for record in chain]
        if summary.teacher not in keys or "int8" not in chain[-1].traits:
            continue
        start = keys.index(summary.teacher)
        path = list(zip(chain[start:], chain[start + 1 :], strict=False))
        formats = {"onnx", "int8"}
        if all((child.traits - parent.traits) & formats and child.shape == parent.shape for parent, child in path):
            parameters = chain[-1].parameters
            found.append((len(path), parameters.get("mode") == "static", bool(parameters.get("smooth")), key))
    return min(found)[-1] if found else None


def predicted(summary: RunSummary, key: str) -> Measurement | None:
    """The latency that was foretold of a candidate's shape, in its number format and on the run's target.

    A search foretells it of a slice that is to be trained, exported and quantized: it holds for what comes of the
    slice as long as the shape stays, and for the descendant that has the format. Not for another machine's latency.
    """
    record = summary.records[key]
    served = ("onnx" in record.traits) == (summary.target.runtime != "torch")
    wanted = "int8" if "int8" in record.traits else "float"
    for ancestor in reversed(summary.lineage(key)):
        if ancestor.shape != record.shape:
            return None
        fact = ancestor.fact("latency_predicted")
        if fact is not None:
            holds = served and fact.detail.get("number_format") == wanted and not fact.detail.get("elsewhere")
            return fact if holds else None
    return None


def _over(record: Record, reference: Record | None) -> Ratio | None:
    """Speed-up over a reference; over itself there is nothing to say."""
    mine = record.fact("latency_p50")
    if mine is None or reference is None or record.key == reference.key:
        return None
    theirs = reference.fact("latency_p50")
    return speed_ratio(mine, theirs) if theirs is not None else None


class Volume(NamedTuple):
    """What a front dominates (units of the metric x seconds), and the reference point from which that is counted."""

    value: float
    quality: float
    latency: float


def volume(summary: RunSummary) -> Volume | None:
    """The hypervolume of the measured front: quality against median latency; None with fewer than two candidates."""
    points = list(_points(summary).values())
    if len(points) < 2:
        return None
    latency, quality = beyond(points, ("min", "max"))
    return Volume(hypervolume(points, (latency, quality), ("min", "max")), quality, latency)


def _points(summary: RunSummary) -> dict[str, tuple[float, float]]:
    """Latency and quality of every candidate that has both."""
    points = {}
    for key in summary.candidates:
        latency, quality = summary.records[key].fact("latency_p50"), summary.records[key].fact("quality", summary.split)
        if latency is not None and quality is not None:
            points[key] = (latency.value, quality.value)
    return points


def _front(summary: RunSummary) -> set[str]:
    """Keys that no other candidate beats in both latency and quality."""
    points = _points(summary)
    kept = front(list(points.values()), ("min", "max")) if points else ()
    return {key for key, stays in zip(points, kept, strict=True) if stays}
