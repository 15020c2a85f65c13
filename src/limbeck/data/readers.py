"""Read a file into a table that knows where every row stands, so that an error can point at it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from limbeck.data import conll
from limbeck.data.cells import is_number
from limbeck.errors import InputError, nearest

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
#: names that texts also have, where a column of labels stands beside them
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


@dataclass
class Table:
    """Rows of one split before they are checked.

    ``numbers`` has the place of every row in its source, from 1, in ``unit`` (line, row or item). ``typed``
    tells sources whose cells have types of their own (JSON, Parquet, lists) from files of text alone.
    """

    where: str
    columns: tuple[str, ...]
    rows: list[Sequence[Any]]
    numbers: Sequence[int]
    unit: str = "row"
    typed: bool = True
    headed: bool = True
    notes: list[str] = field(default_factory=list)
    words: bool = False  #: whether every row is a sentence of words with tags (CoNLL)

    def at(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.where}, {self.unit} {self.numbers[row]}"


@dataclass(frozen=True)
class Reading:
    """How to read the files of a task; ``like`` is the table of the training split once it is known."""

    header: bool | None = None
    delimiter: str | None = None
    names: frozenset[str] = frozenset()  #: columns that were asked for by name
    tokens: bool = False
    sentences: bool = True  #: whether a file may be CoNLL whatever its suffix
    like: Table | None = None


def read_table(path: Path, reading: Reading = Reading()) -> Table:
    """Read one file; its suffix tells the format."""
    check_file(path)
    suffix = path.suffix.lower()
    if reading.tokens and suffix in (".tsv", ".txt"):
        return _read_conll(path, reading)
    table = READERS[suffix](path, reading)
    if not table.rows:
        raise InputError(f"{path}: there are no rows in it")
    return table


def check_file(path: Path) -> None:
    """Refuse a file that does not exist or that nothing here reads, without opening it."""
    if not path.is_file():
        raise InputError(missing_file(path))
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError(f"{path}: no reader for '{suffix or path.name}' files; {nearest(suffix, READERS)}")


def missing_file(path: Path) -> str:
    """Say that a file does not exist, and which one may be meant."""
    folder = path.parent
    if path.is_dir():
        return f"{path} is a folder, a file is needed here"
    if not folder.is_dir():
        return f"{path}: there is no such file, nor a folder {folder}"
    return f"{path}: there is no such file; {nearest(path.name, (each.name for each in folder.iterdir()))}"


def plural(count: int, noun: str) -> str:
    """Count things in words.

    >>> plural(1, "row"), plural(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _text_of(path: Path) -> str:
    """Decode a whole file: line ends become newlines, a byte order mark goes."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            guess = "it looks like UTF-16"
        else:
            begin = data.rfind(b"\n", 0, error.start) + 1
            shown = data[max(begin, error.start - 20) : error.start + 10].split(b"\n")[0].decode("cp1252", "replace")
            guess = f"read as Windows-1252 the place says {shown.strip()!r}"
        raise InputError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8; "
            f"{guess}; save the file as UTF-8"
        ) from None
    if "\n" not in text:
        return text.replace("\r", "\n")  # line ends of old Macs
    return text.replace("\r\n", "\n")


def _tsv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Fields between tabs as they stand: a quotation mark in a TSV file belongs to the text."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.split(delimiter) if line.replace(" ", "") else []


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Fields with CSV quoting; a row is numbered by the line where it begins."""
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
                cause = f"a carriage return (CR, \\r) that ends no line stands in a field, got {_around(line)}"
                hint = "remove it, or put the field in quotation marks"
            raise InputError(f"{path}, line {begin}: {cause}; {hint}") from None
        yield begin, fields if any(field.strip() for field in fields) or len(fields) > 1 else []


def _around(line: str) -> str:
    """What stands around the first carriage return of a line."""
    place = line.find("\r")
    return repr(line[max(0, place - 20) : place + 20])


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read whole documents; its limit is one for the process, so it is put back."""
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
        records.pop()  # the end of the file is no row
    filled = [record for record in records if record[1]]
    if not filled:
        raise InputError(f"{path}: there are no rows in it")
    headed, columns = _columns(path, filled, reading)
    numbers, rows = zip(*filled[headed:], strict=True) if len(filled) > headed else ((), ())
    for number, fields in zip(numbers, rows, strict=True):
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {number}: {plural(len(fields), 'field')}, but line {filled[0][0]} has {len(columns)}; "
                f"the line begins {delimiter.join(fields)[:60]!r}{_other_delimiter(columns, filled[0][1])}"
            )
    table = Table(str(path), columns, list(rows), numbers, "line", typed=False, headed=headed)
    if len(filled) < len(records):
        table.notes.append(f"{plural(len(records) - len(filled), 'blank line')} skipped")
    return table


def _holds_sentences(text: str, reading: Reading, quoted: bool) -> bool:
    """Whether a file is CoNLL whatever its name; other splits follow that of training."""
    if not reading.sentences or reading.delimiter not in (None, "\t"):
        return False
    if reading.like is not None:
        return reading.like.words
    return not (quoted and "," in text[:10_000]) and conll.is_conll(text)


def _columns(path: Path, records: list[tuple[int, list[str]]], reading: Reading) -> tuple[bool, tuple[str, ...]]:
    """Whether the first row is a header, and the names of the columns (numbers from 0 without one)."""
    first = [cell.strip() for cell in records[0][1]]
    like, headed = reading.like, reading.header
    if headed is None:
        if like is not None and not like.headed:
            headed = False
        else:
            same = like is not None and tuple(first) == like.columns
            named = not reading.names.isdisjoint(first)
            headed = same or named or _looks_like_header(first, [fields for _, fields in records[1:]])
    if headed:
        return True, check_columns(f"{path}, line {records[0][0]}", first)
    if reading.header is None and like is not None and len(first) == len(like.columns):
        return False, like.columns
    return False, tuple(str(index) for index in range(len(first)))


def _looks_like_header(first: list[str], rest: list[list[str]]) -> bool:
    """Guess: names do not come back further down, and they are words that people name columns with.

    A first row of unknown words is a header only if it stands over numbers, or over a last column whose
    values are few and repeat, as labels do.
    """
    rest = [fields for fields in rest if len(fields) == len(first)]
    columns = [[cell.strip() for cell in column] for column in zip(*rest, strict=True)] or [[] for _ in first]
    last, numbered = columns[-1], not first[0] or first[0] == "0"
    if numbered and len(first) > 1 and [cell or "0" for cell in first[1:]] == _numbers(first):
        # pandas numbers columns that have no names; its index has none either
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


def _numbers(first: Sequence[str]) -> list[str]:
    """The names that pandas gives to columns without names, as far as they stand after the first field."""
    start = 1 if first[0] else 0
    return [str(index) for index in range(start, start + len(first) - 1)]


def check_columns(where: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Refuse a name that stands over two columns."""
    for index, name in enumerate(columns):
        if name in columns[:index]:
            places = f"{columns.index(name) + 1} and {index + 1}"
            raise InputError(f"{where}: the header has '{name}' twice (columns {places}); rename one of them")
    return tuple(columns)


def _other_delimiter(columns: Sequence[str], first: Sequence[str]) -> str:
    """A hint for files whose fields are parted by something else."""
    if len(columns) > 1:
        return ""
    found = [name for sign, name in (("\t", "\\t"), (";", ";"), (",", ","), ("|", "|")) if sign in first[0]]
    return (
        f"; are the fields parted by something else? set delimiter: \"{found[0]}\" (--delimiter '{found[0]}')"
        if found
        else ""
    )


def delimiter_hint(table: Table) -> str:
    """A hint for tables that were read as a single column."""
    first = table.columns if table.headed else [str(cell) for cell in table.rows[0]]
    return "" if table.typed else _other_delimiter(table.columns, first)


def _read_conll(path: Path, reading: Reading, text: str | None = None) -> Table:
    """Sentences of words: one word and its tags on a line, a blank line between sentences."""
    text = _text_of(path) if text is None else text
    header = conll.has_header(text) if reading.header is None else reading.header
    try:
        found = conll.read_sentences(text, header=header)
    except conll.BadLine as error:
        raise InputError(f"{path}, line {error.number}: {error}") from None
    if not found.rows:
        raise InputError(f"{path}: there are no rows in it")
    return Table(
        str(path), found.columns, list(found.rows), found.numbers, "line", headed=header, notes=found.notes, words=True
    )


class _TwiceNamed(ValueError):
    """A JSON object has the same field twice."""


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in fields]
    for name in names:
        if names.count(name) > 1:
            raise _TwiceNamed(name)
    return dict(fields)


def parse_json(where: str, text: str) -> Any:
    """The value that a JSON text stands for; a field that an object has twice is an error."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _TwiceNamed as error:
        raise InputError(f"{where}: the object has the field '{error}' twice") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg} at character {error.pos + 1}): {text[:60]!r}") from None


def _from_objects(where: str, unit: str, numbers: list[int], items: list[Any]) -> Table:
    """A table of dictionaries that all have the fields of the first one."""
    for number, item in zip(numbers, items, strict=True):
        if not isinstance(item, dict):
            raise InputError(
                f"{where}, {unit} {number}: expected an object such as "
                f'{{"text": "…", "label": "…"}}, got {json.dumps(item)[:60]}'
            )
    # fields may be left out where they are empty, so every field of any row is a column; absent is None
    columns = tuple(dict.fromkeys(name for item in items for name in item))
    return Table(where, columns, [[item.get(name) for name in columns] for item in items], numbers, unit)


def _read_jsonl(path: Path, reading: Reading) -> Table:
    lines = _text_of(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    items = [parse_json(f"{path}, line {number}", line) for number, line in filled]
    table = _from_objects(str(path), "line", [number for number, _ in filled], items)
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
    """A table of equally long columns."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise InputError(f"{where}: the columns have different lengths: {found}")
    rows: list[Sequence[Any]] = list(zip(*columns.values(), strict=True))
    return Table(where, tuple(columns), rows, range(1, len(rows) + 1), unit)


def _read_parquet(path: Path, reading: Reading) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = check_columns(f"{path}, schema", file.schema_arrow.names)
            content = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    columns = {name: content.column(index).to_pylist() for index, name in enumerate(names)}
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
