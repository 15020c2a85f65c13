"""Stream documents of sentences from files, from a data set, or from the texts of a task.

In plain text a line is a sentence and a blank line ends a document. In CSV, TSV, JSON, JSONL and Parquet, and in data
sets, a row is a document whose lines are its sentences; one column holds the text. A plain-text document with more than
``MAX_SENTENCES`` sentences is yielded in pieces, so that a file without blank lines does not fill the memory. TFRecord
files are not supported: they would need TensorFlow or a parser of our own, and they only wrap plain text; convert them
to text or Parquet first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.digests import short_digest
from limbeck.core.paths import exists, user_path
from limbeck.core.task import Task, texts_of
from limbeck.data.column_names import PAIR_WORDS, TEXT_WORDS
from limbeck.data.conll import SUFFIXES as CONLL
from limbeck.data.hub import stream
from limbeck.data.readers import (
    READERS,
    Reading,
    check_file,
    missing_file,
    parse_json,
    plural,
    read_table,
)
from limbeck.errors import InputError, nearest, shown
from limbeck.storage.text_file import regular_file

Document = list[str]
"""The sentences of a document, none of them empty."""
MAX_SENTENCES = 1_000
"""Maximum sentences of a plain-text document; a longer one is split."""

PLAIN = frozenset({".txt", ".text", ".raw", ".tokens", ""})
LINES = frozenset({".jsonl", ".ndjson"})
TABLES = frozenset(READERS) - PLAIN - LINES - frozenset(CONLL)
SUFFIXES = PLAIN | LINES | TABLES


@dataclass
class ReadCounts:
    """Counts while documents are read.

    Attributes:
        columns: Columns that texts were read from.
        textless: Rows with no text there.
    """

    columns: set[str] = field(default_factory=set)
    textless: int = 0


@dataclass(frozen=True)
class Source:
    """Where documents come from: files and folders, or one data set that ``datasets`` loads.

    Attributes:
        paths: Paths, or one name; a folder stands for the files in it.
        column: The text column, by name or number from 0; if None, by its customary name, or the only one.
        config: Configuration of the data set.
        split: Split of the data set.
    """

    paths: tuple[str, ...]
    column: str | None = None
    config: str | None = None
    split: str = "train"

    @property
    def name(self) -> str | None:
        """The name of the data set; None for files."""
        return self.paths[0] if len(self.paths) == 1 and _is_name(self.paths[0]) else None

    def files(self) -> list[Path]:
        """Return the files, all of which exist; none for a data set."""
        return [] if self.name else files_of(self.paths)

    def fingerprint(self) -> str:
        """Hash the contents of the files; the name of a data set stands for its content, as that of a model does."""
        files = [(path.suffix.lower(), short_digest(path)) for path in self.files()]
        content: list[Any] = [*files] or ["name", *self.paths, self.config, self.split]
        return hashlib.sha256(json.dumps([content, self.column]).encode()).hexdigest()[:16]

    def documents(self, seen: ReadCounts | None = None) -> Iterator[Document]:
        """Yield all documents; ``seen`` counts columns and rows without text."""
        seen = ReadCounts() if seen is None else seen
        for path in self.files():
            if path.suffix.lower() in PLAIN:
                yield from _paragraphs(path)
            else:
                yield from _documents(_rows(path, self.column), self.column, seen)
        if self.name:
            where = f"data set '{self.name}', split '{self.split}'"
            rows = enumerate(stream(self.name, self.config, self.split), start=1)
            yield from _documents(((f"{where}, row {n}", row) for n, row in rows), self.column, seen)


def files_of(paths: Iterable[str]) -> list[Path]:
    """Return the files at these paths, all of which exist; a folder stands for the files in it."""
    files: list[Path] = []
    for path in (user_path(path) for path in paths):
        inside = path.iterdir() if exists(path) and path.is_dir() else ()
        files += sorted(file for file in inside if file.suffix and file.suffix.lower() in SUFFIXES) or [path]
    for file in files:
        _check(file)
    return files


def file_texts(paths: Iterable[str]) -> Iterator[str]:
    """Yield every sentence, every document, and every cell of every column: all that a text may be compared with."""
    for path in files_of(paths):
        if path.suffix.lower() in PLAIN:
            for document in _paragraphs(path):
                yield from (*document, " ".join(document))
        else:
            for _, row in _rows(path, None):
                yield from (cell for cell in row.values() if isinstance(cell, str))


def task_documents(task: Task) -> Iterator[Document]:
    """Yield the training texts of a task; a text, or a pair of texts, is a document."""
    split = task.split("train")
    for index, text in enumerate(split.texts):
        parts = (text,) if split.pairs is None else (text, split.pairs[index])
        document = [sentence for part in parts for sentence in sentences(part)]
        if document:
            yield document


def task_texts(task: Task, splits: Iterable[str]) -> Iterator[str]:
    """Yield every text of the named splits that the task has; the texts of a pair one by one."""
    for name in splits:
        if name in task.splits:
            yield from texts_of(task.splits[name])


def sentences(text: str | Sequence[str]) -> Document:
    r"""Split a text into its lines that are not blank; a list of words is one line.

    >>> sentences(" One line. \n\n Another."), sentences(["two", "words"])
    (['One line.', 'Another.'], ['two words'])
    """
    if not isinstance(text, str):
        text = " ".join(text)
    return [line for raw in text.splitlines() if (line := raw.strip())]


def normal(text: str) -> str:
    """Normalize a text for comparison: letters and digits alone, case-folded.

    Data sets that share sentences often space and quote them differently:

    >>> normal("It 's a `` must - see '' ,") == normal('Its a "must-see",')
    True
    """
    return _letters(text) or " ".join(text.split())


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass
class ExclusionFilter:
    """A filter that removes banned texts, compared by :func:`normal`, and counts them.

    A banned text is removed where it is a document, a line, or a sentence within or across lines; a sentence ends with
    ``.``, ``!`` or ``?`` and a space. Inside a longer text it is not found without such an end, nor when it is several
    sentences.

    Attributes:
        banned: The banned texts, normalized.
        removed: Number of texts removed so far.
    """

    banned: frozenset[str]
    removed: int = 0

    @cached_property
    def longest(self) -> int:
        """Length of the longest banned text."""
        return max(map(len, self.banned), default=0)

    def filter(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield what is left of the documents; one that loses part of a line is then split by sentences, not lines."""
        for document in documents:
            letters = [_letters(line) for line in document]
            if len(document) > 1 and sum(map(len, letters)) <= self.longest and "".join(letters) in self.banned:
                self.removed += 1
                continue
            lines = [line for line, own in zip(document, letters, strict=True) if not self._bans(line, own)]
            parts = _SENTENCE_END.split(" ".join(lines)) if lines else []
            rest = parts if parts == lines else [part for part in parts if not self._bans(part, _letters(part))]
            self.removed += len(document) - len(lines) + len(parts) - len(rest)
            if rest:
                yield lines if len(rest) == len(parts) else rest

    def _bans(self, text: str, letters: str) -> bool:
        return (letters or normal(text)) in self.banned


def text_columns(
    where: str, columns: Sequence[str], option: str, requested: Sequence[str] = (), width: int = 1
) -> Sequence[str]:
    """Choose the text columns: those requested, else by customary names, else all if there are ``width`` of them.

    Args:
        where: The table, for messages.
        columns: Names of its columns.
        option: The option with which a user requests columns, for messages.
        requested: Columns that the user named, by name or number from 0.
        width: How many columns are needed.

    Raises:
        InputError: A requested column does not exist, or it is unclear which to read.

    >>> text_columns("a.csv", ["id", "Text"], "column"), text_columns("a.csv", ["id", "Text"], "column", ["0"])
    (['Text'], ['id'])
    """
    if requested:
        if len(requested) != width:
            raise InputError(f"{where}: {plural(width, 'text column')} needed, got {option}: {list(requested)}")
        numbered = {str(number): name for number, name in enumerate(columns)}
        for name in requested:
            if name not in columns and name not in numbered:
                raise InputError(f"{where}: there is no column '{name}'; {nearest(name, columns)}")
        return [name if name in columns else numbered[name] for name in requested]
    lower = {name.lower(): name for name in columns}
    for names in PAIR_WORDS if width == 2 else zip(TEXT_WORDS):
        if all(name in lower for name in names):
            return [lower[name] for name in names]
    if len(columns) == width:
        return columns
    raise InputError(
        f"{where}: it is unclear which {plural(width, 'column')} to read; set {option}; there are "
        + ", ".join(f"'{name}'" for name in columns)
    )


def reading_for(columns: Iterable[str]) -> Reading:
    """Return how to read a table for columns given by name or number; a number does not imply a header."""
    return Reading(names=frozenset(name for name in columns if not name.isdecimal()))


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers from 1, without a byte order mark; the file is streamed."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte 0x{raw[error.start]:02x} at position {error.start + 1} of the line "
                    "is not UTF-8; save the file as UTF-8"
                ) from None


# --- files ----------------------------------------------------------------------------------------------------------


def _is_name(text: str) -> bool:
    """Return whether this can only be the name of a data set: no such path exists, and it does not look like one."""
    path = user_path(text)
    if exists(path) or path.suffix.lower() in SUFFIXES - {""} or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", text):
        return False
    return "/" not in text or not path.parent.is_dir()


def _check(path: Path) -> None:
    suffix = path.suffix.lower()
    if exists(path) and path.is_dir():
        raise InputError(f"{path}: there is no file with text in this folder; {nearest('.txt', SUFFIXES - {''})}")
    if not exists(path):
        raise InputError(missing_file(path))
    regular_file(path)
    if suffix.startswith(".tfrecord"):
        raise InputError(f"{path}: TFRecord files are not read; write their texts to a text or Parquet file")
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: no reader for '{suffix}' files; {nearest(suffix, SUFFIXES - {''})}")


def _paragraphs(path: Path) -> Iterator[Document]:
    """Yield the documents of a plain-text file, separated by blank lines; long ones in pieces of ``MAX_SENTENCES``."""
    document: Document = []
    for _, line in numbered_lines(path):
        if stripped := line.strip():
            document.append(stripped)
        if document and (not stripped or len(document) == MAX_SENTENCES):
            yield document
            document = []
    if document:
        yield document


Row = tuple[str, Mapping[str, Any]]
"""Where a row is, for messages, and its cells by column."""


def _rows(path: Path, column: str | None) -> Iterator[Row]:
    """Yield the rows of a file with columns; JSONL and Parquet are streamed."""
    suffix = path.suffix.lower()
    if suffix in LINES:
        for number, line in numbered_lines(path):
            if line.strip():
                where = f"{path}, line {number}"
                row = parse_json(where, line)
                if not isinstance(row, dict):
                    raise InputError(f'{where}: expected an object such as {{"text": "…"}}, got {shown(line.strip())}')
                yield where, row
    elif suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        check_file(path)
        table = read_table(path, reading_for(() if column is None else (column,)))
        for number, cells in enumerate(table.rows):
            yield table.at(number), dict(zip(table.columns, cells, strict=True))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def _documents(rows: Iterable[Row], column: str | None, seen: ReadCounts) -> Iterator[Document]:
    """Yield a document for every row that has a text."""
    name: str | None = None
    for where, row in rows:
        if name is None:
            (name,) = text_columns(where, list(row), "column", () if column is None else (column,))
            seen.columns.add(name)
        cell = row.get(name)
        if cell is None:
            seen.textless += 1
            continue
        if isinstance(cell, (list, tuple)) and all(isinstance(word, str) for word in cell):
            cell = " ".join(cell)
        if not isinstance(cell, str):
            kind = type(cell).__name__
            raise InputError(f"{where}: column '{name}' should be text, got {shown(cell)} of type {kind}")
        if not cell.isascii() and any("\ud800" <= sign <= "\udfff" for sign in cell):
            raise InputError(f"{where}: column '{name}' has half of a UTF-16 pair, got {cell[:40]!a}")
        if document := sentences(cell):
            yield document
