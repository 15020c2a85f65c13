from __future__ import annotations

import json

import pytest

from limbeck.core.requests import requests_of
from limbeck.data.loading import load_task, task_from_lists
from limbeck.data.readers import table_of_columns
from limbeck.data.requests import expand_triples
from limbeck.errors import InputError

ROWS = [(f"query {q}", f"document {d} of {q}", float((q + d) % 3)) for q in range(10) for d in range(4)]


def of_lists(rows, **options):
    return task_from_lists("t", train=tuple(map(list, zip(*rows, strict=True))), kind="rerank", **options)


def by_query(split):
    return {
        split.texts[rows[0]]: {split.pairs[row]: split.labels[row][1] for row in rows}
        for rows in requests_of(split.labels)
    }


def test_scored_pairs_become_requests_whatever_their_order():
    task = of_lists(ROWS[::-1])
    gains = by_query(task.split("train")) | by_query(task.split("validation"))
    assert gains == {f"query {q}": {d: gain for query, d, gain in ROWS if query == f"query {q}"} for q in range(10)}
    for split in task.splits.values():  # documents of a query are neighbors
        queries = [label[0] for label in split.labels]
        assert queries == sorted(queries)
    assert not set(by_query(task.split("train"))) & set(by_query(task.split("validation")))


def test_columns_query_document_and_score_are_found(tmp_path):
    lines = [json.dumps(dict(zip(("query", "document", "score"), row, strict=True))) for row in ROWS]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    task = load_task({"path": str(tmp_path), "kind": "rerank"})
    assert (task.kind, task.metric, task.columns.roles) == (
        "rerank",
        "ndcg_at_10",
        {"text": "query", "pair": "document"},
    )


def test_triples_are_pairs_of_scores_1_and_0(tmp_path):
    rows = [(f"q{i}", f"good {i}", f"bad {i}", f"worse {i}") for i in range(6)] + [("q0", "good 0", "other", "bad 0")]
    columns = dict(
        zip(("query", "positive", "negative_1", "negative_2"), map(list, zip(*rows, strict=True)), strict=True)
    )
    table = expand_triples(table_of_columns("here", columns))
    assert table.columns == ("query", "document", "score")
    assert table.rows[:3] == [("q0", "good 0", 1), ("q0", "bad 0", 0), ("q0", "worse 0", 0)]
    assert table.at(4) == "here, row 2"
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    task = load_task({"path": str(tmp_path), "kind": "rerank"})
    gains = by_query(task.split("train")) | by_query(task.split("validation"))
    assert gains["q0"] == {"good 0": 1.0, "bad 0": 0.0, "worse 0": 0.0, "other": 0.0}
    assert any("2 repeats of a document for the same query" in note for note in task.notes)


def test_the_order_of_documents_does_not_betray_their_scores():
    best_first = [(f"q{q}", f"d{q}-{d}", float(d < 3)) for q in range(200) for d in range(12)]
    task = of_lists(best_first)
    from limbeck.data.baseline import baseline

    assert baseline(task).quality["validation"].value < 0.65
    assert baseline(task).answer == "always the given order"


def test_limits_keep_whole_requests():
    task = of_lists(ROWS)
    assert len(task.limit(train=7).split("train")) == 4
    assert len(task.limit(train=1).split("train")) == 4
    assert len(task.limit(train=8).split("train")) == 8


def test_what_no_ranking_can_be_learned_from_is_refused():
    with pytest.raises(InputError, match="no query has documents with different scores"):
        of_lists([(query, document, 1.0) for query, document, _ in ROWS])
    with pytest.raises(InputError, match="a query and a document in each row"):
        task_from_lists("t", train=([text for text, _, _ in ROWS], [score for _, _, score in ROWS]), kind="rerank")
    with pytest.raises(InputError, match="single query"):
        of_lists([("q", document, score) for _, document, score in ROWS])
