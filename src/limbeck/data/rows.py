"""From tables to a task: every cell checked, labels numbered, oddities counted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from limbeck.data.cells import NumberFormat, fold, is_missing, is_number, is_unlabelled, truth
from limbeck.data.columns import Columns, choose_columns, column_of, parse_lists
from limbeck.data.columns import shown as _shown
from limbeck.data.metrics import METRICS_OF, OUTSIDE, Kind
from limbeck.data.options import Options
from limbeck.data.read import Table, plural
from limbeck.data.task import SPLITS, Split, Task, choose
from limbeck.errors import InputError, nearest

_JOINED = "\0labels"  #: the column that stands for several columns of labels
CARVED = 0.1  #: share of train that becomes validation where there is none
#: what other programs write for "no value" into files of text
_MISSING_WORDS = frozenset({"nan", "NaN", "<NA>", "None", "NULL"})
_WHOLE = re.compile(r"([-+]?\d+)\.0+")


@dataclass
class _Rows:
    """Checked texts of a split with the labels as they stand in the data; ``places`` are row numbers of the table."""

    table: Table
    texts: list[Any]
    pairs: list[str] | None
    labels: list[Any]
    places: list[int]

    def at(self, row: int) -> str:
        return self.table.at(self.places[row])

    def without(self, rows: set[int]) -> _Rows:
        """These rows but some."""
        keep = [row for row in range(len(self.texts)) if row not in rows]
        pairs = None if self.pairs is None else [self.pairs[row] for row in keep]
        places, labels = [self.places[row] for row in keep], [self.labels[row] for row in keep]
        return _Rows(self.table, [self.texts[row] for row in keep], pairs, labels, places)


def build_task(
    name: str, tables: Mapping[str, Table], options: Options, notes: Sequence[str] = (), *, judge: bool = False
) -> Task:
    """Check tables and make the task of them.

    Args:
        name: Name of the task.
        tables: A table for each split.
        options: How to read them.
        notes: What is known about the data already.
        judge: Whether the task is only to judge a model on: no split train is needed, nothing is set aside, and rows
            that are all of one class will do.

    Raises:
        InputError: A cell, a label or a split cannot be used, or the tables can be read in two ways.
    """
    if "train" not in tables and not judge:
        raise InputError(f"task '{name}' has no train split, only {', '.join(tables) or 'nothing'}")
    told = [*notes, *(f"{split}: {note}" for split, table in tables.items() for note in table.notes)]
    main = "train" if "train" in tables else next(iter(tables))
    columns = choose_columns(tables[main], options)
    told += columns.notes
    kind = columns.kind
    tables = {split: _prepared(table, columns) for split, table in tables.items()}
    rows = {split: _read_rows(split, tables[split], columns, options, told) for split in SPLITS if split in tables}
    _check_labelled(rows, main, kind, options, told)
    spelling = _spelling(rows, main, columns, options, told)
    label_names, encode = _labels(columns, rows, main, options, spelling)
    splits = {split: _encoded(part, encode) for split, part in rows.items()}
    if not judge:
        _check_variety(kind, rows["train"], splits["train"])
        if "validation" not in splits:
            splits = _carve(splits, options.seed, stratified=kind == "classification", told=told)
        if "test" not in splits:
            told.append("there is no test split; what is reported is measured on validation")
    told.extend(_never_seen(kind, label_names, main, splits[main]))
    told.extend(oddities(splits))
    metric = options.metric or _default_metric(kind, label_names)
    task = Task(name, kind, splits, label_names, metric, options.max_length, tuple(told), columns=columns)
    return task.limit(options.seed, **options.limit) if options.limit else task


def _prepared(table: Table, columns: Columns) -> Table:
    """A table whose lists are lists and whose columns of labels, where there are several, are one of vectors."""
    table, _ = parse_lists(table, columns.lists)
    if len(columns.label) == 1:
        return table
    places = [table.columns.index(column_of(table, name)) for name in columns.label]
    rows: list[Sequence[Any]] = [[*row, tuple(row[place] for place in places)] for row in table.rows]
    return replace(table, columns=(*table.columns, _JOINED), rows=rows)


# ---- texts ----


def _read_rows(split: str, table: Table, reading: Columns, options: Options, told: list[str]) -> _Rows:
    """Check the texts of one split; empty ones are refused, dropped or kept as ``on_empty`` says."""
    columns, kind = {**reading.roles, "label": _label_column(reading)}, reading.kind
    index = {role: table.columns.index(column_of(table, name)) for role, name in columns.items()}
    roles = list(reading.roles)
    rows = _Rows(table, [], [] if "pair" in index else None, [], [])
    stripped, empty = 0, []
    for place, row in enumerate(table.rows):
        cells = [_text(row[index[role]], table, place, columns[role], kind, options) for role in roles]
        if any(text is None for text, _ in cells):
            empty.append(place)
            continue
        stripped += any(changed for _, changed in cells)
        rows.texts.append(cells[0][0])
        if rows.pairs is not None:
            rows.pairs.append(cells[1][0])
        rows.labels.append(_plain(row[index["label"]]))
        rows.places.append(place)
    if empty and options.on_empty != "drop":
        _refuse_empty(table, empty, [(role, columns[role], index[role]) for role in roles], options)
    if not rows.texts:
        raise InputError(f"{table.where}: no rows are left" if empty else f"{table.where}: there are no rows in it")
    if stripped:
        told.append(f"{split}: white space around the text of {plural(stripped, 'row')} removed")
    if empty:
        told.append(f"{split}: {plural(len(empty), 'row')} without text dropped")
    return rows


def _label_column(columns: Columns) -> str:
    return columns.label[0] if len(columns.label) == 1 else _JOINED


def _plain(cell: Any) -> Any:
    """Numpy scalars as what Python calls them."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _text(cell: Any, table: Table, place: int, column: str, kind: Kind, options: Options) -> tuple[Any, bool]:
    """A text, and whether it was stripped; None where there is none."""
    cell = _plain(cell)
    if is_missing(cell):
        return None, False
    if kind == "tokens":
        words = cell.split() if isinstance(cell, str) else cell
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{table.at(place)}: column '{column}' should be a list of words, got {_shown(cell)}")
        if not all(word.strip() for word in words):
            raise InputError(f"{table.at(place)}: word {_first_empty(words) + 1} of column '{column}' is empty")
        parts = tuple(word.strip() for word in words)
        return (parts or None), parts != tuple(words)
    if not isinstance(cell, str):
        raise InputError(
            f"{table.at(place)}: column '{column}' should be text, got {_shown(cell)} of type {type(cell).__name__}"
        )
    text = cell.strip()
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise InputError(f"{table.at(place)}: column '{column}' has half of a UTF-16 pair, got {text[:40]!a}")
    if options.on_empty != "keep" and (not text or (not table.typed and text in _MISSING_WORDS)):
        return None, False
    return text, text != cell


def _first_empty(words: Sequence[str]) -> int:
    return next(index for index, word in enumerate(words) if not word.strip())


def _refuse_empty(table: Table, empty: list[int], roles: Sequence[tuple[str, str, int]], options: Options) -> None:
    row = table.rows[empty[0]]
    column, cell = next(
        (name, row[index]) for _, name, index in roles if is_missing(row[index]) or _is_blank(row[index], table)
    )
    more = f" ({len(empty):,} such rows in all)" if len(empty) > 1 else ""
    blank = isinstance(cell, str) and not cell.strip()
    what = "is empty" if blank or not cell else f"says {cell!r}, as if a value were missing"
    ways = "drop" if is_missing(cell) else "drop' or 'keep"
    raise InputError(
        f"{table.at(empty[0])}: the text in column '{column}' {what}, got {_shown(cell)}{more}; "
        f"fill it in, or set on_empty: '{ways}'"
    )


def _is_blank(cell: Any, table: Table) -> bool:
    if isinstance(cell, str):
        return not cell.strip() or (not table.typed and cell.strip() in _MISSING_WORDS)
    return isinstance(cell, (list, tuple)) and not cell


# ---- labels ----


def label_text(cell: Any) -> str | None:
    """A label as a name: 1, 1.0, "1" and " 1.0" are the same one; None where there is none.

    >>> [label_text(cell) for cell in (1, 1.0, "1.0 ", True, "up", None)]
    ['1', '1', '1', 'true', 'up', None]
    """
    cell = _plain(cell)
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
    """Numbers in their order, words in that of the alphabet.

    >>> sort_labels({"10", "9"}), sort_labels({"b", "a", "1"})
    (('9', '10'), ('1', 'a', 'b'))
    """
    return tuple(sorted(names, key=(lambda name: (float(name), name)) if all(map(is_number, names)) else None))


def _names_in(kind: Kind, cell: Any, separator: str | None, at: Callable[[], str]) -> list[str]:
    """The label names in one cell: one, or any number (multilabel), or one for every word (tokens)."""
    many: Any = [cell]
    if kind == "tokens" and not is_missing(cell):
        many = cell.split() if isinstance(cell, str) else cell
    if kind == "multilabel" and not is_missing(cell):
        if isinstance(cell, str) and separator is None:
            raise InputError(f"{at()}: several labels need a list, or set label_separator; got {_shown(cell)}")
        many = [part for part in cell.split(separator) if part.strip()] if isinstance(cell, str) else cell
    if kind != "classification" and not isinstance(many, (list, tuple)):
        raise InputError(f"{at()}: the labels should be a list, got {_shown(cell)}")
    if any(isinstance(part, (list, tuple, dict)) for part in many):
        raise InputError(f"{at()}: a label should be a word or a number, got {_shown(cell)}")
    names = [label_text(part) for part in many]
    if None in names:
        raise InputError(f"{at()}: a label is empty, got {_shown(cell)}")
    return [name for name in names if name is not None]


def _number_of(cell: Any, numbers: NumberFormat, at: Callable[[], str]) -> float:
    if isinstance(cell, str) and (value := numbers.read(cell)) is not None:
        return value
    if isinstance(cell, bool) or not isinstance(cell, (int, float)) or not math.isfinite(cell):
        raise InputError(
            f"{at()}: the label should be a finite number, got {_shown(cell)}; for names set kind: classification"
        )
    return float(cell)


def _check_labelled(rows: dict[str, _Rows], main: str, kind: Kind, options: Options, told: list[str]) -> None:
    """Refuse rows without a label, or leave them out, as ``on_unlabelled`` says.

    -1 stands for a hidden label where all rows of a split have it, or where rows of another split never do.
    """
    if kind == "multilabel":
        return  # no label at all is an answer
    hidden = not any(_is_hidden(label) for label in rows[main].labels)
    for split, part in list(rows.items()):
        whole = all(map(_is_hidden, part.labels))
        minus = whole or (hidden and split != main)
        bare = [row for row, label in enumerate(part.labels) if _has_none(label) or (minus and _is_hidden(label))]
        if not bare:
            continue
        if options.on_unlabelled == "error":
            _refuse_unlabelled(split, part, bare)
        if len(bare) == len(part.texts):
            if split == main:
                raise InputError(f"{part.table.where}: no row has a label")
            del rows[split]
        else:
            rows[split] = part.without(set(bare))
        told.append(f"{split}: {plural(len(bare), 'row')} without a label dropped")


def _is_hidden(label: Any) -> bool:
    return not isinstance(label, (bool, list, tuple, dict)) and str(label).strip() in ("-1", "-1.0")


def _has_none(label: Any) -> bool:
    if isinstance(label, tuple):  # one column per label
        return any(is_unlabelled(cell) for cell in label)
    return is_unlabelled(label)


def _refuse_unlabelled(split: str, part: _Rows, bare: Sequence[int]) -> None:
    label, count = part.labels[bare[0]], len(part.texts)
    blank = not _is_hidden(label) and (is_missing(label) or not str(label).strip())
    what = "is empty" if blank else f"says {str(label).strip()!r}, which stands for none"
    if isinstance(label, tuple):
        what = "is missing in one of the columns"
    ways = "label them, or set on_unlabelled: drop (--task-set on_unlabelled=drop) to leave them out"
    if len(bare) == count:
        ways = (
            "rows without labels train and judge nothing: leave the file out, naming the others one by one (train: …, "
            "validation: …), or set on_unlabelled: drop; 'limbeck predict' answers them"
        )
    raise InputError(
        f"{part.at(bare[0])}: the label {what}, got {_shown(label)}; {len(bare):,} of {plural(count, 'row')} "
        f"{'has' if len(bare) == 1 else 'have'} no label; {ways}"
    )


def _spelling(
    rows: Mapping[str, _Rows], main: str, columns: Columns, options: Options, told: list[str]
) -> Mapping[str, str]:
    """One spelling for labels that differ in case and spaces alone: that of most rows; names that were given stay."""
    if columns.kind not in ("classification", "multilabel") or columns.vectors:
        return {}
    given = {label_text(name) or "" for name in options.label_names or ()}
    counts: Counter[str] = Counter()
    for split, part in rows.items():
        for row in range(len(part.texts)):
            names = _names_in(columns.kind, part.labels[row], options.label_separator, lambda: part.at(row))  # noqa: B023
            counts.update({name: 1_000_000 * (split == main) + 1 for name in names})
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        groups.setdefault(fold(name), []).append(name)
    same: dict[str, str] = {}
    for folded, names in groups.items():
        kept = [name for name in names if name in given]
        if len(names) == 1 and (kept or not given):
            continue
        wanted = [name for name in given if fold(name) == folded]
        if len(kept) > 1 or (given and len(wanted) != 1):
            continue  # they were named as different labels, or none of them was
        boolean = truth(folded) is not None
        best = wanted[0] if wanted else max(names, key=lambda name: (boolean and name == name.lower(), counts[name]))
        same |= {name: best for name in names if name != best}
        if others := [name for name in names if name != best]:
            told.append(f"the labels {', '.join(map(repr, others))} are read as {best!r}")
    return same


Encode = Callable[[_Rows, int], Any]


def _labels(
    columns: Columns, rows: Mapping[str, _Rows], main: str, options: Options, spelling: Mapping[str, str]
) -> tuple[tuple[str, ...], Encode]:
    """The label names, and how the label of a row becomes a number."""
    kind = columns.kind
    if columns.vectors:
        return _vector_labels(columns, rows[main], options)
    if kind == "regression":
        numbers = columns.numbers
        return (), lambda part, row: _number_of(part.labels[row], numbers, lambda: part.at(row))

    def names_of(part: _Rows, row: int) -> list[str]:
        names = _names_in(kind, part.labels[row], options.label_separator, lambda: part.at(row))
        return [spelling.get(name, name) for name in names] if spelling else names

    train = rows[main]
    seen = {name for row in range(len(train.texts)) for name in names_of(train, row)}
    names = _name_order(kind, seen, options)
    index = {name: place for place, name in enumerate(names)}
    if not seen <= index.keys() and all(name.isdecimal() and int(name) < len(names) for name in seen):
        index = {str(place): place for place in range(len(names))}

    def encode(part: _Rows, row: int) -> Any:
        found = names_of(part, row)
        for name in found:
            if name not in index:
                known = "the labels given" if options.label_names else f"those of {main}"
                raise InputError(f"{part.at(row)}: unknown label '{name}', not among {known}; {nearest(name, index)}")
        if kind == "classification":
            return index[found[0]]
        if kind == "multilabel":
            present = {index[name] for name in found}
            return tuple(int(place in present) for place in range(len(names)))
        if len(found) != len(part.texts[row]):
            raise InputError(f"{part.at(row)}: {len(part.texts[row])} words but {len(found)} tags")
        return tuple(index[name] for name in found)

    return names, encode


def _vector_labels(columns: Columns, train: _Rows, options: Options) -> tuple[tuple[str, ...], Encode]:
    """Names and encoding of vectors of 0 and 1, one place for every label."""
    several = len(columns.label) > 1
    width = len(train.labels[0])
    own = columns.label if several else tuple(map(str, range(width)))
    names = own if options.label_names is None else _name_order(columns.kind, set(), options)
    if len(names) != width:
        raise InputError(
            f"{train.at(0)}: a vector of {width} places for {plural(len(names), 'label')}, got "
            f"{_shown(list(train.labels[0]))} and label_names: {list(names)}"
        )
    order = [own.index(name) for name in names] if set(names) == set(own) else list(range(width))

    def encode(part: _Rows, row: int) -> Any:
        cells = part.labels[row]
        values = [truth(cell) for cell in cells] if isinstance(cells, (list, tuple)) else []
        if len(values) != width or None in values:
            raise InputError(f"{part.at(row)}: the label should be {width} values of 0 or 1, got {_shown(cells)}")
        vector = tuple(int(bool(values[place])) for place in order)
        if columns.kind == "multilabel":
            return vector
        if sum(vector) != 1:
            raise InputError(f"{part.at(row)}: one of {width} classes needs exactly one 1, got {_shown(cells)}")
        return vector.index(1)

    if columns.kind not in ("multilabel", "classification"):
        raise InputError(
            f"{train.table.where}: vectors of 0 and 1 are labels of a multilabel or a classification task, not "
            f"{columns.kind}; set kind: multilabel"
        )
    return names, encode


def _name_order(kind: Kind, seen: set[str], options: Options) -> tuple[str, ...]:
    if options.label_names is None:
        names = sort_labels(seen)
        if kind == "tokens" and OUTSIDE in seen:  # class 0 is what token_f1 leaves out
            return (OUTSIDE, *(name for name in names if name != OUTSIDE))
        return names
    names = tuple(label_text(name) or "" for name in options.label_names)
    for name in names:
        if names.count(name) > 1 or not name:
            raise InputError(f"label_names: '{name}' should stand there once and not be empty, got {list(names)}")
    return names


def _encoded(part: _Rows, encode: Encode) -> Split:
    labels = tuple(encode(part, row) for row in range(len(part.texts)))
    return Split(tuple(part.texts), labels, None if part.pairs is None else tuple(part.pairs))


def _check_variety(kind: Kind, rows: _Rows, split: Split) -> None:
    """Refuse labels that nothing can be learned from."""
    where = rows.table.where
    if len(split) < 2:
        raise InputError(f"{where}: one row alone cannot be split into train and validation; give at least two")
    flat = [tag for label in split.labels for tag in label] if kind == "tokens" else list(split.labels)
    if kind == "multilabel":
        if not any(map(any, flat)):
            raise InputError(f"{where}: no row has any label")
    elif len(set(flat)) < 2:
        shown = _shown(rows.labels[0])
        raise InputError(f"{where}: all {len(split):,} rows have the same label {shown}; two different ones are needed")


def _never_seen(kind: Kind, label_names: Sequence[str], split: str, train: Split) -> list[str]:
    """Tell of labels that were named and that train has no example of."""
    if kind == "multilabel":
        seen = {place for row in train.labels for place, present in enumerate(row) if present}
    else:
        seen = {tag for label in train.labels for tag in (label if kind == "tokens" else (label,))}
    missing = [name for place, name in enumerate(label_names) if place not in seen]
    return [f"{split}: no row has the label {', '.join(map(repr, missing))}"] if missing else []


def _default_metric(kind: Kind, label_names: tuple[str, ...]) -> str:
    if kind == "tokens" and label_names[0] != OUTSIDE:
        return "accuracy"
    return METRICS_OF[kind][0]


# ---- splits ----


def _carve(splits: Mapping[str, Split], seed: int, *, stratified: bool, told: list[str]) -> dict[str, Split]:
    """Make a validation split of a part of train; train keeps a row of every class."""
    train = splits["train"]
    most = max(1, round(len(train) * CARVED))
    kept = choose(train.labels, len(train) - most, seed, stratified=stratified)
    rest = sorted(set(range(len(train))) - set(kept))
    told.append(
        f"there is no validation split: {most:,} of the {len(train):,} rows of train were set aside for it "
        f"(seed {seed})"
    )
    return {**splits, "train": train.take(kept), "validation": train.take(rest)}


def oddities(splits: Mapping[str, Split]) -> list[str]:
    """Count, in words, what is allowed but worth knowing: duplicates, contradictions, texts in two splits."""
    notes = []
    texts = {name: list(zip(split.texts, split.pairs or split.texts, strict=True)) for name, split in splits.items()}
    for name, split in splits.items():
        rows = Counter(zip(texts[name], split.labels, strict=True))
        if repeated := sum(rows.values()) - len(rows):
            notes.append(f"{name}: {plural(repeated, 'repeat')} of an earlier row (kept)")
        labels = Counter(text for text, _ in rows)
        if contradicted := sum(count > 1 for count in labels.values()):
            notes.append(f"{name}: {plural(contradicted, 'text')} with more than one label (kept)")
    order = [name for name in SPLITS if name in splits]
    for place, name in enumerate(order):
        for earlier in order[:place]:
            known = set(texts[earlier])
            if shared := sum(text in known for text in texts[name]):
                notes.append(f"{name}: {plural(shared, 'text')} that {earlier} has too (kept)")
    return notes
