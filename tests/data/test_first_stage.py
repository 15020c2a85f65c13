from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest

from limbeck.data import first_stage
from limbeck.data.beir import Retrieval
from limbeck.data.first_stage import candidates_of, check_first_stage
from limbeck.errors import InputError, MissingExtra

DOCUMENTS = {
    "a": "lift of a wing in a slipstream",
    "b": "heat transfer in laminar pipe flow",
    "c": "wing flutter and wing lift at high speed",
    "d": "",
    "e": "boundary layer transition on a flat plate",
    "f": "buckling of thin shells",
}
RETRIEVAL = Retrieval(DOCUMENTS, {"1": "lift on a wing", "2": "heat flow"}, {"1": {"a": 1.0}, "2": {"b": 1.0}})


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))


def bm25(query, documents, k1=1.5, b=0.75):
    """BM25 word by word, with Lucene's idf."""
    words = {key: re.findall(r"\w\w+", text.lower()) for key, text in documents.items() if text}
    stop = {"of", "in", "and", "at", "on", "the"}
    words = {key: [word for word in own if word not in stop] for key, own in words.items()}
    mean = sum(map(len, words.values())) / len(words)
    scores = {}
    for key, own in words.items():
        counts, scores[key] = Counter(own), 0.0
        for word in re.findall(r"\w\w+", query.lower()):
            holding = sum(word in other for other in words.values())
            if word in stop or not holding:
                continue
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            scores[key] += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(own) / mean))
    return scores


def test_bm25_finds_what_the_formula_ranks_first():
    pytest.importorskip("bm25s")
    ranked = candidates_of(RETRIEVAL, "bm25", 2)
    for query, text in RETRIEVAL.queries.items():
        scores = bm25(text, DOCUMENTS)
        best = sorted(scores, key=lambda key: -scores[key])[:2]
        assert [key for key in ranked[query] if scores[key]] == [key for key in best if scores[key]]
    assert all("d" not in keys for keys in candidates_of(RETRIEVAL, "bm25", 50).values())  # it has no text


@pytest.mark.parametrize("first_stage", ["bm25", "run.txt"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_query_that_is_a_document_is_no_candidate_of_its_own(tmp_path, first_stage, count):
    pytest.importorskip("bm25s")
    queries = {"a": DOCUMENTS["a"], "c": "wing flutter", "f": "lift of a wing"}
    retrieval = Retrieval(DOCUMENTS, queries, {"a": {"c": 1.0}, "c": {"c": 1.0}, "f": {"a": 1.0}})
    scores = {"a": "ac", "c": "ca", "f": "acf"}
    lines = [f"{query}\t{key}\t{-rank}" for query, keys in scores.items() for rank, key in enumerate(keys)]
    (tmp_path / "run.txt").write_text("\n".join(lines))
    ranked = candidates_of(retrieval, first_stage, count, tmp_path)
    assert "a" not in ranked["a"]
    assert [keys[0] for keys in ranked.values()] == ["c", "c", "a"]
    most = {"bm25": {"a": 4, "c": 5, "f": 5}, "run.txt": {"a": 1, "c": 2, "f": 3}}[first_stage]
    assert {query: len(keys) for query, keys in ranked.items()} == {key: min(count, own) for key, own in most.items()}


def test_results_are_kept_and_damaged_ones_are_made_again(tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    first = candidates_of(RETRIEVAL, "bm25", 3)
    (path,) = (tmp_path / "store-first-stage").iterdir()
    monkeypatch.setattr(first_stage, "_bm25", lambda *_: pytest.fail("searched again"))
    assert candidates_of(RETRIEVAL, "bm25", 3) == first
    monkeypatch.undo()
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))
    other_forms = ({"1": 5, "2": []}, {"1": first["1"]}, {**first, "1": ["x"]}, {**first, "1": [["a"]]}, [], None)
    for damaged in ("{", "\ufffe", *map(json.dumps, other_forms)):
        path.write_text(damaged)
        assert candidates_of(RETRIEVAL, "bm25", 3) == first


def test_documents_without_words_are_refused():
    pytest.importorskip("bm25s")
    with pytest.raises(InputError, match="no document has a word"):
        candidates_of(replace(RETRIEVAL, documents={"a": "the of", "b": "?"}), "bm25", 2)


@pytest.mark.parametrize("form", ["{q}\t{d}\t{s}", "{q} Q0 {d} 1 {s} mine"])
def test_results_of_another_program_are_read(tmp_path, form):
    scores = {("1", "c"): 0.5, ("1", "a"): 2.5, ("1", "f"): -1, ("2", "b"): 1, ("2", "d"): 9}
    lines = [form.format(q=q, d=d, s=s) for (q, d), s in scores.items()]
    (tmp_path / "run.txt").write_text("\n".join(lines))
    assert candidates_of(RETRIEVAL, "run.txt", 2, tmp_path) == {"1": ["a", "c"], "2": ["b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\ta", "line 1: expected query, document and score"),
        ("1\tx\t3", "line 1: there is no document 'x'"),
        ("query document score\n1\ta\tmuch", "line 2: the score should be a number, got 'much'"),
        ("1\ta\t3", "no results for 1 queries, the first is '2'"),
    ],
)
def test_bad_results_are_named(tmp_path, content, message):
    (tmp_path / "run.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        candidates_of(RETRIEVAL, "run.tsv", 2, tmp_path)


def test_a_missing_library_is_named(monkeypatch):
    def absent(name):
        raise first_stage.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(first_stage.metadata, "version", absent)
    with pytest.raises(MissingExtra, match=re.escape("limbeck[rerank]")):
        check_first_stage("bm25")


def test_a_missing_model_is_named(tmp_path):
    (tmp_path / "somewhere").mkdir()
    with pytest.raises(InputError, match=r"'first_stage': should be bm25.*no such file; did you mean 'somewhere'\?"):
        check_first_stage(str(tmp_path / "somewere"))
    check_first_stage("owner/name")  # only the hub can know it
    check_first_stage(str(tmp_path / "somewhere"))


def test_a_model_needs_what_ranks_by_it(tmp_path):
    (tmp_path / "model").mkdir()
    rank = lambda model, documents, queries, count: [list(range(count))[::-1]] * len(queries)  # noqa: E731
    assert candidates_of(RETRIEVAL, "model", 2, tmp_path, rank) == {"1": ["b", "a"], "2": ["b", "a"]}
    with pytest.raises(InputError, match=r"'model' is taken as a model, which limbeck\.load_task opens"):
        candidates_of(RETRIEVAL, "model", 2, tmp_path)
