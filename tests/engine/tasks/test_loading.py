"""Tasks whose first stage is an embedding model."""

from __future__ import annotations

import json

import pytest

import limbeck
from limbeck.core.requests import requests_of
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.tasks import loading as tasks
from limbeck.model.checkpoints import save_model


@pytest.fixture
def spec(make_model, tmp_path, monkeypatch):
    """A search where every query is the text of a document and of a few words more."""
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))
    task = toy_task("classification", train=20)
    tokenizer = toy_tokenizer(task)
    save_model(make_model(kind="embedding", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    texts = list(dict.fromkeys(task.split("train").texts))
    for name, rows in (("corpus", texts), ("queries", [f"{text} {text}" for text in texts])):
        lines = [json.dumps({"_id": f"{name}{number}", "text": text}) for number, text in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    judgments = [f"queries{number}\tcorpus{number}\t1" for number in range(len(texts))]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judgments]))
    return {"path": str(tmp_path), "kind": "rerank", "first_stage": str(tmp_path / "model"), "candidates": 3}


@pytest.mark.parametrize("load", [tasks.load_task, tasks.as_task, limbeck.load_task])
def test_a_model_finds_the_documents(spec, load):
    rows = load(spec).split("test")
    assert {len(request) for request in requests_of(rows.labels)} == {3}


def test_a_model_finds_the_documents_to_evaluate_on(spec):
    task, split = tasks.load_judged(spec)
    assert {len(request) for request in requests_of(task.split(split).labels)} == {3}
