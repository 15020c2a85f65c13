import json
import time

import pytest

from limbeck.core import digests
from limbeck.core.task import Split, Task
from limbeck.data.corpus import documents
from limbeck.data.corpus.documents import (
    ExclusionFilter,
    ReadCounts,
    Source,
    file_texts,
    normal,
    task_documents,
    task_texts,
)
from limbeck.data.synthetic import toy_task
from limbeck.errors import InputError


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(*paths, **options):
    return list(Source(paths, **options).documents())


def test_blank_lines_stand_between_documents(tmp_path):
    path = written(tmp_path, "a.txt", "\ufeff\n\n one two \r\nthree\n \t\n\nfour")
    assert read(path) == [["one two", "three"], ["four"]]


ROWS = [{"id": 1, "text": "one\n\ntwo"}, {"id": 2, "text": " "}, {"id": 3, "text": None}, {"id": 4, "text": "three"}]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv", "tsv"])
def test_a_row_is_a_document_whose_lines_are_sentences(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.parquet

    path, expected = tmp_path / f"a.{suffix}", [["one", "two"], ["three"]]
    if suffix == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == "json":
        path.write_text(json.dumps(ROWS))
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif suffix == "csv":
        path.write_text('id,text\n1,"one\n\ntwo"\n2, \n4,three\n')
    else:
        path.write_text("id\ttext\n1\tone\n2\t \n4\tthree\n")
        expected = [["one"], ["three"]]
    assert read(str(path)) == expected
    assert read(str(path), column="text") == expected
    with pytest.raises(InputError, match=r"no column 'txt'; did you mean 'text'\?"):
        read(str(path), column="txt")


def test_a_column_may_be_a_number(tmp_path):
    """Also where the first row has that number in it, and is no header for that."""
    plain = written(tmp_path, "a.tsv", "a good film\t0\na bad film\t1\n")
    headed = written(tmp_path, "b.csv", "label,text\n0,fine\n")
    assert read(plain, column="0") == [["a good film"], ["a bad film"]]
    assert read(headed, column="1") == [["fine"]]
    with pytest.raises(InputError, match="no column '2'; choose from 'label', 'text'"):
        read(headed, column="2")


def test_a_column_is_not_guessed(tmp_path):
    """A customary name or the only column there is, and what was read is told."""
    for name, content in (("a.tsv", "1\tgood\n2\tbad\n"), ("a.jsonl", '{"id": "7", "body": "good"}')):
        path = written(tmp_path, name, content)
        with pytest.raises(InputError, match=r"line 1: it is unclear which 1 column to read; set column; there are '"):
            read(path)
    seen = ReadCounts()
    only, other = written(tmp_path, "b.jsonl", '{"body": "good"}'), written(tmp_path, "c.csv", "id,Text\n1,fine\n")
    assert list(Source((only, other)).documents(seen)) == [["good"], ["fine"]]
    assert seen.columns == {"body", "Text"}


def test_rows_without_text_are_counted(tmp_path):
    rows = [{"id": 1, "text": "one"}, {"id": 2}, {"id": 3, "text": None}, {"id": 4, "text": ""}]
    path, seen = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), ReadCounts()
    assert list(Source((path,)).documents(seen)) == [["one"]]
    assert seen.textless == 2


def test_text_without_blank_lines_comes_in_pieces_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_SENTENCES", 3)
    path = written(tmp_path, "a.txt", "1\n2\n3\n4\n5\n\n6\n7\n8\n\n9\n")
    assert read(path) == [["1", "2", "3"], ["4", "5"], ["6", "7", "8"], ["9"]]
    endless = written(tmp_path, "b.txt", b"1\n2\n3\n\xff\n")  # the first piece comes before the fault is met
    assert next(Source((endless,)).documents()) == ["1", "2", "3"]


def test_a_folder_stands_for_its_files_in_order(tmp_path):
    for name, text in (("b.txt", "two"), ("a.jsonl", '{"text": "one"}'), ("notes.md", "no"), ("README", "no")):
        written(tmp_path, name, text)
    assert read(str(tmp_path)) == [["one"], ["two"]]


BROKEN = {
    "missing": ("corpus.txt", None, r"no such file; did you mean 'corpsu.txt'\?"),
    "not utf-8": ("a.txt", b"good\nbad \xff\n", "a.txt, line 2: byte 0xff at position 5 of the line is not UTF-8"),
    "json": ("a.jsonl", '{"text": "a"}\n{"text', "a.jsonl, line 2: not valid JSON"),
    "no object": ("a.jsonl", "[1]", "line 1: expected an object"),
    "no text": ("a.jsonl", '{"text": 3}', "line 1: column 'text' should be text, got 3 of type int"),
    "half a pair": ("a.jsonl", '{"text": "\\ud800"}', "half of a UTF-16 pair"),
    "parquet": ("a.parquet", b"PAR1", "not a readable Parquet file"),
    "tfrecord": ("a.tfrecord", b"x", "TFRecord files are not read"),
    "strange": ("a.pdf", b"x", "no reader for '.pdf' files"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_told(tmp_path, case):
    name, content, message = BROKEN[case]
    written(tmp_path, "corpsu.txt", "x")
    path = str(tmp_path / name) if content is None else written(tmp_path, name, content)
    with pytest.raises(InputError, match=message):
        read(path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no file with text in this folder"):
        read(str(tmp_path))


def test_a_data_set_is_streamed(monkeypatch):
    import datasets

    calls = []

    def load(name, config, **options):
        calls.append((name, config, options))
        return iter([{"text": "one\ntwo"}, {"text": "three"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read("owner/name", config="c", split="train[:1%]") == [["one", "two"], ["three"]]
    assert calls == [("owner/name", "c", {"split": "train[:1%]", "streaming": True})]
    assert Source(("owner/name",)).fingerprint() != Source(("owner/name",), split="test").fingerprint()


def test_a_data_set_that_cannot_be_had(monkeypatch):
    import datasets

    def load(*names, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match="the data set 'nobody/nothing' cannot be loaded: ConnectionError: no network"):
        read("nobody/nothing")


def test_the_fingerprint_is_of_the_content(tmp_path):
    first, second = (written(tmp_path, name, "one\ntwo\n") for name in ("a.txt", "b.txt"))
    assert Source((first,)).fingerprint() == Source((second,)).fingerprint()
    assert Source((first,)).fingerprint() != Source((first, second)).fingerprint()
    before = Source((first,)).fingerprint()
    written(tmp_path, "a.txt", "one\ntwo!\n")
    assert Source((first,)).fingerprint() != before


def test_the_texts_of_a_task():
    pairs = Split(("a\nb", "c"), (0, 1), ("d", "e"))
    task = Task("t", "classification", {"train": pairs, "test": pairs}, ("x", "y"), "accuracy")
    assert list(task_documents(task)) == [["a", "b", "d"], ["c", "e"]]
    assert list(task_texts(task, ("validation", "test"))) == ["a\nb", "c", "d", "e"]
    words = toy_task("tokens", train=2, validation=1, test=1)
    assert list(task_documents(words)) == [[" ".join(text)] for text in words.split("train").texts]


def test_excluded_texts_go_wherever_they_stand(tmp_path):
    table = written(tmp_path, "test.tsv", "Bad , bad film .\t0\nIt 's fine\t1\n")
    plain = written(tmp_path, "test.txt", "first line\nsecond line\n")
    banned = frozenset(map(normal, file_texts((table, plain))))
    excluded = ExclusionFilter(banned)
    given = [
        ["Bad, bad film.", "good"],
        ["It's\tfine"],
        ["first line", "kept"],
        ["FIRST LINE!", "second  line"],  # the document as a whole, and its lines
        ["first line second line, and more"],
        ["bad film"],
    ]
    expected = [["good"], ["kept"], ["first line second line, and more"], ["bad film"]]
    assert list(excluded.filter(given)) == expected
    assert excluded.removed == 4


def test_excluded_sentences_go_within_and_across_lines():
    excluded = ExclusionFilter(frozenset(map(normal, ["A bad film .", "It was fine", ":-)"])))
    given = [
        ["He came. A bad  film. He left.", "All was well."],
        ["He came. It", "was fine! He left."],
        ["Look", ":-)"],
        ["Not a bad film. It was fine, too."],
    ]
    expected = [["He came.", "He left.", "All was well."], ["He came.", "He left."], ["Look"], given[3]]
    assert list(excluded.filter(given)) == expected
    assert excluded.removed == 3


def test_documents_as_a_whole_are_compared_up_to_the_longest_excluded_text():
    excluded = ExclusionFilter(frozenset({"ab"}))
    assert excluded.longest == 2
    assert list(excluded.filter([["a", "b"], ["a", "b", "c"]])) == [["a", "b", "c"]]


def test_only_files_have_texts_to_exclude(tmp_path):
    """A name, or a path that is written wrong, is no reason to exclude nothing."""
    for name in ("sst2", "owner/test"):
        with pytest.raises(InputError, match=f"{name}: there is no such file"):
            list(file_texts((name,)))


def test_texts_without_letters_are_compared_as_they_stand():
    assert normal(" : - ) ") == ": - )" != normal(":(")


def test_big_files_are_hashed_once(tmp_path, monkeypatch):
    path = written(tmp_path, "a.txt", "one")
    later = time.time_ns() + 10 * digests.RESOLUTION_NS  # a file just written might change without a new time
    monkeypatch.setattr(time, "time_ns", lambda: later)
    before = Source((path,)).fingerprint()
    monkeypatch.setattr(documents.hashlib, "file_digest", None)
    assert Source((path,)).fingerprint() == before
