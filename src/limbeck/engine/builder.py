"""Make each candidate once: roots from model folders, children by techniques, all kept in the store.

A key identifies how a candidate is made, so a finished one is found by its key. If its object was deleted or damaged,
it is rebuilt from its parent, however far back that goes. ``adopt`` loads the records of an earlier run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Candidate, Record, Reference, Stored, lineage, lineage_key
from limbeck.core.combination import Combination
from limbeck.core.cost import TargetCost
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import environment
from limbeck.core.pieces import Spread
from limbeck.core.step import RunContext, Step, Teacher, Technique
from limbeck.core.step_keys import identity
from limbeck.core.task import Task
from limbeck.engine.costs import CostFactory, make_cost
from limbeck.engine.given_teacher import GivenTeacher
from limbeck.engine.root_record import ROOT_VERSION, check_graph, check_trained, check_traits, root_record
from limbeck.engine.services import machine_in_keys, services, services_in_keys
from limbeck.engine.store.fingerprint import fingerprint
from limbeck.engine.store.ledger import descends, record_to_json
from limbeck.engine.store.provenance import Provenance, provenance_of
from limbeck.engine.store.store import Store, is_interruption
from limbeck.engine.store.stored_form import read_record, read_records
from limbeck.engine.workers.helping import applied_by_all, runs_on_all_processes
from limbeck.errors import InputError, StepFailed, StoreError
from limbeck.model.location import model_folder
from limbeck.recipe.checks import next_traits
from limbeck.recipe.recipe import Recipe
from limbeck.train.config import kept_steps


class CandidateBuilder:
    """The records of one run and the means to open the candidate of each."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        store: Store,
        cost: CostFactory | None = None,
        log: Callable[..., None] = lambda step, key, message, /, **numbers: None,
    ) -> None:
        self.recipe, self.task, self.store, self._cost, self.log = recipe, task, store, cost, log
        store.use_task(task)
        self.target = ""  # whose facts the records have, where the recipe has several
        self.records: MutableMapping[str, Record] = {}
        self.origins: dict[str, Provenance] = {}
        self.sources: dict[str, str] = {}  # digests of the content of model folders, by name
        self.given = GivenTeacher(recipe.teacher, task)
        self.find_given: Callable[[], str | None] | None = None  # where others see the teacher
        self.spread: Callable[[str], Spread | None] = lambda base: None  # of the step that makes this first child

    def root(self, source: str, seed: int, role: str = "model") -> Record:
        """Return the record of a model folder, storing the model when its content is new.

        Args:
            source: Folder or hub name of a model.
            seed: Seed of everything random.
            role: 'model' or 'teacher'.
        """
        key = self.root_key(source, seed, role)
        self.origins[key] = Provenance(seed, source=source, role=self._role(source, role))
        self.store.claim(key)
        if key not in self.records:
            with self.store.lock(key):
                stored = self.store.facts.recall(f"record-{key}", read_record)
                record = stored if stored is not None and stored.key == key else self._make_root(key)
            check_trained(record, source, self.recipe.teacher)
            self.records[key] = replace(record, parameters=self.given.named(source))  # the same content may have moved
        return self.records[key]

    def root_key(self, source: str, seed: int, role: str) -> str:
        """Return the key of a model folder's content with this task; the seed decides a newly initialized head.

        Args:
            source: Folder or hub name of a model.
            seed: Seed of everything random.
            role: 'model' or 'teacher'.
        """
        if source not in self.sources:
            self.sources[source] = fingerprint(model_folder(source) or source)
        reads = {"seed": seed, "task": self.task.fingerprint}
        return lineage_key(None, self._role(source, role), ROOT_VERSION, {"source": self.sources[source]}, reads)

    def _role(self, source: str, role: str) -> str:
        """Return the role of a model; one that is its own teacher is one record, not two."""
        return "model" if source == self.recipe.model else role

    def children(self, parent: Record, step: Technique, seed: int) -> tuple[list[Record], bool]:
        """Return the records that ``step`` makes of ``parent``, and whether they were stored already.

        Args:
            parent: The record to start from.
            step: The step.
            seed: Seed of everything random.
        """
        base = self.child_base(parent.key, step, seed)
        self.store.claim(base)
        with self.store.lock(base):
            stored = self._stored_children(base)
            records = self._apply(parent, step, seed, base) if stored is None else stored
        for index, record in enumerate(records):
            self.origins[record.key] = Provenance(seed, step, index)
            records[index] = self.records.setdefault(record.key, record)
        return records, stored is not None

    def finished(self, parent: Record, step: Technique, seed: int) -> list[Record] | None:
        """Return the records that ``step`` made of ``parent`` in an earlier run; None if it has not run yet.

        Args:
            parent: The record to start from.
            step: The step.
            seed: Seed of everything random.
        """
        there = self._stored_children(self.child_base(parent.key, step, seed)) is not None
        return self.children(parent, step, seed)[0] if there else None

    def _stored_children(self, base: str) -> list[Record] | None:
        records = self.store.facts.recall(f"children-{base}", read_records)
        return records if records is not None and records[0].key == base else None

    def adopt(self, records: Iterable[Record]) -> None:
        """Adopt the records of an earlier run of the same recipe, parents first, and determine how each was made.

        The step of the recipe that yields a record's key made it; without one the record has no provenance, and its
        object cannot be made again.
        """
        for record in records:
            self.records[record.key] = record
            if (origin := provenance_of(record, self)) is not None:
                self.origins[record.key] = origin

    def open(self, key: str) -> Candidate:
        """Return a private copy of a candidate, rebuilt if the store lost it or its files are damaged."""
        if key == self.given_key:
            return self._open_given(key)
        self.ensure(key)
        try:
            return self.store.open(key)
        except Exception as error:  # each file format has errors of its own for damage
            if self.store.has(key):  # its files are what was written: hours of work, which need no other copy
                if is_interruption(error):
                    raise
                where = self.store.objects / key
                raise StoreError(
                    f"{where} is intact but cannot be opened here: {error}; remove it to make it again"
                ) from error
        self.ensure(key)
        return self.store.open(key)

    @property
    def given_key(self) -> str | None:
        """Key of the recipe's teacher if it only gives answers; it is never in the store."""
        if self.find_given is not None:
            return self.find_given()
        source = self.recipe.teacher
        return self.root_key(source, self.recipe.seed, "teacher") if source and self.given.answers_only else None

    def _open_given(self, key: str) -> Candidate:
        self.sources.pop(self.recipe.teacher or "", None)  # its content counts now, not when the run began
        if key != self.given_key:
            raise InputError(f"the teacher '{self.recipe.teacher}' has changed since the run began; run again")
        return self.given.open()

    def teacher(self, key: str, step: Step | None = None) -> str | None:
        """Return the teacher of steps on this record: the recipe's, else the first fine-tuned model of its lineage.

        The teacher of a step that ``imitates`` the root is the model that the lineage began with, whatever came after.
        """
        if step is not None and step.info.imitates == "root":
            return lineage(self.records, key)[0].key
        if self.recipe.teacher:
            return self.root_key(self.recipe.teacher, self.recipe.seed, "teacher")
        for record in lineage(self.records, key):
            origin = self.origins[record.key].step
            if origin is not None and "teacher" in origin.info.gives:
                return record.key
        return None

    def reads(self, key: str, step: Step, seed: int) -> dict[str, Any]:
        """Return the values of the services that a step declares, as they enter keys.

        Args:
            key: Key of the record.
            step: The step.
            seed: Seed of everything random.
        """
        teacher, traits = partial(self.teacher, key, step), self.records[key].traits
        return services_in_keys(self.serving(step), step, seed=seed, teacher=teacher, task=self.task, traits=traits)

    def child_base(self, parent: str, step: Technique, seed: int) -> str:
        """Return the key of the first child that a step makes; its siblings append their number.

        Args:
            parent: Key of the parent.
            step: The technique.
            seed: Seed of everything random.
        """
        reads = self.reads(parent, step, seed)
        return lineage_key(parent, step.info.key_name, step.info.version, identity(step), reads)

    def fact_name(self, key: str, step: Step, seed: int, beside: Sequence[str]) -> str:
        """Return the name under which the facts of a record are stored; it covers all that decides them.

        Args:
            key: Key of the record.
            step: The probe.
            seed: Seed of everything random.
            beside: Keys of the models measured beside it.
        """
        reads = self.reads(key, step, seed) | dict(zip(("beside", "reference"), beside, strict=False))
        reads |= machine_in_keys(self.serving(step), step)
        return "facts-" + lineage_key(key, f"probe {step.info.name}", step.info.version, identity(step), reads)

    def context(
        self,
        key: str,
        step: Step,
        seed: int,
        log: Callable[..., None],
        *,
        scratch: Path | None = None,
        candidate: Candidate | None = None,
        reference: str | None = None,
        compared: Reference | None = None,
        spread: Spread | None = None,
    ) -> RunContext:
        """Return the services that a step may use while it works on a record; others are refused.

        Args:
            key: Key of the record.
            step: The step.
            seed: Seed of everything random.
            log: Receives messages, and numbers by name.
            scratch: Folder for the step's own checkpoints.
            candidate: The candidate that the step works on, for the cost of its shapes.
            reference: Key of the model that a choice compares with, in place of the teacher.
            compared: The model that a probe compares the others with.
            spread: Has pieces of the step carried out elsewhere.
        """
        teacher = reference or (self.teacher(key, step) if "teacher" in step.info.reads else None)
        ancestor = descends(self.records, key, teacher)
        model = Teacher(**vars(self.stored(teacher)), ancestor=ancestor) if teacher else None
        cost = None
        if candidate is not None and "cost" in step.info.reads:
            cost = self.make_cost(candidate, step, key, self.teacher(key, step))
        partner = self.stored(step.partner) if isinstance(step, Combination) and step.partner else None
        given = partial(services, self.serving(step), self.store, step, seed=seed, teacher=model, log=log)
        return given(scratch=scratch, cost=cost, compared=compared, partner=partner, spread=spread)

    def stored(self, key: str) -> Stored:
        """Return a candidate that is opened only on demand."""
        return Stored(key, lambda: self.open(key), self.records.get(key))

    def ensure(self, key: str) -> None:
        """Ensure that the object exists and is intact, making it again if necessary.

        Locks are taken from child to parent only, so runs cannot block each other.

        Args:
            key: Key of the candidate.

        Raises:
            StoreError: It does not exist, and how it was made is unknown.
        """
        if key == self.given_key or self.store.has(key):
            return
        if key not in self.origins:
            raise StoreError(
                f"the store {self.store.root} has no object {key}, and how it was made is not known here: by another "
                "version, on another machine, or from a model that has changed; run the recipe again"
            )
        record, origin = self.records[key], self.origins[key]
        if self.store.lacks_task(key):  # the model is whole, only its rows are gone
            if record.parent is None:
                self.store.keep_task(self.task)
            else:
                self.ensure(record.parent)
            if self.store.has(key):
                return
            self.store.quarantine(key, f"object {key} in {self.store.root} is damaged: its task is missing")
        if record.parent is None:
            with self.store.lock(key):
                self._make_root(key)
        else:
            parent = self.records[record.parent]
            assert origin.step is not None  # only a root has none
            base = self.child_base(parent.key, origin.step, origin.seed)
            with self.store.lock(base):
                if not self.store.has(key):
                    self._apply(parent, origin.step, origin.seed, base)
        if not self.store.has(key):
            raise StepFailed(f"{record.step} did not make {key} again; bump its version if its results changed")

    def _make_root(self, key: str) -> Record:
        origin = self.origins[key]
        self.sources.pop(origin.source, None)  # its content counts now, not when the run began
        if self.root_key(origin.source, origin.seed, origin.role) != key:
            raise InputError(f"the model '{origin.source}' has changed since {key} was made from it; run again")
        if key == self.given_key:
            record = self.given.record(key)
        else:
            model, tokenizer = self.store.open_model(origin.source, task=self.task, seed=origin.seed)
            record = root_record(key, origin.role, origin.source, model)
            check_trained(record, origin.source, self.recipe.teacher)
            check_graph(model)
            self._keep(record, Candidate(model, tokenizer, self.task), origin.seed)
        self.store.facts.remember(f"record-{key}", record_to_json(record))
        return record

    def _apply(self, parent: Record, step: Technique, seed: int, base: str) -> list[Record]:
        """Apply a technique; if it cannot resume from its checkpoints, it starts again, and they stay until it ends."""
        resumed = self.store.is_begun(base)
        try:
            return self._apply_once(parent, step, seed, base)
        except Exception as error:  # whatever a step raises over a damaged file
            if not resumed or is_interruption(error):
                raise
            self.log(step.info.name, parent.key, f"it cannot resume where it stopped ({error}), and starts again")
        with self.store.without_checkpoints(base):
            return self._apply_once(parent, step, seed, base)

    def _apply_once(self, parent: Record, step: Technique, seed: int, base: str) -> list[Record]:
        """Apply a technique to a private copy and store every candidate it yields."""
        check_traits(step, parent, {"teacher"} if self.recipe.teacher else set())
        notes: list[str] = []

        def log(message: str, /, **numbers: float) -> None:
            if message and not numbers:  # lines with numbers report progress, not results
                notes.append(message)
            self.log(step.info.name, parent.key, message, **numbers)

        candidate = replace(self.open(parent.key), epoch_checkpoints=())  # those of the parent are not its children's
        scratch = self.store.scratch(base)
        spread = self.spread(base)
        context = self.context(parent.key, step, seed, log, scratch=scratch, candidate=candidate, spread=spread)
        records: list[Record] = []
        teacher = self.teacher(parent.key, step) if "teacher" in step.info.reads else None
        if teacher and runs_on_all_processes(step):
            self.ensure(teacher)  # it cannot be made again while the others wait in this step
        alone = applied_by_all(self.recipe, self.store, step, parent=parent.key, seed=seed, base=base, teacher=teacher)
        with alone, self.store.machine.working():
            start = time.perf_counter()
            for index, child in enumerate(step.apply(candidate, context)):
                child = replace(child, epoch_checkpoints=(*child.epoch_checkpoints, *kept_steps(scratch)))
                record = Record(
                    key=base if index == 0 else f"{base}-{index}",
                    parent=parent.key,
                    step=step.info.name,
                    parameters=parameters(step),
                    shape=child.model.shape,
                    traits=next_traits(parent.traits, step),
                    facts=child.facts,
                    duration=time.perf_counter() - start,
                    notes=tuple(notes),
                )
                self._keep(record, child, seed)
                records.append(record)
                notes.clear()
                start = time.perf_counter()
        if not records:
            raise StepFailed("; ".join((f"{step.info.name} made no candidate from {parent.key}", *notes)))
        self.store.facts.remember(f"children-{base}", list(map(record_to_json, records)))
        self.store.done(base)
        return records

    def _keep(self, record: Record, candidate: Candidate, seed: int) -> None:
        self.store.put(record.key, candidate, dict(record=record_to_json(record), environment=environment(), seed=seed))

    def make_cost(self, candidate: Candidate, step: Step, key: str, teacher: str | None) -> TargetCost:
        """Return what shapes of a candidate cost on the target of a step.

        Args:
            candidate: The model whose slices are priced.
            step: The step.
            key: Key of its record.
            teacher: Key of its teacher, if it has one.
        """
        record, target = self.records.get(teacher or ""), self.serving(step).target
        ancestor = descends(self.records, key, teacher)
        return make_cost(candidate, record, target, self.store, self._cost, ancestor=ancestor)

    def serving(self, step: Step) -> Recipe:
        """Return the recipe for the target of a step alone: that of a technique's goal, or that which is measured.

        A combination that has no partner yet chooses its pairs, by what was measured.
        """
        if isinstance(step, Technique) and (not isinstance(step, Combination) or step.partner):
            return self.recipe.at(step.goal_target() or "")
        return self.recipe.at(self.target)
