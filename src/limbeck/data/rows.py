"""From tables to a task: every cell checked, labels numbered, oddities counted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.data.metrics import METRICS_OF, OUTSIDE, Kind
from limbeck.data.options import Options
from limbeck.data.read import LABEL_WORDS, PAIR_WORDS, TEXT_WORDS, Table, delimiter_hint, is_number, plural
from limbeck.data.task import SPLITS, Split, Task, choose
from limbeck.errors import InputError, nearest

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


def build_task(name: str, tables: Mapping[str, Table], options: Options, notes: Sequence[str] = ()) -> Task:
    """Check tables and make the task of them."""
    if "train" not in tables:
        raise InputError(f"task '{name}' has no train split, only {', '.join(tables) or 'nothing'}")
    told = [*notes, *(f"{split}: {note}" for split, table in tables.items() for note in table.notes)]
    columns = _choose_columns(tables["train"], options, told)
    kind = options.kind or _guess_kind(tables["train"], columns, options, told)
    rows = {
        split: _read_rows(split, tables[split], columns, kind, options, told) for split in SPLITS if split in tables
    }
    label_names, encode = _labels(kind, rows, options)
    splits = {split: _encoded(part, encode) for split, part in rows.items()}
    _check_variety(kind, rows["train"], splits["train"])
    if "validation" not in splits:
        splits = _carve(splits, options.seed, stratified=kind == "classification", told=told)
    if "test" not in splits:
        told.append("there is no test split; what is reported is measured on validation")
    told.extend(_never_seen(kind, label_names, splits["train"]))
    told.extend(oddities(splits))
    metric = options.metric or _default_metric(kind, label_names)
    task = Task(name, kind, splits, label_names, metric, options.max_length, tuple(told))
    return task.limit(options.seed, **options.limit) if options.limit else task


# ---- columns ----


def _choose_columns(table: Table, options: Options, told: list[str]) -> dict[str, str]:
    """The columns of text, label and perhaps pair: as asked for, else by customary names, else first and last."""
    asked = {role: getattr(options, role) for role in ("text", "pair", "label")}
    found = {role: _column(table, str(asked[role])) for role in asked if asked[role] is not None}
    lower = {name.lower(): name for name in table.columns if name not in found.values()}
    if "label" not in found:
        found["label"] = next((lower[word] for word in LABEL_WORDS if word in lower), table.columns[-1])
    if "text" not in found:
        both = next((pair for pair in PAIR_WORDS if pair[0] in lower and pair[1] in lower), None)
        if both is not None and "pair" not in found:
            found["text"], found["pair"] = lower[both[0]], lower[both[1]]
            told.append(f"'{found['text']}' and '{found['pair']}' are taken as pairs of texts")
        else:
            free = [name for name in table.columns if name not in found.values()]
            words = [lower[word] for word in TEXT_WORDS if lower.get(word) in free]
            found["text"] = next(iter(words or free), found["label"])
    if len(set(found.values())) < len(found):
        raise InputError(
            f"{table.where}: text and label need a column each; the columns are "
            + ", ".join(f"'{name}'" for name in table.columns)
            + delimiter_hint(table)
        )
    return found


def _column(table: Table, asked: str) -> str:
    if asked in table.columns:
        return asked
    if asked.isdecimal() and int(asked) < len(table.columns):
        return table.columns[int(asked)]
    hint = "" if table.headed else "; it was read without header: set header: true if its first row is one"
    raise InputError(f"{table.where}: there is no column '{asked}'; {nearest(asked, table.columns)}{hint}")


def _guess_kind(table: Table, columns: Mapping[str, str], options: Options, told: list[str]) -> Kind:
    text, label = (table.columns.index(columns[role]) for role in ("text", "label"))
    if any(isinstance(row[text], (list, tuple)) for row in table.rows):
        return "tokens"
    cells = [row[label] for row in table.rows]
    if options.label_separator is not None or any(isinstance(cell, (list, tuple)) for cell in cells):
        return "multilabel"
    names = [str(_plain(cell)).strip() for cell in cells]
    if all(map(is_number, names)) and any(not float(name).is_integer() for name in names):
        told.append("the labels are numbers with fractions, so this is taken as a regression task")
        return "regression"
    return "classification"


# ---- texts ----


def _read_rows(
    split: str, table: Table, columns: Mapping[str, str], kind: Kind, options: Options, told: list[str]
) -> _Rows:
    """Check the texts of one split; empty ones are refused, dropped or kept as ``on_empty`` says."""
    index = {role: table.columns.index(_column(table, name)) for role, name in columns.items()}
    roles = [role for role in ("text", "pair") if role in index]
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


def _plain(cell: Any) -> Any:
    """Numpy scalars as what Python calls them."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _text(cell: Any, table: Table, place: int, column: str, kind: Kind, options: Options) -> tuple[Any, bool]:
    """A text, and whether it was stripped; None where there is none."""
    cell = _plain(cell)
    if _is_missing(cell):
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


def _shown(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_empty(table: Table, empty: list[int], roles: Sequence[tuple[str, str, int]], options: Options) -> None:
    row = table.rows[empty[0]]
    column, cell = next(
        (name, row[index]) for _, name, index in roles if _is_missing(row[index]) or _is_blank(row[index], table)
    )
    more = f" ({len(empty):,} such rows in all)" if len(empty) > 1 else ""
    blank = isinstance(cell, str) and not cell.strip()
    what = "is empty" if blank or not cell else f"says {cell!r}, as if a value were missing"
    ways = "drop" if _is_missing(cell) else "drop' or 'keep"
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
    if _is_missing(cell):
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
    if kind == "tokens" and not _is_missing(cell):
        many = cell.split() if isinstance(cell, str) else cell
    if kind == "multilabel" and not _is_missing(cell):
        if isinstance(cell, str) and separator is None:
            raise InputError(f"{at()}: several labels need a list, or set label_separator; got {_shown(cell)}")
        many = [part for part in cell.split(separator) if part.strip()] if isinstance(cell, str) else cell
    if kind != "classification" and not isinstance(many, (list, tuple)):
        raise InputError(f"{at()}: the labels should be a list, got {_shown(cell)}")
    if any(isinstance(part, (list, tuple, dict)) for part in many):
        raise InputError(f"{at()}: a label should be a word or a number, got {_shown(cell)}")
    names = [label_text(part) for part in many]
    if None in names:
        raise InputError(f"{at()}: the label is empty, got {_shown(cell)}")
    return [name for name in names if name is not None]


def _number_of(cell: Any, at: Callable[[], str]) -> float:
    if isinstance(cell, str) and is_number(cell):
        return float(cell)
    if isinstance(cell, bool) or not isinstance(cell, (int, float)) or not math.isfinite(cell):
        raise InputError(
            f"{at()}: the label should be a finite number, got {_shown(cell)}; for names set kind: classification"
        )
    return float(cell)


Encode = Callable[[_Rows, int], Any]


def _labels(kind: Kind, rows: Mapping[str, _Rows], options: Options) -> tuple[tuple[str, ...], Encode]:
    """The label names, and how the label of a row becomes a number."""
    if kind == "regression":
        return (), lambda part, row: _number_of(part.labels[row], lambda: part.at(row))

    def names_of(part: _Rows, row: int) -> list[str]:
        return _names_in(kind, part.labels[row], options.label_separator, lambda: part.at(row))

    train = rows["train"]
    seen = {name for row in range(len(train.texts)) for name in names_of(train, row)}
    names = _name_order(kind, seen, options)
    index = {name: place for place, name in enumerate(names)}
    if not seen <= index.keys() and all(name.isdecimal() and int(name) < len(names) for name in seen):
        index = {str(place): place for place in range(len(names))}

    def encode(part: _Rows, row: int) -> Any:
        found = names_of(part, row)
        for name in found:
            if name not in index:
                known = "the labels given" if options.label_names else "those of train"
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


def _never_seen(kind: Kind, label_names: Sequence[str], train: Split) -> list[str]:
    """Tell of labels that were named and that train has no example of."""
    if kind == "multilabel":
        seen = {place for row in train.labels for place, present in enumerate(row) if present}
    else:
        seen = {tag for label in train.labels for tag in (label if kind == "tokens" else (label,))}
    missing = [name for place, name in enumerate(label_names) if place not in seen]
    return [f"train: no row has the label {', '.join(map(repr, missing))}"] if missing else []


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
