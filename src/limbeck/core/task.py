"""The task that a model is trained for: texts, labels, a metric, and notes about the data."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from limbeck.core.finite import load_json
from limbeck.core.judged_texts import Example, is_asked, is_judged
from limbeck.core.kinds import Kind, find
from limbeck.core.metrics import check_form, check_informative, check_metric
from limbeck.core.requests import choose_requests
from limbeck.core.stored_labels import from_plain, to_plain
from limbeck.errors import InputError, nearest, shown

if TYPE_CHECKING:
    import numpy as np

    from limbeck.core.task_kind import TaskKind

__all__ = ["SPLITS", "Kind", "Split", "Task", "choose", "choose_rows", "texts_of"]

SPLITS = ("train", "validation", "test")
FORMAT = 1  #: version of the folders that ``to_folder`` writes


class ColumnRoles(Protocol):
    """The columns of the files that a task was read from."""

    @property
    def text(self) -> str:
        """Column of the texts."""
        ...

    @property
    def pair(self) -> str | None:
        """Column of the second texts."""
        ...

    @property
    def label(self) -> tuple[str, ...]:
        """Columns of the labels."""
        ...

    @property
    def unread(self) -> tuple[str, ...]:
        """Columns that are ignored."""
        ...


@dataclass(frozen=True)
class Split:
    """Rows of one split, by column.

    The label of a row is an index into the label names (classification; a ``SoftLabel`` where a model answered it), 0
    or 1 for every label name (multilabel), a number (regression), an index for every word (tokens; a text is then a
    tuple of words), a query's index with a gain (rerank, see ``core.requests.Judged``), or a vector or a part in a
    search or in a probe (embedding, see ``core/judged_texts.py``).

    >>> rows = Split(texts=("good", "bad"), labels=(1, 0))
    >>> len(rows), rows.take([1]).texts
    (2, ('bad',))
    """

    texts: tuple[Any, ...]
    labels: tuple[Any, ...]
    pairs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.labels), "a label for every text"
        assert self.pairs is None or len(self.pairs) == len(self.texts), "a second text for every text"

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({len(self)} {'texts' if self.pairs is None else 'pairs'})"

    def take(self, rows: Iterable[int]) -> Split:
        """Return the given rows, in the given order."""
        rows = list(rows)
        pairs = None if self.pairs is None else tuple(self.pairs[row] for row in rows)
        return Split(tuple(self.texts[row] for row in rows), tuple(self.labels[row] for row in rows), pairs)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dictionary per row: text, pair if there is one, label."""
        labels = map(to_plain, self.labels)
        if self.pairs is None:
            return [{"text": text, "label": label} for text, label in zip(self.texts, labels, strict=True)]
        columns = zip(self.texts, self.pairs, labels, strict=True)
        return [{"text": text, "pair": pair, "label": label} for text, pair, label in columns]


@dataclass(frozen=True)
class Task:
    """What a model has to do, with the rows to train and to evaluate it on; validated and immutable.

    >>> from limbeck.data.loading import task_from_lists
    >>> task = task_from_lists("moods", train=(["good", "bad", "fine"] * 10, ["up", "down", "up"] * 10))
    >>> task.kind, task.label_names, sorted(task.splits)
    ('classification', ('down', 'up'), ['train', 'validation'])
    >>> len(task.limit(train=9).split("train"))
    9
    """

    name: str
    kind: Kind
    splits: Mapping[str, Split] = field(repr=False)
    label_names: tuple[str, ...]
    metric: str
    max_length: int = 128
    notes: tuple[str, ...] = field(default=(), compare=False)
    history: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)
    """Changes to the rows, oldest first, as plain JSON values: ``title`` and ``summary``, ``counts`` by name,
    ``samples`` as rows of a table; where rows were added, their number ``before`` and ``after`` and the ``mask_token``
    in them."""
    answered_by: str | None = field(default=None, compare=False)
    """The model whose answers are the labels, where the texts had none of their own; None for labels of the data."""
    former_names: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Names that the data have for the labels, in their order, where the model has others; "" for those they lack."""
    columns: ColumnRoles | None = field(default=None, compare=False, repr=False)
    """How the files were read; None where the task does not come from columns."""

    def __post_init__(self) -> None:
        check_metric(self.kind, self.metric, self.label_names)

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    def __repr__(self) -> str:
        labels = f", {len(self.label_names)} labels" if self.label_names else ""
        rows = "".join(f", {len(split)} {name}" for name, split in self.splits.items())
        return f"Task('{self.name}', {self.kind}{labels}{rows}, {self.metric}, max_length {self.max_length})"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that can change a result: rows, kind, metric, label names, max_length; not notes or history."""
        digest = hashlib.sha256()
        head = [self.kind, self.metric, list(self.label_names), self.max_length]
        digest.update(json.dumps(head).encode())
        for name in sorted(self.splits):
            rows = self.splits[name]
            digest.update(json.dumps([name, rows.texts, rows.pairs, list(map(to_plain, rows.labels))]).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def only_score(self) -> float | None:
        """The score of all training pairs, where they have the same, and so no order; None for any other labels."""
        return self.only_score_of("train")

    def only_score_of(self, split: str) -> float | None:
        """Return the score of all pairs of a split, where they have the same, and so no order to judge vectors by."""
        labels = self.splits[split].labels if self.task_kind.vectors and split in self.splits else ()
        first = labels[0] if labels else None
        return first if isinstance(first, float) and all(label == first for label in labels) else None

    @property
    def num_labels(self) -> int:
        """Width of the logits; 1 for regression."""
        return max(1, len(self.label_names))

    @property
    def labeled_rows(self) -> int:
        """Number of leading rows of the training split that are original; augmented rows come after them.

        It is read from the history. If the split has been changed since, all its rows count as original.
        """
        train = len(self.split("train"))
        additions = [entry for entry in self.history if "before" in entry]
        return int(additions[0]["before"]) if additions and additions[-1]["after"] == train else train

    @property
    def mask_token(self) -> str | None:
        """The mask token in augmented rows, from the history; None if there is none."""
        return next((entry["mask_token"] for entry in reversed(self.history) if entry.get("mask_token")), None)

    @property
    def task_kind(self) -> TaskKind:
        """What the kind of the task says about itself."""
        return find(self.kind)

    @property
    def problem_type(self) -> str:
        """The name of this kind in transformers."""
        return self.task_kind.problem_type

    def split(self, name: str) -> Split:
        """Return a split; the error for a missing one lists the splits there are."""
        if name not in self.splits:
            raise InputError(f"task '{self.name}' has no split '{name}'; {nearest(name, self.splits)}")
        return self.splits[name]

    def relabel(self, label_names: Sequence[str], indices: Sequence[int]) -> Task:
        """Rename or reorder the labels, with the same rows.

        Args:
            label_names: The new names; there may be more than before.
            indices: For each current label, its index among the new names.

        >>> from limbeck.data.loading import task_from_lists
        >>> task = task_from_lists("moods", train=(["good", "bad"] * 10, ["up", "down"] * 10))
        >>> turned = task.relabel(("UP", "so-so", "DOWN"), [2, 0])
        >>> turned.label_names[turned.split("train").labels[0]]
        'UP'
        """
        if tuple(label_names) == self.label_names and list(indices) == list(range(len(indices))):
            return self

        renumber, width = self.task_kind.renumber, len(label_names)
        splits = {
            name: replace(split, labels=tuple(renumber(label, indices, width) for label in split.labels))
            for name, split in self.splits.items()
        }
        former = [""] * width
        for name, index in zip(self.former_names or self.label_names, indices, strict=True):
            former[index] = name
        return replace(self, splits=splits, label_names=tuple(label_names), former_names=tuple(former))

    def limit(self, seed: int = 0, **rows: int) -> Task:
        """Keep at most a number of rows of the named splits: ``task.limit(train=2000)``.

        Of documents of requests, whole requests are kept, at least one. Of a search, that many queries are kept with
        all documents, and of a probe, that many texts to answer with all that it learns from. The choice depends on the
        seed alone, never on the version of a random generator. Classes keep their proportions, and a smaller limit
        keeps, in every class, a subset of what a larger one keeps.
        """
        splits, notes = dict(self.splits), list(self.notes)
        for name, most in rows.items():
            split = self.split(name)
            if isinstance(most, bool) or not isinstance(most, int) or most < 1:
                raise InputError(f"limit of split '{name}': should be a whole number of at least 1, got {shown(most)}")
            chosen = range(len(split)) if most >= len(split) else choose_rows(self.task_kind, split.labels, most, seed)
            if len(chosen) < len(split):
                splits[name] = split.take(chosen)
                notes.append(f"{name}: limited to {len(splits[name]):,} of {len(split):,} rows (seed {seed})")
        return replace(self, splits=splits, notes=tuple(notes))

    def checked(self) -> Task:
        """Return the task; the metric has to fit the held-out labels, or all of them where none are held out."""
        splits = {name: split for name, split in self.splits.items() if name != "train"} or self.splits
        check_form(self.kind, self.metric, [label for split in splits.values() for label in split.labels])
        for name, split in splits.items():
            check_informative(self.kind, self.metric, name, split.labels)
        return self

    def score(self, logits: np.ndarray | Sequence[np.ndarray], labels: np.ndarray | Sequence[Any]) -> float:
        """Compute the task's metric of logits; token positions labeled -100 do not count."""
        return self.task_kind.score(self.metric, self.label_names, logits, labels)

    def to_folder(self, folder: str | Path) -> Path:
        """Write task.json and a JSONL file per split; :meth:`from_folder` reads back an equal task."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, split in self.splits.items():
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in split.to_rows())
            with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
        head = {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "metric": self.metric,
            "label_names": list(self.label_names),
            "former_names": list(self.former_names),
            "max_length": self.max_length,
            "rows": {name: len(split) for name, split in self.splits.items()},
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "history": [dict(entry) for entry in self.history],
            "answered_by": self.answered_by,
        }
        # written last: a folder with task.json is complete
        text = json.dumps(head, ensure_ascii=False, indent=2) + "\n"
        (folder / "task.json").write_text(text, encoding="utf-8", newline="\n")
        return folder

    @classmethod
    def from_folder(cls, folder: str | Path) -> Task:
        """Read what :meth:`to_folder` wrote.

        Args:
            folder: Folder that ``to_folder`` wrote.

        Raises:
            InputError: The folder is incomplete or unreadable, or its rows were changed since.
        """
        folder = Path(folder)
        try:
            head = load_json((folder / "task.json").read_text(encoding="utf-8"))
            if head["format"] != FORMAT:
                raise InputError(f"{folder}/task.json: format {shown(head['format'])}, this limbeck reads {FORMAT}")
            task = cls(
                name=head["name"],
                kind=head["kind"],
                splits={name: _read_split(folder / f"{name}.jsonl") for name in head["rows"]},
                label_names=tuple(head["label_names"]),
                metric=head["metric"],
                max_length=head["max_length"],
                notes=tuple(head["notes"]),
                history=tuple(head.get("history", ())),
                answered_by=head.get("answered_by"),
                former_names=tuple(head.get("former_names", ())),
            )
        except FileNotFoundError as error:
            raise InputError(f"{folder} is no complete task folder: {error.filename} is missing") from error
        except (KeyError, TypeError, AttributeError, ValueError, AssertionError, RecursionError) as error:
            raise InputError(f"{folder} is no readable task folder: {error!r}") from error
        if task.fingerprint != head["fingerprint"]:
            raise InputError(
                f"{folder}: the rows have fingerprint {task.fingerprint}, but task.json says "
                f"{head['fingerprint']}; the files were changed after they were written"
            )
        return task


def _read_split(path: Path) -> Split:
    with open(path, encoding="utf-8", newline="\n") as lines:
        rows = [load_json(line) for line in lines]
    pairs = tuple(row["pair"] for row in rows) if rows and "pair" in rows[0] else None
    return Split(tuple(from_plain(row["text"]) for row in rows), tuple(from_plain(row["label"]) for row in rows), pairs)


def texts_of(split: Split) -> Iterator[str]:
    """Yield every text of a split, second texts included; words are joined by spaces."""
    for text in (*split.texts, *(split.pairs or ())):
        yield text if isinstance(text, str) else " ".join(text)


def choose_rows(kind: TaskKind, labels: Sequence[Any], count: int, seed: int) -> list[int]:
    """Choose rows at random, as their kind needs it: classes keep their proportions, requests stay whole.

    Rows that are judged together keep what the others are judged by: all documents, or all that a probe learns from.

    Args:
        kind: Kind of the task.
        labels: The label of each row.
        count: Number of rows to choose; of rows that are judged together, of queries or of texts to answer.
        seed: Seed of the choice.

    Returns:
        Indices of the rows, ascending.
    """
    if kind.grouped:
        return choose_requests(labels, count, seed)
    if labels and is_judged(labels[0]):
        query_rows = [row for row, label in enumerate(labels) if is_asked(label)]
        classes = [labels[row].label if isinstance(labels[row], Example) else 0 for row in query_rows]
        chosen = {query_rows[index] for index in choose(classes, count, seed, stratified=True)}
        return [row for row, label in enumerate(labels) if row in chosen or not is_asked(label)]
    return choose(labels, count, seed, stratified=kind.single_class)


def choose(labels: Sequence[Any], count: int, seed: int, *, stratified: bool) -> list[int]:
    """Choose rows at random, reproducibly in every environment.

    Args:
        labels: The label of each row.
        count: Number of rows to choose.
        seed: Seed of the choice.
        stratified: Whether labels keep their proportions, with at least one row each.

    Returns:
        Indices of the rows, ascending.

    >>> choose([0, 0, 0, 0, 1, 1], 3, seed=0, stratified=True)
    [0, 2, 4]
    """
    groups: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label if stratified else None, []).append(row)
    quotas = _quotas(Counter({label: len(rows) for label, rows in groups.items()}), min(count, len(labels)))
    chosen: list[int] = []
    for label, rows in groups.items():
        # a hash instead of a random generator: the choice stays the same in every version of every library
        rows = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row}".encode()).digest())
        chosen.extend(rows[: quotas[label]])
    return sorted(chosen)


def _quotas(sizes: Mapping[Any, int], count: int) -> dict[Any, int]:
    """Divide ``count`` in proportion to the sizes (largest remainder), at least one each if it suffices."""
    total = sum(sizes.values())
    exact = {label: count * size / total for label, size in sizes.items()}
    least = 1 if count >= len(sizes) else 0
    quotas = {label: max(least, math.floor(share)) for label, share in exact.items()}
    while (missing := count - sum(quotas.values())) != 0:
        sign = 1 if missing > 0 else -1
        movable = [label for label in sizes if (quotas[label] < sizes[label] if sign > 0 else quotas[label] > least)]
        quotas[max(movable, key=lambda label: sign * (exact[label] - quotas[label]))] += sign
    return quotas
