"""Which columns of a table hold texts and labels, and what kind of task they make: judged by names and by content.

A name that people customarily give decides; then what is in the columns; then their order, where the content does not
contradict it. Where two readings are plausible, one error shows both, and the options that choose either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from limbeck.data.cells import (
    NumberFormat,
    comma_is_ambiguous,
    is_missing,
    is_unlabelled,
    number_format,
    parse_list,
    truth,
)
from limbeck.data.config import Options
from limbeck.data.conll import UNIVERSAL
from limbeck.data.metrics import Kind
from limbeck.data.profile import ROWS, SCORES, Profile
from limbeck.data.readers import LABEL_WORDS, MORE_TEXT_WORDS, PAIR_WORDS, TEXT_WORDS, Table, delimiter_hint
from limbeck.errors import InputError, nearest

_TEXTS = (*TEXT_WORDS, *MORE_TEXT_WORDS)
STRONG = frozenset({"label", "labels", "class", "target", "tags", "ner_tags"})
FEW = 10  #: as many different whole numbers are classes as they are


PLAIN = NumberFormat()


@dataclass(frozen=True)
class Columns:
    """How a table is read.

    Attributes:
        text: Column of the texts.
        label: Column of the labels; several where each label has a column of 0 and 1.
        kind: Kind of task.
        pair: Column of the second texts.
        vectors: Whether labels are vectors of 0 and 1, one place for every label.
        numbers: How the numbers of a regression are written.
        lists: Columns whose lists are written as text.
        unread: Columns that are not read.
        notes: What was decided by content, in words.
    """

    text: str
    label: tuple[str, ...]
    kind: Kind = "classification"
    pair: str | None = None
    vectors: bool = False
    numbers: NumberFormat = PLAIN
    lists: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """Columns of texts by their role."""
        return {"text": self.text, **({"pair": self.pair} if self.pair is not None else {})}


@dataclass(frozen=True)
class Choice:
    """One way to read a table: in words, the options that choose it, and what its first row becomes."""

    title: str
    options: Mapping[str, Any]
    first: str


def ambiguous(where: str, choices: Sequence[Choice], because: str = "") -> InputError:
    """One error that shows all plausible readings and how each is chosen; ``because`` says why there are several."""
    count = {2: "two", 3: "three", 4: "four"}.get(len(choices), str(len(choices)))
    lines = [f"{where}: {because + '; ' if because else ''}{count} readings are plausible; choose one:"]
    for choice in choices:
        yaml = ", ".join(f"{name}: {_yaml(value)}" for name, value in choice.options.items())
        flags = " ".join(f"--task-set {_shell(f'{name}={_yaml(value)}')}" for name, value in choice.options.items())
        lines += [f"  {choice.title}; the first row: {choice.first}", f"    {yaml}   ({flags})"]
    return InputError("\n".join(lines))


def _yaml(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def _shell(word: str) -> str:
    return word if re.fullmatch(r"[\w=.,:/-]+", word) else f"'{word}'"


def shown(cell: Any, most: int = 60) -> str:
    """A cell as messages show it."""
    text = repr(cell)
    return text if len(text) <= most else text[: most - 3] + "..."


def parse_lists(table: Table, columns: frozenset[str] | None = None) -> tuple[Table, frozenset[str]]:
    """A table whose lists that were written as text are lists, and the names of these columns.

    Args:
        table: Any table.
        columns: Columns that hold lists; those all of whose filled cells do, if None.
    """
    places = [index for index, name in enumerate(table.columns) if columns is None or name in columns]
    parsed: dict[int, list[Any]] = {}
    for index in places:
        cells = [row[index] for row in table.rows]
        filled = [cell for cell in cells if not is_unlabelled(cell)]
        if columns is None and not (filled and isinstance(filled[0], str) and filled[0].lstrip()[:1] in ("[", "(")):
            continue
        values = [parse_list(cell) if isinstance(cell, str) else None for cell in cells]
        if columns is None and sum(value is not None for value in values) < len(filled):
            continue
        parsed[index] = [cell if value is None else value for cell, value in zip(cells, values, strict=True)]
    if not parsed:
        return table, frozenset()
    rows: list[Sequence[Any]] = [list(row) for row in table.rows]
    for index, values in parsed.items():
        for row, value in zip(rows, values, strict=True):
            row[index] = value  # type: ignore[index]
    return replace(table, rows=rows), frozenset(table.columns[index] for index in parsed)


def column_of(table: Table, asked: str) -> str:
    """The name of a column that is asked for by name or by number from 0."""
    if asked in table.columns:
        return asked
    if asked.isdecimal() and int(asked) < len(table.columns):
        return table.columns[int(asked)]
    hint = "" if table.headed else "; it was read without header: set header: true if its first row is one"
    raise InputError(f"{table.where}: there is no column '{asked}'; {nearest(asked, table.columns)}{hint}")


def choose_columns(table: Table, options: Options) -> Columns:
    """Find the roles of a table's columns and the kind of its task.

    Args:
        table: The rows that the reading is judged by, those of the training split where there is one.
        options: What the user said; it always wins.

    Raises:
        InputError: Two readings are plausible (both are shown), or none is.
    """
    table, lists = parse_lists(table)
    return replace(_Chooser(table, options).choose(), lists=lists)


class _Chooser:
    """Decides on one table: labels first, then texts, then the kind."""

    def __init__(self, table: Table, options: Options) -> None:
        self.table, self.options = table, options
        self.notes: list[str] = []
        asked = {role: getattr(options, role) for role in ("text", "pair") if getattr(options, role) is not None}
        self.asked = {role: column_of(table, str(name)) for role, name in asked.items()}
        labels = options.label if isinstance(options.label, tuple) else (options.label,)
        self.labels = tuple(column_of(table, str(name)) for name in labels if name is not None)
        self.profiles = {
            name: Profile(name, [row[index] for row in table.rows]) for index, name in enumerate(table.columns)
        }
        taken = {*self.asked.values(), *self.labels}
        self.free = [one for name, one in self.profiles.items() if name not in taken and not one.is_index]

    def choose(self) -> Columns:
        pair = self._named_pair() if "text" not in self.asked and "pair" not in self.asked else None
        label = self.labels or self._label(set(pair or ()))
        used = {*label, *self.asked.values()}
        texts = self._texts(pair, used)
        found = {*texts, *label}
        if len(found) < len(texts) + len(label):
            listed = ", ".join(f"'{name}'" for name in self.table.columns)
            hint = delimiter_hint(self.table)
            raise InputError(f"{self.table.where}: text and label need a column each; the columns are {listed}{hint}")
        text, second = texts[0], texts[1] if len(texts) == 2 else None
        self._refuse_numbers(text)
        kind, vectors, numbers = self._kind(text, label)
        unread = tuple(name for name in self.table.columns if name not in found)
        return Columns(text, label, kind, second, vectors, numbers, unread=unread, notes=tuple(self.notes))

    # ---- labels ----

    def _label(self, texts: set[str]) -> tuple[str, ...]:
        """The label column, or columns, that nobody asked for."""
        free = [one for one in self.free if one.name not in texts]
        lower = {one.name.lower(): one for one in free}
        named = [lower[word] for word in LABEL_WORDS if word in lower and not lower[word].is_text]
        if self.table.words:
            return (self._tag_column(free),)
        if named and (named[0].name.lower() in STRONG or len(named) == 1):
            return (named[0].name,)
        if strong := [one for one in named if one.name.lower() in STRONG]:
            return (strong[0].name,)
        if len(named) > 1:
            raise self._which_label([(one.name,) for one in named])
        by_name = {one.name for one in free if one.name.lower() in _TEXTS}
        if len(by_name) < len(free):
            texts = texts | by_name
        likely = [one for one in free if one.name not in texts and one.is_label]
        varied = [one for one in likely if one.distinct > 1 or one.binary]
        binary = [one for one in varied if one.binary]
        if self.table.headed and len(binary) > 1 and len(self.table.rows) >= ROWS:
            columns = tuple(one.name for one in binary)
            if len(binary) < len(varied):
                others = [(one.name,) for one in varied if not one.binary]
                raise self._which_label([columns, *others])
            self.notes.append(f"the {len(columns)} columns of 0 and 1 are taken as one label each")
            return columns
        if len(varied) > 1 and len(self.table.rows) >= ROWS:
            raise self._which_label([(one.name,) for one in varied])
        if len(varied) == 1 and len(self.table.rows) >= ROWS:
            return (varied[0].name,)
        last = [name for name in self.table.columns if name not in texts and name not in self.asked.values()]
        return ((last or list(self.table.columns))[-1],)

    def _tag_column(self, free: Sequence[Profile]) -> str:
        if self.table.columns == UNIVERSAL:
            self.notes.append("the labels are those of column 'upos'; another column is chosen by label")
            return "upos"
        varied = [one for one in free if len({tag for tags in one.filled for tag in tags}) > 1]
        return (varied or free or list(self.profiles.values()))[-1].name

    def _which_label(self, candidates: Sequence[tuple[str, ...]]) -> InputError:
        choices = []
        for names in candidates[:4]:
            single = len(names) == 1
            title = f"the label is in column '{names[0]}'" if single else f"the labels are the columns {_quoted(names)}"
            first = ", ".join(self._first(name) for name in names)
            choices.append(Choice(title, {"label": names[0] if single else names}, first))
        return ambiguous(self.table.where, choices)

    def _first(self, name: str) -> str:
        profile = self.profiles[name]
        return f"{name} {shown(profile.cells[0], 40)}" if profile.cells else f"{name} –"

    # ---- texts ----

    def _named_pair(self) -> tuple[str, str] | None:
        """Two columns with the names that texts of pairs customarily have."""
        lower = {one.name.lower(): one.name for one in self.free}
        both = [(lower[one], lower[two]) for one, two in PAIR_WORDS if one in lower and two in lower]
        both = [pair for pair in both if not any(self._is_label_name(name, pair) for name in pair)]
        if len(both) > 1:
            raise self._which_text([list(pair) for pair in both])
        return both[0] if both else None

    def _is_label_name(self, name: str, pair: tuple[str, str]) -> bool:
        """Whether a column with the name of a text must be the label, since it looks like one and no other does."""
        if not self.profiles[name].is_label or self.labels:
            return False
        others = [one for one in self.free if one.name not in pair]
        return not any(one.is_label or one.name.lower() in LABEL_WORDS for one in others)

    def _texts(self, pair: tuple[str, str] | None, used: set[str]) -> list[str]:
        """The columns of the texts: one, or two for pairs."""
        if "text" in self.asked:
            return [self.asked["text"], *([self.asked["pair"]] if "pair" in self.asked else [])]
        if pair is not None:
            self.notes.append(f"'{pair[0]}' and '{pair[1]}' are taken as pairs of texts")
            return list(pair)
        free = [one for one in self.free if one.name not in used]
        lower = {one.name.lower(): one for one in free}
        named = next((lower[word] for word in _TEXTS if word in lower), None)
        clear = [one for one in free if one.is_text]
        main = named or next(iter(clear or free), None)
        if main is None:
            rest = [name for name in self.table.columns if name not in used]
            main = self.profiles[rest[0] if rest else self.table.columns[0]]
        if "pair" in self.asked:
            return [main.name, self.asked["pair"]]
        others = [one for one in clear if one is not main and one.words >= 3]
        if not others:
            return [main.name]
        if not self.table.headed and len(others) == 1:
            self.notes.append(f"columns {main.name} and {others[0].name} are taken as pairs of texts")
            return [main.name, others[0].name]
        order = list(self.table.columns)
        pairs = [sorted((main.name, one.name), key=order.index) for one in others]
        raise self._which_text([[main.name], *([one.name] for one in others), *pairs])

    def _which_text(self, candidates: Sequence[list[str]]) -> InputError:
        choices = []
        for names in candidates[:5]:
            first = ", ".join(self._first(name) for name in names)
            title = f"the text is in column '{names[0]}'"
            if len(names) == 2:
                title = f"pairs of texts from the columns '{names[0]}' and '{names[1]}'"
            choices.append(Choice(title, dict(zip(("text", "pair"), names, strict=False)), first))
        return ambiguous(self.table.where, choices)

    def _refuse_numbers(self, text: str) -> None:
        """A column of numbers that nobody asked for is no text."""
        profile = self.profiles[text]
        if self.asked or self.table.typed or not profile.numeric or text.lower() in _TEXTS:
            return
        if len(profile.cells) >= ROWS:
            raise InputError(
                f"{self.table.where}: no column looks like texts; the first in question, '{text}', holds numbers such "
                f"as {shown(profile.filled[0])}; name the column with text: (--task-set text=NAME); the columns are "
                + _quoted(self.table.columns)
                + delimiter_hint(self.table)
            )

    # ---- the kind ----

    def _kind(self, text: str, label: tuple[str, ...]) -> tuple[Kind, bool, NumberFormat]:
        """The kind of task, whether labels are vectors of 0 and 1, and how numbers are written."""
        asked, profile = self.options.kind, self.profiles[label[0]]
        if len(label) > 1:
            return self._vectors([[row[self._place(name)] for name in label] for row in self.table.rows]), True, PLAIN
        if asked == "tokens" or (asked is None and self.profiles[text].lists):
            return "tokens", False, PLAIN
        vectors = profile.lists and _are_vectors(profile.filled)
        if profile.lists or self.options.label_separator is not None:
            return (self._vectors(profile.filled), True, PLAIN) if vectors else (asked or "multilabel", False, PLAIN)
        numbers = number_format(profile.texts)
        if asked is not None:
            if asked == "regression" and numbers is not None:
                self._check_commas(profile, numbers)
            return asked, False, numbers if asked == "regression" and numbers else PLAIN
        if numbers is None:
            self._refuse_joined(profile)
            return "classification", False, PLAIN
        if numbers != PLAIN:
            self._check_commas(profile, numbers)
        values = [numbers.read(name) for name in profile.texts]
        if not self._are_scores(profile, [value for value in values if value is not None], numbers):
            return "classification", False, PLAIN
        if str(numbers):
            self.notes.append(f"the numbers are read with {numbers}")
        return "regression", False, numbers

    def _place(self, name: str) -> int:
        return self.table.columns.index(name)

    def _check_commas(self, profile: Profile, numbers: NumberFormat) -> None:
        if numbers.comma and comma_is_ambiguous(profile.texts):
            example = next(text for text in profile.texts if "," in text)
            raise InputError(
                f"{self.table.where}: the commas in column '{profile.name}' may part thousands or decimals, got "
                f"{example!r}; write the numbers with a decimal point and without other signs"
            )

    def _vectors(self, rows: Sequence[Sequence[Any]]) -> Kind:
        """Several labels; one class if every row has exactly one and the user says so."""
        asked = self.options.kind
        if asked is not None:
            return asked
        single = [sum(bool(truth(cell)) for cell in row) == 1 for row in rows]
        if all(single) and len(rows) >= ROWS:
            first = shown(list(rows[0]))
            raise ambiguous(
                self.table.where,
                [
                    Choice("one of several classes", {"kind": "classification"}, f"{first} is one class"),
                    Choice("any number of labels", {"kind": "multilabel"}, f"{first} is a set of labels"),
                ],
                "every row has exactly one 1",
            )
        return "multilabel"

    def _are_scores(self, profile: Profile, values: Sequence[float], numbers: NumberFormat) -> bool:
        """Whether numbers are scores rather than classes; an error where both are plausible."""
        if any(not value.is_integer() for value in values):
            self.notes.append("the labels are numbers with fractions, so this is taken as a regression task")
            return True
        counts, rows = Counter(values), len(values)
        if len(counts) <= FEW or self.options.label_names is not None:
            return False
        gapless = min(counts) in (0, 1) and max(counts) - min(counts) + 1 == len(counts)
        named = SCORES.search(profile.name.lower()) is not None
        single = rows < 2 * len(counts)
        if gapless and not single and not named:
            return False
        if (single and not gapless) or (named and not gapless) or numbers.percent:
            self.notes.append(f"the labels are {len(counts)} different whole numbers, so this is taken as regression")
            return True
        first = f"{profile.name} {shown(profile.filled[0])}"
        raise ambiguous(
            self.table.where,
            [
                Choice("they are scores", {"kind": "regression"}, f"{first} is a number"),
                Choice(f"they are {len(counts)} classes", {"kind": "classification"}, f"{first} is a class"),
            ],
            f"column '{profile.name}' has {len(counts)} different whole numbers in {rows:,} rows",
        )

    def _refuse_joined(self, profile: Profile) -> None:
        """Labels such as 'a|b', whose parts are labels of other rows: several labels, or one with that name."""
        names = set(profile.texts)
        for sign in "|;,":
            joined = [name for name in names if sign in name]
            parts = {part.strip() for name in joined for part in name.split(sign) if part.strip()}
            if joined and len(profile.texts) >= ROWS and len(parts & names) * 2 > len(parts):
                example = shown(next(text for text in profile.texts if sign in text))
                raise ambiguous(
                    self.table.where,
                    [
                        Choice("several labels", {"label_separator": f'"{sign}"'}, f"{example} are several"),
                        Choice("one class each", {"kind": "classification"}, f"{example} is one class"),
                    ],
                    f"labels of column '{profile.name}' stand joined with '{sign}'",
                )


def _are_vectors(cells: Sequence[Any]) -> bool:
    """Whether lists are vectors of 0 and 1: alike in length, two places or more."""
    if not all(isinstance(cell, (list, tuple)) and cell for cell in cells) or not cells:
        return False
    widths = {len(cell) for cell in cells}
    places = [place for cell in cells for place in cell]
    typed = all(isinstance(place, (bool, int, float)) and not is_missing(place) for place in places)
    return len(widths) == 1 and min(widths) > 1 and typed and None not in map(truth, places)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
