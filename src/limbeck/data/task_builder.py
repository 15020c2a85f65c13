"""From tables to a task: every cell checked, labels numbered, oddities counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck.data.cells import is_missing
from limbeck.data.columns import Columns, choose_columns, column_of, parse_lists
from limbeck.data.columns import shown as _shown
from limbeck.data.config import Options
from limbeck.data.labels import Encode, Rows, check_labelled, number_labels, one_spelling, plain
from limbeck.data.metrics import METRICS_OF, OUTSIDE, Kind
from limbeck.data.readers import Table, plural
from limbeck.data.task import SPLITS, Split, Task, choose
from limbeck.errors import InputError

_JOINED = "\0labels"  #: the column that stands for several columns of labels
CARVED = 0.1  #: share of train that becomes validation where there is none
#: what other programs write for "no value" into files of text
_MISSING_WORDS = frozenset({"nan", "NaN", "<NA>", "None", "NULL"})


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
    check_labelled(rows, main, columns, options, told)
    spelling = one_spelling(rows, main, columns, options, told)
    label_names, encode = number_labels(columns, rows, main, options, spelling)
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


def _read_rows(split: str, table: Table, reading: Columns, options: Options, told: list[str]) -> Rows:
    """Check the texts of one split; empty ones are refused, dropped or kept as ``on_empty`` says."""
    columns, kind = {**reading.roles, "label": _label_column(reading)}, reading.kind
    index = {role: table.columns.index(column_of(table, name)) for role, name in columns.items()}
    roles = list(reading.roles)
    rows = Rows(table, [], [] if "pair" in index else None, [], [])
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
        rows.labels.append(plain(row[index["label"]]))
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


def _text(cell: Any, table: Table, place: int, column: str, kind: Kind, options: Options) -> tuple[Any, bool]:
    """A text, and whether it was stripped; None where there is none."""
    cell = plain(cell)
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


def _encoded(part: Rows, encode: Encode) -> Split:
    labels = tuple(encode(part, row) for row in range(len(part.texts)))
    return Split(tuple(part.texts), labels, None if part.pairs is None else tuple(part.pairs))


def _check_variety(kind: Kind, rows: Rows, split: Split) -> None:
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
