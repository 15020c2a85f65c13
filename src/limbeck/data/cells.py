"""Interpret single cells of a table: lists and numbers written as text, missing labels, truth values."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Scalar = str | bool | int | float

#: how other programs write "no label" into text files; 'None' is not among them, since it may be a class
MISSING_LABELS = frozenset({"nan", "<na>", "null", "#n/a"})
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*(,\d+)?")
_THOUSANDS = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")
_POINTS_AND_COMMA = re.compile(r"[-+]?\d{1,3}(\.\d{3})*(,\d+)?")
_AMBIGUOUS_COMMA = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_BOOLEANS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
_ITEM = (
    r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|True|False|true|false)"
)
_LIST = re.compile(rf"[\[(]\s*(?:{_ITEM}(?:\s*,\s*|\s+))*(?:{_ITEM}\s*)?[\])]", re.DOTALL)


def is_number(text: str) -> bool:
    """Return whether a text is a finite decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def is_missing(cell: object) -> bool:
    """Return whether a cell holds nothing: None or NaN."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def is_unlabeled(cell: object) -> bool:
    """Return whether a label cell is empty or stands for "no label".

    >>> [is_unlabeled(cell) for cell in (None, " ", "NaN", "none", 0)]
    [True, True, True, False, False]
    """
    if isinstance(cell, str):
        return not cell.strip() or cell.strip().casefold() in MISSING_LABELS
    return is_missing(cell)


def is_hidden(cell: object) -> bool:
    """Return whether a cell is -1, as data sets write a label that they do not tell."""
    return not isinstance(cell, (bool, list, tuple, dict)) and str(cell).strip() in ("-1", "-1.0")


def lacks_label(cell: object) -> bool:
    """Return whether an element of a vector of labels is empty, stands for "no label", or is -1.

    >>> [lacks_label(cell) for cell in (None, -1, "-1.0", 0)]
    [True, True, True, False]
    """
    return is_unlabeled(cell) or is_hidden(cell)


def parse_list(text: str) -> list[Scalar] | None:
    r"""Parse a list as Python, JSON or NumPy print it; return None if the text is not a list of words and numbers.

    >>> parse_list("['a', 'b']"), parse_list('["a"]'), parse_list("['a' 'b']"), parse_list("[1 0]"), parse_list("[a]")
    (['a', 'b'], ['a'], ['a', 'b'], [1, 0], None)
    >>> parse_list(r"['\x']")
    """
    text = text.strip()
    if text[:1] not in ("[", "(") or not _LIST.fullmatch(text):
        return None
    try:
        return [_parse_scalar(part) for part in re.findall(_ITEM, text, re.DOTALL)]
    except (ValueError, SyntaxError):  # an escape that Python does not know, a number of too many digits
        return None


def _parse_scalar(text: str) -> Scalar:
    if text in ("True", "False", "true", "false"):
        return text in ("True", "true")
    if text[0] == '"':
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            pass
    if text[0] in "'\"":
        return str(ast.literal_eval(text))
    return float(text) if re.search(r"[.eE]", text) else int(text)


def parse_bool(cell: object) -> bool | None:
    """Return the truth value of a cell, None if it has none.

    >>> [parse_bool(cell) for cell in (1, "0", "TRUE", 1.0, 2, "x", None)]
    [True, False, True, True, None, None, None]
    """
    return None if isinstance(cell, (list, tuple, dict)) else _BOOLEANS.get(str(cell).strip().casefold())


def normalize_spelling(label: str) -> str:
    """Normalize the spelling of a label: case-folded, with single spaces.

    >>> normalize_spelling(" Very  GOOD ") == normalize_spelling("very good")
    True
    """
    return unicodedata.normalize("NFC", " ".join(label.split())).casefold()


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written.

    Attributes:
        percent: Whether a per cent sign follows; 12.5% is read as 12.5.
        comma: The meaning of a comma, if there is any.
        points: Whether points separate thousands, as in 1.234,5.
    """

    percent: bool = False
    comma: Literal["decimal", "thousands"] | None = None
    points: bool = False

    def read(self, text: str) -> float | None:
        """Parse a number; return None if the text is not one."""
        text = text.strip()
        if self.percent:
            text = text.removesuffix("%").rstrip()
        if self.comma == "decimal":
            text = (text.replace(".", "") if self.points else text).replace(",", ".")
        elif self.comma == "thousands":
            text = text.replace(",", "")
        return float(text) if is_number(text) else None

    def __str__(self) -> str:
        words = [f"commas as {self.comma} separators"] if self.comma else []
        return " and ".join([*words, *(["per cent"] if self.percent else [])])


def number_format(texts: Iterable[str]) -> NumberFormat | None:
    """Find the one format in which all of these texts are numbers; return None if there is none.

    >>> number_format(["0,5", "2"]), number_format(["12.5%", "3%"]).percent, number_format(["good", "1"])
    (NumberFormat(percent=False, comma='decimal', points=False), True, None)
    """
    texts = [text.strip() for text in texts]
    percent = bool(texts) and all(text.endswith("%") for text in texts)
    if percent:
        texts = [text[:-1].rstrip() for text in texts]
    if not all(texts):
        return None
    if all(map(is_number, texts)):
        return NumberFormat(percent)
    if not any("," in text for text in texts):
        return None
    if all(map(_DECIMAL_COMMA.fullmatch, texts)):
        return NumberFormat(percent, "decimal")
    if all(map(_THOUSANDS.fullmatch, texts)):
        return NumberFormat(percent, "thousands")
    return NumberFormat(percent, "decimal", points=True) if all(map(_POINTS_AND_COMMA.fullmatch, texts)) else None


def comma_is_ambiguous(texts: Sequence[str]) -> bool:
    """Return whether every comma in these numbers may separate thousands as well as decimals, as in 1,234."""
    marked = [text.strip().removesuffix("%").rstrip() for text in texts if "," in text]
    return bool(marked) and all(map(_AMBIGUOUS_COMMA.fullmatch, marked))
