"""Leave out trainings of a run with a time limit: those that would end too late, or whose result no choice would take.

Latencies are predicted by the table that the run's goals need anyway, quality is that of finished models on validation.
Nothing is left out by a difference within the noise: predicted latencies have to differ by ``MARGIN``, and limits to
hold or to be broken with the budget's confidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import Any

from limbeck.core.acceptance import evidence_of, measured, value
from limbeck.core.candidate import Record
from limbeck.core.cost import Cost
from limbeck.core.field_groups import parameters
from limbeck.core.shape import Shape
from limbeck.core.step import Choice, Probe, Step, Technique, registered
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.ledger import lineage
from limbeck.engine.past_times import PastTimes, Work, rows_after, typical_tokens
from limbeck.engine.reference import reference
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.report.display_names import step_label

MARGIN = 1.1
"""Predicted latencies are different if one is greater by this factor."""

AGAIN = "the same command with a larger max_minutes goes on from here"

Trainings = frozenset[tuple[str, str]]
"""Steps and parameters of the trainings after the fine-tuning."""


@dataclass(frozen=True)
class _Rival:
    """A finished model: its predicted latency, whether it meets the budget, and the limit it surely breaks, or ''."""

    name: str
    seconds: float
    meets: bool
    breaks: str
    trainings: Trainings


class Prospects:
    """Judges the trainings of a run with a time limit."""

    def __init__(self, builder: CandidateBuilder, steps: Sequence[LocatedStep], minutes: float) -> None:
        """Start the clock.

        Args:
            builder: Has the records of the run.
            steps: The steps of the recipe.
            minutes: The limit.
        """
        self._builder, self._minutes, self._start = builder, minutes, monotonic()
        choices = (located.step for located in leaves(steps) if isinstance(located.step, Choice))
        self._choice = next((choice for choice in choices if choice.info.final), None)
        techniques = [located.step for located in leaves(steps) if isinstance(located.step, Technique)]
        self._format = "int8" if any("int8" in step.info.gives for step in techniques) else "float"
        goals = (step for step in techniques if step.goal_target() is not None)
        elsewhere = builder.recipe.targets or builder.recipe.target.url is not None
        self._goal = None if elsewhere else next(goals, None)
        self._table: tuple[Cost, Shape] | None = None
        self._finished: dict[str, None] = {}
        self._depth = 0

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Mark the body as a branch of a fork: other branches have results without it."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @property
    def optional(self) -> bool:
        """Whether the run is in a branch; what is outside of all, every result needs."""
        return self._depth > 0

    def new(self, keys: Iterable[str]) -> list[str]:
        """Return the models that were not finished before."""
        return [key for key in keys if key not in self._finished]

    def add(self, keys: Iterable[str]) -> None:
        """Add models that are finished, and whose quality was measured."""
        self._finished |= dict.fromkeys(keys)

    def reason(self, key: str, step: Step, rest: Sequence[LocatedStep], seed: int) -> str | None:
        """Return why a training is left out; None if it is worth its time, or is done already.

        Args:
            key: Key of the model that would be trained.
            step: The training.
            rest: The steps after it.
            seed: Seed of everything random.
        """
        record = self._builder.records[key]
        if not isinstance(step, Technique) or not step.info.trains:
            return None
        if self._builder.finished(record, step, seed) is not None:
            return None
        return self._too_late(record, step, rest) or self._not_chosen(record, step, rest)

    def over(self, branch: Sequence[LocatedStep], keys: Sequence[str], seed: int) -> str | None:
        """Return why a branch is not begun: it trains, and no time is left.

        Args:
            branch: The steps of the branch.
            keys: Keys of the models that it begins with.
            seed: Seed of everything random.
        """
        spent = monotonic() - self._start
        if spent < 60 * self._minutes or not any(located.step.info.trains for located in leaves(branch)):
            return None
        first = branch[0].parsed
        records = (self._builder.records[key] for key in keys)
        if isinstance(first, Technique) and all(self._builder.finished(each, first, seed) for each in records):
            return None  # what it goes on with is judged later
        return f"{spent:.0f} of {60 * self._minutes:.0f} s are over; {AGAIN}"

    def described(self, key: str) -> str:
        """Return what is known of a finished model, in a line."""
        record = self._builder.records[key]
        words = [self.name(key)]
        quality = record.fact("quality", "validation") or record.fact("quality")
        if quality is not None:
            words.append(f"{quality.detail.get('metric', 'quality')} {100 * quality.value:.1f} on {quality.split}")
        if self._is_served(record) and (seconds := self._seconds(record)) is not None:
            words.append(f"about {1e3 * seconds:.2f} ms")
        return ", ".join(words)

    # --- time --------------------------------------------------------------------------------------------------

    def _too_late(self, record: Record, step: Technique, rest: Sequence[LocatedStep]) -> str | None:
        after = [located.step for located in leaves(rest) if not located.step.info.trains]
        needed = sum(self._estimates(record, [step, *after]))
        spent = monotonic() - self._start
        if spent + needed <= 60 * self._minutes:
            return None
        return (
            f"with what comes after it, it would take about {needed:.0f} s, and {spent:.0f} of "
            f"{60 * self._minutes:.0f} s are over; {AGAIN}"
        )

    def _estimates(self, record: Record, steps: Sequence[Step]) -> Iterator[float]:
        """Yield the likely seconds of steps; those of a probe that compares are of all models."""
        builder, chain = self._builder, lineage(self._builder.records, record.key)
        task_rows = {name: len(split) for name, split in builder.task.splits.items()}
        rows = rows_after(chain[1:], task_rows)
        work = Work(record.shape, rows, typical_tokens(builder.task), chain[0].key, task_rows)
        past = PastTimes([*builder.records.values()], [])
        for step in steps:
            seconds, _ = past.seconds(step, work)
            every = isinstance(step, Probe) and step.info.group
            yield (seconds or 0.0) * (len(self._finished) + 1 if every else 1)

    # --- choice ------------------------------------------------------------------------------------------------

    def _not_chosen(self, record: Record, step: Technique, rest: Sequence[LocatedStep]) -> str | None:
        budget, seconds = self._builder.recipe.budget, self._seconds(record)
        if self._choice is None or seconds is None or _changes_shape(record, rest):
            return None
        if budget.latency_ms is not None and 1e3 * seconds > MARGIN * budget.latency_ms:
            return f"it takes about {1e3 * seconds:.2f} ms, more than {budget.latency_ms:g} ms"
        if budget.max_drop is None and budget.max_flips is None:
            return None
        trainings = self._trainings(record) | {_training(step.info.name, parameters(step))}
        for rival in self._rivals():
            there = f"'{rival.name}' (about {1e3 * rival.seconds:.2f} ms"
            if rival.meets and self._choice.fastest_wins and seconds > MARGIN * rival.seconds:
                return f"it takes about {1e3 * seconds:.2f} ms, and {there}) is faster and meets the budget"
            if rival.breaks and trainings <= rival.trainings and MARGIN * seconds < rival.seconds:
                return f"it is smaller than {there}), which breaks {rival.breaks}, and is trained alike"
        return None

    def _rivals(self) -> Iterator[_Rival]:
        budget, records = self._builder.recipe.budget, self._builder.records
        for record in (records[key] for key in self._finished):
            seconds, compared = self._seconds(record), reference(self._builder, [record.key])
            whole = records.get(compared or "")
            if seconds is None or whole is None or not self._is_served(record):
                continue
            if not (whole.fact("quality") and record.fact("quality")):
                continue
            tests = evidence_of(record, whole, budget)
            broken = next((name for name, test in tests.items() if test.probability <= 1 - budget.confidence), "")
            meets = not budget.violations(measured(record), value(whole, "quality"), tests)
            yield _Rival(self.name(record.key), seconds, meets, broken, self._trainings(record))

    def _is_served(self, record: Record) -> bool:
        """Return whether a model is in the form that the predicted latencies are for."""
        single = "onnx" in record.traits and "cascade" not in record.traits
        return single and ("int8" in record.traits) == (self._format == "int8")

    def _trainings(self, record: Record) -> Trainings:
        """Return how a model was trained after the fine-tuning."""
        chain = lineage(self._builder.records, record.key)
        first = self._builder.teacher(record.key)
        keys = [each.key for each in chain]
        after = chain[keys.index(first) + 1 :] if first in keys else chain[1:]
        trained = (each for each in after if (cls := registered(each.step)) is not None and cls.info.trains)
        return frozenset(_training(each.step, each.parameters) for each in trained)

    def _seconds(self, record: Record) -> float | None:
        """Return the latency that the table of the run's goals predicts; None where it covers no such shape."""
        goal, teacher, shape = self._goal, self._builder.teacher(record.key), record.shape
        if goal is None or teacher is None or teacher == self._builder.given_key or shape is None:
            return None
        if self._table is None:
            model = self._builder.open(teacher)
            cost = self._builder.make_cost(model, goal, teacher).for_format(self._format)
            self._table = cost, model.model.shape
        cost, whole = self._table
        covered = shape <= whole and (shape.hidden, shape.head_dim) == (whole.hidden, whole.head_dim)
        return cost(shape).value if covered else None

    def name(self, key: str) -> str:
        """Return a model's name, made of its steps."""
        chain = lineage(self._builder.records, key)
        steps = [step_label(each, before) for before, each in pairwise(chain)]
        return " · ".join(steps) or chain[0].step


def _training(step: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return what two trainings that are alike have in common."""
    return step, repr(sorted(values.items()))


def _changes_shape(record: Record, rest: Sequence[LocatedStep]) -> bool:
    """Return whether later steps may make another shape of a model: then its latency says nothing of the result's."""
    shape = record.shape
    techniques = (located.step for located in leaves(rest) if isinstance(located.step, Technique))
    return shape is None or any(step.shape_after(shape) != shape for step in techniques)
