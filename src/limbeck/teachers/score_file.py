"""A file of scores as a teacher: what an LLM, a service or another program answered, by text or by row.

Each line of a JSONL file, or row of a Parquet file, names a text and gives the teacher's answer::

    {"text": "a fine film", "probabilities": {"negative": 0.03, "positive": 0.97}}
    {"split": "train", "row": 17, "logits": [-1.5, 2.25]}

Scores are ``logits`` or ``probabilities`` (by label name, or a list in the order of the task's labels), a column of
probabilities for every label name, or just a ``label``, which counts as certain. Pairs of texts have ``text`` and
``pair``; rows are counted from 0 in the split as limbeck reads it. Where words have labels, a row has ``words`` (or
``text``, divided at white space) and a list of scores, one for each word; null for words that have none::

    {"words": ["Anna", "sings"], "probabilities": [{"person": 0.9, "O": 0.1}, null]}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from limbeck.core.outputs import folded
from limbeck.core.paths import user_path
from limbeck.core.task import Task
from limbeck.errors import InputError, nearest, shown
from limbeck.teachers.scores import ScoreFormat, check_gives_scores, names_labels

if TYPE_CHECKING:
    from limbeck.data.readers import Table

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
LOGITS, PROBABILITIES, ANSWER, NUMBER = "logits", "probabilities", "label", "score"
"""Fields that hold the scores of a text."""
BY_TEXT = "give 'text' in place of 'split' and 'row', and scores are matched by it"
Further: TypeAlias = "Callable[[Task, str], np.ndarray | list[np.ndarray]]"
Key = tuple[str, str]
"""A text and its second text, or ""; a run of white space counts as one space."""


def is_score_file(source: str | Path) -> bool:
    """Return whether a name is that of a file of scores, whether or not it exists."""
    path = user_path(source)
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def gives_probabilities(path: Path) -> bool | None:
    """Return whether the scores of a file are probabilities, from the names of its fields; None if the kind decides."""
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
    if field := _score_field(names):
        return field == PROBABILITIES
    return None if NUMBER in names else True


def _score_field(names: Collection[str], *, numeric: bool = False) -> str | None:
    """Return the field that has all scores of a text, of those of a file; None where columns or a label have them."""
    fields = (LOGITS, PROBABILITIES, *([NUMBER] if numeric else []))
    return next((name for name in fields if name in names), None)


class ScoreFile:
    """The scores of a file for one task.

    Attributes:
        probabilities: Whether they are probabilities.
        order_assumed: Whether scores come without the names of their labels.
    """

    identity = ""

    def __init__(self, path: Path, task: Task, further: Further | None = None) -> None:
        """Read and check a file.

        Args:
            path: A JSONL or Parquet file.
            task: The task whose labels are scored.
            further: Answers a split of texts that are not in the file; None if nothing can.

        Raises:
            InputError: The file cannot be read, or a row of it is wrong.
        """
        from limbeck.data.readers import read_table

        check_gives_scores(str(path), task)
        self.path, self._further, self._words = path, further, task.task_kind.per_token
        table = read_table(path)
        column, self.probabilities, named = _score_column(table, task)
        self.order_assumed = not named and not task.task_kind.numeric
        self._format = ScoreFormat(task.kind, task.label_names, self.probabilities)
        self._by_row = _rows_of(table, task) if {"split", "row"} <= set(table.columns) else {}
        if self._by_row:
            _check_rows(table, task, self._by_row)
        texts = [] if self._by_row else _texts_of(table, words=self._words)
        counts = [len(text) if self._words else None for text in texts] or [None] * len(table.rows)
        self._logits = [
            self._format.logits(self._format.read_text(column(row), table.at(row), count))
            for row, count in enumerate(counts)
        ]
        self._by_text = self._index(table, [input_key(text, words=self._words) for text in texts])
        self._texts = None if self._by_row else {key for split in task.splits for key in keys(task, split)}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Note how many texts of the file are not in the task."""
        unused = 0 if self._texts is None else len(self._by_text.keys() - self._texts)
        return (f"{unused:,} of {len(self._by_text):,} texts of '{self.path}' are not in the task",) * bool(unused)

    def _index(self, table: Table, texts: Sequence[Key]) -> dict[Key, int]:
        """Return the row of each text; a text may occur twice if its scores are the same."""
        rows: dict[Key, int] = {}
        for row, key in enumerate(texts):
            first = rows.setdefault(key, row)
            before, now = self._logits[first], self._logits[row]
            if before.shape != now.shape or not np.allclose(before, now, rtol=1e-4, atol=1e-5, equal_nan=True):
                earlier = f"{table.unit} {table.numbers[first]}"
                raise InputError(f"{table.at(row)}: the text of {earlier} again, with other scores")
        return rows

    @property
    def logits_by_text(self) -> dict[Key, np.ndarray]:
        """The logits of each text [labels], or of its words [words, labels]."""
        return {key: self._logits[row] for key, row in self._by_text.items()}

    def lacks(self, task: Task, split: str) -> str:
        """Return why the file cannot answer a split; empty if it can."""
        texts = task.split(split).texts
        count, indices = len(texts), self._indices(task, split)
        if self._by_row:
            present = self._by_row.get(split, {})
            if not present:
                return f"teacher '{self.path}' has no rows for the split '{split}'"
            if more := [row for row in present if row >= count]:
                rows = f"has row {more[0]} of '{split}', which has rows 0 to {count - 1}"
                return f"teacher '{self.path}' {rows}; {BY_TEXT}, which also holds for a part of the rows"
        missing = [row for row, index in enumerate(indices) if index < 0]
        if missing and self._further is None:
            example = f"row {missing[0]}" if self._by_row else shown(task.split(split).texts[missing[0]])
            absent = f"{len(missing):,} of {count:,} rows of '{split}', such as {example}"
            return f"teacher '{self.path}' has no scores for {absent}"
        for index, text in zip(indices, texts, strict=True):
            if self._words and index >= 0 and len(self._logits[index]) != len(text):
                scored = f"scores for {len(self._logits[index])} words of {shown(text)}"
                return f"teacher '{self.path}' has {scored}, which has {len(text)}"
        return ""

    def _indices(self, task: Task, split: str) -> list[int]:
        """Return which row of the file has each row of a split; -1 for rows that it lacks."""
        if self._by_row:
            present = self._by_row.get(split, {})
            return [present.get(row, -1) for row in range(len(task.split(split)))]
        return [self._by_text.get(key, -1) for key in keys(task, split)]

    def answer(self, task: Task, split: str) -> np.ndarray | list[np.ndarray]:
        """Return the logits of a split.

        Args:
            task: The task.
            split: Name of the split.

        Returns:
            [rows, labels]; where words have labels, a list of [words, labels].

        Raises:
            InputError: Scores are missing, or the task has other labels than the file was read for.
        """
        if task.label_names != self._format.labels:
            raise InputError(f"teacher '{self.path}' was read for the labels {', '.join(self._format.labels)}")
        if problem := self.lacks(task, split):
            raise InputError(f"{problem}; a file cannot answer new texts")
        indices = self._indices(task, split)
        answers = [self._logits[index] for index in indices]
        if unknown := [row for row, index in enumerate(indices) if index < 0]:
            assert self._further is not None  # else they are lacking
            rows = task.split(split).take(unknown)
            further = self._further(replace(task, splits={split: rows}), split)
            for row, logits in zip(unknown, further, strict=True):
                answers[row] = logits
        return answers if self._words else np.stack(answers)


def keys(task: Task, split: str) -> list[Key]:
    """Return the key of every text of a split."""
    rows, words = task.split(split), task.task_kind.per_token
    texts = rows.texts if rows.pairs is None else zip(rows.texts, rows.pairs, strict=True)
    return [input_key(text, words=words) for text in texts]


def input_key(given: Any, *, words: bool) -> Key:  # Any: see below
    r"""Return the key that a text has in a file of scores; one word that holds a space differs from two words.

    Args:
        given: A text, a pair of texts, or a list of words.
        words: Whether it is a list of words.

    >>> input_key(("two", "words"), words=True), input_key(("a", "pair"), words=False)
    (('two\nwords', ''), ('a', 'pair'))
    """
    if words:
        return "\n".join(" ".join(word.split()) for word in given), ""
    text, pair = given if isinstance(given, tuple) else (given, None)
    return " ".join(text.split()), " ".join((pair or "").split())


def _texts_of(table: Table, *, words: bool) -> list[Any]:
    """Return the text, or pair, or list of words, that each row is of.

    Args:
        table: The file.
        words: Whether words have labels.

    Raises:
        InputError: There are none, or they are not text.
    """
    first = "words" if words and "words" in table.columns else "text"
    if first not in table.columns:
        wanted = "'words' or 'text'" if words else "'text' (and 'pair')"
        raise InputError(
            f"{table.where}: expected the field {wanted}, or 'split' and 'row'; "
            f"the file has {', '.join(table.columns)}; {nearest('words' if words else 'text', table.columns)}"
        )
    names = (first,) if words else ("text", "pair")
    positions = [table.columns.index(name) for name in names if name in table.columns]
    texts: list[Any] = []
    for row, cells in enumerate(table.rows):
        given = [cells[position] for position in positions]
        if words and isinstance(given[0], (list, tuple)) and all(isinstance(word, str) for word in given[0]):
            texts.append(tuple(given[0]))
            continue
        if not all(text is None or isinstance(text, str) for text in given) or given[0] is None:
            raise InputError(f"{table.at(row)}: the text should be text, got {shown(given[0])}")
        texts.append(given[0].split() if words else tuple(given) if len(given) == 2 else given[0])
    return texts


def _rows_of(table: Table, task: Task) -> dict[str, dict[int, int]]:
    """Return for each split of the task which row of the file has each of its rows."""
    split_at, row_at = (table.columns.index(name) for name in ("split", "row"))
    numbers: dict[str, dict[int, int]] = defaultdict(dict)
    for number, cells in enumerate(table.rows):
        split, row = cells[split_at], cells[row_at]
        if split not in task.splits:
            raise InputError(
                f"{table.at(number)}: the task has no split {shown(split)}; {nearest(str(split), task.splits)}"
            )
        if isinstance(row, bool) or not isinstance(row, int) or row < 0:
            raise InputError(f"{table.at(number)}: 'row' should be a whole number from 0, got {shown(row)}")
        if row in numbers[split]:
            raise InputError(f"{table.at(number)}: row {row} of '{split}' occurs twice")
        numbers[split][row] = number
    return dict(numbers)


def _check_rows(table: Table, task: Task, by_row: Mapping[str, Mapping[int, int]]) -> None:
    """Refuse a file that says, beside the place of a row, another text than the task has there.

    Args:
        table: The file.
        task: The task.
        by_row: For each split, which row of the file has each of its rows.

    Raises:
        InputError: Names the first such row, and both texts.
    """
    words = task.task_kind.per_token
    column = "words" if words and "words" in table.columns else "text"
    if column not in table.columns:
        return
    position, pairs = table.columns.index(column), "pair" in table.columns
    given = [number for number, cells in enumerate(table.rows) if cells[position] is not None]
    few = replace(table, rows=[table.rows[row] for row in given], numbers=[table.numbers[row] for row in given])
    texts = dict(zip(given, _texts_of(few, words=words), strict=True))
    for split, numbers in by_row.items():
        wanted = keys(task, split)
        for row, number in numbers.items():
            if number not in texts or row >= len(wanted):  # what is beyond the split has an error of its own
                continue
            text, pair = input_key(texts[number], words=words)
            if text != wanted[row][0] or (pairs and pair != wanted[row][1]):
                there = f"row {row} of '{split}' is {shown(task.split(split).texts[row])}"
                raise InputError(f"{table.at(number)}: {there}, not {shown(texts[number])}; {BY_TEXT}")


def _score_column(table: Table, task: Task) -> tuple[Callable[[int], Any], bool, bool]:
    """Return a function from a row to its scores, whether they are probabilities, and whether they name their labels.

    Args:
        table: The file.
        task: The task.
    """
    columns, rows = table.columns, table.rows
    if field := _score_field(columns, numeric=task.task_kind.numeric):
        whole = columns.index(field)
        named = names_labels((cells[whole], table.at(row)) for row, cells in enumerate(rows))
        return (lambda row: rows[row][whole]), field == PROBABILITIES, bool(named)
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
        if task.task_kind.per_token:
            return (lambda row: _certain_words(rows[row][position], task, table.at(row))), True, True
        return (lambda row: _certain(rows[row][position], task, table.at(row))), True, True
    raise InputError(
        f"{table.where}: there are no scores in it; expected 'logits' or 'probabilities', a column for each of "
        f"{', '.join(task.label_names) or 'the scores'}, or 'label'; the file has {', '.join(columns)}"
    )


def _certain_words(answers: Any, task: Task, where: str) -> Any:  # Any: a cell of a file
    """Return the probabilities of the answers to the words of a text; None for words without one."""
    if not isinstance(answers, (list, tuple)):
        raise InputError(f"{where}: expected a list with the label of each word, got {shown(answers)}")
    return [None if answer is None else _certain(answer, task, where) for answer in answers]


def _certain(answer: Any, task: Task, where: str) -> list[float]:  # Any: a cell of a file
    """Return the probabilities of an answer that names its label, or labels."""
    given: Sequence[Any] = answer if task.task_kind.several and isinstance(answer, (list, tuple)) else [answer]
    named = {_label_name(label, task, where) for label in given}
    return [float(name in named) for name in task.label_names]


def _label_name(given: Any, task: Task, where: str) -> str:  # Any: a cell of a file
    """Return the label that is meant; a number stands for its digits, and case does not matter if it is unambiguous."""
    if isinstance(given, float) and given.is_integer():  # whole numbers of a Parquet column with gaps
        given = int(given)
    for form in (str, folded):
        names = [name for name in task.label_names if form(name) == form(str(given))]
        if len(names) == 1:
            return names[0]
    raise InputError(f"{where}: the task has no label {shown(given)}; {nearest(str(given), task.label_names)}")
