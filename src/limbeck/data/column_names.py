"""Customary names of columns, and whether the first row of a file is a header."""

from __future__ import annotations

import re
from collections.abc import Sequence

from limbeck.data.cells import is_number
from limbeck.errors import InputError

LABEL_WORDS = (
    "label",
    "labels",
    "class",
    "category",
    "intent",
    "target",
    "sentiment",
    "score",
    "tags",
    "ner_tags",
)
TEXT_WORDS = ("text", "sentence", "tokens", "words", "review", "utterance", "query", "content")
#: further names of text columns, for tables that also have a label column
MORE_TEXT_WORDS = (
    *("comment_text", "comment", "tweet", "message", "document", "passage", "phrase", "review_text", "body"),
    *("question", "form"),
)
PAIR_WORDS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "pair"),
    *(("query", name) for name in ("passage", "document", "text", "title", "response", "answer")),
    *(("question", name) for name in ("answer", "context", "passage", "paragraph")),
    *(("title", name) for name in ("text", "body", "content", "description", "abstract", "review")),
    ("subject", "body"),
    ("claim", "evidence"),
    ("context", "response"),
    ("prompt", "response"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("text_1", "text_2"),
    ("sent1", "sent2"),
)
ID_WORDS = frozenset({"", "id", "_id", "idx", "index", "uid", "guid", "uuid", "row", "row_id", "unnamed: 0", "level_0"})
_KNOWN_WORDS = frozenset(
    (*LABEL_WORDS, *TEXT_WORDS, *MORE_TEXT_WORDS, *(word for pair in PAIR_WORDS for word in pair), *ID_WORDS)
) - {""}


def looks_like_header(first: list[str], rest: list[list[str]]) -> bool:
    """Guess whether the first row is a header: its cells do not occur further down and are customary column names.

    A first row of other words is a header only above numbers, or above a last column with few, repeating values, as
    labels are.

    >>> looks_like_header(["text", "label"], [["a film", "good"]]), looks_like_header(["a", "b"], [["c", "d"]])
    (True, False)
    """
    rest = [fields for fields in rest if len(fields) == len(first)]
    columns = [[cell.strip() for cell in column] for column in zip(*rest, strict=True)] or [[] for _ in first]
    last, numbered = columns[-1], not first[0] or first[0] == "0"
    if numbered and len(first) > 1 and [cell or "0" for cell in first[1:]] == _pandas_numbers(first):
        # pandas numbers columns without names; its index has none either
        return bool(rest) and not all(map(is_number, columns[0 if first[0] else 1]))
    named = first[1:] if not first[0] and all(map(is_number, columns[0])) else first
    if not named or not all(named) or first[-1] in last or is_number(first[-1]):
        return False
    if any(cell.lower() in _KNOWN_WORDS for cell in named):
        return True
    if not rest or not all(re.fullmatch(r"[^\W\d][\w.-]*", cell) for cell in named):
        return False
    if all(map(is_number, last)) or len(set(last)) <= len(last) // 2:
        return True
    if len(rest) < 4 or any(cell in column for cell, column in zip(first, columns, strict=True)):
        return False
    return any(all(map(is_number, column)) or len(set(column)) <= len(column) // 4 for column in columns)


def _pandas_numbers(first: Sequence[str]) -> list[str]:
    """Return the names that pandas gives to unnamed columns, those after the first field."""
    start = 1 if first[0] else 0
    return [str(index) for index in range(start, start + len(first) - 1)]


def check_columns(where: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Refuse a header that names two columns alike."""
    for index, name in enumerate(columns):
        if name in columns[:index]:
            both = f"{columns.index(name) + 1} and {index + 1}"
            raise InputError(f"{where}: the header has '{name}' twice (columns {both}); rename one of them")
    return tuple(columns)
