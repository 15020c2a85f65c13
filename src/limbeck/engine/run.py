"""Carries out a recipe: breadth first, one step over all candidates, then the next.

Finished work is found by its key, so resuming means running again. A candidate that fails is recorded in the ledger
and leaves the front; its siblings go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import Measurement, environment, merge
from limbeck.core.step import REGISTRY, Choice, Probe, Technique
from limbeck.core.task import Task
from limbeck.data.baseline import baseline
from limbeck.engine.builder import CandidateBuilder, CostFactory, untrained
from limbeck.engine.data_report import announce
from limbeck.engine.ledger import Ledger, lineage, record_to_json
from limbeck.engine.progress import listening
from limbeck.engine.reachability import Reach
from limbeck.engine.result import Failure, RunResult, read_result
from limbeck.engine.store import MACHINE, Store, refusal
from limbeck.engine.stored_task import FOLDER, keep_task
from limbeck.engine.task_adaptation import adapt_task
from limbeck.engine.weak_teacher import WeakTeacher, compare_teacher, weak_teacher_message
from limbeck.errors import InputError, LimbeckError, ProcessLost, RecipeError, StoreError, UndeclaredService
from limbeck.recipe.checks import absent_splits, before_training, check_lengths, trained_first
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.recipe.recipe import Recipe, check, dump, listing, placed_steps, to_data
from limbeck.storage.destination import check_destination, disk_full

__all__ = ["Failure", "RunResult", "load", "read_result", "run"]

OnEvent = Callable[[dict[str, Any]], None]


def run(
    recipe: Recipe,
    store: Store | str | Path | None = None,
    folder: str | Path | None = None,
    on_event: OnEvent | None = None,
    *,
    task: Task | None = None,
    cost: CostFactory | None = None,
    progress: bool | None = None,
) -> RunResult:
    """Carry out a recipe, or go on with it where an earlier run stopped.

    Args:
        recipe: What to do; checked first, and every problem is reported at once.
        store: Where finished work is kept; a folder, or None for the user's own.
        folder: Where the ledger and the resolved recipe go; ``runs/<name>`` unless given.
        on_event: Called with a dictionary (``kind`` and more) at every start, end, log line and failure.
        task: A task in memory instead of ``recipe.task``. It is kept in the run's folder, and the recipe that is
            written there refers to it.
        cost: Builds ``context.cost`` from (candidate, target, memo); the techniques' own unless given.
        progress: Whether to draw progress. Unless given: on a terminal and in a notebook, if nobody listens to events.
    """
    loaded = checked_task(recipe, task)
    run_folder = Path(folder) if folder else default_folder(recipe.name)
    if task is not None:
        check_destination(run_folder, "--folder", within=True)
        recipe = replace(recipe, task=str(keep_task(task, run_folder)))
    with listening(on_event, progress) as listener:
        return carry_out(recipe, loaded, store, run_folder, listener, cost)


def carry_out(
    recipe: Recipe,
    task: Task,
    store: Store | str | Path | None,
    folder: Path,
    on_event: OnEvent,
    cost: CostFactory | None = None,
) -> RunResult:
    """Carry out a recipe whose task is loaded already. See :func:`run`.

    Args:
        recipe: The recipe.
        task: What ``recipe.task`` names.
        store: Where finished work is kept.
        folder: Where the ledger and the resolved recipe go.
        on_event: Receives each event as a dictionary.
        cost: See :func:`run`.
    """
    check_destination(folder, "--folder", within=True)
    store = store if isinstance(store, Store) else Store(Path(store)) if store else Store()
    store.prepare()
    task, notes = adapt_task(recipe, task, store)
    return _Run(recipe, task, store, folder, on_event, cost).go(notes)


def default_folder(name: str) -> Path:
    """Return the folder of a run that was given none."""
    return Path("runs") / (name or "run")


def checked_task(recipe: Recipe, task: Task | None = None) -> Task:
    """Load and check the task of a recipe (``task`` if given); one error lists every problem of both."""
    title = f"recipe {recipe.name}".strip()
    if problems := [problem for problem in check(recipe) if task is None or problem.path != "task"]:
        raise RecipeError(listing(title, problems))
    task = load(recipe) if task is None else task
    if problems := absent_splits(placed_steps(recipe), task):
        raise RecipeError(listing(title, problems))
    check_lengths(recipe.model, recipe.teacher, task, placed_steps(recipe), recipe.target.seq_len)
    return task


def load(recipe: Recipe) -> Task:
    """Load the task of a recipe."""
    from limbeck.data.loading import load_task

    return load_task(recipe.task)


class _Run:
    """The state of one run: the builder with its records, what failed, what was chosen."""

    def __init__(
        self, recipe: Recipe, task: Task, store: Store, folder: Path, on_event: OnEvent, cost: CostFactory | None
    ) -> None:
        self.recipe, self.task, self.store, self.folder, self.emit = recipe, task, store, folder, on_event
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.builder = CandidateBuilder(recipe, task, store, cost, self._log)
        self.records = self.builder.records
        self.reach = Reach(self.builder, recipe.seed)
        self.failed: list[Failure] = []
        self.chosen: list[str] = []
        self.replicas: dict[str, list[str]] = {}
        self.probed: list[tuple[LocatedStep, set[str]]] = []
        self.written: set[str] = set()
        self.judged: set[str] = set()
        self.chooses = any(located.step.info.final for located in leaves(placed_steps(recipe)))
        self.position = self.total = 0

    def go(self, notes: Sequence[str] = ()) -> RunResult:
        """Carry out the recipe; ``notes`` are emitted first."""
        start = time.perf_counter()
        steps = placed_steps(self.recipe)
        self.total = sum(1 for _ in leaves(steps))
        self._begin()
        announce(self.emit, self.task, self.recipe.model)
        for note in notes:
            self._note(note)
        try:
            root = self.builder.root(self.recipe.model, self.recipe.seed)
            self._write(root)
            _check_head(root, self.recipe.model, steps)
            if reason := untrained(root):
                end = "and trained" if trained_first(steps) else "and stays untrained where no step trains it"
                self._note(f"'{self.recipe.model}' {reason}; it is drawn from the seed {self.recipe.seed} {end}")
            if self.recipe.teacher:
                self._write(self.builder.root(self.recipe.teacher, self.recipe.seed, "teacher"))
            if obstacle := self.reach.obstacle(steps, root.key):
                raise InputError(f"{obstacle.placed.path}.{obstacle.placed.name}: {obstacle.reason}")
            front = self._walk(steps, [root.key])
            self._replicate()
        except KeyboardInterrupt:
            self._note(f"interrupted; the same command goes on from here ({self.folder})", kind="interrupted")
            raise
        except ProcessLost as error:
            self._note(str(error), kind="interrupted")
            raise
        teacher = self.builder.teacher((self.chosen or front or [root.key])[0])
        ends = {"front": front, "chosen": self.chosen, "teacher": teacher, "replicas": self.replicas}
        seconds = time.perf_counter() - start
        self.ledger.append("finished", **ends, failed=len(self.failed), seconds=seconds)
        self.emit({"kind": "finished", **ends, "failed": len(self.failed), "seconds": seconds})
        return RunResult(
            recipe=self.recipe,
            folder=self.folder,
            store=self.store,
            records={key: record for key, record in self.records.items() if key in self.written},
            front=front,
            chosen=self.chosen,
            teacher=teacher,
            failed=self.failed,
            replicas=self.replicas,
            environment=environment(),
            task=self.task,
        )

    def _begin(self) -> None:
        self.ledger.read()
        torn = self.ledger.torn
        self.ledger.append(
            "run",
            recipe=to_data(self.recipe, full=True),
            environment=environment(),
            store=str(self.store.root),
            task=str(self.task.fingerprint),
            kept_task=FOLDER if self._keeps_task else None,
        )
        self._write_recipe()
        self.store.notify = lambda message: self._note(message, kind="store")
        if torn:
            lines = ", ".join(map(str, torn))
            self._note(f"{self.ledger.path}: line {lines} was torn by a crash and is ignored")

    @property
    def _keeps_task(self) -> bool:
        """Whether the recipe's task is the one in the run's own folder."""
        task = self.recipe.task
        return not isinstance(task, Mapping) and Path(task).resolve() == (self.folder / FOLDER).resolve()

    def _write_recipe(self) -> None:
        """Write the resolved recipe beside the ledger; it can be edited and run again."""
        path = self.folder / "recipe.yaml"
        temporary = path.with_suffix(f".{self.ledger.run}.tmp")
        try:
            # a task in this folder is named relative to the recipe, which may be moved together with it
            recipe = replace(self.recipe, task=FOLDER) if self._keeps_task else self.recipe
            temporary.write_text(dump(recipe, full=True), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise StoreError(f"the recipe cannot be written to {path}: {error}") from error

    # --- the walk ----------------------------------------------------------------------------------------------

    def _walk(self, steps: Sequence[LocatedStep], front: list[str]) -> list[str]:
        for placed in steps:
            front = self.advance(front, placed)
        return front

    def _branch(self, branch: Sequence[LocatedStep], front: list[str]) -> list[str]:
        """Return the keys at the end of a branch; one that cannot reach its goal fails before it trains anything."""
        obstacle = self.reach.obstacle(branch, front[0]) if len(front) == 1 else None
        if obstacle is None:
            return self._walk(branch, front)
        with self._isolate_failure(obstacle.placed.path, obstacle.placed.name, front[0]):
            raise InputError(f"{obstacle.placed.name}: {obstacle.reason}")
        self.position += sum(1 for _ in leaves(branch))
        return []

    def advance(self, front: list[str], placed: LocatedStep) -> list[str]:
        """Carry out one step and return the keys of the candidates after it."""
        if placed.branches is not None:
            ends = [key for branch in placed.branches for key in self._branch(branch, front)]
            return list(dict.fromkeys(ends))
        self.position += 1
        start = time.perf_counter()
        event = {"path": placed.path, "step": placed.name, "position": self.position, "total": self.total}
        self.emit({"kind": "step_start", **event, "candidates": len(front), "parameters": parameters(placed.step)})
        match placed.step:
            case Technique() as step:
                front = self._make(front, placed, step, event)
            case Probe():
                front = self._probe(front, placed)
            case Choice():
                front = self._choose(front, placed)
        seconds = time.perf_counter() - start
        self.emit({"kind": "step_end", **event, "candidates": len(front), "seconds": seconds})
        return front

    def _make(self, front: Sequence[str], placed: LocatedStep, step: Technique, event: dict[str, Any]) -> list[str]:
        children: list[str] = []
        for number, key in enumerate(front):
            event = {**event, "key": key, "candidate": number + 1, "candidates": len(front)}
            self.emit({"kind": "candidate_start", **event})
            records: list[Record] = []
            self._check_teacher(key)
            start, finished = time.perf_counter(), False
            with self._isolate_failure(placed.path, placed.name, key):
                records, finished = self.builder.children(self.records[key], step, self.recipe.seed)
            for record in records:
                self._write(record)
            children += [record.key for record in records]
            seconds = time.perf_counter() - start
            keys = [record.key for record in records]
            self.emit({"kind": "candidate_end", **event, "children": keys, "known": finished, "seconds": seconds})
        return list(dict.fromkeys(children))

    def _check_teacher(self, key: str) -> None:
        """Stop where something is to be made of a teacher that is no better than the best constant answer.

        Only recipes that end in a choice claim that what they choose is good. Judged once for each teacher, and kept.
        """
        teacher = self.builder.teacher(key)
        judged = isinstance(self.task, Task) and "validation" in self.task.splits
        if self.recipe.allow_weak_teacher or not self.chooses or teacher is None or not judged:
            return
        if teacher in self.judged:
            return
        self.judged.add(teacher)

        def compare() -> dict[str, Any]:
            candidate = self.builder.open(teacher)
            size = self.recipe.target.batch if getattr(candidate.model, "int8", False) else 32
            comparison, constant = compare_teacher(candidate.model, candidate.tokenizer, self.task, size)
            return {
                "better": comparison.better,
                "message": "" if comparison.better else weak_teacher_message(self.task, comparison, constant.answer),
            }

        verdict = self.store.memo(f"teacher-{teacher}-{self.task.fingerprint}", compare)
        if not bool(verdict["better"]):
            message = str(verdict["message"])
            self._note(message, kind="weak_teacher")
            raise WeakTeacher(message)

    # --- probes ------------------------------------------------------------------------------------------------

    def _probe(self, front: list[str], placed: LocatedStep, seed: int | None = None) -> list[str]:
        """Measure what was not measured; a candidate that cannot be measured leaves the front."""
        if not front:
            return front
        step, seed = placed.step, self.recipe.seed if seed is None else seed
        teacher = self.builder.teacher(front[0]) if step.info.with_teacher else None
        first = [teacher] if teacher else []
        group = list(dict.fromkeys([*first, *front]))
        if teacher:
            self._write(self.records[teacher])
        names = {key: self.builder.fact_name(key, step, seed, teacher) for key in group}
        before = len(self.failed)
        with self.store.lock(names[group[-1]]):
            remembered: dict[str, Any] = {key: self.store.recall(name) for key, name in names.items()}
            if step.info.group and len({_session(facts) for facts in remembered.values()}) > 1:
                remembered = dict.fromkeys(group)  # facts of different sessions cannot be compared
            missing = [key for key in group if remembered[key] is None]
            if missing:
                todo = list(dict.fromkeys([*first, *missing]))
                start = time.perf_counter()
                measured = self._measure(todo, first, placed, seed)
                seconds = (time.perf_counter() - start) / len(todo)
                description = {"probe": step.info.name, "parameters": parameters(step), "seconds": seconds}
                for key, facts in measured.items():
                    remembered[key] = {**description, "facts": [fact.to_json() for fact in facts]}
                    self.store.remember(names[key], remembered[key])
        for key in group:
            self._add_facts(key, step.info.name, remembered[key]["facts"] if remembered[key] else [])
        self.probed.append((placed, set(group)))
        lost = {failure.key for failure in self.failed[before:]}
        return [key for key in front if key not in lost]

    def _measure(
        self, todo: list[str], first: list[str], placed: LocatedStep, seed: int
    ) -> dict[str, list[Measurement]]:
        """Measure all together; if that fails, each alone, to find the one that fails."""
        rest = [key for key in todo if key not in first]
        if len(rest) > 1:
            try:
                return self._measure_once(todo, placed, seed)
            except (StoreError, ProcessLost):
                raise
            except Exception as error:
                self._note(f"{placed.name} failed on {len(todo)} candidates together ({error}); one by one now")
        measured: dict[str, list[Measurement]] = {}
        for group in [[*first, key] for key in rest] or [first]:
            with self._isolate_failure(placed.path, placed.name, group[-1]):
                measured |= self._measure_once(group, placed, seed)
        return measured

    def _measure_once(self, todo: list[str], placed: LocatedStep, seed: int) -> dict[str, list[Measurement]]:
        step = placed.step
        assert isinstance(step, Probe)
        context = self.builder.context(todo[-1], step, seed, partial(self._log, step.info.name, todo[-1]))
        measured: dict[str, list[Measurement]] = {key: [] for key in todo}
        candidates = [self.builder.open(key) for key in todo]
        with self.store.lock(MACHINE) if step.info.machine_bound else nullcontext():
            for number, fact in step.measure(candidates, context):  # times must not share the cores
                measured[todo[number]].append(fact)
        return measured

    def _add_facts(self, key: str, probe: str, facts: list[dict[str, Any]]) -> None:
        if facts:
            self.ledger.append("facts", key=key, probe=probe, facts=facts)
            old = self.records[key]
            fresh = [Measurement.from_json(fact) for fact in facts]
            self.records[key] = replace(old, facts=merge(old.facts, fresh))
            self.emit({"kind": "facts", "key": key, "step": probe, "facts": facts})

    # --- choices and replicas ----------------------------------------------------------------------------------

    def _choose(self, front: list[str], placed: LocatedStep) -> list[str]:
        if not front:
            return front
        step = placed.step
        assert isinstance(step, Choice)
        with self._isolate_failure(placed.path, placed.name):
            context = self.builder.context(front[0], step, self.recipe.seed, partial(self._log, step.info.name, ""))
            records = [self.records[key] for key in front]
            taken = step.choose(self._learnt(records) if step.info.final else records, context)
            keys = [record.key for record in taken]
            for record in taken:
                self._add_notes(record)
            self.ledger.append(
                "choice", step=step.info.name, parameters=parameters(step), path=placed.path, among=front, kept=keys
            )
            self.emit({"kind": "choice", "step": step.info.name, "path": placed.path, "among": front, "kept": keys})
            if step.info.final:
                self.chosen = keys
            return keys
        return front

    def _learnt(self, records: list[Record]) -> list[Record]:
        """Return the candidates that beat the best constant answer on validation; all of them if none does.

        A candidate below that is useless, however fast it is.
        """
        if not isinstance(self.task, Task) or "validation" not in self.task.splits:
            return records
        constant = baseline(self.task).quality["validation"].value
        facts = [(record, record.fact("quality", "validation")) for record in records]
        return [record for record, fact in facts if fact is None or fact.value > constant] or records

    def _add_notes(self, record: Record) -> None:
        """Keep what a choice says of a record, such as the limits that even the nearest one breaks."""
        if record.notes != self.records[record.key].notes:
            self.records[record.key] = replace(self.records[record.key], notes=record.notes)
            self.ledger.append("record", record=record_to_json(self.records[record.key]))
            self.emit({"kind": "record", "key": record.key, "record": self.records[record.key]})

    def _replicate(self) -> None:
        """Make the chosen candidates again with other seeds and measure what does not depend on the machine."""
        for key in self.chosen:
            for number in range(1, self.recipe.replicas):
                seed = self.recipe.seed + number
                self.emit({"kind": "replica_start", "key": key, "seed": seed, "total": self.recipe.replicas - 1})
                with self._isolate_failure("replicas", "replica", key):
                    replica = self._replay(key, seed)
                    self.replicas.setdefault(key, []).append(replica)
                    self.ledger.append("note", message="replica", replica_of=key, key=replica, seed=seed)
                    for placed in [probe for probe, keys in self.probed if key in keys]:
                        if not placed.step.info.machine_bound:
                            self._probe([replica], placed, seed)

    def _replay(self, key: str, seed: int) -> str:
        """Return the key of the candidate made like ``key``, with another seed."""
        current = self.builder.root(self.recipe.model, seed)
        self._write(current)
        for record in lineage(self.records, key)[1:]:
            origin = self.builder.origins[record.key]
            assert origin.step is not None  # only the root has none
            children, _ = self.builder.children(current, origin.step, seed)
            current = children[origin.index]
            self._write(current)
        return current.key

    # --- events ------------------------------------------------------------------------------------------------

    def _write(self, record: Record) -> None:
        if record.key not in self.written:
            self.written.add(record.key)
            self.ledger.append("record", record=record_to_json(record))
            self.emit({"kind": "record", "key": record.key, "record": self.records[record.key]})

    def _note(self, message: str, kind: str = "note") -> None:
        self.ledger.append("note", message=message)
        self.emit({"kind": kind, "message": message})

    def _log(self, step: str, key: str, message: str, /, **numbers: Any) -> None:
        """Write a message to the ledger; send numbers (step, total, loss) to the listener only."""
        if message:
            self.ledger.append("note", step=step, key=key, message=message)
            self.emit({"kind": "log", "step": step, "key": key, "message": message})
        if numbers:
            self.emit({"kind": "progress", "step": step, "key": key, "numbers": numbers})

    @contextmanager
    def _isolate_failure(self, path: str, step: str, key: str = "") -> Iterator[None]:
        """Tell of a failure and go on; only a store that cannot be used or a lost process ends the run."""
        try:
            yield
        except (StoreError, ProcessLost):
            raise
        except Exception as error:  # whatever a step raises concerns one candidate
            if disk_full(error):
                raise StoreError(refusal(error, self.store.root)) from error
            expected = isinstance(error, LimbeckError) and not isinstance(error, UndeclaredService)
            message = str(error) if expected else f"{type(error).__name__}: {error}"
            failure = Failure(path, step, key, message, "" if expected else traceback.format_exc())
            self.failed.append(failure)
            self.ledger.append("failed", failure=asdict(failure))
            self.emit({"kind": "failed", **asdict(failure)})


def _check_head(root: Record, model: str, steps: Sequence[LocatedStep]) -> None:
    """Refuse to work with answers that were never trained."""
    if (reason := untrained(root)) and (early := before_training(steps)):
        trainers = " or ".join(f"'{name}'" for name, cls in sorted(REGISTRY.items()) if cls.info.trains)
        raise InputError(
            f"'{model}' {reason}, and '{early[0].name}' ({early[0].path}) works on trained answers; "
            f"put {trainers} before it"
        )


def _session(remembered: dict[str, Any] | None) -> str | None:
    """In which call the facts of a record were measured: '' where the probe does not say, None if there are none."""
    if remembered is None:
        return None
    sessions = (fact.get("detail", {}).get("session") for fact in remembered["facts"])
    return next(filter(None, sessions), "")
