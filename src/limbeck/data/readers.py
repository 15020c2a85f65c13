"""Read a file into a table that records where every row comes from, so that errors can point at it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from limbeck.core.paths import exists
from limbeck.data import conll
from limbeck.data.column_names import check_columns, looks_like_header
from limbeck.errors import InputError, nearest, shown
from limbeck.storage.text_file import regular_file


@dataclass
class Table:
    """Rows of one split before they are checked.

    Attributes:
        where: The source, for messages.
        columns: Names of the columns.
        rows: The cells of each row.
        numbers: Number of each row in its source, from 1.
        unit: What the numbers count: line, row or item.
        typed: Whether cells have types of their own (JSON, Parquet, lists) rather than being text.
        headed: Whether the source names its columns.
        notes: What was skipped.
        words: Whether every row is a sentence of words with tags (CoNLL).
    """

    where: str
    columns: tuple[str, ...]
    rows: list[Sequence[Any]]
    numbers: Sequence[int]
    unit: str = "row"
    typed: bool = True
    headed: bool = True
    notes: list[str] = field(default_factory=list)
    words: bool = False

    def at(self, row: int) -> str:
        """Describe where a row is, for messages."""
        return f"{self.where}, {self.unit} {self.numbers[row]}"


@dataclass(frozen=True)
class Reading:
    """How to read the files of a task.

    Attributes:
        header: Whether the first row names the columns; detected if None.
        delimiter: The delimiter of CSV and TSV files; by suffix if None.
        names: Columns that the user named; they identify a header.
        tokens: Whether .tsv and .txt files are CoNLL.
        sentences: Whether any text file may be CoNLL.
        like: The table of the training split, once it is read; other splits are read like it.
    """

    header: bool | None = None
    delimiter: str | None = None
    names: frozenset[str] = frozenset()
    tokens: bool = False
    sentences: bool = True
    like: Table | None = None


def read_table(path: Path, reading: Reading = Reading()) -> Table:
    """Read one file, in the format of its suffix."""
    check_file(path)
    suffix = path.suffix.lower()
    if reading.tokens and suffix in (".tsv", ".txt"):
        return _read_conll(path, reading)
    table = READERS[suffix](path, reading)
    if not table.rows:
        raise InputError(f"{path}: there are no rows in it")
    return table


def check_file(path: Path) -> None:
    """Refuse a file that does not exist or has no reader, without opening it."""
    if not exists(path) or path.is_dir():
        raise InputError(missing_file(path))
    regular_file(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError(f"{path}: no reader for '{suffix or path.name}' files; {nearest(suffix, READERS)}")


def missing_file(path: Path) -> str:
    """Describe that a file does not exist, and which one may be meant."""
    folder = path.parent
    if exists(path) and path.is_dir():
        return f"{path} is a folder; a file is needed here"
    if not (exists(folder) and folder.is_dir()):
        return f"{path}: there is no such file, nor a folder {folder}"
    return f"{path}: there is no such file; {nearest(path.name, (sibling.name for sibling in folder.iterdir()))}"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "row"), plural(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _text_of(path: Path) -> str:
    """Decode a whole file, with line ends as newlines and without a byte order mark."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            guess = "it looks like UTF-16"
        else:
            begin = raw.rfind(b"\n", 0, error.start) + 1
            excerpt = raw[max(begin, error.start - 20) : error.start + 10].split(b"\n")[0].decode("cp1252", "replace")
            guess = f"as Windows-1252 it would read {excerpt.strip()!r}"
        raise InputError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8; "
            f"{guess}; save the file as UTF-8"
        ) from None
    if "\n" not in text:
        return text.replace("\r", "\n")  # line ends of old Macs
    return text.replace("\r\n", "\n")


def _tsv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield fields between tabs verbatim: a quotation mark in a TSV file is part of the text."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.split(delimiter) if line.replace(" ", "") else []


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield fields with CSV quoting; the number of a row is the line where it begins."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cause = "a quotation mark opens here and never closes" if "end of data" in str(error) else str(error)
            hint = "write a quotation mark inside quotes twice; name the file .tsv if its quotes are plain text"
            if "new-line character" in str(error):  # a lone carriage return outside quotes
                line = text.split("\n")[begin - 1]
                cause = f"a field contains a carriage return (CR, \\r) that does not end a line, got {_around(line)}"
                hint = "remove it, or put the field in quotation marks"
            raise InputError(f"{path}, line {begin}: {cause}; {hint}") from None
        yield begin, fields if any(field.strip() for field in fields) or len(fields) > 1 else []


def _around(line: str) -> str:
    """Return the surroundings of the first carriage return of a line."""
    position = line.find("\r")
    return repr(line[max(0, position - 20) : position + 20])


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read whole documents; its limit is global, so it is restored."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_delimited(path: Path, reading: Reading) -> Table:
    quoted = path.suffix.lower() == ".csv"
    delimiter = reading.delimiter or ("," if quoted else "\t")
    text = _text_of(path)
    if _holds_sentences(text, reading, quoted):
        return _read_conll(path, reading, text)
    with _long_fields():
        records = list((_csv_records if quoted else _tsv_records)(path, text, delimiter))
    while records and not records[-1][1]:
        records.pop()  # blank lines at the end are not rows
    filled = [record for record in records if record[1]]
    if not filled:
        raise InputError(f"{path}: there are no rows in it")
    headed, columns = _columns(path, filled, reading)
    numbers, rows = zip(*filled[headed:], strict=True) if len(filled) > headed else ((), ())
    for number, fields in zip(numbers, rows, strict=True):
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {number}: {plural(len(fields), 'field')}, but line {filled[0][0]} has {len(columns)}; "
                f"the line begins {shown(delimiter.join(fields))}{_other_delimiter(columns, filled[0][1])}"
            )
    table = Table(str(path), columns, list(rows), numbers, "line", typed=False, headed=headed)
    if len(filled) < len(records):
        table.notes.append(f"{plural(len(records) - len(filled), 'blank line')} skipped")
    return table


def _holds_sentences(text: str, reading: Reading, quoted: bool) -> bool:
    """Return whether a text is CoNLL, whatever the file name; other splits are read like the training split."""
    if not reading.sentences or reading.delimiter not in (None, "\t"):
        return False
    if reading.like is not None:
        return reading.like.words
    return not (quoted and "," in text[:10_000]) and conll.is_conll(text)


def _columns(path: Path, records: list[tuple[int, list[str]]], reading: Reading) -> tuple[bool, tuple[str, ...]]:
    """Return whether the first row is a header, and the names of the columns (numbers from 0 without one)."""
    first = [cell.strip() for cell in records[0][1]]
    like, headed = reading.like, reading.header
    if headed is None:
        if like is not None and not like.headed:
            headed = False
        else:
            same = like is not None and tuple(first) == like.columns
            named = not reading.names.isdisjoint(first)
            headed = same or named or looks_like_header(first, [fields for _, fields in records[1:]])
    if headed:
        return True, check_columns(f"{path}, line {records[0][0]}", first)
    if reading.header is None and like is not None and len(first) == len(like.columns):
        return False, like.columns
    return False, tuple(str(index) for index in range(len(first)))


def _other_delimiter(columns: Sequence[str], first: Sequence[str]) -> str:
    """Suggest another delimiter for a file that was read as a single column."""
    if len(columns) > 1:
        return ""
    names = (name for sign, name in (("\t", "\\t"), (";", ";"), (",", ","), ("|", "|")) if sign in first[0])
    if (name := next(names, None)) is None:
        return ""
    return f"; is the delimiter another one? set delimiter: \"{name}\" (--delimiter '{name}')"


def delimiter_hint(table: Table) -> str:
    """Suggest another delimiter for a table that was read as a single column."""
    first = table.columns if table.headed else [str(cell) for cell in table.rows[0]]
    return "" if table.typed else _other_delimiter(table.columns, first)


def _read_conll(path: Path, reading: Reading, text: str | None = None) -> Table:
    """Read a CoNLL file; a row is a sentence."""
    text = _text_of(path) if text is None else text
    header = conll.has_header(text) if reading.header is None else reading.header
    try:
        sentences = conll.read_sentences(text, header=header)
    except conll.MalformedLine as error:
        raise InputError(f"{path}, line {error.number}: {error}") from None
    if not sentences.rows:
        raise InputError(f"{path}: there are no rows in it")
    return Table(
        str(path),
        sentences.columns,
        list(sentences.rows),
        sentences.numbers,
        "line",
        headed=header,
        notes=sentences.notes,
        words=True,
    )


class _DuplicateField(ValueError):
    """A JSON object has the same field twice."""


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in fields]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateField(name)
    return dict(fields)


def parse_json(where: str, text: str) -> Any:  # a JSON value
    """Parse a JSON text; refuse an object that has the same field twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _DuplicateField as error:
        raise InputError(f"{where}: the object has the field '{error}' twice") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg} at character {error.pos + 1}): {shown(text)}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        raise InputError(f"{where}: not readable JSON ({error}): {shown(text)}") from None


def _from_objects(where: str, unit: str, numbers: list[int], objects: list[Any]) -> Table:
    """Make a table of objects; its columns are the fields of any of them."""
    for number, fields in zip(numbers, objects, strict=True):
        if not isinstance(fields, dict):
            raise InputError(
                f"{where}, {unit} {number}: expected an object such as "
                f'{{"text": "…", "label": "…"}}, got {json.dumps(fields)[:60]}'
            )
    # empty fields may be absent, so every field of any row is a column; an absent one is None
    columns = tuple(dict.fromkeys(name for fields in objects for name in fields))
    return Table(where, columns, [[fields.get(name) for name in columns] for fields in objects], numbers, unit)


def _read_jsonl(path: Path, reading: Reading) -> Table:
    lines = _text_of(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    objects = [parse_json(f"{path}, line {number}", line) for number, line in filled]
    table = _from_objects(str(path), "line", [number for number, _ in filled], objects)
    if len(filled) < len(lines):
        table.notes.append(f"{plural(len(lines) - len(filled), 'blank line')} skipped")
    return table


def _read_json(path: Path, reading: Reading) -> Table:
    """Read a list of objects (also as the only list inside an object), or an object of columns."""
    content = parse_json(str(path), _text_of(path))
    if isinstance(content, dict):
        columns = {name: value for name, value in content.items() if isinstance(value, list)}
        if len(columns) > 1:
            return table_of_columns(str(path), columns, "item")
        content = next(iter(columns.values()), content)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of objects, got {json.dumps(content)[:60]}")
    return _from_objects(str(path), "item", list(range(1, len(content) + 1)), content)


def table_of_columns(where: str, columns: Mapping[str, Sequence[Any]], unit: str = "row") -> Table:
    """Make a table of equally long columns.

    Args:
        where: The source, for messages.
        columns: Cells by column.
        unit: What messages call a row.

    Raises:
        InputError: The columns have different lengths.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise InputError(f"{where}: the columns have different lengths: {listed}")
    rows: list[Sequence[Any]] = list(zip(*columns.values(), strict=True))
    return Table(where, tuple(columns), rows, range(1, len(rows) + 1), unit)


def _read_parquet(path: Path, reading: Reading) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = check_columns(f"{path}, schema", file.schema_arrow.names)
            content = file.read()
        columns = {name: content.column(index).to_pylist() for index, name in enumerate(names)}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # text and times are decoded late
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason})") from error
    return table_of_columns(str(path), columns)


READERS: Mapping[str, Callable[[Path, Reading], Table]] = MappingProxyType(
    {
        ".csv": _read_delimited,
        ".tsv": _read_delimited,
        ".txt": _read_delimited,
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".parquet": _read_parquet,
        **dict.fromkeys(conll.SUFFIXES, _read_conll),
    }
)
