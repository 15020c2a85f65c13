"""Read CoNLL and CoNLL-U: a word and its tags on each line, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from limbeck.errors import shown

SUFFIXES = (".conll", ".conllu", ".conll03", ".bio", ".iob", ".iob2", ".bioes", ".ner")
UNIVERSAL = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U."""
BLANK = " \t\r\f\v\n"
_TAG = re.compile(r"O|[BIESLUM]-\S+")
_RANGE = re.compile(r"\d+-\d+")
_EMPTY_NODE = re.compile(r"\d+\.\d+")
_WORD_NUMBER = re.compile(r"\d+([-.]\d+)?")
_CELL = re.compile(r"[^ \t\r]+")
"""A field where spaces separate fields; other white space, such as a no-break space, may be a word of its own."""
_COMMENT = re.compile(r"#\s*([\w:.-]+\s*=|newdoc\b|newpar\b)")


@dataclass
class Sentences:
    """Sentences by column: a row has one tuple per column, with one cell per word.

    Attributes:
        columns: Names of the columns; numbers from 0 where the file does not name them.
        rows: One row per sentence.
        numbers: Line on which each sentence begins, from 1.
        notes: What was skipped.
    """

    columns: tuple[str, ...] = ()
    rows: list[list[tuple[str, ...]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class MalformedLine(ValueError):
    """A malformed line; ``number`` counts the lines of the file from 1."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def is_conll(text: str) -> bool:
    r"""Return whether a text looks like CoNLL.

    Every line must have the same number of fields. In addition, either the cells are all single words, and blank lines
    separate groups of lines or the last field of every line is a tag such as O or B-PER; or both are so, and a word
    between tabs may hold spaces.

    >>> is_conll("EU\tB-ORG\nrejects\tO\n"), is_conll("a film\tgood\n\nmore\tbad\n")
    (True, False)
    """
    lines = text.split("\n")
    tabs = _tabbed(lines[:100])
    groups, inside, tags, single = 0, 0, True, True
    width, longest = 0, 0
    expected = _width(lines, tabs)
    for line in lines:
        if not line.strip(BLANK):
            inside = 0
            continue
        if line.startswith("-DOCSTART-") or _is_comment(line, tabs, inside > 0, expected):
            continue
        fields = line.split("\t") if tabs else _CELL.findall(line)
        width = width or len(fields)
        if len(fields) != width or width < 2:
            return False
        single = single and all(len(_CELL.findall(cell)) <= 1 for cell in fields[:-1])
        if groups or inside:  # the first line may name the columns
            tags = tags and _TAG.fullmatch(fields[-1].strip()) is not None
        groups += inside == 0
        inside += 1
        longest = max(longest, inside)
        if groups == 1 and inside > 1000:
            return False
        if not tags and (not single or len(_CELL.findall(fields[-1])) != 1):
            return False
    evidence = [tags, groups > 1]
    return longest > 1 and (any(evidence) if single else all(evidence))


def has_header(text: str) -> bool:
    """Return whether the first line names the columns: its last field is not a tag, but that of every other line is."""
    lines = text.split("\n")
    tabs = _tabbed(lines[:100])
    last = [_fields(line, tabs)[-1] for line in lines if line.strip(BLANK) and not line.startswith(("#", "-DOCSTART-"))]
    return len(last) > 1 and not _TAG.fullmatch(last[0]) and all(map(_TAG.fullmatch, last[1:]))


def _tabbed(lines: Sequence[str]) -> bool:
    """Return whether tabs separate the fields; a line of white space says nothing."""
    return any("\t" in line.strip(BLANK) for line in lines)


def _width(lines: Sequence[str], tabs: bool) -> int:
    """Return the number of fields of the first line that is certainly one of a word; 0 if there is none."""
    words = (line for line in lines if line.strip(BLANK) and not line.startswith(("#", "-DOCSTART-")))
    return len(_fields(next(words, ""), tabs))


def _is_comment(line: str, tabs: bool, inside: bool, width: int) -> bool:
    """Return whether a line is a comment: outside a sentence, and of a form that no word line has.

    Args:
        line: The line.
        tabs: Whether tabs separate the fields of the file.
        inside: Whether it is inside a sentence.
        width: Number of fields of a word line.
    """
    if inside or not line.startswith("#"):
        return False
    if tabs:
        return "\t" not in line
    spaced = line[1:2] == " " and width > 0 and len(_CELL.findall(line)) != width
    return spaced or _COMMENT.match(line) is not None


def read_sentences(text: str, *, header: bool = False) -> Sentences:
    """Parse the text of a CoNLL file.

    Args:
        text: The whole file.
        header: Whether the first line names the columns.

    Raises:
        MalformedLine: The number of fields differs from that of the first line.
    """
    sentences = Sentences()
    sentence: list[list[str]] = []
    counts: dict[str, int] = {}

    def skip(what: str) -> None:
        counts[what] = counts.get(what, 0) + 1

    lines = list(enumerate(text.split("\n"), start=1))
    tabs = _tabbed([line for _, line in lines])
    names = _fields(lines.pop(0)[1], tabs) if header else []
    width = _width([line for _, line in lines], tabs)
    for number, line in (*lines, (0, "")):
        if line.startswith("-DOCSTART-"):
            skip("-DOCSTART- line")
        elif _is_comment(line, tabs, bool(sentence), width):
            skip("comment line")
        elif line.strip(BLANK):
            fields = _fields(line, tabs)
            sentences.columns = sentences.columns or _names(names, fields)
            if len(fields) != len(sentences.columns) or len(fields) < 2:
                expected = max(2, len(sentences.columns))
                raise MalformedLine(number, _unequal(len(fields), expected, line))
            if sentences.columns == UNIVERSAL and (_RANGE.fullmatch(fields[0]) or _EMPTY_NODE.fullmatch(fields[0])):
                skip("multiword token line" if "-" in fields[0] else "empty node line")
                continue
            if not sentence:
                sentences.numbers.append(number)
            sentence.append(fields)
        elif sentence:
            sentences.rows.append([tuple(column) for column in zip(*sentence, strict=True)])
            sentence = []
    sentences.notes += [f"{count:,} {what}{'s' * (count != 1)} skipped" for what, count in counts.items()]
    return sentences


def _fields(line: str, tabs: bool) -> list[str]:
    return [cell.strip(BLANK) for cell in line.split("\t")] if tabs and "\t" in line else _CELL.findall(line)


def _names(header: list[str], first: list[str]) -> tuple[str, ...]:
    if header and len(header) == len(first):
        return tuple(header)
    if len(first) == len(UNIVERSAL) and _WORD_NUMBER.fullmatch(first[0]):
        return UNIVERSAL
    return tuple(str(index) for index in range(len(first)))


def _unequal(count: int, expected: int, line: str) -> str:
    fields = f"{count} field{'s' * (count != 1)}"
    return f"{fields}, expected {expected} (word and tag); the line is {shown(line)}"


def is_word_numbering(cells: Sequence[object]) -> bool:
    """Return whether the cells of a sentence number its words from 1 (or from 0)."""
    start = cells[0] if cells else ""
    if start not in ("0", "1"):
        return False
    return all(cell == str(index) for index, cell in enumerate(cells, start=int(str(start))))
