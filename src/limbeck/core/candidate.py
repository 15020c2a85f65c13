"""A candidate while a step works on it, and the record of it that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape, short_key

if TYPE_CHECKING:
    from limbeck.core.task import Task


@dataclass(frozen=True, repr=False)
class Candidate:
    """The live triple that a technique receives and returns. A technique owns the model it is handed.

    ``folder`` holds the stored copy of the model, if there is one: read-only, and out of date once the model changes.
    ``facts`` are what the step that made it knows of it; they become the first facts of its record.
    ``epoch_checkpoints`` are files of the weights during training, the initial ones first, where the step kept them.
    """

    model: Any  # a Runnable or an AnswerSource; Any, because the ``needs`` of a step guarantee more than either has
    tokenizer: Any  # the model's, of transformers; None for an AnswerSource
    task: Task
    folder: Path | None = None
    facts: tuple[Measurement, ...] = ()
    epoch_checkpoints: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"Candidate({self.model.shape}, {self.model.runtime}, task '{self.task.name}')"


@dataclass(frozen=True, repr=False)
class Record:
    """Stored twin of a candidate: lineage and measured facts, no tensors."""

    key: str
    parent: str | None
    step: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    traits: frozenset[str] = frozenset()
    facts: tuple[Measurement, ...] = ()
    duration: float = 0.0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Record({self.key}, {self.step}, {self.shape}, {len(self.facts)} facts)"

    def fact(self, name: str, split: str | None = None) -> Measurement | None:
        """Return the newest fact of that name (on that split, if given)."""
        facts = [fact for fact in self.facts if fact.name == name and split in (None, fact.split)]
        return facts[-1] if facts else None


def lineage(records: Mapping[str, Record], key: str) -> list[Record]:
    """Return the records from the root to ``key``; none if ``key`` is not among them."""
    chain: list[Record] = []
    current: str | None = key
    while current is not None and current in records:
        chain.append(records[current])
        current = records[current].parent
    return chain[::-1]


@dataclass(frozen=True)
class Stored:
    """A stored candidate, opened only on demand; ``record`` has the facts measured so far."""

    key: str
    open: Callable[[], Candidate]
    record: Record | None = None


class Reference(NamedTuple):
    """The model that a probe of answers compares the others with.

    ``position`` is its place among the candidates that are measured together; the others follow it.
    """

    key: str
    position: int


def lineage_key(
    parent: str | None, step: str, version: int, parameters: Mapping[str, Any], reads: Mapping[str, Any]
) -> str:
    """Name a candidate by how it was made (a Merkle chain): the same work always has the same name.

    >>> lineage_key(None, "finetune", 1, {"epochs": 3}, {"seed": 0})
    '74e4c744aeeeb1f9'

    Args:
        parent: Key of the parent; None for a root.
        step: Name of the step in keys.
        version: Version of the step.
        parameters: Parameters that decide the result.
        reads: Values of the services that the step reads.
    """
    return short_key(
        {"parent": parent, "step": step, "version": version, "parameters": dict(parameters), "reads": dict(reads)}
    )
