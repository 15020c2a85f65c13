"""Follow the steps of a recipe: breadth first, one step over all candidates, then the next.

A candidate that fails is recorded in the ledger and leaves the front; its siblings continue.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.combination import GATHERING, Combination
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import environment
from limbeck.core.step import Choice, Probe, Technique
from limbeck.core.task import Task
from limbeck.distributed.executor import Executor, Work, lane_of
from limbeck.distributed.workers import Workers
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.choosing import choose
from limbeck.engine.costs import CostFactory
from limbeck.engine.pairing import choose_pairs
from limbeck.engine.prospects import Prospects
from limbeck.engine.reachability import Obstacle, Reach
from limbeck.engine.replicas import Replicas
from limbeck.engine.result import RunResult
from limbeck.engine.root_record import check_head, untrained
from limbeck.engine.run_log import OnEvent, RunLog
from limbeck.engine.store.store import Store
from limbeck.engine.target_runs import Fronts, TargetRun, ends_of, fronts_for, join_branches, target_runs, union
from limbeck.engine.tasks.data_report import announce
from limbeck.engine.tasks.stored_task import FOLDER
from limbeck.engine.weak_teacher import TeacherCheck
from limbeck.engine.workers.ahead import Ahead, Steps
from limbeck.errors import InputError, ProcessLost, StoreError
from limbeck.recipe.checks import trained_first
from limbeck.recipe.median_goals import median_goals
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.recipe.recipe import Recipe, dump, placed_steps, to_data
from limbeck.storage.atomic import replacing


class Walk:
    """The state of one run: the builder with its records, what was measured, what was chosen."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        store: Store,
        folder: Path,
        on_event: OnEvent,
        cost: CostFactory | None,
        executor: Executor,
        began: float | None = None,
    ) -> None:
        self.recipe, self.task, self.store, self.folder, self.executor = recipe, task, store, folder, executor
        self.log = RunLog(folder, store, on_event)
        self.builder = CandidateBuilder(recipe, task, store, cost, self.log.step)
        self.records = self.builder.records
        self.targets = target_runs(self.builder, self.log, executor)
        self.reach = Reach(self.builder, recipe.seed)
        self.steps = placed_steps(recipe)
        chooses = any(located.step.info.final for located in leaves(self.steps))
        self.teachers = TeacherCheck(self.builder, self.log, chooses=chooses)
        limit = recipe.max_minutes
        self.prospects = None if limit is None else Prospects(self.builder, self.steps, limit, began)
        self.position, self.total = 0, sum(1 for _ in leaves(self.steps))
        self.ahead: Ahead | None = None
        self.root, self.start = "", 0.0

    def work_ahead(self, workers: Workers) -> None:
        """Let workers make candidates before the walk comes to them."""

        def may_begin(branch: Steps, key: str) -> bool:
            return self.reach.obstacle(branch, key) is None

        self.ahead = Ahead(self.builder, workers, self.log, may_begin)

    def begin(self, notes: Sequence[str] = ()) -> None:
        """Open the model and the teacher, and let workers begin; ``notes`` are emitted first."""
        self.start = time.perf_counter()
        self._begin(notes)
        with self._noting_interruptions():
            self.root = self._roots().key
            if obstacle := self.reach.obstacle(self.steps, self.root):
                raise InputError(f"{obstacle.placed.path}.{obstacle.placed.name}: {obstacle.reason}")
            self._schedule(self.steps, [self.root])

    @contextmanager
    def _noting_interruptions(self) -> Iterator[None]:
        """Tell of an interruption within the body."""
        try:
            yield
        except KeyboardInterrupt:
            self.log.note(f"interrupted; the same command resumes here ({self.folder})", kind="interrupted")
            raise
        except ProcessLost as error:
            self.log.note(str(error), kind="interrupted")
            raise

    def finish(self) -> RunResult:
        """Carry out the recipe of a run that has begun."""
        with self._noting_interruptions():
            fronts = self._walk(self.steps, {name: [self.root] for name in self.targets})
            replicas: dict[str, dict[int, str]] = {}
            for target in self.targets.values():
                if self.prospects and (reason := self.prospects.limit.too_late_for_replicas(target.chosen)):
                    self.log.note(f"replicas are left out: {reason}")
                    continue
                maker = Replicas(self.builder, self.log, target.prober, self._children, self.ahead)
                replicas |= maker.make(target.chosen)
        ends = ends_of(self.targets, fronts, self.root)
        front, chosen = union(fronts), union({name: end.chosen for name, end in ends.items()})
        teacher, compared = self.builder.teacher([*chosen, *front, self.root][0]), next(iter(ends.values())).reference
        end: dict[str, Any] = {"front": front, "chosen": chosen, "teacher": teacher, "reference": compared}
        end["replicas"] = {key: [*by_seed.values()] for key, by_seed in replicas.items()}
        end |= {"targets": {name: asdict(each) for name, each in ends.items()}} if self.recipe.targets else {}
        self.store.release(*front, *chosen, *filter(None, (teacher, *(each.reference for each in ends.values()))))
        seconds, failed = time.perf_counter() - self.start, self.log.failed
        self.log.ledger.append("finished", **end, failed=len(failed), seconds=seconds)
        self.log.emit({"kind": "finished", **end, "failed": len(failed), "seconds": seconds})
        result = RunResult(
            recipe=self.recipe,
            folder=self.folder,
            store=self.store,
            records=self._records_at(next(iter(self.targets))),
            front=front,
            chosen=chosen,
            teacher=teacher,
            reference=compared,
            failed=failed,
            replicas=end["replicas"],
            replica_seeds={key: [*by_seed] for key, by_seed in replicas.items()},
            environment=environment(),
            task=self.task,
            builder=self.builder,
        )
        return result.split(ends, self._records_at) if self.recipe.targets else result

    def _records_at(self, name: str) -> dict[str, Record]:
        """Return the records that were written, with the facts of one target."""
        records = self.targets[name].builder.records
        return {key: records[key] for key in self.log.written}

    # --- the beginning -----------------------------------------------------------------------------------------

    def _begin(self, notes: Sequence[str]) -> None:
        """Write the beginning of the ledger, and the resolved recipe."""
        self.log.begin(
            recipe=to_data(self.recipe, full=True),
            environment=environment(),
            store=str(self.store.root),
            task=str(self.task.fingerprint),
            task_name=self.task.name,
            kept_task=FOLDER if self._keeps_task else None,
        )
        self._write_recipe()
        announce(self.log.emit, self.task, self.recipe.model)
        for note in (*median_goals(self.recipe), *notes):
            self.log.note(note)

    def _roots(self) -> Record:
        """Return the record of the model; write it and that of the recipe's teacher."""
        model, seed = self.recipe.model, self.recipe.seed
        root = self.builder.root(model, seed)
        self.log.write(root)
        check_head(root, model, self.steps)
        if reason := untrained(root):
            end = "and trained" if trained_first(self.steps) else "and stays untrained if no step trains it"
            self.log.note(f"'{model}' {reason}; it is initialized from the seed {seed} {end}")
        if self.recipe.teacher:
            teacher = self.builder.root(self.recipe.teacher, seed, "teacher")
            self.log.write(teacher)
            if self.builder.given_key is not None:
                name = teacher.parameters.get("function") or self.recipe.teacher
                self.log.note(f"the teacher '{name}' {'; '.join(teacher.notes)}")
        return root

    @property
    def _keeps_task(self) -> bool:
        """Whether the recipe's task is the one in the run's own folder."""
        task = self.recipe.task
        return not isinstance(task, Mapping) and Path(task).resolve() == (self.folder / FOLDER).resolve()

    def _write_recipe(self) -> None:
        """Write the resolved recipe beside the ledger; it can be edited and run again."""
        path = self.folder / "recipe.yaml"
        try:
            # a task in this folder is named relative to the recipe, which may be moved together with it
            recipe = replace(self.recipe, task=FOLDER) if self._keeps_task else self.recipe
            with replacing(path) as draft:
                draft.write_text(dump(recipe, full=True), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"the recipe cannot be written to {path}: {error}") from error

    # --- the walk ----------------------------------------------------------------------------------------------

    def _walk(self, steps: Steps, fronts: Fronts, then: Steps = ()) -> Fronts:
        """Carry out steps; ``then`` are those after the fork that they are a branch of."""
        for number, placed in enumerate(steps, start=1):
            rest = [*steps[number:], *then]
            fronts = self._advance(fronts, placed, rest)
            if placed.branches is None and isinstance(placed.step, GATHERING):
                self._schedule(rest, union(fronts))
        return fronts

    def _schedule(self, steps: Steps, front: Sequence[str]) -> None:
        """Let workers begin what can be done now with each candidate."""
        if self.ahead is not None:
            for key in front:
                self.teachers.check(key)
                self.ahead.schedule(steps, key, self.recipe.seed)

    def _fork(self, branches: Sequence[Steps], fronts: Fronts, then: Steps) -> Fronts:
        """Return what is left after the branches of a fork; a limit of time leaves out all but one at most.

        A branch that cannot reach its goal fails before it trains anything.
        """
        ends: list[Fronts] = []
        for number, branch in enumerate(branches, start=1):
            if obstacle := self._obstacle(branch, fronts):
                with self.log.isolate_failure(obstacle.placed.path, obstacle.placed.name, union(fronts)[0]):
                    raise InputError(f"{obstacle.placed.name}: {obstacle.reason}")
                self.position += sum(1 for _ in leaves(branch))
            elif self.prospects is None:
                ends.append(self._walk(branch, fronts, then))
            else:
                later = (self._obstacle(each, fronts) for each in branches[number:])
                needed = not any(map(union, ends)) and all(later)
                ends.append(self._branch_in_time(self.prospects, branch, fronts, then, needed))
        return join_branches(ends, self.targets)

    def _obstacle(self, branch: Steps, fronts: Fronts) -> Obstacle | None:
        """Return the step of a branch that cannot reach its goal."""
        front = union(fronts)
        return self.reach.obstacle(branch, front[0]) if len(front) == 1 else None

    def _branch_in_time(self, prospects: Prospects, branch: Steps, fronts: Fronts, then: Steps, needed: bool) -> Fronts:
        """Carry out a branch of a run with a limit of time; measure its models as far as nothing is timed; show them.

        Args:
            prospects: Judges what is worth its time.
            branch: Steps of the branch.
            fronts: The candidates that it begins with.
            then: The steps after the fork; probes among them find the facts later.
            needed: Whether no other branch has a result.
        """
        with prospects.branch(needed) as may_be_left_out:
            late = prospects.limit.over(branch, union(fronts), self.recipe.seed) if may_be_left_out else None
            if late:
                self.log.note(f"{branch[0].path} is left out with what follows: {late}")
                self.position += sum(1 for _ in leaves(branch))
                return {name: [] for name in fronts}
            ends = self._walk(branch, fronts, then)
        keys = prospects.new(union(ends))
        for placed in then:
            if placed.branches is not None or not isinstance(placed.step, Probe):
                break
            if not placed.step.info.machine_bound:
                for name, target in self.targets.items():
                    target.prober.probe([key for key in ends[name] if key in keys], placed, self.recipe.seed)
        prospects.add(keys)
        for key in keys:
            self.log.note(prospects.described(key), kind="finished_model")
        return ends

    def _advance(self, fronts: Fronts, placed: LocatedStep, rest: Steps) -> Fronts:
        """Carry out one step, which ``rest`` comes after, and return what is left after it."""
        if placed.branches is not None:
            return self._fork(placed.branches, fronts, rest)
        self.position += 1
        start = time.perf_counter()
        event = {"path": placed.path, "step": placed.name, "position": self.position, "total": self.total}
        count, step_parameters = len(union(fronts)), parameters(placed.step)
        self.log.emit({"kind": "step_start", **event, "candidates": count, "parameters": step_parameters})
        match placed.step:
            case Combination() as step:
                fronts = self._combine(fronts, placed, step, event)
            case Technique() as step:
                fronts = self._make_for(fronts, placed, step, event, rest)
            case Probe():
                seed = self.recipe.seed
                for name, target in self.targets.items():
                    if self.ahead is not None:
                        self.ahead.prepared(placed, fronts[name])
                    fronts = {**fronts, name: target.prober.probe(fronts[name], placed, seed)}
            case Choice():
                fronts = {name: self._choose(target, fronts[name], placed) for name, target in self.targets.items()}
        seconds = time.perf_counter() - start
        self.log.emit({"kind": "step_end", **event, "candidates": len(union(fronts)), "seconds": seconds})
        return fronts

    def _worthwhile(
        self, prospects: Prospects, fronts: Fronts, placed: LocatedStep, step: Technique, rest: Steps
    ) -> Fronts:
        """Return the candidates that a step is worth its time for, and say why others are left out.

        Args:
            prospects: Judges them.
            fronts: The candidates.
            placed: The step with its location.
            step: The step.
            rest: The steps after it.
        """
        left, reasons = prospects.worthwhile(union(fronts), step, rest, self.recipe.seed)
        for key, reason in reasons.items():
            self.log.note(f"{placed.path}.{placed.name}: {prospects.name(key)} is left out: {reason}")
        return {name: [key for key in keys if key in left] for name, keys in fronts.items()}

    def _make_for(
        self, fronts: Fronts, placed: LocatedStep, step: Technique, event: dict[str, Any], rest: Steps
    ) -> Fronts:
        """Apply a technique to every candidate once, and return the children by target.

        Args:
            fronts: The candidates.
            placed: The step with its location.
            step: The step.
            event: What events say of the step.
            rest: The steps after it.
        """
        fronts, notes = fronts_for(fronts, step, self.recipe)
        if self.prospects is not None:
            fronts = self._worthwhile(self.prospects, fronts, placed, step, rest)
        for note in notes:
            self.log.note(f"{placed.path}.{placed.name}: {note}")
        front = union(fronts)
        children = dict(zip(front, self._make([(key, step) for key in front], placed, event), strict=True))
        return {name: union({key: children[key] for key in keys}) for name, keys in fronts.items()}

    def _combine(self, fronts: Fronts, placed: LocatedStep, step: Combination, event: dict[str, Any]) -> Fronts:
        """Apply a combination to the pairs that it chooses for each target, and add what it makes to the candidates."""
        pairs: dict[str, list[tuple[str, Combination]]] = {name: [] for name in fronts}
        for name, target in self.targets.items():
            with self.log.isolate_failure(placed.path, placed.name):
                pairs[name] = choose_pairs(target.builder, self.log, fronts[name], step, self.recipe.seed)
        work = union(pairs)
        children = dict(zip(work, self._make(work, placed, event), strict=True))
        combined = {name: [key for pair in chosen for key in children[pair]] for name, chosen in pairs.items()}
        return join_branches((fronts, combined), fronts)

    def _make(
        self, work: Sequence[tuple[str, Technique]], placed: LocatedStep, event: dict[str, Any]
    ) -> list[list[str]]:
        """Apply a technique to every candidate and return the keys of the children of each.

        Args:
            work: The candidates, each with the technique as it is applied to this one.
            placed: The technique as the recipe has it.
            event: What every event of it says.
        """
        front = [key for key, _ in work]
        for key in front:
            self.teachers.check(key)
        events = [
            {**event, "key": key, "candidate": number, "candidates": len(front)}
            for number, key in enumerate(front, start=1)
        ]

        def apply(index: int) -> tuple[list[Record], bool]:
            self.log.emit({"kind": "candidate_start", **events[index]})
            key, step = work[index]
            return self._children(self.records[key], step, self.recipe.seed)

        children: list[list[str]] = [[] for _ in work]
        orders = [Work(lane_of(placed.step), partial(apply, index)) for index in range(len(work))]
        for ended in self.executor.run(orders):
            records, stored = list[Record](), False
            with self.log.isolate_failure(placed.path, placed.name, front[ended.index]):
                records, stored = ended.result()
            for record in records:
                self.log.write(record)
            keys = children[ended.index] = [record.key for record in records]
            outcome = {"children": keys, "known": stored, "seconds": ended.seconds}
            self.log.emit({"kind": "candidate_end", **events[ended.index], **outcome})
        return children

    def _children(self, parent: Record, step: Technique, seed: int) -> tuple[list[Record], bool]:
        """Return the records that a step makes of a record, here or elsewhere, and whether they were stored before."""
        by_worker = self.ahead is not None and self.ahead.finish(parent.key, step, seed)
        records, stored = self.builder.children(parent, step, seed)
        if self.ahead is not None and not by_worker:
            self.ahead.made_here(parent.key, step, seed, records)
        return records, stored and not by_worker

    def _choose(self, target: TargetRun, front: list[str], placed: LocatedStep) -> list[str]:
        """Return the keys that a choice keeps for a target; all of them if it fails."""
        if front:
            with self.log.isolate_failure(placed.path, placed.name):
                front = choose(target.builder, self.log, front, placed, self.recipe.seed)
                if placed.step.info.final:
                    target.chosen = front
        return front
