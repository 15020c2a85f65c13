"""Replace a task's training split by unlabeled texts, for methods whose teacher supplies the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from limbeck.core.metrics import default_label
from limbeck.core.paths import exists
from limbeck.core.requests import Judged
from limbeck.core.task import Split, Task
from limbeck.data.corpus.documents import normal, numbered_lines, reading_for, text_columns
from limbeck.data.readers import check_file, missing_file, plural, read_table
from limbeck.errors import InputError, shown
from limbeck.storage.text_file import regular_file

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind

Row: TypeAlias = tuple[str | tuple[str, ...], ...]
"""One text, or two; a text is a string, or the words that its cell lists."""

LINES = ".txt"  #: one text per line; of pairs two, separated by a tab


def check_texts(path: Path) -> None:
    """Refuse a file that does not exist or has no reader, without opening it."""
    if path.suffix.lower() != LINES:
        check_file(path)
    elif not exists(path):
        raise InputError(missing_file(path))
    else:
        regular_file(path)


def with_texts_of(task: Task, path: Path, columns: Sequence[str] = ()) -> Task:
    r"""Return the task with a file's texts as its training split; the labels are placeholders, not to be learned from.

    Duplicates are left out, and so are texts of the validation or test split, compared by letters and digits alone; a
    note says how many.

    Args:
        task: The task.
        path: A file with a text per line, or with columns.
        columns: The text column, or two of them for a task of pairs, by name or number from 0; found by their
            customary names unless given.

    Raises:
        InputError: The file is unreadable, its columns are unclear, or no texts are left.

    >>> from limbeck.data.synthetic import toy_task
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "more.txt").write_text("so sunny\nquite gray\nso  Sunny\n")
    ...     with_texts_of(toy_task(train=8), Path(folder) / "more.txt").split("train").texts
    ('so sunny', 'quite gray')
    """
    check_texts(path)
    width = 1 if task.split("train").pairs is None else 2
    rows = read_texts(path, width, columns)
    held_out = {normalized(row) for name in ("validation", "test") if name in task.splits for row in _rows(task, name)}
    unique: dict[tuple[str, ...], Row] = {}
    overlap = 0
    for row in rows:
        overlap += (key := normalized(row)) in held_out
        if all(row) and key not in held_out:
            unique.setdefault(key, row)
    if not unique:
        raise InputError(f"{path}: no texts are left of {plural(len(rows), 'row')}")
    note = f"{path.name}: {plural(len(unique), 'text')} without labels"
    if overlap:
        note += f"; {plural(overlap, 'text')} of the validation or test split left out"
    splits = {**task.splits, "train": placeholders(task.task_kind, list(unique.values()), task.label_names)}
    return replace(task, splits=splits, notes=(*task.notes, note))


def read_texts(path: Path, width: int = 1, columns: Sequence[str] = ()) -> list[Row]:
    """Read texts without labels, or pairs of texts, from a file.

    Args:
        path: A file with a text per line (of pairs two, separated by a tab), or with columns.
        width: Texts in a row.
        columns: The text columns, by name or number from 0; found by their customary names unless given.
    """
    return _lines(path, width) if path.suffix.lower() == LINES else _cells(path, width, columns)


def normalized(row: Row) -> tuple[str, ...]:
    """Return what near-duplicates have in common: letters and digits, without regard to case."""
    return tuple(normal(_joined(text)) for text in row)


def divided(task: Task, file: Path | None, columns: Sequence[str] = ()) -> tuple[Task, Task]:
    """Return the task with its labeled rows only, and the task with the rows that a teacher labels.

    Args:
        task: The task; augmentation may have added rows without labels of their own.
        file: Texts without labels; None takes all rows of the task.
        columns: Columns of the file with the texts; by customary names unless given.
    """
    rows = task.split("train").take(range(task.labeled_rows))
    labeled = replace(task, splits={**task.splits, "train": rows})
    return labeled, task if file is None else with_texts_of(task, file, columns)


def placeholders(kind: TaskKind, rows: Sequence[Row], label_names: Sequence[str]) -> Split:
    """Build a split of texts, or of pairs of texts, whose labels are placeholders, not to be learned from.

    Args:
        kind: Kind of the task.
        rows: One text in each row, or two; where words have answers, a string is divided at white space.
        label_names: The label names; words have the one of words that a model does not see.
    """
    width = len(label_names)
    if kind.per_token:
        other = default_label(label_names)
        texts = tuple(tuple(row[0].split()) if isinstance(row[0], str) else row[0] for row in rows)
        return Split(texts, tuple(kind.encode([other] * len(words), width, len(words)) for words in texts))
    if kind.grouped:
        if len(rows[0]) != 2:
            raise InputError(
                "texts without labels: a reranker needs a query and a document in each row; name both columns"
            )
        queries, documents = (tuple(_joined(row[column]) for row in rows) for column in (0, 1))
        numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        labels = tuple(tuple(Judged(numbers[query], 0.0, 0.0)) for query in queries)
        return Split(queries, labels, documents)
    label: Any = () if kind.vectors else 0.0 if kind.numeric else kind.encode([] if kind.several else [0], width, 1)
    pairs = tuple(_joined(row[1]) for row in rows) if len(rows[0]) == 2 else None
    return Split(tuple(_joined(row[0]) for row in rows), (label,) * len(rows), pairs)


def _rows(task: Task, name: str) -> list[Row]:
    split = task.split(name)
    return (
        [(text,) for text in split.texts] if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
    )


def _joined(text: str | tuple[str, ...]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _lines(path: Path, width: int) -> list[Row]:
    rows: list[Row] = []
    for number, line in numbered_lines(path):
        if line.strip():
            rows.append(tuple(part.strip() for part in line.split("\t", width - 1)))
            if len(rows[-1]) != width:
                raise InputError(
                    f"{path}, line {number}: the task has pairs, so a line needs two texts separated by a tab, "
                    f"got {shown(rows[-1][0])}"
                )
    return rows


def _cells(path: Path, width: int, columns: Sequence[str]) -> list[Row]:
    table = read_table(path, reading_for(columns))
    names = text_columns(table.where, table.columns, "unlabelled_columns", columns, width)
    indices = [table.columns.index(name) for name in names]
    return [tuple(_text(row[index]) for index in indices) for row in table.rows]


def _text(cell: object) -> str | tuple[str, ...]:
    if isinstance(cell, (list, tuple)):
        return tuple(word for part in cell if (word := str(part).strip()))  # a word may hold spaces
    return "" if cell is None else str(cell).strip()
