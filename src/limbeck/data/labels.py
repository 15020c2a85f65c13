"""Turn labels as written in the data into numbers: names in one spelling, vectors of 0 and 1, decimal numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.core.kinds import Kind, find
from limbeck.core.task_kind import Label
from limbeck.data.ambiguity import quoted
from limbeck.data.cells import (
    NumberFormat,
    is_hidden,
    is_missing,
    is_number,
    is_unlabeled,
    lacks_label,
    normalize_spelling,
    parse_bool,
)
from limbeck.data.columns import Columns
from limbeck.data.config import Options
from limbeck.data.readers import Table, plural
from limbeck.errors import InputError, nearest, shown

_WHOLE = re.compile(r"([-+]?\d+)\.0+")


def to_python(cell: Any) -> Any:  # a cell of any type
    """Convert a NumPy scalar to a plain Python value; leave other cells as they are."""
    return cell.item() if isinstance(cell, np.generic) else cell


@dataclass
class Rows:
    """Checked texts of a split, with the labels as written in the data.

    Attributes:
        table: The table they come from.
        texts: Texts, or tuples of words.
        pairs: Second texts, if there are any.
        labels: Cells of the label column.
        indices: Row of the table that each of them comes from.
    """

    table: Table
    texts: list[Any]
    pairs: list[str] | None
    labels: list[Any]
    indices: list[int]

    def at(self, row: int) -> str:
        """Describe where a row is, for messages."""
        return self.table.at(self.indices[row])

    def without(self, rows: set[int]) -> Rows:
        """Return all rows but the given ones."""
        keep = [row for row in range(len(self.texts)) if row not in rows]
        pairs = None if self.pairs is None else [self.pairs[row] for row in keep]
        indices, labels = [self.indices[row] for row in keep], [self.labels[row] for row in keep]
        return Rows(self.table, [self.texts[row] for row in keep], pairs, labels, indices)


def label_text(cell: object) -> str | None:
    """Return the name of a label: 1, 1.0, "1" and " 1.0" have the same; None for an empty cell.

    >>> [label_text(cell) for cell in (1, 1.0, "1.0 ", True, "up", None)]
    ['1', '1', '1', 'true', 'up', None]
    """
    cell = to_python(cell)
    if is_missing(cell):
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text) or None


def sort_labels(names: set[str]) -> tuple[str, ...]:
    """Sort label names: numerically if all are numbers, else alphabetically.

    >>> sort_labels({"10", "9"}), sort_labels({"b", "a", "1"})
    (('9', '10'), ('1', 'a', 'b'))
    """
    return tuple(sorted(names, key=(lambda name: (float(name), name)) if all(map(is_number, names)) else None))


def _names_in(kind: Kind, cell: Any, separator: str | None, at: Callable[[], str]) -> list[str]:
    """Return the label names in a cell: one, or any number (multilabel), or one per word (tokens)."""
    task_kind = find(kind)
    if task_kind.several and isinstance(cell, str) and separator is None and not is_missing(cell):
        raise InputError(f"{at()}: several labels need a list, or set label_separator; got {shown(cell)}")
    parts = [cell] if is_missing(cell) else task_kind.parts(cell, separator)
    if not isinstance(parts, (list, tuple)):
        raise InputError(f"{at()}: the labels should be a list, got {shown(cell)}")
    if any(isinstance(part, (list, tuple, dict)) for part in parts):
        raise InputError(f"{at()}: a label should be a word or a number, got {shown(cell)}")
    names = [label_text(part) for part in parts]
    if None in names:
        raise InputError(f"{at()}: a label is empty, got {shown(cell)}")
    return [name for name in names if name is not None]


def _number_of(cell: object, numbers: NumberFormat, at: Callable[[], str]) -> float:
    if isinstance(cell, str) and (value := numbers.read(cell)) is not None:
        return value
    if isinstance(cell, bool) or not isinstance(cell, (int, float)) or not math.isfinite(cell):
        raise InputError(
            f"{at()}: the label should be a finite number, got {shown(cell)}; for names set kind: classification"
        )
    return float(cell)


def check_labeled(rows: dict[str, Rows], main: str, columns: Columns, options: Options, notes: list[str]) -> None:
    """Refuse rows without a label, or drop them, as ``on_unlabelled`` says.

    -1 stands for a hidden label where all rows of a split have it, or where no row of the training split has it; among
    other numbers it is one of them.

    Args:
        rows: Rows by split; splits that lose rows are replaced, and those that lose all are removed.
        main: The split that the label names come from.
        columns: How the tables are read.
        options: The user's options.
        notes: Receives a note about dropped rows.
    """
    kind = find(columns.kind)
    if kind.several and not columns.vectors:
        return  # an empty set of labels is valid
    hidden = not kind.numeric and not any(is_hidden(label) for label in rows[main].labels)
    for split, part in list(rows.items()):
        minus_is_hidden = all(map(is_hidden, part.labels)) or (hidden and split != main)
        unlabeled = [
            row
            for row, label in enumerate(part.labels)
            if _lacks_label(label, columns.vectors) or (minus_is_hidden and is_hidden(label))
        ]
        if not unlabeled:
            continue
        if options.on_unlabelled == "error":
            _refuse_unlabeled(part, unlabeled, columns, only=split == main)
        if len(unlabeled) == len(part.texts):
            if split == main:
                raise InputError(f"{part.table.where}: no row has a label")
            del rows[split]
        else:
            rows[split] = part.without(set(unlabeled))
        notes.append(f"{split}: {plural(len(unlabeled), 'row')} without a label dropped")


def _lacks_label(label: object, vector: bool) -> bool:
    if vector and isinstance(label, (list, tuple)):
        return any(map(lacks_label, label))
    return is_unlabeled(label)


def _refuse_unlabeled(part: Rows, unlabeled: Sequence[int], columns: Columns, *, only: bool) -> None:
    label, count, several = part.labels[unlabeled[0]], len(part.texts), len(columns.label) > 1
    names = f"{'columns' if several else 'column'} {quoted(columns.label)}"
    if isinstance(label, (list, tuple)):
        what = f"{'have' if several else 'has'} a value that is neither 0 nor 1"
    elif not is_hidden(label) and (is_missing(label) or not str(label).strip()):
        what = "is empty"
    else:
        what = f"says {str(label).strip()!r}, which means no label"
    drop = "set on_unlabelled: drop (--task-set on_unlabelled=drop) to leave them out"
    if len(unlabeled) < count:
        ways = f"label them, or {drop}"
    elif only:
        ways = "if the labels are in another column, name it: label: NAME (--task-set label=NAME)"
    else:
        ways = f"leave this file out by naming the others (train: FILE, validation: FILE) in a task file, or {drop}"
    raise InputError(
        f"{part.at(unlabeled[0])}: the label is empty or missing: {names} {what}, got {shown(label)}; "
        f"{len(unlabeled):,} of {plural(count, 'row')} {'has' if len(unlabeled) == 1 else 'have'} no label; {ways}"
    )


def unify_spelling(
    rows: Mapping[str, Rows], main: str, columns: Columns, options: Options, notes: list[str]
) -> Mapping[str, str]:
    """Choose one spelling for labels that differ only in case and spaces: the most frequent; given names and 'O' stay.

    Args:
        rows: Rows by split.
        main: The split that the label names come from; its spellings take precedence.
        columns: How the tables are read.
        options: The user's options.
        notes: Receives a note about labels that were read as the same.

    Returns:
        The chosen spelling for each name that is written differently.
    """
    kind = find(columns.kind)
    if kind.numeric or columns.vectors:
        return {}
    given = {label_text(name) or "" for name in options.label_names or ()}
    counts: Counter[str] = Counter()
    for split, part in rows.items():
        for row in range(len(part.texts)):
            names = _names_in(columns.kind, part.labels[row], options.label_separator, lambda: part.at(row))  # noqa: B023
            counts.update({name: 1_000_000 * (split == main) + 1 for name in names})
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        groups.setdefault(normalize_spelling(name), []).append(name)
    same: dict[str, str] = {}
    for folded, names in groups.items():
        fixed = [name for name in names if name in given]
        if len(names) == 1 and (fixed or not given):
            continue
        wanted = [name for name in given if normalize_spelling(name) == folded]
        if len(fixed) > 1 or (given and len(wanted) != 1):
            continue  # they were named as different labels, or none of them was
        standard = wanted or [name for name in names if name == kind.first_label]
        best = standard[0] if standard else max(names, key=lambda name: _rank_spelling(name, counts[name]))
        same |= {name: best for name in names if name != best}
        if others := [name for name in names if name != best]:
            notes.append(f"the labels {', '.join(map(repr, others))} are read as {best!r}")
    return same


def _rank_spelling(name: str, count: int) -> tuple[bool, int, bool, bool]:
    """Rank a spelling, larger is better: lower-case true and false; otherwise the most frequent."""
    small = name == name.lower()
    return small and parse_bool(name) is not None, count, name == " ".join(name.split()), small


Encode = Callable[[Rows, int], Any]
"""Encodes the label of a row (by index) as ``Split.labels`` has it."""


def number_labels(
    columns: Columns, rows: Mapping[str, Rows], main: str, options: Options, spelling: Mapping[str, str]
) -> tuple[tuple[str, ...], Encode]:
    """Assign numbers to the labels.

    Args:
        columns: How the tables are read.
        rows: Rows by split.
        main: The split that the label names come from.
        options: The user's options.
        spelling: The chosen spelling of names, from :func:`unify_spelling`.

    Returns:
        The label names, and a function that encodes the label of a row.

    Raises:
        InputError: The label names are unusable. The function raises it for a label that cannot be encoded.
    """
    kind = find(columns.kind)
    if columns.vectors:
        return _vector_labels(columns, rows[main], options)
    if kind.numeric:
        numbers = columns.numbers
        return (), lambda part, row: _number_of(part.labels[row], numbers, lambda: part.at(row))

    def names_of(part: Rows, row: int) -> list[str]:
        names = _names_in(kind.name, part.labels[row], options.label_separator, lambda: part.at(row))
        return [spelling.get(name, name) for name in names] if spelling else names

    train = rows[main]
    seen = {name for row in range(len(train.texts)) for name in names_of(train, row)}
    names = _name_order(kind.name, seen, options)
    index = {name: position for position, name in enumerate(names)}
    if not seen <= index.keys() and all(name.isdecimal() and int(name) < len(names) for name in seen):
        index = {str(position): position for position in range(len(names))}

    def encode(part: Rows, row: int) -> Label:
        present = names_of(part, row)
        for name in present:
            if name not in index:
                allowed = "the labels given" if options.label_names else f"those of {main}"
                raise InputError(f"{part.at(row)}: unknown label '{name}', not among {allowed}; {nearest(name, index)}")
        try:
            return kind.encode([index[name] for name in present], len(names), len(part.texts[row]))
        except InputError as error:
            raise InputError(f"{part.at(row)}: {error}") from None

    return names, encode


def _vector_labels(columns: Columns, train: Rows, options: Options) -> tuple[tuple[str, ...], Encode]:
    """Encode labels that are vectors of 0 and 1, one element per label."""
    kind = find(columns.kind)
    width = len(train.labels[0])
    own = columns.label if len(columns.label) > 1 else tuple(map(str, range(width)))
    names = own if options.label_names is None else _name_order(columns.kind, set(), options)
    if len(names) != width:
        raise InputError(
            f"{train.at(0)}: a vector of {width} elements for {plural(len(names), 'label')}, got "
            f"{shown(list(train.labels[0]))} and label_names: {list(names)}"
        )
    order = [own.index(name) for name in names] if set(names) == set(own) else list(range(width))

    def encode(part: Rows, row: int) -> Label:
        cells = part.labels[row]
        values = [parse_bool(cell) for cell in cells] if isinstance(cells, (list, tuple)) else []
        if len(values) != width or None in values:
            raise InputError(f"{part.at(row)}: the label should be {width} values of 0 or 1, got {shown(cells)}")
        present = [index for index, position in enumerate(order) if values[position]]
        if not kind.several and len(present) != 1:
            raise InputError(f"{part.at(row)}: one of {width} classes needs exactly one 1, got {shown(cells)}")
        return kind.encode(present, width, 1)

    if not (kind.several or kind.single_class):
        raise InputError(
            f"{train.table.where}: vectors of 0 and 1 are labels of a multilabel or a classification task, not "
            f"{columns.kind}; set kind: multilabel"
        )
    return names, encode


def _name_order(kind: Kind, seen: set[str], options: Options) -> tuple[str, ...]:
    if options.label_names is None:
        names = sort_labels(seen)
        first = find(kind).first_label
        return names if first not in seen else (first, *(name for name in names if name != first))
    names = tuple(label_text(name) or "" for name in options.label_names)
    for name in names:
        if names.count(name) > 1 or not name:
            raise InputError(f"label_names: {shown(name)} should occur once and not be empty, got {shown(names)}")
    return names
