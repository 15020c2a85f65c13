"""Profile one column of a table: texts, labels, numbers, lists, or ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from limbeck.data.cells import is_number, is_unlabeled, lacks_label, number_format, parse_bool
from limbeck.data.column_names import ID_WORDS, LABEL_WORDS
from limbeck.data.conll import is_word_numbering

SCORES = re.compile(r"(^|_)(score|rating|points?|price|age|value|similarity|relevance|percent|percentage)s?$")
_ID = re.compile(r"(.*[_\W])?(id|idx|index|guid|uuid)|.*[a-z](Id|ID|Idx|Index)|unnamed: \d+|__index_level_\d+__")
MIN_ROWS = 5  #: fewer rows are too few to profile a column by its content


@dataclass(frozen=True)
class Profile:
    """The properties of one column, computed from its cells."""

    name: str
    cells: Sequence[Any] = field(repr=False)

    @cached_property
    def filled(self) -> list[Any]:
        """The cells that are not empty."""
        return [cell for cell in self.cells if not is_unlabeled(cell)]

    @cached_property
    def texts(self) -> list[str]:
        """The filled cells as stripped text."""
        return [str(cell).strip() for cell in self.filled]

    @cached_property
    def distinct(self) -> int:
        """Number of distinct filled cells."""
        return len(set(self.texts))

    @cached_property
    def lists(self) -> bool:
        """Whether any cell is a list."""
        return any(isinstance(cell, (list, tuple)) for cell in self.filled)

    @cached_property
    def words(self) -> float:
        """Mean number of words in a cell; 0 for numbers and lists."""
        if self.lists or self.numeric or not self.texts:
            return 0.0
        return sum(len(text.split()) for text in self.texts) / len(self.texts)

    @cached_property
    def numeric(self) -> bool:
        """Whether every cell is a number, in any format."""
        return bool(self.texts) and not self.lists and number_format(self.texts) is not None

    @cached_property
    def whole(self) -> bool:
        """Whether every cell is a whole number."""
        return bool(self.texts) and all(is_number(text) and float(text).is_integer() for text in self.texts)

    @cached_property
    def binary(self) -> bool:
        """Whether every filled cell is 0 or 1 (or false or true), and most are filled."""
        return 2 * len(self.filled) > len(self.cells) and None not in map(parse_bool, self.filled)

    @cached_property
    def _elements(self) -> list[Any]:
        """The elements of all filled cells, if these are lists of equal length with two elements or more."""
        if not all(isinstance(cell, (list, tuple)) for cell in self.filled):
            return []
        widths = {len(cell) for cell in self.filled}
        return [value for cell in self.filled for value in cell] if len(widths) == 1 and min(widths) > 1 else []

    @cached_property
    def vectors(self) -> bool:
        """Whether the filled cells are vectors of 0 and 1 (also as text); an element may be -1 or empty: no label."""
        return bool(self._elements) and all(
            parse_bool(value) is not None or lacks_label(value) for value in self._elements
        )

    @cached_property
    def fractions(self) -> int | None:
        """The first row whose vector has a fraction, if the filled cells are vectors of numbers."""
        if not self._elements or not all(is_number(str(value)) for value in self._elements):
            return None
        return next((row for row, cell in enumerate(self.cells) if _has_fraction(cell)), None)

    @property
    def may_be_score(self) -> bool:
        """Whether a pair of texts may have its score here."""
        return self.numeric or self.name.lower() in LABEL_WORDS

    @property
    def is_text(self) -> bool:
        """Whether these are clearly texts: words, most of them different."""
        enough = len(self.texts) >= MIN_ROWS and self.distinct > len(self.texts) / 2
        return enough and self.words >= 1.5

    @property
    def is_label(self) -> bool:
        """Whether these are clearly labels: numbers, lists, or a few short names that repeat."""
        if self.numeric or self.binary or self.lists:
            return True
        return len(self.texts) >= MIN_ROWS and self.distinct <= len(self.texts) / 2 and self.words <= 4

    @property
    def is_index(self) -> bool:
        """Whether these are ids or row numbers."""
        if self.lists:
            return len(self.filled) > 0 and all(map(is_word_numbering, self.filled))
        lower = self.name.lower()
        one_word = self.words < 1.5
        if lower in ID_WORDS or self.name in ("Unnamed: 0", ""):
            return one_word and not self.binary
        unique = self.distinct == len(self.cells) > 1
        if _ID.fullmatch(self.name) or _ID.fullmatch(lower):
            return one_word and unique
        if lower in LABEL_WORDS or SCORES.search(lower) or not unique or not self.whole or len(self.cells) < MIN_ROWS:
            return False
        first = float(self.texts[0])
        return all(float(text) == first + index for index, text in enumerate(self.texts))


def _has_fraction(cell: object) -> bool:
    return isinstance(cell, (list, tuple)) and not all(float(value).is_integer() for value in cell)
