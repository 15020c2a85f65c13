"""Files of every format become the same table, and a broken one says where it is broken."""

from __future__ import annotations

import csv
import json
import os

import pytest

from limbeck.data.readers import Reading, read_table
from limbeck.errors import InputError

ROWS = [("good film", "up"), ("bad film", "down"), ('a "quoted", odd one', "up"), ("é 漢", "down")]


def test_every_format_gives_the_same_table(tmp_path):
    import pyarrow
    import pyarrow.parquet

    objects = [{"text": text, "label": label} for text, label in ROWS]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *ROWS])
    tsv = "\n".join("\t".join(row) for row in [("text", "label"), *ROWS])
    (tmp_path / "a.tsv").write_text(tsv, encoding="utf-8")
    lines = "".join(json.dumps(each) + "\n" for each in objects)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(objects))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": objects}))
    columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    (tmp_path / "c.json").write_text(json.dumps(columns))
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "b.json", "c.json", "a.parquet"):
        table = read_table(tmp_path / name)
        assert table.columns == ("text", "label"), name
        assert [tuple(row) for row in table.rows] == ROWS, name


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "END"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_line_ends_byte_order_marks_and_the_last_line(tmp_path, ends, last, mark, suffix):
    comma = "," if suffix == ".csv" else "\t"
    lines = [comma.join(row) for row in [("text", "label"), ("one", "a"), ("two", "b")]]
    path = tmp_path / f"x{suffix}"
    path.write_bytes((mark + ends.join(lines) + (ends if last else "")).encode())
    table = read_table(path)
    assert (table.columns, [list(row) for row in table.rows]) == (("text", "label"), [["one", "a"], ["two", "b"]])
    assert [table.at(row) for row in range(2)] == [f"{path}, line 2", f"{path}, line 3"]


def test_rows_keep_their_line_numbers_over_quoted_line_breaks_and_blank_lines(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('text,label\n"two\nlines",a\n\nplain,b\n\n\n')
    table = read_table(path)
    assert list(table.numbers) == [2, 5]
    assert table.rows[0][0] == "two\nlines"
    assert table.notes == ["1 blank line skipped"]


def test_quotes_in_tsv_are_text(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"open\tup\n5" disc\tdown\n')
    assert [row[0] for row in read_table(path).rows] == ['"open', '5" disc']


def test_line_separators_of_unicode_are_text(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\na\u2028b\x85c\x0cd\tup\n", encoding="utf-8")
    assert read_table(path).rows[0][0] == "a\u2028b\x85c\x0cd"


def test_long_fields(tmp_path):
    limit = csv.field_size_limit()
    path = tmp_path / "x.csv"
    path.write_text(f"text,label\n{'long ' * 60_000},a\n")
    assert len(read_table(path).rows[0][0]) == 300_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        ("text\tlabel\na\tx\nb\ty\n", ("text", "label")),
        ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tx\n", ("index", "sentence1", "sentence2", "label")),
        ("Utterance\tIntent\na b\tx\nc d\ty\n", ("Utterance", "Intent")),
        ("phrase\tstars\na b\t2.5\nc d\t3\n", ("phrase", "stars")),
        ("phrase\tmood\na b\tx\nc d\ty\ne f\tx\ng h\ty\n", ("phrase", "mood")),
        ("good film\tup\nbad film\tdown\nfine\tup\n", ("0", "1")),
        ("fine\tup\ngood film\tup\nbad film\tdown\n", ("0", "1")),
        ("hello\tgreet\nbye now\tleave\nwhat\task\n", ("0", "1")),
        ("good\t1\nbad\t0\n", ("0", "1")),
        ("text\tlabel\n", ("text", "label")),
    ],
)
def test_a_header_is_recognized(tmp_path, lines, columns):
    path = tmp_path / "x.tsv"
    path.write_text(lines)
    if lines.count("\n") == 1:
        with pytest.raises(InputError, match="no rows"):
            read_table(path)
    else:
        assert read_table(path).columns == columns


def test_what_is_said_of_the_header_is_obeyed(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\na\tx\n")
    assert len(read_table(path, Reading(header=False)).rows) == 2
    path.write_text("first row\tx\nsecond row\tx\n")
    assert read_table(path, Reading(header=True)).columns == ("first row", "x")
    assert read_table(path, Reading(names=frozenset({"first row"}))).columns == ("first row", "x")


def test_other_splits_follow_the_header_of_train(tmp_path):
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("text\tlabel\na\tx\nb\ty\n")
    test.write_text("c\tx\nd\tx\n")
    like = Reading(like=read_table(train))
    table = read_table(test, like)
    assert (table.columns, len(table.rows)) == (("text", "label"), 2)
    train.write_text("a b\tx\nb c\tx\n")
    test.write_text("text\tlabel\nd e\tx\n")  # without a header in train, this is a row
    assert len(read_table(test, Reading(like=read_table(train))).rows) == 2


def test_conll(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("-DOCSTART- -X- O\n\nAnna NNP B-PER\nsleeps VBZ O\n\n\nOslo NNP B-LOC")
    table = read_table(path)
    assert table.columns == ("0", "1", "2")
    assert [row[0] for row in table.rows] == [("Anna", "sleeps"), ("Oslo",)]
    assert [row[2] for row in table.rows] == [("B-PER", "O"), ("B-LOC",)]
    assert list(table.numbers) == [3, 7]
    assert table.notes == ["1 -DOCSTART- line skipped"]


BROKEN = {
    "latin1.csv": (b"text,label\ngood,a\ncaf\xe9,b\n", r"line 3: byte 0xe9 at offset 21 is not UTF-8.*'café,b'"),
    "utf16.csv": ("text,label\n".encode("utf-16"), "line 1: byte 0xff at offset 0.*UTF-16"),
    "twice.csv": (b"text,label,text\na,b,c\n", r"line 1: the header has 'text' twice \(columns 1 and 3\)"),
    "empty.csv": (b"", "no rows"),
    "blank.tsv": (b"\n \n\n", "no rows"),
    "header.csv": (b"text,label\n", "no rows"),
    "empty.jsonl": (b"", "no rows"),
    "empty.json": (b"[]", "no rows"),
    "empty.conll": (b"\n\n", "no rows"),
    "fields.tsv": (b"text\tlabel\na\tx\nb\n", r"line 3: 1 field, but line 1 has 2; the line begins 'b'"),
    "fields.csv": (b"text,label\na,x\nb,c,y\n", r"line 3: 3 fields, but line 1 has 2; the line begins 'b,c,y'"),
    "open.csv": (b'text,label\na,x\n"b,y\nc,z\n', "line 3: a quotation mark opens here and never closes.*twice"),
    "after.csv": (b'text,label\na,x\n"b" c,y\n', "line 3: .*expected after"),
    "semicolon.csv": (b"text;label\na, b;x\n", r'line 2: 2 fields, but line 1 has 1.*set delimiter: ";"'),
    "broken.jsonl": (b'{"text": "a", "label": 1}\n{"text": \n', r"line 2: not valid JSON \(.*\): '\{\"text\": '"),
    "list.jsonl": (b'{"text": "a"}\n["b"]\n', r'line 2: expected an object .*got \["b"\]'),
    "twice.jsonl": (b'{"text": "a", "text": "b"}\n', "line 1: the object has the field 'text' twice"),
    "scalar.json": (b'"x"', "expected a list of objects"),
    "item.json": (b'[{"text": "a"}, 3]', "item 2: expected an object"),
    "ragged.json": (b'{"text": ["a", "b"], "label": [1]}', "different lengths: 'text' 2, 'label' 1"),
    "broken.parquet": (b"PAR1 no", "not a readable Parquet file"),
    "short.conll": (b"Anna B\nsleeps\n", "line 2: 1 field, expected 2"),
    "sheet.xlsx": (b"", r"no reader for '.xlsx' files; choose from '.bio', .*'.conll', .*'.csv'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files_name_the_nearest(tmp_path):
    (tmp_path / "train.csv").write_text("x")
    with pytest.raises(InputError, match=r"trian.csv: there is no such file; did you mean 'train.csv'\?"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(InputError, match="nor a folder"):
        read_table(tmp_path / "none" / "train.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"text": "a", "label": ' + "9" * 5000 + "}]"])
def test_json_that_python_cannot_hold_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="not readable JSON"):
        read_table(tmp_path / "a.json")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name, message in (("pipe.csv", "is a named pipe"), ("zero.csv", "is a device")):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)


def test_parquet_with_text_that_is_no_utf_8_is_one_clear_error(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xb2")]
    )
    pyarrow.parquet.write_table(pa.table({"text": broken, "label": [0, 1]}), tmp_path / "data.parquet")
    with pytest.raises(InputError, match=r"data\.parquet: not a readable Parquet file"):
        read_table(tmp_path / "data.parquet")
