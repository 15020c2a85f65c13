"""Detect which columns of a table hold texts and labels, and what kind of task they make, from names and content.

A customary name decides first, then the content of the columns, then their order unless the content contradicts it.
Where two readings are plausible, one error shows both with the options that choose either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from limbeck.core.kinds import KINDS, Kind
from limbeck.data.ambiguity import Choice, ambiguous, quoted
from limbeck.data.cells import (
    NumberFormat,
    comma_is_ambiguous,
    lacks_label,
    number_format,
    parse_bool,
)
from limbeck.data.column_names import LABEL_WORDS, MORE_TEXT_WORDS, PAIR_WORDS, TEXT_WORDS
from limbeck.data.config import Options
from limbeck.data.conll import UNIVERSAL
from limbeck.data.list_columns import parse_lists
from limbeck.data.profile import MIN_ROWS, SCORES, Profile
from limbeck.data.readers import Table, delimiter_hint
from limbeck.errors import InputError, nearest, shown

_TEXTS = (*TEXT_WORDS, *MORE_TEXT_WORDS)
STRONG_LABEL_WORDS = frozenset({"label", "labels", "class", "target", "tags", "ner_tags"})
FEW_VALUES = 10  #: up to this many different whole numbers are taken as classes


PLAIN = NumberFormat()


@dataclass(frozen=True)
class Columns:
    """How to read a table.

    Attributes:
        text: Column of the texts.
        label: Column of the labels; several where each label has a column of 0 and 1; none where pairs have no scores.
        kind: Kind of task.
        pair: Column of the second texts.
        vectors: Whether labels are vectors of 0 and 1, one element per label.
        numbers: How the numbers of a regression are written.
        lists: Columns whose cells are lists written as text.
        unread: Columns that are ignored.
        notes: Decisions based on content, in words.
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
        """The text columns by role."""
        return {"text": self.text, **({"pair": self.pair} if self.pair is not None else {})}


def resolve_column(table: Table, name: str) -> str:
    """Resolve a column given by name or by number from 0 to its name."""
    if name in table.columns:
        return name
    if name.isdecimal() and int(name) < len(table.columns):
        return table.columns[int(name)]
    hint = "" if table.headed else "; it was read without header: set header: true if its first row is one"
    raise InputError(f"{table.where}: there is no column '{name}'; {nearest(name, table.columns)}{hint}")


def choose_columns(table: Table, options: Options) -> Columns:
    """Choose the roles of a table's columns and the kind of its task.

    Args:
        table: The rows to decide by: those of the training split where there is one.
        options: The user's options; they always win.

    Raises:
        InputError: Two readings are plausible (both are shown), or none is.
    """
    table, lists = parse_lists(table)
    return replace(_Chooser(table, options).choose(), lists=lists)


class _Chooser:
    """The decisions on one table: labels first, then texts, then the kind."""

    def __init__(self, table: Table, options: Options) -> None:
        self.table, self.options = table, options
        self.notes: list[str] = []
        requested = (("text", options.text), ("pair", options.pair))
        self.requested = {role: resolve_column(table, str(name)) for role, name in requested if name is not None}
        labels = options.label if isinstance(options.label, tuple) else (options.label,)
        self.labels = tuple(resolve_column(table, str(name)) for name in labels if name is not None)
        self.profiles = {
            name: Profile(name, [row[index] for row in table.rows]) for index, name in enumerate(table.columns)
        }
        used = {*self.requested.values(), *self.labels}
        self.free = [profile for name, profile in self.profiles.items() if name not in used and not profile.is_index]

    def choose(self) -> Columns:
        pair = self._named_pair() if "text" not in self.requested and "pair" not in self.requested else None
        label = () if self._unscored(pair) else self.labels or self._label(set(pair or ()))
        used = {*label, *self.requested.values()}
        texts = self._texts(pair, used)
        roles = {*texts, *label}
        if len(roles) < len(texts) + len(label):
            listed = quoted(self.table.columns) + delimiter_hint(self.table)
            raise InputError(f"{self.table.where}: text and label need a column each; the columns are {listed}")
        text, second = texts[0], texts[1] if len(texts) == 2 else None
        self._refuse_numbers(text)
        kind, vectors, numbers = self._kind(text, label)
        unread = tuple(name for name in self.table.columns if name not in roles)
        return Columns(text, label, kind, second, vectors, numbers, unread=unread, notes=tuple(self.notes))

    # ---- labels ----

    def _unscored(self, pair: tuple[str, str] | None) -> bool:
        """Return whether there are pairs for vectors, and no column that could have their scores."""
        kind, texts = self.options.kind, pair or tuple(self.requested.values())
        if kind is None or not KINDS[kind].vectors or self.labels or len(texts) < 2:
            return False
        if any(profile.may_be_score for profile in self.free if profile.name not in texts):
            return False
        self.notes.append(
            "no column has scores, so all pairs have 1: they can be learned from (finetune: {pair_loss: contrastive}, "
            "distill), and judge: FOLDER says what the vectors are good for, which no correlation with 1 does"
        )
        return True

    def _label(self, texts: set[str]) -> tuple[str, ...]:
        """Find the label column, or columns, that the user did not name."""
        free = [profile for profile in self.free if profile.name not in texts]
        lower = {profile.name.lower(): profile for profile in free}
        named = [lower[word] for word in LABEL_WORDS if word in lower and not lower[word].is_text]
        if self.table.words:
            return (self._tag_column(free),)
        if strong := [profile for profile in named if profile.name.lower() in STRONG_LABEL_WORDS]:
            return (strong[0].name,)
        enough = len(self.table.rows) >= MIN_ROWS
        binary = tuple(profile.name for profile in free if profile.binary)
        several = self.table.headed and enough and len(binary) > 1 and any(profile.binary for profile in named)
        if len(named) == 1 and not several:
            return (named[0].name,)
        if named:  # any of them, or all columns of 0 and 1 with it
            raise self._ambiguous_label([*([binary] if several else []), *((profile.name,) for profile in named)])
        by_name = {profile.name for profile in free if profile.name.lower() in _TEXTS}
        if len(by_name) < len(free):
            texts = texts | by_name
        likely = [profile for profile in free if profile.name not in texts and profile.is_label]
        varied = [profile for profile in likely if profile.distinct > 1 or profile.binary]
        binary = tuple(profile.name for profile in varied if profile.binary)
        if self.table.headed and len(binary) > 1 and enough:
            if len(binary) < len(varied):
                others = [(profile.name,) for profile in varied if not profile.binary]
                raise self._ambiguous_label([binary, *others])
            self.notes.append(f"the {len(binary)} columns of 0 and 1 are taken as one label each")
            return binary
        if len(varied) > 1 and enough:
            raise self._ambiguous_label([(profile.name,) for profile in varied])
        if len(varied) == 1 and enough:
            return (varied[0].name,)
        last = [name for name in self.table.columns if name not in texts and name not in self.requested.values()]
        return ((last or list(self.table.columns))[-1],)

    def _tag_column(self, free: Sequence[Profile]) -> str:
        if self.table.columns == UNIVERSAL:
            self.notes.append("the labels are in column 'upos'; choose another column with label: NAME")
            return "upos"
        varied = [profile for profile in free if len({tag for tags in profile.filled for tag in tags}) > 1]
        return (varied or free or list(self.profiles.values()))[-1].name

    def _ambiguous_label(self, candidates: Sequence[tuple[str, ...]]) -> InputError:
        choices = []
        for names in candidates[:4]:
            single = len(names) == 1
            title = f"the label is in column '{names[0]}'" if single else f"the labels are the columns {quoted(names)}"
            first = ", ".join(self._first_cell(name) for name in names)
            choices.append(Choice(title, {"label": names[0] if single else names}, first))
        return ambiguous(self.table.where, choices)

    def _first_cell(self, name: str) -> str:
        profile = self.profiles[name]
        return f"{name} {shown(profile.cells[0], 40)}" if profile.cells else f"{name} –"

    # ---- texts ----

    def _named_pair(self) -> tuple[str, str] | None:
        """Find two columns with the customary names of text pairs."""
        lower = {profile.name.lower(): profile.name for profile in self.free}
        both = [(lower[first], lower[second]) for first, second in PAIR_WORDS if first in lower and second in lower]
        both = [pair for pair in both if not any(self._is_label_name(name, pair) for name in pair)]
        if len(both) > 1:
            raise self._ambiguous_text([list(pair) for pair in both])
        return both[0] if both else None

    def _is_label_name(self, name: str, pair: tuple[str, str]) -> bool:
        """Return whether a column with a text's name must be the label: it looks like one, and no other does."""
        if not self.profiles[name].is_label or self.labels:
            return False
        others = [profile for profile in self.free if profile.name not in pair]
        return not any(profile.is_label or profile.name.lower() in LABEL_WORDS for profile in others)

    def _texts(self, pair: tuple[str, str] | None, used: set[str]) -> list[str]:
        """Find the text columns: one, or two for pairs."""
        if "text" in self.requested:
            return [self.requested["text"], *([self.requested["pair"]] if "pair" in self.requested else [])]
        if pair is not None:
            self.notes.append(f"'{pair[0]}' and '{pair[1]}' are taken as pairs of texts")
            return list(pair)
        free = [profile for profile in self.free if profile.name not in used]
        lower = {profile.name.lower(): profile for profile in free}
        named = next((lower[word] for word in _TEXTS if word in lower), None)
        obvious = [profile for profile in free if profile.is_text]
        main = named or next(iter(obvious or free), None)
        if main is None:
            rest = [name for name in self.table.columns if name not in used]
            main = self.profiles[rest[0] if rest else self.table.columns[0]]
        if "pair" in self.requested:
            return [main.name, self.requested["pair"]]
        others = [profile for profile in obvious if profile is not main and profile.words >= 3]
        if not others:
            return [main.name]
        if not self.table.headed and len(others) == 1:
            self.notes.append(f"columns {main.name} and {others[0].name} are taken as pairs of texts")
            return [main.name, others[0].name]
        order = list(self.table.columns)
        pairs = [sorted((main.name, profile.name), key=order.index) for profile in others]
        raise self._ambiguous_text([[main.name], *([profile.name] for profile in others), *pairs])

    def _ambiguous_text(self, candidates: Sequence[list[str]]) -> InputError:
        choices = []
        for names in candidates[:5]:
            first = ", ".join(self._first_cell(name) for name in names)
            title = f"the text is in column '{names[0]}'"
            if len(names) == 2:
                title = f"pairs of texts from the columns '{names[0]}' and '{names[1]}'"
            choices.append(Choice(title, dict(zip(("text", "pair"), names, strict=False)), first))
        return ambiguous(self.table.where, choices)

    def _refuse_numbers(self, text: str) -> None:
        """Refuse a column of numbers as text, unless the user named it."""
        profile = self.profiles[text]
        if self.requested or self.table.typed or not profile.numeric or text.lower() in _TEXTS:
            return
        if len(profile.cells) >= MIN_ROWS:
            raise InputError(
                f"{self.table.where}: no column looks like texts; the likeliest, '{text}', holds numbers such "
                f"as {shown(profile.filled[0])}; name the column with text: (--task-set text=NAME); "
                f"the columns are {quoted(self.table.columns)}{delimiter_hint(self.table)}"
            )

    # ---- the kind ----

    def _kind(self, text: str, label: tuple[str, ...]) -> tuple[Kind, bool, NumberFormat]:
        """Find the kind of task, whether labels are vectors of 0 and 1, and how numbers are written."""
        requested = self.options.kind
        if not label and requested is not None:
            return requested, False, PLAIN
        profile = self.profiles[label[0]]
        if len(label) > 1:
            return (
                self._vectors([[row[self.table.columns.index(name)] for name in label] for row in self.table.rows]),
                True,
                PLAIN,
            )
        if requested is None and self.profiles[text].lists:
            return "tokens", False, PLAIN
        if requested is not None and KINDS[requested].per_token:
            return requested, False, PLAIN
        if (row := profile.fractions) is not None:
            raise InputError(
                f"{self.table.at(row)}: the label should be a vector of 0 and 1, got {shown(profile.cells[row])} in "
                f"column '{profile.name}'; round it, or give the probabilities as those of a teacher (distill with "
                "teacher: FILE)"
            )
        vectors = profile.vectors
        if profile.lists or self.options.label_separator is not None:
            return (
                (self._vectors(profile.filled), True, PLAIN) if vectors else (requested or "multilabel", False, PLAIN)
            )
        numbers = number_format(profile.texts)
        if requested is not None:
            if not KINDS[requested].numeric or numbers is None:
                return requested, False, PLAIN
            self._check_commas(profile, numbers)
            return requested, False, numbers
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

    def _check_commas(self, profile: Profile, numbers: NumberFormat) -> None:
        if numbers.comma and comma_is_ambiguous(profile.texts):
            example = next(text for text in profile.texts if "," in text)
            raise InputError(
                f"{self.table.where}: the commas in column '{profile.name}' may separate thousands or decimals, got "
                f"{example!r}; write the numbers with a decimal point and without thousands separators"
            )

    def _vectors(self, rows: Sequence[Sequence[Any]]) -> Kind:
        """Take vectors as several labels, or as one class if every row has exactly one and the user says so."""
        if self.options.kind is not None:
            return self.options.kind
        labeled = [row for row in rows if not any(map(lacks_label, row))]
        single = [sum(bool(parse_bool(cell)) for cell in row) == 1 for row in labeled]
        if all(single) and len(labeled) >= MIN_ROWS:
            first = shown(list(labeled[0]))
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
        """Return whether numbers are scores rather than classes; raise where both are plausible."""
        if any(not value.is_integer() for value in values):
            self.notes.append("the labels are numbers with fractions, so this is taken as a regression task")
            return True
        counts, rows = Counter(values), len(values)
        if len(counts) <= FEW_VALUES or self.options.label_names is not None:
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
        """Refuse labels such as 'a|b' whose parts label other rows: they may be several labels, or one of that name."""
        names = set(profile.texts)
        for sign in "|;,":
            joined = [name for name in names if sign in name]
            parts = {part.strip() for name in joined for part in name.split(sign) if part.strip()}
            if joined and len(profile.texts) >= MIN_ROWS and len(parts & names) * 2 > len(parts):
                example = shown(next(text for text in profile.texts if sign in text))
                raise ambiguous(
                    self.table.where,
                    [
                        Choice("several labels", {"label_separator": f'"{sign}"'}, f"{example} is several labels"),
                        Choice("one class each", {"kind": "classification"}, f"{example} is one class"),
                    ],
                    f"the labels in column '{profile.name}' are joined with '{sign}'",
                )
