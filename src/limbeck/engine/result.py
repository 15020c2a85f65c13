"""The result of a run: in memory when it ends, or read from the ledger of its folder later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Candidate, Record
from limbeck.core.measurement import environment
from limbeck.core.task import Task
from limbeck.data.baseline import baseline
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.ledger import Ledger, lineage
from limbeck.engine.store import Store
from limbeck.engine.task_adaptation import adapt_task
from limbeck.errors import StoreError
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


@dataclass(frozen=True, repr=False)
class RunResult:
    """What came out of a run: records by key, the keys alive at the end, and those chosen by a final choice.

    ``print`` shows the table of candidates that the command line shows, and so does a notebook.
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
    environment: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None  # None when the result was read from a ledger
    builder: CandidateBuilder | None = field(default=None, compare=False)  # None when it was read from a ledger

    def __repr__(self) -> str:
        chosen = f", chosen {', '.join(self.chosen)}" if self.chosen else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        models = f"{len(self.records)} models, {len(self.measured)} measured"
        return f"RunResult({str(self.folder)!r}, {models}{chosen}{failed})"

    def __str__(self) -> str:
        return summary(self.run_summary, {"folder": self.folder})

    def _repr_html_(self) -> str:
        return summary_html(self.run_summary, {"folder": self.folder})

    @cached_property
    def run_summary(self) -> RunSummary:
        """The run as its report, table, card and exit status read it; it has no paths of this machine."""
        recipe = self.recipe
        failed = [asdict(failure) | {"parent": failure.key} for failure in self.failed]
        return RunSummary(
            records={key: shareable(record) for key, record in self.records.items()},
            measured=self.measured,
            chosen=self.chosen,
            teacher=self.teacher,
            reference=self.reference,
            recipe=yaml_text.dump(without_paths(to_data(recipe))),
            environment=without_paths(self.environment or environment()),
            failed=without_paths(failed),
            replicas=self.replicas,
            task=self.task,
            target=recipe.target,
            budget=recipe.budget,
            seeds=[recipe.seed + number for number in range(max(1, recipe.replicas))],
            model=without_paths(recipe.model),
            baseline=baseline(self.task) if self.task is not None else None,
            histories=without_paths(self._histories()),
            chooses=any(located.step.info.final for located in leaves(placed_steps(recipe))),
        )

    def _histories(self) -> list[dict[str, Any]]:
        """Return what changed the task's rows on the way to any candidate: each entry once, as far as it is stored."""
        entries = [entry for key in self.records for entry in self.store.task_history(key)]
        return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())

    @property
    def ok(self) -> bool:
        """Whether no candidate failed."""
        return not self.failed

    @property
    def measured(self) -> list[str]:
        """The keys of all records that something was measured of."""
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

    @cached_property
    def _maker(self) -> CandidateBuilder:
        """Makes candidates again: the builder of the run, or one that has adopted its records."""
        if self.builder is not None:
            return self.builder
        from limbeck.data.loading import load_task

        task = self.task
        if task is None:
            task, _ = adapt_task(self.recipe, load_task(self.recipe.task), self.store, dry=True)
        self.store.prepare()
        builder = CandidateBuilder(self.recipe, task, self.store)
        builder.adopt(self.records.values())
        return builder

    def ancestors(self, key: str) -> list[Record]:
        """Return the records from the root to ``key``."""
        return lineage(self.records, key)


def read_result(folder: str | Path, store: Store | None = None) -> RunResult:
    """Return the result of a folder's newest run from its ledger alone; of an unfinished run, what it reached."""
    ledger = Ledger(Path(folder) / "ledger.jsonl")
    events = ledger.last()
    records = ledger.records(events)
    first = next(event for event in events if event["event"] == "run")
    ends: dict[str, Any] = next((event for event in events if event["event"] == "finished"), {})
    parents = {record.parent for record in records.values()}
    recipe = parse(first["recipe"])
    if task_folder := first.get("kept_task"):
        recipe = replace(recipe, task=str(Path(folder) / task_folder))  # the folder may have been moved
    return RunResult(
        recipe=recipe,
        folder=Path(folder),
        store=store or Store(Path(first["store"])),
        records=records,
        front=ends.get("front", [key for key in records if key not in parents]),
        chosen=ends.get("chosen", []),
        teacher=ends.get("teacher"),
        reference=ends.get("reference", ends.get("teacher")),
        failed=[_failure(event["failure"]) for event in events if event["event"] == "failed"],
        replicas=ends.get("replicas", {}),
        environment=first["environment"],
    )


def _failure(form: Mapping[str, str]) -> Failure:
    """Return a failure from its JSON, in which later versions may have noted more."""
    return Failure(**{each.name: form[each.name] for each in fields(Failure) if each.name in form})


def retained_keys(folder: str | Path) -> tuple[Path, set[str]]:
    """Return the store of a folder's newest run, and the models that it ended with, their teacher and reference.

    Of an unfinished run all models, because it goes on from them.
    """
    ledger = Ledger(Path(folder))
    events = ledger.last()
    ends: dict[str, Any] | None = next((event for event in events if event["event"] == "finished"), None)
    root = Path(next(event["store"] for event in events if event["event"] == "run"))
    if ends is None:
        return root, set(ledger.records(events))
    others = (ends["teacher"], ends.get("reference"))
    return root, {key for key in (*ends["front"], *ends["chosen"], *others) if key}
