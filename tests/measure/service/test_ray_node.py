"""What a measuring node does, in this process."""

from __future__ import annotations

import json

import pytest

from limbeck.measure.service.ray_node import health, measured

BATCH = {"input_ids": [[1, 5, 2]], "attention_mask": [[1, 1, 1]]}
REQUEST = json.dumps({"inputs": [[BATCH]], "rounds": 2, "warmup": 0})


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path / "store"))


@pytest.mark.slow
def test_it_answers_as_the_service_does(graph, tmp_path):
    assert health()["service"] == "limbeck"
    answer = json.loads(json.dumps(measured(REQUEST, [graph.read_bytes()])))
    assert len(answer["seconds"][0]) == 2
    assert answer["conditions"]["load"] == answer["load"]
    assert list((tmp_path / "store" / "locks").glob("machine-*.lock"))  # it was alone


def test_what_is_no_graph_is_refused():
    assert "not" in measured(REQUEST, [b"nothing"])["refused"]
    assert measured("{}", [])["refused"].startswith("inputs: ")
