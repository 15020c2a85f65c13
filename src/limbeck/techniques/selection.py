"""Choices among measured candidates: the front, the best or the cheapest within the budget, the top few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, TypeAlias

from annotated_types import Ge, Le

from limbeck.core import acceptance
from limbeck.core.acceptance import LATENCY, limits, measured, named, reference_quality, value, with_facts
from limbeck.core.candidate import Record
from limbeck.core.step import Choice, RunContext, StepInfo, step

MORE_IS_BETTER = frozenset({"quality", "speedup", "speedup_parent"})
"""Of every other fact less is better."""

SortKey: TypeAlias = Callable[[Record], tuple[float, ...]]
IsTied: TypeAlias = Callable[[float, Record, Record], bool]
"""Maps a confidence, a record and the first record."""


@step(StepInfo("front", reads={"budget"}, example={"by": ["quality", "size"]}))
class Front(Choice):
    """Keep the candidates that no other one beats in everything.

    A candidate that lacks one of the facts is left out, because it cannot be compared. Numbers are compared as they
    are: whatever leaves the front by a difference within the noise, another stays whose numbers are no worse in
    anything, and what stays by such a difference costs nothing.
    """

    by: tuple[str, ...] = ("quality", LATENCY)  #: the facts that count; 'latency' is the budget's statistic

    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """Return the records on the front, in the order given."""
        from limbeck.core import pareto

        names = [named(name, context.budget) for name in self.by]
        compared = with_facts(records, names, "front")
        points = [[value(record, name) for name in names] for record in compared]
        senses: list[pareto.Sense] = ["max" if name in MORE_IS_BETTER else "min" for name in self.by]
        on_front = pareto.front(points, senses)
        return [record for record, stays in zip(compared, on_front, strict=True) if stays]


@step(
    StepInfo(
        "best",
        reads={"budget", "teacher"},
        final=True,
        example={},
    )
)
class Best(Choice):
    """Keep the most accurate candidate that meets the budget; of equals the fastest.

    Equal are candidates that a paired test, with the budget's confidence, does not show to be worse. When none meets
    the budget, the nearest is kept, with a note that says what it breaks.
    """

    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """One record."""
        latency = context.budget.latency_fact
        return within(records, context, "best", acceptance.by_quality(latency), *ties(latency)["quality"])


@step(
    StepInfo(
        "cheapest",
        reads={"budget", "teacher"},
        final=True,
        example={},
    )
)
class Cheapest(Choice):
    """Keep the fastest candidate that meets the budget; of equals the most accurate.

    Useful with a limit on the loss of quality. Equal are candidates that are not measurably slower. When none meets the
    budget, the nearest is kept, with a note that says what it breaks.
    """

    fastest_wins: ClassVar[bool] = True

    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """One record."""
        latency = context.budget.latency_fact
        return within(records, context, "cheapest", acceptance.by_latency(latency), *ties(latency)[latency])


@step(StepInfo("top", reads={"budget"}, example={"k": 1}))
class Top(Choice):
    """Keep the ``k`` candidates that are best by one fact, best first.

    By quality, candidates that a paired test does not show to be worse than the best of those left are equal, and the
    fastest comes first; by latency, those that are not measurably slower, and the most accurate comes first.
    """

    k: Annotated[int, Ge(1), Le(10_000)] = 3  #: how many stay
    by: str = "quality"  #: the fact that counts; 'latency' is the budget's statistic

    def choose(self, records: Sequence[Record], context: RunContext) -> Sequence[Record]:
        """At most ``k`` records."""
        name, sign = named(self.by, context.budget), -1 if self.by in MORE_IS_BETTER else 1
        ranked = sorted(with_facts(records, (name,), "top"), key=lambda record: sign * value(record, name))
        of_noise = ties(name if name in acceptance.LATENCIES else context.budget.latency_fact)
        if name not in of_noise or not context.budget.weighs_noise:
            return ranked[: self.k]
        is_tied, order = of_noise[name]
        chosen: list[Record] = []
        while ranked and len(chosen) < self.k:
            best, undecided = acceptance.settled(ranked[0], ranked, partial(is_tied, context.budget.confidence), order)
            ranked.remove(best)
            chosen.append(noted(best, undecided))
        return chosen


def within(
    records: Sequence[Record], context: RunContext, step_name: str, order: SortKey, is_tied: IsTied, tie_order: SortKey
) -> list[Record]:
    """Return the first record by ``order`` that meets the budget; if none does, the nearest one, with a note.

    Args:
        records: Records to choose from.
        context: Services of the run.
        step_name: Name of the step, for messages.
        order: Sort key among records that meet the budget.
        is_tied: Whether the noise may have put a record behind the first one; not asked where the budget ignores noise.
        tie_order: Sort key among those.
    """
    budget = context.budget
    compared = with_facts(records, ("quality", *limits(budget)), step_name)
    if not compared:
        return []
    reference = reference_quality(context.teacher)
    whole = context.teacher.record if context.teacher is not None else None
    tested = {record.key: acceptance.evidence_of(record, whole, budget) for record in compared}
    notes: list[str] = []

    def meets(record: Record) -> bool:
        return not budget.violations(measured(record), reference, tested[record.key])

    if budget.weighs_noise:
        as_fast = partial(is_as_fast, latency=budget.latency_fact)
        compared, notes = acceptance.without_pointless(compared, meets, budget.confidence, as_fast)
    meeting = [record for record in compared if meets(record)]
    if meeting and budget.weighs_noise:
        first = min(meeting, key=order)
        by_numbers = [record for record in compared if not budget.violations(measured(record), reference)]
        chosen, undecided = acceptance.settled(first, meeting, partial(is_tied, budget.confidence), tie_order)
        doubts = acceptance.doubts(
            [record for record in sorted(by_numbers, key=order) if order(record) < order(first)], tested, budget
        )
        return [noted(chosen, [*notes, *undecided, *doubts])]
    if meeting:
        return [min(meeting, key=order)]
    closest = min(compared, key=lambda r: (budget.excess(measured(r), reference, tested[r.key]), *order(r)))
    broken = "; ".join(budget.violations(measured(closest), reference, tested[closest.key]))
    nearest_note = f"no candidate meets the budget; this is the nearest of {len(compared)}: {broken}"
    return [noted(closest, [*notes, nearest_note])]


def noted(record: Record, notes: Sequence[str]) -> Record:
    """Return a record with further notes."""
    return replace(record, notes=(*record.notes, *notes))


def is_as_fast(record: Record, first: Record, latency: str = "latency_p50") -> bool:
    """Return whether the first record is not measurably faster; without intervals, times are compared as numbers.

    Args:
        record: The record.
        first: Another one.
        latency: Name of the fact that is compared.
    """
    from limbeck.core.speed_up import is_faster

    own, best = record.fact(latency), first.fact(latency)
    if own is None or best is None:
        return False
    return own.value <= best.value or is_faster(best, own)[0] == "no measurable gain"


def ties(latency: str) -> Mapping[str, tuple[IsTied, SortKey]]:
    """Return the facts whose noise is known, with when records are tied, and their order then.

    Other facts, such as the size, are exact.

    Args:
        latency: Name of the latency that counts.
    """
    return {
        "quality": (acceptance.is_as_good, acceptance.by_latency(latency)),
        latency: (lambda _, record, first: is_as_fast(record, first, latency), acceptance.by_quality(latency)),
    }
