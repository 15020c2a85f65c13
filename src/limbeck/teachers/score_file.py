"""A file of scores as a teacher: what an LLM, a service or another program answered, by text or by row.

Each line of a JSONL file, or row of a Parquet file, names a text and gives the teacher's answer::

    {"text": "a fine film", "probabilities": {"negative": 0.03, "positive": 0.97}}
    {"split": "train", "row": 17, "logits": [-1.5, 2.25]}

Scores are ``logits`` or ``probabilities`` (by label name, or a list in the order of the task's labels), a column of
probabilities for every label name, or just a ``label``, which counts as certain. Pairs of texts have ``text`` and
``pair``; rows are counted from 0 in the split as limbeck reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.paths import user_path
from limbeck.core.task import Task
from limbeck.errors import InputError, nearest, shown
from limbeck.teachers.scores import ScoreFormat

if TYPE_CHECKING:
    from limbeck.data.readers import Table

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
LOGITS, PROBABILITIES, ANSWER, NUMBER = "logits", "probabilities", "label", "score"
"""Fields that hold the scores of a text."""
Key = tuple[str, str]
"""A text and its second text, or ""; a run of white space counts as one space."""


def is_score_file(source: str | Path) -> bool:
    """Return whether a name is that of a file of scores, whether or not it exists."""
    path = user_path(source)
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def gives_probabilities(path: Path) -> bool:
    """Return whether the scores of a file are probabilities, from the names of its fields."""
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            names = set(pyarrow.parquet.read_schema(path).names)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable Parquet file ({type(error).__name__})") from error
    else:
        from limbeck.data.readers import parse_json

        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            first = next((line for line in lines if line.strip()), "")
        if not first:
            raise InputError(f"{path}: there are no rows in it")
        fields = parse_json(f"{path}, line 1", first)
        names = set(fields) if isinstance(fields, dict) else set()
    return not {LOGITS, NUMBER} & names


class ScoreFile:
    """The scores of a file for one task.

    Attributes:
        probabilities: Whether they are probabilities.
        order_assumed: Whether scores come without the names of their labels.
    """

    identity = ""

    def __init__(self, path: Path, task: Task, further: Callable[[Task, str], np.ndarray] | None = None) -> None:
        """Read and check a file.

        Args:
            path: A JSONL or Parquet file.
            task: The task whose labels are scored.
            further: Answers a split of texts that are not in the file; None if nothing can.

        Raises:
            InputError: The file cannot be read, or a row of it is wrong.
        """
        from limbeck.data.readers import read_table

        if task.task_kind.per_token:
            raise InputError(
                f"teacher '{path}': a file has scores for whole texts, but the task has a label for each word"
            )
        self.path, self._further = path, further
        table = read_table(path)
        column, self.probabilities, named = _score_column(table, task)
        self.order_assumed = not named and not task.task_kind.numeric
        self._format = ScoreFormat(task.kind, task.label_names, self.probabilities)
        rows = [self._format.read(column(row), table.at(row)) for row in range(len(table.rows))]
        self._logits = self._format.logits(np.asarray(rows))
        self._by_row = _rows_of(table, task) if {"split", "row"} <= set(table.columns) else {}
        self._by_text = {} if self._by_row else self._texts_of(table)
        self._texts = None if self._by_row else {key for split in task.splits for key in keys(task, split)}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Note how many texts of the file are not in the task."""
        unused = 0 if self._texts is None else len(self._by_text.keys() - self._texts)
        return (f"{unused:,} of {len(self._by_text):,} texts of '{self.path}' are not in the task",) * bool(unused)

    def _texts_of(self, table: Table) -> dict[Key, int]:
        """Return the row of each text; a text may occur twice if its scores are the same."""
        if "text" not in table.columns:
            raise InputError(
                f"{table.where}: expected the field 'text' (and 'pair'), or 'split' and 'row'; "
                f"the file has {', '.join(table.columns)}; {nearest('text', table.columns)}"
            )
        positions = [table.columns.index(name) for name in ("text", "pair") if name in table.columns]
        rows: dict[Key, int] = {}
        for row, cells in enumerate(table.rows):
            texts = [cells[position] for position in positions]
            if not all(text is None or isinstance(text, str) for text in texts) or texts[0] is None:
                raise InputError(f"{table.at(row)}: 'text' should be text, got {shown(texts[0])}")
            first = rows.setdefault(_key(*texts), row)
            if not np.allclose(self._logits[first], self._logits[row], rtol=1e-4, atol=1e-5):
                earlier = f"{table.unit} {table.numbers[first]}"
                raise InputError(f"{table.at(row)}: the text of {earlier} again, with other scores")
        return rows

    @property
    def logits_by_text(self) -> dict[Key, np.ndarray]:
        """The logits of each text [labels]."""
        return {key: self._logits[row] for key, row in self._by_text.items()}

    def lacks(self, task: Task, split: str) -> str:
        """Return why the file cannot answer a split; empty if it can."""
        count = len(task.split(split))
        if self._by_row:
            present = self._by_row.get(split, {})
            if not present:
                return f"teacher '{self.path}' has no rows for the split '{split}'"
            if more := [row for row in present if row >= count]:
                return f"teacher '{self.path}' has row {more[0]} of '{split}', which has rows 0 to {count - 1}"
            missing = [row for row in range(count) if row not in present]
            example = f"row {missing[0]}" if missing else ""
        else:
            texts = keys(task, split)
            missing = [row for row, key in enumerate(texts) if key not in self._by_text]
            example = shown(task.split(split).texts[missing[0]]) if missing else ""
        if not missing or self._further is not None:
            return ""
        lacking = f"{len(missing):,} of {count:,} rows of '{split}', such as {example}"
        return f"teacher '{self.path}' has no scores for {lacking}"

    def answer(self, task: Task, split: str) -> np.ndarray:
        """Return the logits of a split [rows, labels].

        Args:
            task: The task.
            split: Name of the split.

        Raises:
            InputError: Scores are missing, or the task has other labels than the file was read for.
        """
        if task.label_names != self._format.labels:
            raise InputError(f"teacher '{self.path}' was read for the labels {', '.join(self._format.labels)}")
        if problem := self.lacks(task, split):
            raise InputError(f"{problem}; a file cannot answer new texts")
        if self._by_row:
            return self._logits[[self._by_row[split][row] for row in range(len(task.split(split)))]]
        indices = [self._by_text.get(key, -1) for key in keys(task, split)]
        answers: np.ndarray = self._logits[indices]
        if unknown := [row for row, index in enumerate(indices) if index < 0]:
            assert self._further is not None  # else they are lacking
            rows = task.split(split).take(unknown)
            answers[unknown] = self._further(replace(task, splits={split: rows}), split)
        return answers


def keys(task: Task, split: str) -> list[Key]:
    """Return the key of every text of a split."""
    rows = task.split(split)
    return text_keys(rows.texts, rows.pairs)


def text_keys(texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Key]:
    """Return the keys that texts, or pairs of them, have in a file of scores."""
    return [_key(*both) for both in zip(texts, pairs or [None] * len(texts), strict=True)]


def _key(text: str, pair: str | None = None) -> Key:
    return " ".join(text.split()), " ".join((pair or "").split())


def _rows_of(table: Table, task: Task) -> dict[str, dict[int, int]]:
    """Return for each split of the task which row of the file has each of its rows."""
    split_at, row_at = (table.columns.index(name) for name in ("split", "row"))
    numbers: dict[str, dict[int, int]] = defaultdict(dict)
    for number, cells in enumerate(table.rows):
        split, row = cells[split_at], cells[row_at]
        if split not in task.splits:
            raise InputError(f"{table.at(number)}: the task has no split {split!r}; {nearest(str(split), task.splits)}")
        if isinstance(row, bool) or not isinstance(row, int) or row < 0:
            raise InputError(f"{table.at(number)}: 'row' should be a whole number from 0, got {shown(row)}")
        if row in numbers[split]:
            raise InputError(f"{table.at(number)}: row {row} of '{split}' occurs twice")
        numbers[split][row] = number
    return dict(numbers)


def _score_column(table: Table, task: Task) -> tuple[Callable[[int], Any], bool, bool]:
    """Return a function from a row to its scores, whether they are probabilities, and whether they name their labels.

    Args:
        table: The file.
        task: The task.
    """
    columns, rows = table.columns, table.rows
    fields = (LOGITS, PROBABILITIES, *([NUMBER] if task.task_kind.numeric else []))
    if field := next((name for name in fields if name in columns), None):
        whole = columns.index(field)
        return (lambda row: rows[row][whole]), field == PROBABILITIES, isinstance(rows[0][whole], Mapping)
    labels = [label for label in task.label_names if label in columns]
    if labels and len(labels) == len(task.label_names):
        positions = [columns.index(label) for label in labels]
        return (lambda row: [rows[row][position] for position in positions]), True, True
    if labels:
        missing = next(label for label in task.label_names if label not in labels)
        raise InputError(f"{table.where}: there is a column for {', '.join(labels)}, but none for '{missing}'")
    if ANSWER in columns:
        position = columns.index(ANSWER)
        if task.task_kind.numeric:
            return (lambda row: rows[row][position]), False, True
        return (lambda row: _certain(rows[row][position], task, table.at(row))), True, True
    raise InputError(
        f"{table.where}: there are no scores in it; expected 'logits' or 'probabilities', a column for each of "
        f"{', '.join(task.label_names) or 'the scores'}, or 'label'; the file has {', '.join(columns)}"
    )


def _certain(answer: Any, task: Task, where: str) -> list[float]:  # Any: a cell of a file
    """Return the probabilities of an answer that names its label, or labels."""
    given: Sequence[Any] = answer if task.task_kind.several and isinstance(answer, (list, tuple)) else [answer]
    for label in given:
        if label not in task.label_names:
            raise InputError(f"{where}: the task has no label {shown(label)}; {nearest(str(label), task.label_names)}")
    return [float(name in given) for name in task.label_names]
