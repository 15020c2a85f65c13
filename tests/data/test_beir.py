from __future__ import annotations

import json

import pytest

from limbeck.data.beir import is_beir, read_beir
from limbeck.errors import InputError

DOCUMENTS = [{"_id": "d1", "title": "Wings", "text": "of birds"}, {"_id": "d2", "text": "of planes"}, {"_id": "d3"}]
QUERIES = [{"_id": "q1", "text": "what flies"}, {"_id": "q2", "text": "never judged"}]


@pytest.fixture
def folder(tmp_path):
    for name, records in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t3\nq1\td2\t0\n")
    return tmp_path


def test_a_folder_is_read(folder):
    assert is_beir(folder)
    task = read_beir(folder)
    assert task.documents == {"d1": "Wings of birds", "d2": "of planes", "d3": ""}
    assert task.queries == {"q1": "what flies"}
    assert task.judgments == {"q1": {"d1": 3.0, "d2": 0.0}}
    assert task.relevant("q1") == {"d1"}
    assert task.binary().judgments["q1"] == {"d1": 1.0, "d2": 0.0}


def test_judgments_may_lie_in_a_folder(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "dev.tsv")
    assert read_beir(folder, "dev").queries.keys() == {"q1"}
    with pytest.raises(InputError, match=r"neither qrels.tsv nor qrels/test.tsv; .*'dev'"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("corpus.jsonl", '{"text": "no id"}', 'line 4: expected an object with "_id"'),
        ("corpus.jsonl", '{"_id": "d1"}', "line 4: the _id 'd1' occurs before"),
        ("queries.jsonl", '{"_id": "q3", "text": 3}', "line 3: title and text should be text"),
        ("queries.jsonl", "{", "line 3"),
        ("qrels.tsv", "q1\td9\t1", r"line 4: corpus.jsonl has no _id 'd9'; .*'d1'"),
        ("qrels.tsv", "q1\td1\t1", "line 4: query 'q1' and document 'd1' were judged before"),
        ("qrels.tsv", "q1 d1 1", "line 4: expected query, document and score"),
        ("qrels.tsv", "q1\td3\tnan", "line 4: the score should be a number, got 'nan'"),
    ],
)
def test_a_bad_line_is_named(folder, file, line, message):
    with open(folder / file, "a") as out:
        out.write(line + "\n")
    with pytest.raises(InputError, match=f"{file}, {message}"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("key", "text", "gain", "itself"),
    [
        ("d1", "wings,  of BIRDS", 0, "d1"),
        ("d1", "of birds", 0, "d1"),  # the document has a title before it
        ("d1", "of fish", 0, None),  # numbered independently
        ("d1", "wings", 0, None),  # the document only mentions it
        ("d1", "of birds", 1, None),  # judged relevant to itself
        ("d9", "of birds", 0, None),
    ],
)
def test_a_document_is_the_query_if_id_and_text_are_the_same(folder, key, text, gain, itself):
    (folder / "queries.jsonl").write_text(json.dumps({"_id": key, "text": text}))
    (folder / "qrels.tsv").write_text(f"{key}\td1\t{gain}\n{key}\td2\t1\n")
    assert read_beir(folder).itself(key) == itself


def test_what_is_missing_is_named(folder):
    (folder / "queries.jsonl").unlink()
    assert not is_beir(folder)
    with pytest.raises(InputError, match=r"there is no queries\.jsonl"):
        read_beir(folder)


def test_a_file_without_a_header_loses_no_judgment(folder):
    (folder / "qrels.tsv").write_text("q1\td1\t3\n")
    assert read_beir(folder).judgments == {"q1": {"d1": 3.0}}
    (folder / "qrels.tsv").write_text("q1\t0\td1\t3\n")
    with pytest.raises(InputError, match="line 1: expected query, document and score"):
        read_beir(folder)


def test_two_places_of_judgments_are_refused(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("q1\td2\t1\n")
    with pytest.raises(InputError, match=r"has qrels.tsv and judgments in qrels/ \(dev\); keep one"):
        read_beir(folder, "dev")
