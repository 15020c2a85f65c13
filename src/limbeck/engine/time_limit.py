"""The limit of time of a run: how much is left, and whether a step and what has to come after it fit into that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from limbeck.core.candidate import Record, lineage
from limbeck.core.shape import Shape
from limbeck.core.step import Probe, Step, Technique
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.past_times import PastTimes, Work, rows_after, typical_tokens
from limbeck.recipe.parsing import LocatedStep, leaves

AGAIN = "the same command with a larger max_minutes goes on from here"
LONG = 30.0
"""Seconds from which on a step that trains nothing is left out for lack of time, too, such as one on a corpus."""


class TimeLimit:
    """Compares the time that is left with what steps took so far, or are estimated to take."""

    def __init__(self, builder: CandidateBuilder, minutes: float, began: float | None = None) -> None:
        """Start the clock.

        Args:
            builder: Has the records of the run.
            minutes: The limit.
            began: When the command began, by ``time.monotonic``; now unless given.
        """
        self._builder, self._seconds = builder, 60 * minutes
        self._start = monotonic() if began is None else began

    @property
    def _spent(self) -> float:
        return monotonic() - self._start

    def too_late(self, record: Record, step: Technique, rest: Sequence[LocatedStep], models: int) -> str | None:
        """Return why a step is left out: with what has to come after it, it would end too late.

        Args:
            record: What it is applied to.
            step: The step.
            rest: The steps after it.
            models: How many models are finished, which a probe of all of them measures again.
        """
        work, past = self._work(record), PastTimes([*self._builder.records.values()], [])

        def seconds(each: Step) -> float:
            times = models + 1 if isinstance(each, Probe) and each.info.group else 1
            return times * (past.seconds(each, replace(work, teacher=self._imitated(record, each)))[0] or 0.0)

        def least(steps: Sequence[LocatedStep]) -> float:
            """Return the seconds of the shortest way through steps."""
            forks = (min(map(least, each.branches)) for each in steps if each.branches)
            return sum(forks) + sum(seconds(each.step) for each in steps if each.branches is None)

        if not step.info.trains and seconds(step) < LONG:
            return None
        needed, spent = seconds(step) + least(rest), self._spent
        if spent + needed <= self._seconds:
            return None
        return (
            f"with what comes after it, it would take about {needed:.0f} s, and {spent:.0f} of {self._seconds:.0f} s "
            f"are over; {AGAIN}"
        )

    def over(self, branch: Sequence[LocatedStep], keys: Sequence[str], seed: int) -> str | None:
        """Return why a branch is not begun: it trains, and no time is left.

        Args:
            branch: The steps of the branch.
            keys: Keys of the models that it begins with.
            seed: Seed of everything random.
        """
        if (spent := self._spent) < self._seconds or not any(located.step.info.trains for located in leaves(branch)):
            return None
        first = branch[0].parsed
        records = (self._builder.records[key] for key in keys)
        if isinstance(first, Technique) and all(self._builder.finished(each, first, seed) for each in records):
            return None  # what it goes on with is judged later
        return f"{spent:.0f} of {self._seconds:.0f} s are over; {AGAIN}"

    def too_late_for_replicas(self, chosen: Sequence[str]) -> str | None:
        """Return why chosen models are not made again with other seeds; None if there is time, or nothing to make."""
        chains = [lineage(self._builder.records, key) for key in chosen]
        needed = (self._builder.recipe.replicas - 1) * sum(each.duration for chain in chains for each in chain)
        if not needed or (spent := self._spent) + needed <= self._seconds:
            return None
        return f"they would take about {needed:.0f} s, and {spent:.0f} of {self._seconds:.0f} s are over; {AGAIN}"

    def _work(self, record: Record) -> Work:
        chain, task = lineage(self._builder.records, record.key), self._builder.task
        rows = {name: len(split) for name, split in task.splits.items()}
        return Work(record.shape, rows_after(chain[1:], rows), typical_tokens(task), chain[0].key, rows)

    def _imitated(self, record: Record, step: Step) -> Shape | None:
        """Return the shape of the teacher of a step, if it is known."""
        teacher = self._builder.records.get(self._builder.teacher(record.key, step) or "")
        return teacher.shape if teacher is not None else None
