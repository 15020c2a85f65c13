"""A dry run: what a recipe would do for each candidate, what is already done, and how long the rest would take.

Nothing is trained and torch is not imported. Times come from earlier runs of the same step in this store, on the same
shape and texts; failing that, from the step's own ``estimated_seconds(shape, rows, tokens)``, in proportion to what it
took earlier on the same task (rough; rows by split, tokens of a typical text); otherwise they are unknown. A step
may predict its result's shape with ``shape_after(shape)`` (None: only running it shows), and the number of its results
with ``result_count()``. Times after a step whose result is unknown are those of the shape before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.combination import Combination
from limbeck.core.field_groups import parameters
from limbeck.core.shape import Shape
from limbeck.core.step import Choice, Step, Technique, needs
from limbeck.core.task import Task
from limbeck.data.summary import Summary
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.past_times import PastTimes, Work, typical_tokens
from limbeck.engine.reference import measured_with
from limbeck.engine.store.provenance import Provenance
from limbeck.engine.store.store import Store
from limbeck.engine.store.stored_form import read_probed, read_record, read_records
from limbeck.engine.target_runs import measured_at
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.engine.tasks.data_report import data_report
from limbeck.engine.tasks.task_adaptation import adapt_task
from limbeck.engine.workers import makespan
from limbeck.errors import InputError
from limbeck.model.location import model_folder
from limbeck.recipe.checks import next_traits
from limbeck.recipe.parsing import LocatedStep
from limbeck.recipe.recipe import Recipe, placed_steps


@dataclass(frozen=True)
class Row:
    """One step: a technique on one candidate, a probe or a choice on all of them together (``candidate`` is None).

    ``seconds`` and ``bytes`` are None when unknown, 0 when nothing is left to do; ``rough`` seconds were not measured.
    ``after`` are the numbers of the rows that have to end before it; ``own`` rows are the run's own, not a worker's.
    ``target`` is that of a probe's or a choice's row, where the recipe has several.
    """

    path: str
    step: str
    parameters: dict[str, Any]
    candidate: int | None
    candidates: int
    shape: Shape | None
    done: bool
    seconds: float | None
    bytes: int | None
    rough: bool = False
    after: tuple[int, ...] = ()
    own: bool = False
    target: str = ""


@dataclass(frozen=True)
class DryRun:
    """The rows of a dry run and their sums; ``unknown`` counts the rows without a time.

    ``data`` summarizes the task.
    """

    rows: tuple[Row, ...]
    task_rows: dict[str, int]
    seconds: float
    bytes: int
    unknown: int
    data: Summary

    def to_json(self) -> dict[str, Any]:
        """Return the dry run as plain values; rows of a recipe with a single target name none."""
        plain = asdict(self) | {"data": self.data.to_json()}
        if not any(row.target for row in self.rows):
            plain["rows"] = [{name: value for name, value in row.items() if name != "target"} for row in plain["rows"]]
        return plain

    @property
    def graph(self) -> list[makespan.Work]:
        """The work that is left, row by row; of unknown rows the time counts as none."""
        return [makespan.Work(row.seconds or 0.0, row.after, row.own) for row in self.rows]


@dataclass(frozen=True)
class _Planned:
    """A candidate that may not exist yet; ``key`` is None if it depends on results that do not exist yet.

    ``widest`` is the shape, or, if that is unknown, the shape it will be cut from.
    """

    key: str | None
    shape: Shape | None
    widest: Shape | None
    traits: frozenset[str]
    bytes: int | None
    rows: Mapping[str, int] = field(compare=False)  # of the task, by split: a step may add some
    after: tuple[int, ...] = field(default=(), compare=False)  # the row that makes it, or chooses it


def plan(recipe: Recipe, store: Store | str | Path | None = None, *, task: Task | None = None) -> DryRun:
    """Return what ``run`` would do with the same recipe and store.

    Args:
        recipe: The recipe.
        store: Where finished work is kept.
        task: A task in memory instead of ``recipe.task``.
    """
    store = Store.of(store)
    task = checked_task(recipe, store, task)
    task, _ = adapt_task(recipe, task, store, dry=True)
    planner = _Planner(recipe, task, store)
    planner.walk(placed_steps(recipe), [planner.root()])
    rows = tuple(planner.rows)
    return DryRun(
        rows=rows,
        task_rows=planner.task_rows,
        seconds=sum(row.seconds or 0.0 for row in rows),
        bytes=sum(row.bytes or 0 for row in rows),
        unknown=sum(row.seconds is None for row in rows),
        data=data_report(task, recipe.model),
    )


class _Planner:
    def __init__(self, recipe: Recipe, task: Task, store: Store) -> None:
        self.recipe, self.task, self.store = recipe, task, store
        self.builder = CandidateBuilder(recipe, task, store)
        self.builders = {name: measured_at(self.builder, name) for name in recipe.settings}
        self.task_rows = {name: len(split) for name, split in task.splits.items()}
        self.tokens = typical_tokens(task)
        self.whole: Shape | None = None  # the shape of the recipe's model
        self.rows: list[Row] = []
        records = [record for children in store.facts.all("children-", read_records) for record in children]
        records += store.facts.all("record-", read_record)
        probed = store.facts.all("facts-", read_probed)
        self.past = PastTimes(records, [(entry["probe"], entry["parameters"], entry["seconds"]) for entry in probed])
        self.root_key = self.builder.root_key(recipe.model, recipe.seed, "model")

    def root(self) -> _Planned:
        """Return the model of the recipe, as its configuration file describes it."""
        shape, traits = _peeked(self.recipe.model)
        self.whole = shape
        source = model_folder(self.recipe.model)
        files = source.glob("*.safetensors") if source else ()
        size = sum(path.stat().st_size for path in files) or None
        return _Planned(self._stored_root(), shape, shape, traits, size, self.task_rows)

    def _stored_root(self) -> str | None:
        key = self.root_key
        stored = self.store.facts.recall(f"record-{key}", read_record)
        if stored is None:
            return None
        self.builder.records[key] = stored
        self.builder.origins[key] = Provenance(self.recipe.seed, source=self.recipe.model)
        return key

    def walk(self, steps: Sequence[LocatedStep], front: list[_Planned]) -> list[_Planned]:
        for placed in steps:
            if placed.branches is not None:
                front = [candidate for branch in placed.branches for candidate in self.walk(branch, front)]
                front = list(dict.fromkeys(candidate for candidate in front if candidate.key)) + [
                    candidate for candidate in front if not candidate.key
                ]
            elif isinstance(placed.step, Combination):
                front = [*front, *self._combine(placed, placed.step, front)]
            elif isinstance(placed.step, Technique):
                front = [
                    child
                    for number, candidate in enumerate(front)
                    for child in self._make(placed, candidate, number, len(front))
                ]
            elif isinstance(placed.step, Choice):
                done = all(candidate.key for candidate in front)
                first = len(self.rows)
                for name in self.builders:
                    after = self._all_before(front)
                    self._row(placed, None, len(front), None, done, 0.0, 0, after=after, own=True, target=name)
                front = [replace(candidate, after=tuple(range(first, len(self.rows)))) for candidate in front]
            else:
                everywhere_alike = not placed.step.info.machine_bound and "target" not in placed.step.info.reads
                for builder in [self.builder] if everywhere_alike else self.builders.values():
                    self._look(placed, front, builder)
        return front

    def _make(self, placed: LocatedStep, candidate: _Planned, number: int, count: int) -> list[_Planned]:
        step = placed.step
        assert isinstance(step, Technique)
        traits = next_traits(candidate.traits, step)
        rows = step.rows_after(candidate.rows)
        finished = self._children(step, candidate.key)
        if finished is not None:
            self._row(placed, number + 1, count, finished[0].shape, True, 0.0, 0, after=candidate.after)
            children = [(child.key, child.shape, self.store.bytes_of(child.key)) for child in finished]
            after = (len(self.rows) - 1,)
            return [_Planned(key, shape, shape, traits, size, rows, after) for key, shape, size in children]
        shape = step.shape_after(candidate.shape) if candidate.shape else None
        size = _bytes_after(candidate, shape, traits)
        seconds, rough = self._seconds(step, candidate)
        self._row(placed, number + 1, count, shape, False, seconds, size, rough, after=candidate.after)
        after = (len(self.rows) - 1,)
        return [_Planned(None, shape, shape or candidate.widest, traits, size, rows, after)] * step.result_count()

    def _combine(self, placed: LocatedStep, step: Combination, front: list[_Planned]) -> list[_Planned]:
        """Add one row for all candidates, and return what the step will add to them: known after a run, else one."""
        keys = {candidate.key for candidate in front}
        children = [
            child
            for candidate in front
            for partner in sorted(filter(None, keys))
            for child in self._children(step.with_partner(partner), candidate.key) or ()
        ]
        times = [self._seconds(step, candidate)[0] for candidate in front]
        seconds = 0.0 if children else sum(filter(None, times)) if any(times) else None
        after = self._all_before(front)
        self._row(placed, None, len(front), None, bool(children), seconds, 0, rough=not children, after=after, own=True)
        own = (len(self.rows) - 1,)
        first = next((candidate for candidate in front if needs(step) <= candidate.traits), front[0])
        traits = next_traits(first.traits, step)
        if children:
            sizes = [self.store.bytes_of(child.key) for child in children]
            pairs = zip(children, sizes, strict=True)
            return [_Planned(c.key, c.shape, c.shape, traits, size, first.rows, own) for c, size in pairs]
        return [_Planned(None, None, first.widest, traits, None, first.rows, own)]

    def _all_before(self, front: Sequence[_Planned]) -> tuple[int, ...]:
        """Return the rows that a probe or a choice waits for: those of all candidates, and the probe before it."""
        own = [number for number, row in enumerate(self.rows) if row.own][-1:]
        return tuple(sorted({*own, *(number for candidate in front for number in candidate.after)}))

    def _look(self, placed: LocatedStep, front: list[_Planned], builder: CandidateBuilder) -> None:
        """Add one row for all candidates, since a probe measures them together on a target."""
        left = [c for c in front if not self._measured(builder, placed.step, c.key, front[0].key)]
        estimates = [self._seconds(placed.step, candidate) for candidate in left]
        times = [seconds for seconds, _ in estimates if seconds is not None]
        seconds = sum(times) if len(times) == len(estimates) else None
        rough = any(rough for _, rough in estimates)
        after = self._all_before(front)
        row = (placed, None, len(front), None, not left, seconds, 0, rough)
        self._row(*row, after=after, own=True, target=builder.target)

    def _measured(self, builder: CandidateBuilder, step: Step, key: str | None, first: str | None) -> bool:
        """Return whether the facts of a candidate on the builder's target are in the memo."""
        if key is None or first is None:
            return False
        name = builder.fact_name(key, step, self.recipe.seed, measured_with(builder, [first], step))
        return self.store.facts.recall(name, read_probed) is not None

    def _row(
        self,
        placed: LocatedStep,
        candidate: int | None,
        count: int,
        shape: Shape | None,
        done: bool,
        seconds: float | None,
        size: int | None,
        rough: bool = False,
        *,
        after: tuple[int, ...] = (),
        own: bool = False,
        target: str = "",
    ) -> None:
        step = (placed.path, placed.name, parameters(placed.step))
        self.rows.append(Row(*step, candidate, count, shape, done, seconds, size, rough, after, own, target))

    def _children(self, step: Technique, parent: str | None) -> list[Record] | None:
        """Return the stored records of a finished step; None if it has not run yet."""
        if parent is None:
            return None
        name = f"children-{self.builder.child_base(parent, step, self.recipe.seed)}"
        records = self.store.facts.recall(name, read_records)
        if records is None:
            return None
        for index, record in enumerate(records):
            self.builder.records[record.key] = record
            self.builder.origins[record.key] = Provenance(self.recipe.seed, step, index)
        return records

    def _seconds(self, step: Step, planned: _Planned) -> tuple[float | None, bool]:
        """Return the likely time, and whether it is rough."""
        rows = (planned.rows, self.tokens, self.root_key, self.task_rows)
        teacher = self._given if step.info.imitates != "root" and self.recipe.teacher else self.whole
        return self.past.seconds(step, Work(planned.widest, *rows, teacher))

    @cached_property
    def _given(self) -> Shape | None:
        """Shape of the recipe's teacher; None where it only gives answers, or is not here yet."""
        assert self.recipe.teacher is not None
        try:
            only = self.builder.given.answers_only
        except (InputError, OSError):
            return None
        return _peeked(self.recipe.teacher)[0] if only is None else None


def _peeked(source: str) -> tuple[Shape | None, frozenset[str]]:
    """Return shape and traits of a model by its configuration; None and 'torch' where it is not here yet."""
    from limbeck.model.checkpoints import peek

    try:
        facts = peek(source)
    except (InputError, OSError):
        return None, frozenset({"torch"})
    return facts["shape"], facts["traits"]


def _bytes_after(candidate: _Planned, shape: Shape | None, traits: frozenset[str]) -> int | None:
    """Return the size of a model cut to ``shape``: 4 bytes a weight, 1 byte in INT8; all embeddings are counted."""
    size = candidate.bytes
    if size is None:
        return None
    if shape is not None and candidate.shape is not None:
        size -= 4 * (candidate.shape.weights - shape.weights)
    newly_int8 = "int8" in traits - candidate.traits
    return math.ceil(size / 4) if newly_int8 else size
