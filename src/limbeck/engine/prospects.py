"""Leave out work of a run with a limit of time: what would end too late, and trainings of what no choice would take.

Latencies are predicted by the table that the run's goals need anyway, quality is that of finished models on validation.
Nothing is left out by a difference within the noise: predicted latencies have to differ by ``MARGIN`` and by the error
of the predictions, and limits to hold or to be broken with the budget's confidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from limbeck.core.acceptance import evidence_of, measured, value
from limbeck.core.candidate import Record, lineage
from limbeck.core.combination import Combination
from limbeck.core.cost import WidthCost
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import FLOAT_PARTS, Measurement
from limbeck.core.shape import Shape
from limbeck.core.step import Choice, Step, Technique, registered
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.choosing import better_than_constant
from limbeck.engine.reference import reference
from limbeck.engine.store.ledger import descends
from limbeck.engine.time_limit import TimeLimit
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.report.display_names import step_label

MARGIN = 1.1
"""Predicted latencies are different only if one is greater by this factor."""

Changes = frozenset[tuple[str, str]]
"""How a model was made after the fine-tuning: steps, with their parameters, sizes left out where the shape changed."""


@dataclass(frozen=True)
class _Rival:
    """A finished model: its predicted latency, whether it can be chosen, and the limit it surely breaks, or ''."""

    name: str
    latency: Measurement
    acceptable: bool
    breaks: str
    trained: str
    changes: Changes


class Prospects:
    """Judges what a run with a limit of time is about to make."""

    def __init__(
        self, builder: CandidateBuilder, steps: Sequence[LocatedStep], minutes: float, began: float | None = None
    ) -> None:
        """Start the clock.

        Args:
            builder: Has the records of the run.
            steps: The steps of the recipe.
            minutes: The limit.
            began: When the command began, by ``time.monotonic``; now unless given.
        """
        self._builder, self.limit = builder, TimeLimit(builder, minutes, began)
        choices = (located.step for located in leaves(steps) if isinstance(located.step, Choice))
        self._choice = next((choice for choice in choices if choice.info.final), None)
        techniques = [located.step for located in leaves(steps) if isinstance(located.step, Technique)]
        self._format = "int8" if any("int8" in step.info.gives for step in techniques) else "float"
        goals = (step for step in techniques if step.goal_target() is not None)
        elsewhere = builder.recipe.targets or builder.recipe.target.url is not None
        self._goal = None if elsewhere else next(goals, None)
        self._table: tuple[WidthCost, Shape] | None = None
        self._finished: dict[str, None] = {}
        self._depth = 0

    @contextmanager
    def branch(self, needed: bool) -> Iterator[bool]:
        """Mark the body as a branch of a fork; give whether it may be left out, for there are results without it.

        Args:
            needed: Whether no other branch of the fork has a result.
        """
        within, self._depth = self._depth, self._depth + (not needed or self._depth > 0)
        try:
            yield self._depth > 0
        finally:
            self._depth = within

    def worthwhile(
        self, keys: Sequence[str], step: Technique, rest: Sequence[LocatedStep], seed: int
    ) -> tuple[list[str], dict[str, str]]:
        """Return the models that a step is worth its time for, and why others are left out, by key.

        Where every result needs the step, one model stays in any case.

        Args:
            keys: Keys of the models.
            step: The step.
            rest: The steps after it.
            seed: Seed of everything random.
        """
        reasons: dict[str, str] = {}
        for key in keys:
            needed = not self._depth and len(reasons) == len(keys) - 1
            if not needed and (reason := self._reason(key, step, rest, seed)):
                reasons[key] = reason
        return [key for key in keys if key not in reasons], reasons

    def new(self, keys: Iterable[str]) -> list[str]:
        """Return the models that were not finished before."""
        return [key for key in keys if key not in self._finished]

    def add(self, keys: Iterable[str]) -> None:
        """Add models that are finished, and whose quality was measured."""
        self._finished |= dict.fromkeys(keys)

    def described(self, key: str) -> str:
        """Return what is known of a finished model, in a line."""
        record = self._builder.records[key]
        words = [self.name(key)]
        quality = record.fact("quality", "validation") or record.fact("quality")
        if quality is not None:
            words.append(f"{quality.detail.get('metric', 'quality')} {100 * quality.value:.1f} on {quality.split}")
        if self._is_served(record) and (latency := self._latency(record)) is not None:
            words.append(f"about {_ms(latency)}")
        return ", ".join(words)

    def name(self, key: str) -> str:
        """Return a model's name, made of its steps."""
        chain = lineage(self._builder.records, key)
        steps = [step_label(each, before) for before, each in pairwise(chain)]
        return " · ".join(steps) or chain[0].step

    def _reason(self, key: str, step: Technique, rest: Sequence[LocatedStep], seed: int) -> str | None:
        """Return why a step is left out for a model; None if it is worth its time, or is done already."""
        record = self._builder.records[key]
        if self._builder.finished(record, step, seed) is not None:
            return None
        late = self.limit.too_late(record, step, rest, len(self._finished))
        return late or (self._not_chosen(record, step, rest) if step.info.trains else None)

    # --- choice ------------------------------------------------------------------------------------------------

    def _not_chosen(self, record: Record, step: Technique, rest: Sequence[LocatedStep]) -> str | None:
        budget, latency = self._builder.recipe.budget, self._latency(record)
        if self._choice is None or latency is None or _says_nothing(record, step, rest):
            return None
        if budget.latency_ms is not None and _above(latency, 1e-3 * budget.latency_ms):
            return f"it takes about {_ms(latency)}, more than {budget.latency_ms:g} ms"
        if budget.max_drop is None and budget.max_flips is None:
            return None
        changes, rivals = self._changes(record) | {_done(step.info.name, parameters(step))}, list(self._rivals())
        for rival in rivals:
            there = f"'{rival.name}' (about {_ms(rival.latency)}"
            if rival.acceptable and self._choice.fastest_wins and _slower(latency, rival.latency):
                return f"it takes about {_ms(latency)}, and {there}) is faster and meets the budget"
            forms = (other for other in rivals if other.trained == rival.trained)
            if changes <= rival.changes and _slower(rival.latency, latency) and all(form.breaks for form in forms):
                return f"it is smaller than {there}), which breaks {rival.breaks}, and is trained alike"
        return None

    def _rivals(self) -> Iterator[_Rival]:
        budget, records = self._builder.recipe.budget, self._builder.records
        finished = [records[key] for key in self._finished]
        useful = {record.key for record in better_than_constant(self._builder.task, finished)}
        for record in finished:
            latency, compared = self._latency(record), reference(self._builder, [record.key])
            whole = records.get(compared or "")
            if latency is None or whole is None or not self._is_served(record):
                continue
            if not (whole.fact("quality") and record.fact("quality")):
                continue
            tests = evidence_of(record, whole, budget)
            broken = next((name for name, test in tests.items() if test.probability <= 1 - budget.confidence), "")
            meets = not budget.violations(measured(record), value(whole, "quality"), tests)
            # parts in float are slower than predicted
            acceptable = meets and record.key in useful and record.fact(FLOAT_PARTS) is None
            trained = self._trained(record)
            yield _Rival(self.name(record.key), latency, acceptable, broken, trained.key, self._changes(trained))

    def _is_served(self, record: Record) -> bool:
        """Return whether a model is in the form that the predicted latencies are for."""
        single = "onnx" in record.traits and not {"cascade", "exits"} & record.traits
        return single and ("int8" in record.traits) == (self._format == "int8")

    def _trained(self, record: Record) -> Record:
        """Return the model that the last training made of which this one is a form."""
        chain = lineage(self._builder.records, record.key)
        return next((each for each in chain[::-1] if _step_trains(each)), chain[0])

    def _changes(self, record: Record) -> Changes:
        """Return how a model was made after the fine-tuning."""
        chain = lineage(self._builder.records, record.key)
        first = self._builder.teacher(record.key)
        keys = [each.key for each in chain]
        start = keys.index(first) if first in keys else 0
        return frozenset(
            _done(each.step, each.parameters, frozenset() if each.shape == before.shape else _sizes(each))
            for before, each in pairwise(chain[start:])
        )

    def _latency(self, record: Record) -> Measurement | None:
        """Return the latency that the table of the run's goals predicts; None where it covers no such shape."""
        goal, teacher, shape = self._goal, self._builder.teacher(record.key), record.shape
        if goal is None or teacher is None or teacher == self._builder.given_key or shape is None or shape.tokens:
            return None
        if self._table is None:
            model = self._builder.open(teacher)
            costs = self._builder.make_cost(model, goal, teacher, teacher)
            self._table = WidthCost(lambda hidden: costs.of_width(hidden).for_format(self._format)), model.model.shape
        table, whole = self._table
        if not shape.is_part_of(whole, narrower=descends(self._builder.records, record.key, teacher)):
            return None
        if shape.hidden != whole.hidden and not self._measured_at_its_width(record):
            return None
        return table(shape)

    def _measured_at_its_width(self, record: Record) -> bool:
        """Return whether a goal in latency was met at the model's hidden width: then there is a table for it."""
        assert record.shape is not None
        for each in lineage(self._builder.records, record.key):
            step = self._builder.origins[each.key].step
            same = each.shape is not None and each.shape.hidden == record.shape.hidden
            if same and step is not None and step.goal_target() is not None:
                return True
        return False


def _ms(latency: Measurement) -> str:
    return f"{1e3 * latency.value:.2f} ms"


def _above(latency: Measurement, seconds: float) -> bool:
    """Return whether a predicted latency is surely above a limit."""
    return latency.value > MARGIN * seconds and (latency.low or latency.value) > seconds


def _slower(first: Measurement, second: Measurement) -> bool:
    """Return whether the first of two predicted latencies is surely greater."""
    return first.value > MARGIN * second.value and (first.low or first.value) > (second.high or second.value)


def _step_trains(record: Record) -> bool:
    cls = registered(record.step)
    return cls is not None and cls.info.trains


def _sizes(record: Record) -> AbstractSet[str]:
    """Return the parameters of a record's step that say how small the model is."""
    cls = registered(record.step)
    return cls.info.sizes if cls is not None else frozenset()


def _done(step: str, values: Mapping[str, Any], without: AbstractSet[str] = frozenset()) -> tuple[str, str]:
    return step, repr(sorted((name, value) for name, value in values.items() if name not in without))


def _says_nothing(record: Record, step: Step, rest: Sequence[LocatedStep]) -> bool:
    """Return whether a model's latency says nothing of the result's: its shape may change, or it may leave early.

    Nor does it where results are combined: a cascade wants a small model that loses too much, and a slow one behind it.
    """
    shape = record.shape
    techniques = [step, *(located.step for located in leaves(rest) if isinstance(located.step, Technique))]
    return shape is None or any(
        isinstance(each, Combination) or "exits" in each.info.gives or each.shape_after(shape) != shape
        for each in techniques
    )
