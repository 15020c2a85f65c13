"""The result of a run: in memory when it ends, or read from the ledger of its folder later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Candidate, Record, lineage
from limbeck.core.combination import as_made
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import environment
from limbeck.core.step import Step
from limbeck.core.task import Task
from limbeck.data.baseline import baseline
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.store.ledger import Ledger
from limbeck.engine.store.store import Store
from limbeck.engine.store.stored_form import read_records
from limbeck.engine.tasks.answered_texts import load_run_task
from limbeck.engine.tasks.task_adaptation import adapt_task, fit_length
from limbeck.errors import InputError, StoreError
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, parse, placed_steps, to_data
from limbeck.report.shareable import shareable, without_paths
from limbeck.report.summary import RunSummary
from limbeck.report.text import summary, summary_html
from limbeck.storage import yaml_text


@dataclass(frozen=True)
class Failure:
    """A step that raised on one candidate (``key``). ``traceback`` is empty where the message says it all."""

    path: str
    step: str
    key: str
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class End:
    """What a run ended with on one target: keys of the candidates left, of the chosen ones, and of the reference."""

    front: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    reference: str | None = None


@dataclass(frozen=True, repr=False)
class RunResult:
    """The result of a run: records by key, the keys alive at the end, and those chosen by a final choice.

    ``print`` shows the table of candidates that the command line shows, and so does a notebook. If the recipe has
    several ``targets``, each has a result of its own here, by name, with its facts, its reference and its choice; the
    facts of the whole are then those of the first, its front and choice those of all.
    """

    recipe: Recipe
    folder: Path
    store: Store
    records: dict[str, Record]
    front: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    teacher: str | None = None
    reference: str | None = None
    failed: list[Failure] = field(default_factory=list)
    replicas: dict[str, list[str]] = field(default_factory=dict)
    replica_seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)  # in the order of the replicas
    environment: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None  # None when the result was read from a ledger
    gaps: tuple[str, ...] = ()  # what is missing because the ledger is damaged, or the run did not end
    builder: CandidateBuilder | None = field(default=None, compare=False)  # None when it was read from a ledger
    target: str = ""  # of the result of one of several targets
    targets: Mapping[str, RunResult] = field(default_factory=dict)

    def __repr__(self) -> str:
        chosen = f", chosen {', '.join(self.chosen)}" if self.chosen else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        models = f"{len(self.records)} models, {len(self.measured)} measured"
        return f"RunResult({str(self.folder)!r}, {models}{chosen}{failed})"

    def __str__(self) -> str:
        return summary(self.first_summary, {"folder": self.folder})

    def _repr_html_(self) -> str:
        return summary_html(self.first_summary, {"folder": self.folder})

    @property
    def each(self) -> Mapping[str, RunResult]:
        """The results by target; of a single target this one, without a name ('')."""
        return self.targets or {self.target: self}

    @cached_property
    def summaries(self) -> Mapping[str, RunSummary]:
        """What reports read, by target; each knows those of the other targets."""
        alone = {name: result.run_summary for name, result in self.each.items()}
        return {
            name: replace(own, others={key: other for key, other in alone.items() if key != name})
            if self.targets
            else own
            for name, own in alone.items()
        }

    @property
    def first_summary(self) -> RunSummary:
        """The run on its first target, which knows the others: what tables of all targets are made of."""
        return next(iter(self.summaries.values()))

    def split(self, ends: Mapping[str, End], records_at: Callable[[str], dict[str, Record]]) -> RunResult:
        """Return this result with those of its targets.

        Args:
            ends: What the run ended with on each.
            records_at: Returns the records with the facts of a target.
        """
        targets = {}
        for name, end in ends.items():
            replicas = {key: keys for key, keys in self.replicas.items() if key in end.chosen}
            own = {"records": records_at(name), "target": name, "replicas": replicas, **vars(end)}
            targets[name] = replace(self, **own)
        return replace(self, targets=targets)

    @cached_property
    def run_summary(self) -> RunSummary:
        """The run on one target as report, table, card and exit status read it; it has no paths of this machine.

        Of several targets it is that of the first; ``summaries`` has all.
        """
        recipe, setting = self.recipe, self.recipe.at(self.target)
        failed = [asdict(failure) | {"parent": failure.key} for failure in self.failed]
        return RunSummary(
            records={key: shareable(self._of_target(record)) for key, record in self.records.items()},
            measured=self.measured,
            chosen=self.chosen,
            teacher=self.teacher,
            reference=self.reference,
            recipe=yaml_text.dump(without_paths(to_data(recipe))),
            environment=without_paths(self.environment or environment()),
            failed=without_paths(failed),
            replicas=self.replicas,
            task=self.task,
            target=setting.target,
            target_name=self.target,
            budget=setting.budget,
            seeds=[
                recipe.seed,
                *dict.fromkeys(seed for key in self.replicas for seed in self.replica_seeds.get(key, ())),
            ],
            model=without_paths(recipe.model),
            baseline=baseline(self.task) if self.task is not None else None,
            histories=without_paths(self._histories()),
            gaps=self.gaps,
            chooses=any(located.step.info.final for located in leaves(placed_steps(recipe))),
        )

    def _of_target(self, record: Record) -> Record:
        """Return a record without the latency that a search for another target predicted."""
        goal = record.parameters.get("target") or next(iter(self.recipe.targets), "")
        if not self.target or goal == self.target:
            return record
        return replace(record, facts=tuple(fact for fact in record.facts if fact.name != "latency_predicted"))

    def _histories(self) -> list[dict[str, Any]]:
        """Return the changes to the task's rows behind any candidate, each once, as far as they are stored."""
        entries = [entry for key in self.records for entry in self.store.task_history(key)]
        return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())

    @property
    def ok(self) -> bool:
        """Whether no candidate failed."""
        return not self.failed

    @property
    def measured(self) -> list[str]:
        """The keys of all measured records."""
        return [key for key, record in self.records.items() if any(not fact.is_prediction for fact in record.facts)]

    def open(self, key: str) -> Candidate:
        """Return a private copy of a candidate, made again if the store has lost it or cannot read it."""
        if self.builder is None and self.store.has(key):
            with suppress(StoreError):  # its task is damaged
                return self.store.open(key)
        return self._maker.open(key)

    def stored(self, key: str) -> tuple[Path, Mapping[str, str]]:
        """Return the folder of a candidate in the store and the digests of its files, making it again if necessary."""
        if self.builder is not None or not self.store.has(key):
            self._maker.ensure(key)
        return self.store.objects / key, self.store.card(key).digests

    def reloaded_task(self) -> Task:
        """Load the task of the recipe again, as its model answers it."""
        task = load_run_task(self.recipe.task, self.recipe.model, self.recipe.teacher, self.store)
        return adapt_task(self.recipe, fit_length(task, self.recipe.model), self.store, dry=True)[0]

    def with_task(self, task: Task) -> RunResult:
        """Return this result, and those of its targets, with the task of the run."""
        targets = {name: replace(result, task=task) for name, result in self.targets.items()}
        return replace(self, task=task, targets=targets)

    @cached_property
    def _maker(self) -> CandidateBuilder:
        """Makes candidates again: the builder of the run, or one that has adopted its records."""
        if self.builder is not None:
            return self.builder
        task = self.task or self.reloaded_task()
        self.store.prepare()
        builder = CandidateBuilder(self.recipe, task, self.store)
        builder.adopt(self.records.values())
        return builder

    def ancestors(self, key: str) -> list[Record]:
        """Return the records from the root to ``key``."""
        return lineage(self.records, key)


def read_result(folder: str | Path, store: Store | None = None) -> RunResult:
    """Return the result of a folder's newest run from its ledger alone; for an unfinished run, its state so far.

    ``gaps`` lists what is missing, also when lines of the ledger cannot be read.
    """
    ledger = Ledger(Path(folder) / "ledger.jsonl")
    events = ledger.last()
    first = next(event for event in events if event["event"] == "run")
    recipe = parse(first["recipe"])
    if task_folder := first.get("kept_task"):
        recipe = replace(recipe, task=str(Path(folder) / task_folder))  # the folder may have been moved
    records = ledger.records(events, next(iter(recipe.settings)))
    ends: dict[str, Any] = next((event for event in events if event["event"] == "finished"), {})
    parents = {record.parent for record in records.values()}
    leaves_of_run = [key for key in records if key not in parents]
    front, chosen = ends.get("front", leaves_of_run), ends.get("chosen", [])
    teacher, replicas = ends.get("teacher"), ends.get("replicas", {})
    reference = ends.get("reference", teacher)
    replica_seeds: dict[str, list[int]] = {}
    for event in events:
        of, seed = event.get("replica_of"), event.get("seed")
        if isinstance(of, str) and isinstance(seed, int):
            replica_seeds.setdefault(of, []).append(seed)
    repeated = (key for keys in replicas.values() for key in keys)
    named = {*front, *chosen, teacher, reference, *parents, *replicas, *repeated}

    def recorded(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key in records]

    result = RunResult(
        recipe=recipe,
        folder=Path(folder),
        store=store or Store(Path(first["store"])),
        records=records,
        front=recorded(front),
        chosen=recorded(chosen),
        teacher=teacher if teacher in records else None,
        reference=reference if reference in records else None,
        failed=[_failure(event["failure"]) for event in events if event["event"] == "failed"],
        replicas={key: recorded(keys) for key, keys in replicas.items() if key in records},
        replica_seeds=replica_seeds,
        environment=first["environment"],
        gaps=_gaps(ledger, Path(first["store"]), finished=bool(ends), lost=len(named - {None} - records.keys())),
    )
    if not recipe.targets:
        return result
    described = ends.get("targets", {})
    split = {}
    for name in recipe.targets:
        end = described.get(name, {"front": leaves_of_run, "chosen": [], "reference": None})
        other = end["reference"] if end["reference"] in records else None
        split[name] = End(recorded(end["front"]), recorded(end["chosen"]), other)
    return result.split(split, partial(ledger.records, events))


def _gaps(ledger: Ledger, store: Path, *, finished: bool, lost: int) -> tuple[str, ...]:
    """Say what the newest run of a ledger lacks.

    Args:
        ledger: The ledger, just read.
        store: Where the run keeps finished work.
        finished: Whether it has the end of the run.
        lost: Models that it names and does not describe.
    """
    gaps, folder = [], ledger.path.parent
    if problem := ledger.unreadable(newest=True):
        gaps.append(f"{problem}; what they held is missing")
    if lost:
        count = "1 model of the run is" if lost == 1 else f"{lost} models of the run are"
        gaps.append(f"{count} named but not described")
    if not finished:
        gaps.append("the run did not end, or its end is lost: shown is what it reached, and nothing is chosen")
    if gaps:
        where = "" if store == Store().root else f" --store {store}"
        command = f"limbeck run {folder / 'recipe.yaml'} --folder {folder}{where}"
        gaps.append(f"'{command}' goes on, and repeats no finished work")
    return tuple(gaps)


def _failure(form: Mapping[str, str]) -> Failure:
    """Return a failure from its JSON, in which later versions may have more fields."""
    return Failure(**{each.name: form[each.name] for each in fields(Failure) if each.name in form})


def retained_keys(folder: str | Path) -> tuple[Path, set[str]]:
    """Return the store of a folder's newest run, and the models that it ended with, their teacher and reference.

    For an unfinished run all models, because it resumes from them; also those that workers have made before the walk
    came to them.

    Args:
        folder: Folder of the run.

    Raises:
        InputError: Nothing says what the run ended with, and there are lines that cannot be read.
    """
    ledger = Ledger(Path(folder))
    events = ledger.last()
    ends: dict[str, Any] | None = next((event for event in events if event["event"] == "finished"), None)
    run = next(event for event in events if event["event"] == "run")
    root = Path(run["store"])
    if ends is None and (problem := ledger.unreadable(newest=True)):
        raise InputError(f"{problem}, so the models that the run needs are not all known; run it again, then clean")
    if ends is None:
        return root, _with_children(set(ledger.records(events)), parse(run["recipe"]), Store(root))
    others = [ends["teacher"], ends.get("reference"), *(end["reference"] for end in ends.get("targets", {}).values())]
    return root, {key for key in (*ends["front"], *ends["chosen"], *others) if key}


def is_finished(folder: str | Path) -> bool:
    """Return whether a folder's newest run has come to its end."""
    return any(event["event"] == "finished" for event in Ledger(Path(folder)).last())


def _with_children(keys: set[str], recipe: Recipe, store: Store) -> set[str]:
    """Return keys with those of all that steps of a recipe have made from them.

    Args:
        keys: Keys of models.
        recipe: The recipe.
        store: Knows the children of each step that has ended.
    """
    steps = [located.step for located in leaves(placed_steps(recipe))]
    children = [
        record
        for siblings in store.facts.all("children-", read_records)
        for record in siblings
        if any(_is_made_by(record, step) for step in steps)
    ]
    while grown := {record.key for record in children if record.parent in keys} - keys:
        keys |= grown
    return keys


def _is_made_by(record: Record, step: Step) -> bool:
    """Return whether a step makes such a record, as far as its parameters say."""
    if record.step != step.info.name:
        return False
    values = parameters(as_made(step, record.parameters))
    fields = {name: value for name, value in values.items() if name not in step.info.neutral}
    return all(record.parameters.get(name, value) == value for name, value in fields.items())
