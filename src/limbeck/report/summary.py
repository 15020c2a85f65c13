"""A finished run as one value, from which tables, charts and pages are made.

Nothing is measured or drawn here: ``display_names.py``, ``table.py`` and ``ablation.py`` interpret the run,
``report.py`` and ``html.py`` print it, ``charts.py`` computes positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from limbeck.core.candidate import Record, lineage
from limbeck.core.target import Budget, Target

if TYPE_CHECKING:
    from limbeck.core.task import Task
    from limbeck.data.baseline import Baseline


class FailedStep(Protocol):
    """A step that failed on a candidate."""

    @property
    def step(self) -> str:
        """Name of the step."""
        ...

    @property
    def key(self) -> str | None:
        """Key of the candidate that the step was given."""
        ...

    @property
    def error(self) -> str:
        """The error in one line."""
        ...

    @property
    def traceback(self) -> str:
        """The traceback."""
        ...


@dataclass(frozen=True)
class RunSummary:
    """Everything that a report shows of one run.

    Attributes:
        records: All candidates by key, in the order of the run.
        measured: Keys of the measured candidates.
        chosen: Keys of the chosen candidates, best first.
        teacher: Key of the teacher.
        reference: Key of the model that speed-ups and losses are relative to: the teacher, or where that gives answers
            alone the run's own model before it was made smaller.
        recipe: The recipe; ``str`` gives its YAML.
        environment: The machine and its libraries.
        failed: Steps that failed, or mappings with the same fields.
        replicas: Keys of the replicas with other seeds, by the key of the candidate that they repeat.
        task: The task.
        target: Target of the latency measurements.
        target_name: Name of that target, where the recipe has several.
        budget: Limits that the chosen model must meet.
        seeds: Seeds of the chosen candidate and its replicas.
        model: Name of the model that the recipe starts from.
        baseline: The best constant answer, with its quality by split.
        histories: Changes to the rows of the task, each once (``Task.history``).
        gaps: What is missing of the run, in sentences without a full stop.
        chooses: Whether the recipe ends in a choice; without one nothing is chosen, and nothing failed to be.
        others: The same run on its other targets, by name.
    """

    records: Mapping[str, Record]
    measured: Sequence[str]
    chosen: Sequence[str] = ()
    teacher: str | None = None
    reference: str | None = None
    recipe: object = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[Mapping[str, Any] | FailedStep] = ()
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    task: Task | None = None
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    seeds: Sequence[int] = ()
    model: str = ""
    baseline: Baseline | None = None
    histories: Sequence[Mapping[str, Any]] = ()
    gaps: Sequence[str] = ()
    chooses: bool = True
    target_name: str = ""
    others: Mapping[str, RunSummary] = field(default_factory=dict)
    _computed: dict[str, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def metric(self) -> str:
        """Name of the metric: that of a measurement, or else that of the task."""
        for key in self.measured:
            fact = self.records[key].fact("quality")
            if fact is not None and fact.detail.get("metric"):
                return str(fact.detail["metric"])
        return (self.task.metric if self.task is not None else "") or "quality"

    @property
    def target_label(self) -> str:
        """The target in words, with its name where the recipe has several."""
        return f"{self.target_name} ({self.target})" if self.target_name else str(self.target)

    @property
    def on_targets(self) -> tuple[RunSummary, ...]:
        """The run on this target and on the others."""
        return (self, *self.others.values())

    @property
    def known_task(self) -> Task:
        """The task, where there must be one: an artefact cannot be described without."""
        assert self.task is not None, "an artefact needs the task that its model was made for"
        return self.task

    @property
    def candidates(self) -> list[str]:
        """Measured keys that get a row; replicas with other seeds are left out."""
        replicas = {key for keys in self.replicas.values() for key in keys} - set(self.chosen)
        return [key for key in dict.fromkeys(self.measured) if key not in replicas]

    @property
    def split(self) -> str:
        """Split that candidates are compared on: one that all of them have, preferably validation.

        Choices are made on validation; their effect is then read on test, which had no part in them.
        """
        rows = [self.records[key] for key in self.candidates]
        rows = [record for record in rows if record.shape is not None] or rows  # a file of scores may lack a split
        named = ({fact.split for fact in record.facts if fact.name == "quality"} for record in rows)
        splits = [split for split in named if split]
        shared = set.intersection(*splits) if splits else set()
        for split in ("validation", "test", *sorted(shared)):
            if split in shared:
                return split
        return max(("validation", "test"), key=lambda split: sum(split in measured for measured in splits))

    @property
    def failures(self) -> list[dict[str, str]]:
        """Failed steps as plain mappings."""
        fields = ("step", "key", "error", "traceback")
        plain = [failure if isinstance(failure, Mapping) else vars(failure) for failure in self.failed]
        return [{name: str(failure.get(name) or "") for name in fields} for failure in plain]

    def source(self, key: str) -> str:
        """Return the name of the model that a candidate descends from; for a local path only its last part.

        A teacher that is a function has the function's name.
        """
        root = self.lineage(key)[0].parameters
        if function := root.get("function"):
            return str(function)
        name = str(root.get("source") or root.get("model") or self.model).rstrip("/")
        on_disk = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
        return Path(name).name if on_disk else name

    def lineage(self, key: str) -> list[Record]:
        """Return the records from the root down to a candidate."""
        return lineage(self.records, key)


T = TypeVar("T")


def once(function: Callable[[RunSummary], T]) -> Callable[[RunSummary], T]:
    """Compute a view of a run (its rows, names, headline, ...) once per summary.

    The table, the page, the card and the exit status all need the same views.
    """

    @wraps(function)
    def view(summary: RunSummary) -> T:
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in summary._computed:
            summary._computed[name] = function(summary)
        return cast(T, summary._computed[name])

    return view
