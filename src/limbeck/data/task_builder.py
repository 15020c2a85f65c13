"""Build a task from tables: check every cell, number the labels, count what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from limbeck.core.kinds import Kind, find
from limbeck.core.task import SPLITS, Split, Task, choose_rows
from limbeck.data.cells import is_missing
from limbeck.data.columns import Columns, choose_columns, resolve_column
from limbeck.data.config import Options
from limbeck.data.conll import BLANK
from limbeck.data.labels import Encode, Rows, check_labeled, number_labels, to_python, unify_spelling
from limbeck.data.list_columns import parse_lists, refuse_other_cells
from limbeck.data.readers import Table, plural
from limbeck.data.requests import check_contrast, expand_triples, gather
from limbeck.errors import InputError, shown

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind

_JOINED = "\0labels"  #: the column that stands for several label columns, or for the scores that pairs do not have
BELONG_TOGETHER = 1.0  #: score of such pairs
VALIDATION_SHARE = 0.1  #: fraction of train set aside for validation where there is none
#: how other programs write "no value" into text files
_MISSING_WORDS = frozenset({"nan", "NaN", "<NA>", "None", "NULL"})


def build_task(
    name: str, tables: Mapping[str, Table], options: Options, notes: Sequence[str] = (), *, evaluation: bool = False
) -> Task:
    """Check tables and build a task from them.

    Args:
        name: Name of the task.
        tables: A table for each split.
        options: How to read them.
        notes: Notes from loading the data.
        evaluation: Whether the task is only to evaluate a model on: it needs no training split, nothing is set aside
            for validation, and all rows may have the same label.

    Raises:
        InputError: A cell, a label or a split is unusable, or the tables can be read in two ways.
    """
    if "train" not in tables and not evaluation:
        raise InputError(f"task '{name}' has no train split, only {', '.join(tables) or 'nothing'}")
    if options.kind is not None and find(options.kind).grouped:
        tables = {split: expand_triples(table) for split, table in tables.items()}
    collected = [*notes, *(f"{split}: {note}" for split, table in tables.items() for note in table.notes)]
    main = "train" if "train" in tables else next(iter(tables))
    columns = choose_columns(tables[main], options)
    collected += columns.notes
    kind = columns.kind
    tables = {split: _prepare(table, columns) for split, table in tables.items()}
    rows = {split: _read_rows(split, tables[split], columns, options, collected) for split in SPLITS if split in tables}
    check_labeled(rows, main, columns, options, collected)
    spelling = unify_spelling(rows, main, columns, options, collected)
    label_names, encode = number_labels(columns, rows, main, options, spelling)
    splits = {split: _encode_split(part, encode) for split, part in rows.items()}
    if find(kind).grouped:
        splits = {split: gather(part, tables[split].where, collected) for split, part in splits.items()}
    if not evaluation:
        _check_variety(kind, rows["train"], splits["train"])
        if "validation" not in splits and options.judge is None:
            splits = hold_out_validation(find(kind), splits, options.seed, collected)
        if "test" not in splits and options.judge is None:
            collected.append("there is no test split; results are measured on validation")
    collected.extend(_unused_labels(kind, label_names, main, splits[main]))
    collected.extend(find_oddities(splits))
    # what judges vectors has metrics of its own
    metric = None if options.judge is not None else options.metric
    metric = metric or find(kind).usual_metric(label_names)
    length = find(kind).usual_length if options.max_length is None else options.max_length
    task = Task(name, kind, splits, label_names, metric, length, tuple(collected), columns=columns).checked()
    return task.limit(options.seed, **options.limit) if options.limit else task


def _prepare(table: Table, columns: Columns) -> Table:
    """Parse lists written as text, and join several label columns into one; of pairs without scores add one."""
    table, lists = parse_lists(table, columns.lists)
    refuse_other_cells(table, sorted(lists & {*columns.roles.values(), *columns.label}))
    if len(columns.label) == 1:
        return table
    indices = [table.columns.index(resolve_column(table, name)) for name in columns.label]
    rows: list[Sequence[Any]] = [
        [*row, tuple(row[index] for index in indices) if indices else BELONG_TOGETHER] for row in table.rows
    ]
    return replace(table, columns=(*table.columns, _JOINED), rows=rows)


# ---- texts ----


def _read_rows(split: str, table: Table, reading: Columns, options: Options, notes: list[str]) -> Rows:
    """Check the texts of one split; empty ones are refused, dropped or kept as ``on_empty`` says."""
    columns, kind = {**reading.roles, "label": _label_column(reading)}, reading.kind
    index = {role: table.columns.index(resolve_column(table, name)) for role, name in columns.items()}
    roles = list(reading.roles)
    rows = Rows(table, [], [] if "pair" in index else None, [], [])
    stripped, empty = 0, []
    for number, row in enumerate(table.rows):
        cells = [_text(row[index[role]], table, number, columns[role], kind, options) for role in roles]
        if any(text is None for text, _ in cells):
            empty.append(number)
            continue
        stripped += any(changed for _, changed in cells)
        rows.texts.append(cells[0][0])
        if rows.pairs is not None:
            rows.pairs.append(cells[1][0])
        rows.labels.append(to_python(row[index["label"]]))
        rows.indices.append(number)
    if empty and options.on_empty != "drop":
        _refuse_empty(table, empty, [(role, columns[role], index[role]) for role in roles], options)
    if not rows.texts:
        raise InputError(f"{table.where}: no rows are left" if empty else f"{table.where}: there are no rows in it")
    if stripped:
        notes.append(f"{split}: white space around the text of {plural(stripped, 'row')} removed")
    if empty:
        notes.append(f"{split}: {plural(len(empty), 'row')} without text dropped")
    return rows


def _label_column(columns: Columns) -> str:
    return columns.label[0] if len(columns.label) == 1 else _JOINED


def _text(cell: object, table: Table, row: int, column: str, kind: Kind, options: Options) -> tuple[Any, bool]:
    """Return the text of a cell (None for an empty one), and whether it was stripped."""
    cell = to_python(cell)
    if is_missing(cell):
        return None, False
    if find(kind).per_token:
        words = cell.split() if isinstance(cell, str) else cell
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{table.at(row)}: column '{column}' should be a list of words, got {shown(cell)}")
        if not all(word.strip(BLANK) for word in words):
            raise InputError(f"{table.at(row)}: word {_first_empty(words) + 1} of column '{column}' is empty")
        parts = tuple(word.strip() or word.strip(BLANK) for word in words)  # a no-break space is a word
        return (parts or None), parts != tuple(words)
    if not isinstance(cell, str):
        raise InputError(
            f"{table.at(row)}: column '{column}' should be text, got {shown(cell)} of type {type(cell).__name__}"
        )
    text = cell.strip()
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise InputError(f"{table.at(row)}: column '{column}' has half of a UTF-16 pair, got {text[:40]!a}")
    if options.on_empty != "keep" and (not text or (not table.typed and text in _MISSING_WORDS)):
        return None, False
    return text, text != cell


def _first_empty(words: Sequence[str]) -> int:
    return next(index for index, word in enumerate(words) if not word.strip(BLANK))


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
        f"{table.at(empty[0])}: the text in column '{column}' {what}, got {shown(cell)}{more}; "
        f"fill it in, or set on_empty: '{ways}'"
    )


def _is_blank(cell: object, table: Table) -> bool:
    if isinstance(cell, str):
        return not cell.strip() or (not table.typed and cell.strip() in _MISSING_WORDS)
    return isinstance(cell, (list, tuple)) and not cell


def _encode_split(part: Rows, encode: Encode) -> Split:
    labels = tuple(encode(part, row) for row in range(len(part.texts)))
    return Split(tuple(part.texts), labels, None if part.pairs is None else tuple(part.pairs))


def _check_variety(kind: Kind, rows: Rows, split: Split) -> None:
    """Refuse a split that nothing can be learned from."""
    where = rows.table.where
    if len(split) < 2:
        raise InputError(f"{where}: a single row cannot be split into train and validation; give at least two")
    task_kind = find(kind)
    if task_kind.grouped:
        check_contrast(split, where)
        return
    different = set(split.labels) if task_kind.numeric else task_kind.label_counts(split.labels).keys()
    if task_kind.several:
        if not different:
            raise InputError(f"{where}: no row has any label")
    elif len(different) < 2 and not task_kind.vectors:  # pairs that belong together all have the same score
        label = shown(rows.labels[0])
        raise InputError(f"{where}: all {len(split):,} rows have the same label {label}; two different ones are needed")


def _unused_labels(kind: Kind, label_names: Sequence[str], split: str, train: Split) -> list[str]:
    """Note the given labels that have no training example."""
    seen = find(kind).label_counts(train.labels)
    missing = [name for index, name in enumerate(label_names) if index not in seen]
    return [f"{split}: no row has the label {', '.join(map(repr, missing))}"] if missing else []


# ---- splits ----


def hold_out_validation(kind: TaskKind, splits: Mapping[str, Split], seed: int, notes: list[str]) -> dict[str, Split]:
    """Set a part of train aside for validation; train keeps a row of every class, and requests stay whole.

    Args:
        kind: Kind of the task.
        splits: The splits, with one for training.
        seed: Seed of the choice.
        notes: Receives a note about it.

    Raises:
        InputError: There is one request alone.
    """
    train = splits["train"]
    most = max(1, round(len(train) * VALIDATION_SHARE))
    remaining = choose_rows(kind, train.labels, len(train) - most, seed)
    held_out = sorted(set(range(len(train))) - set(remaining))
    if not held_out:
        raise InputError("train: a single query cannot be divided into train and validation; give at least two")
    notes.append(
        f"there is no validation split: {len(held_out):,} of the {len(train):,} rows of train were set aside for it "
        f"(seed {seed})"
    )
    return {**splits, "train": train.take(remaining), "validation": train.take(held_out)}


def find_oddities(splits: Mapping[str, Split]) -> list[str]:
    """Note what is allowed but worth knowing: duplicates, contradictory labels, texts in two splits."""
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
    for index, name in enumerate(order):
        for earlier in order[:index]:
            earlier_texts = set(texts[earlier])
            if shared := sum(text in earlier_texts for text in texts[name]):
                notes.append(f"{name}: {plural(shared, 'text')} also in {earlier} (kept)")
    return notes
