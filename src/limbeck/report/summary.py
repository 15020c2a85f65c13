"""What a run found, as one value that tables, pictures and pages are made of.

Nothing is measured here and nothing is drawn: ``naming.py``, ``rows.py`` and ``gains.py`` say what it means,
``report.py`` prints it, ``picture.py`` places it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.target import Budget, Target

CORRELATIONS = frozenset({"matthews", "pearson", "spearman", "pearson_spearman", "r2"})
"""Metrics that are written as 0.873; all others are shares and written as 87.3 %."""


@dataclass(frozen=True)
class RunSummary:
    """All that a report tells of one run.

    ``recipe`` prints itself as YAML; each of ``failed`` is a ``Failure``, or a mapping with its fields: the ``step``,
    the ``key`` of the candidate it was given, the ``error`` in one line, and the ``traceback``.
    """

    records: Mapping[str, Record]
    measured: Sequence[str]
    chosen: Sequence[str] = ()
    teacher: str | None = None
    recipe: Any = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[Any] = ()
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    task: Any = None  # a data.task.Task, or anything with its name, metric, label_names, max_length and notes
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    seeds: Sequence[int] = ()
    model: str = ""
    baseline: Any = None  # a data.baseline.Baseline: the best constant answer, and its quality by split
    histories: Sequence[Mapping[str, Any]] = ()  # what was done to rows of the task, each once (data.task.Task.history)

    @property
    def metric(self) -> str:
        """The metric's name; the task's unless a fact says it."""
        for key in self.measured:
            fact = self.records[key].fact("quality")
            if fact is not None and fact.detail.get("metric"):
                return str(fact.detail["metric"])
        return str(getattr(self.task, "metric", "") or "quality")

    @property
    def candidates(self) -> list[str]:
        """The measured keys that get a row; replicas with other seeds are told apart from them."""
        replicas = {key for keys in self.replicas.values() for key in keys} - set(self.chosen)
        return [key for key in dict.fromkeys(self.measured) if key not in replicas]

    @property
    def split(self) -> str:
        """The split that candidates are compared on: the one that all of them have, validation first.

        Choices are made on validation; what they cost is then read on test, which had no part in them.
        """
        found = [{fact.split for fact in self.records[key].facts if fact.name == "quality"} for key in self.candidates]
        shared = set.intersection(*found) if found else set()
        for split in ("validation", "test", *sorted(shared)):
            if split in shared:
                return split
        return max(("validation", "test"), key=lambda split: sum(split in splits for splits in found))

    @property
    def failures(self) -> list[dict[str, str]]:
        """What failed, as plain mappings."""
        wanted = ("step", "key", "error", "traceback")
        plain = [failure if isinstance(failure, Mapping) else vars(failure) for failure in self.failed]
        return [{name: str(failure.get(name) or "") for name in wanted} for failure in plain]

    def source(self, key: str) -> str:
        """The model that ``key`` descends from, without the folders of somebody's disk."""
        root = self.lineage(key)[0].parameters
        name = str(root.get("source") or root.get("model") or self.model).rstrip("/")
        on_disk = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
        return Path(name).name if on_disk else name

    def lineage(self, key: str) -> list[Record]:
        """The records from the root down to ``key``."""
        chain: list[Record] = []
        at: str | None = key
        while at is not None and at in self.records:
            chain.append(self.records[at])
            at = self.records[at].parent
        return chain[::-1]
