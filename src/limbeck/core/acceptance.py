"""What a choice reads of records, and which to accept: a difference that is smaller than its noise decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from limbeck.core.candidate import Record
from limbeck.core.measurement import FLOAT_PARTS, Measurement
from limbeck.core.target import Budget, LatencyStatistic, TestedLimit, Tests
from limbeck.errors import LimbeckError, nearest

if TYPE_CHECKING:
    from limbeck.core.step import Teacher


LATENCY = "latency"
"""Stands for the statistic of latency that the budget is about."""
LATENCIES = tuple(f"latency_{statistic}" for statistic in get_args(LatencyStatistic))
"""Names of the facts that a budget's latency may be."""


def fact_for_choices(record: Record, name: str) -> Measurement | None:
    """Return the newest fact of that name; of validation where it was measured there.

    Args:
        record: The record.
        name: Name of the fact.
    """
    return record.fact(name, "validation") or record.fact(name)


def value(record: Record, name: str) -> float:
    """Return the newest value of a fact.

    Quality is taken from the validation split where it was measured there: choosing by the test split would bias it.
    """
    fact = fact_for_choices(record, name)
    assert fact is not None, f"{record.key} has no {name}"
    return fact.value


def named(name: str, budget: Budget) -> str:
    """Return the name of a fact; 'latency' stands for the statistic that the budget is about."""
    return budget.latency_fact if name == LATENCY else name


def by_quality(latency: str) -> Callable[[Record], tuple[float, ...]]:
    """Return a sort key: the best quality first, of equals the lowest of this latency."""
    return lambda record: (-value(record, "quality") if record.fact("quality") else 0.0, _time(latency, record))


def by_latency(latency: str) -> Callable[[Record], tuple[float, ...]]:
    """Return a sort key: the lowest of this latency first, of equals the best quality."""
    return lambda record: (_time(latency, record), -value(record, "quality"))


def _time(latency: str, record: Record) -> float:
    return value(record, latency) if record.fact(latency) else float("inf")


def with_facts(records: Sequence[Record], names: Sequence[str], step_name: str) -> list[Record]:
    """Return the records that have all these facts; fail if there is none.

    Args:
        records: Records to choose from.
        names: Names of facts.
        step_name: Name of the step, for messages.
    """
    complete = [record for record in records if all(record.fact(name) for name in names)]
    if records and not complete:
        there = {fact.name for record in records for fact in record.facts}
        missing = next((name for name in names if name not in there), None)
        if missing is None:
            raise LimbeckError(f"{step_name}: no candidate has all of {', '.join(names)}")
        raise LimbeckError(
            f"{step_name}: no candidate has the fact '{missing}'; {nearest(missing, there)} "
            "(put the probe that measures it before this step)"
        )
    return complete


def limits(budget: Budget) -> list[str]:
    """Return the names of the facts that the budget limits, apart from quality."""
    named = {budget.latency_fact: budget.latency_ms, "size": budget.size_mb, "flips": budget.max_flips}
    return [name for name, limit in named.items() if limit is not None]


def reference_quality(teacher: Teacher | None) -> float | None:
    """Return the quality of the teacher; None where there is none or it was not measured: no loss can be stated."""
    record = teacher.record if teacher is not None else None
    return value(record, "quality") if record is not None and record.fact("quality") else None


def measured(record: Record) -> dict[str, float]:
    """Return the facts of a record that a budget may limit."""
    return {name: value(record, name) for name in (*LATENCIES, "size", "quality", "flips") if record.fact(name)}


def evidence_of(record: Record, whole: Record | None, budget: Budget) -> Tests:
    """Return how probable it is that a record loses and changes no more than the budget allows, by limit.

    Args:
        record: The record.
        whole: Record of the model that losses are counted from.
        budget: Says how much may be lost.
    """
    from limbeck.core.paired import evidence

    fact, flips = fact_for_choices(record, "quality"), fact_for_choices(record, "flips")
    if whole is None:
        return evidence(budget, fact, None, flips)
    return evidence(budget, fact, fact if record.key == whole.key else fact_for_choices(whole, "quality"), flips)


def is_as_good(confidence: float, record: Record, first: Record) -> bool:
    """Return whether a record is not shown to be worse than another one on the same texts.

    Args:
        confidence: How probable it has to be that it is worse.
        record: The record.
        first: The other one.
    """
    from limbeck.core.paired import loss_against

    fact, best = fact_for_choices(record, "quality"), fact_for_choices(first, "quality")
    if fact is None or best is None:
        return False
    return fact.value >= best.value or 1 - loss_against(fact, best).below(0.0) < confidence


def settled(
    first: Record,
    records: Sequence[Record],
    is_tied: Callable[[Record, Record], bool],
    order: Callable[[Record], tuple[float, ...]],
) -> tuple[Record, list[str]]:
    """Return the record to keep of the first one and those tied with it, and a note if that is another one.

    Args:
        first: The first record by the numbers.
        records: All that are acceptable.
        is_tied: Whether the noise may have put a record behind the first one.
        order: Sort key among tied records.
    """
    equal = [record for record in records if record is first or is_tied(record, first)]
    best = min(equal, key=order)
    if best is first:
        return first, []
    others = "another candidate" if len(equal) == 2 else f"{len(equal) - 1} other candidates"
    return best, [f"undecided: {first.key} is ahead of {others} by less than the noise; this one is kept for the rest"]


def without_pointless(
    records: Sequence[Record],
    meets: Callable[[Record], bool],
    confidence: float,
    is_as_fast: Callable[[Record, Record], bool],
) -> tuple[list[Record], list[str]]:
    """Leave out records that parts left in float made pointless, with a note for each.

    Such a record is no faster and no smaller than another one that is all in 8 bits, meets the budget, and is not shown
    to be worse.

    Args:
        records: Records to choose from.
        meets: Whether a record meets the budget; one that does not takes nobody's place.
        confidence: How probable it has to be that it is better.
        is_as_fast: Whether the first of two records is not measurably slower.
    """
    useful, notes = [], []
    whole_int8 = [
        other for other in records if "int8" in other.traits and other.fact(FLOAT_PARTS) is None and meets(other)
    ]
    for record in records:
        parts = record.fact(FLOAT_PARTS)
        better = (
            next((other for other in whole_int8 if _replaces(other, record, confidence, is_as_fast)), None)
            if parts is not None
            else None
        )
        if parts is None or better is None:
            useful.append(record)
            continue
        notes.append(
            f"{record.key} is left out: with {parts.value:.0f} of {parts.n} parts in float it is no faster and no "
            f"smaller than {better.key}, which is all in 8 bits and not shown to be worse"
        )
    return useful, notes


def _replaces(other: Record, record: Record, confidence: float, is_as_fast: Callable[[Record, Record], bool]) -> bool:
    size, other_size = record.fact("size"), other.fact("size")
    smaller = size is not None and other_size is not None and other_size.value <= size.value
    return smaller and is_as_fast(other, record) and is_as_good(confidence, other, record)


def doubts(earlier: Sequence[Record], tests: Mapping[str, Tests], budget: Budget) -> list[str]:
    """Return a note about records that come before the chosen one and meet the budget by their numbers alone.

    Args:
        earlier: Those records, the first one first.
        tests: How probable it is that each stays within the limits.
        budget: The budget.
    """
    limits_tested: tuple[TestedLimit, ...] = ("max_drop", "max_flips")
    for record in earlier:
        if reasons := [doubt for limit in limits_tested if (doubt := budget.doubt(limit, tests[record.key]))]:
            return [f"not chosen: {record.key}, {' and '.join(reasons)}"]
    return []
