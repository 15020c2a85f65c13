from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from noting_models import NotingInt8

from limbeck.core.candidate import Candidate, Reference
from limbeck.core.requests import requests_of
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure import requests
from limbeck.measure.latency import Latency
from limbeck.measure.quality import Quality
from limbeck.measure.requests import (
    SubBatches,
    best_sub_batches,
    calls_of,
    request_tokens,
    sample_requests,
    served_batches,
    sorted_parts,
)
from limbeck.techniques.export import Export


@pytest.fixture(scope="module")
def reranker(make_model):
    task = toy_task("rerank", train=60, validation=45, test=45)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(labels=1, kind="rerank", vocab_size=len(tokenizer)), tokenizer, task)


def context(step, **options):
    return RestrictedContext(RunContext(**options), step.info)


def test_a_request_has_exactly_its_candidates(reranker):
    rows = reranker.task.split("test").labels
    for candidates in (5, 30):
        chosen = sample_requests(reranker.task, "test", candidates, count=2)
        assert [len(request) for request in chosen] == [candidates] * 2
        for request in chosen:
            own = next(group for group in requests_of(rows) if request[0] in group)
            assert request[: min(5, len(own))] == own[: min(5, len(own))]
    assert len(sample_requests(reranker.task, "test", 5, count=99)) == len(requests_of(rows))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_document_is_in_one_sub_batch_with_others_of_its_length(size):
    lengths = np.random.default_rng(0).integers(3, 60, 23)
    parts = sorted_parts(lengths, size)
    assert sorted(row for part in parts for row in part) == list(range(23))
    flat = [lengths[row] for part in parts for row in part]
    assert flat == sorted(flat)
    assert max(map(len, parts)) <= size
    padded = sum(len(part) * max(lengths[part]) for part in parts)
    assert sum(lengths) <= padded <= 23 * max(lengths)
    assert size != 1 or padded == sum(lengths)


def test_calls_hold_the_tokens_of_the_documents_padded_to_each_part(reranker):
    chosen = sample_requests(reranker.task, "test", 7, count=2)
    tokens = request_tokens(reranker.task, "test", chosen, reranker.tokenizer)
    for call, request in zip(calls_of(tokens, 3, pad=0, types=True), tokens, strict=True):
        assert [len(batch["input_ids"]) for batch in call] == [3, 3, 1]
        real = [
            [token for token, is_token in zip(ids, mask, strict=True) if is_token]
            for batch in call
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        assert sorted(real) == sorted(request)
        assert len({len(ids) for ids in call[0]["input_ids"]}) == 1


def test_served_batches_answer_as_one_by_one(reranker):
    encoded = encode(reranker.task, "test", reranker.tokenizer)
    batches = served_batches(encoded, 4)
    for batch in batches:
        assert len({encoded.labels[row][0] for row in batch}) == 1
    together = predict(reranker.model, encoded, None, batches)
    np.testing.assert_allclose(together, predict(reranker.model, encoded, 1), atol=1e-5)


def test_the_fastest_size_is_taken_and_measured_once(reranker, monkeypatch):
    def pretended(function, payload, threads, *, pinned):
        counts = [len(inputs[0]) for inputs in payload["inputs"]]
        assert counts == [12, 6, 3, 2, 1]  # sub-batches of 1, 2, 4, 8 and 12
        return {"seconds": np.array([5.0, 4.0, 2.0, 3.0, 6.0])}

    monkeypatch.setattr("limbeck.measure.isolation.run_isolated", pretended)
    cache = {}

    def memo(name, build):
        if name not in cache:
            cache[name] = build()
        return cache[name]

    target = Target(candidates=12)
    assert best_sub_batches(reranker, target, memo) == SubBatches(4, 3.0)
    monkeypatch.setattr(requests, "_measure", lambda *_: pytest.fail("measured again"))
    assert best_sub_batches(reranker, target, memo) == SubBatches(4, 3.0)
    assert best_sub_batches(reranker, replace(target, batch=6), memo) == SubBatches(6)
    with pytest.raises(BaseException, match="measured again"):
        best_sub_batches(reranker, replace(target, threads=2), memo)


@pytest.mark.usefixtures("in_process")
def test_a_request_is_timed_in_one_call(reranker, tmp_path):
    (exported,) = Export().apply(reranker, RunContext(scratch=tmp_path))
    probe = Latency.of(samples=4, rounds=2)
    measured_facts = list(probe.measure([reranker, exported], context(probe, target=Target(candidates=6))))
    facts = {(index, fact.name): fact for index, fact in measured_facts}
    for index in range(2):
        fact = facts[index, "latency_p50"]
        assert fact.target == "onnxruntime, 1 thread, requests of 6 documents, real lengths"
        assert fact.detail["sub_batch"] in (1, 2, 4, 6)
        assert fact.detail["over_one_batch"] > 0
        assert fact.detail["mean_tokens"] > 6 * 5
        assert fact.n == 2 * 3  # of all three requests, in two rounds


def test_int8_is_judged_in_the_sub_batches_it_is_served_in(reranker, monkeypatch):
    monkeypatch.setattr(requests, "best_sub_batches", lambda *_: SubBatches(4, 1.5))
    recorded = NotingInt8(reranker.model)
    probe = Quality(split="test")
    services = {"target": Target(candidates=6), "reference": Reference("key", 0)}
    measured_facts = list(probe.measure([reranker, replace(reranker, model=recorded)], context(probe, **services)))
    encoded = encode(reranker.task, "test", reranker.tokenizer)
    assert recorded.calls == served_batches(encoded, 4)
    facts = {(index, fact.name): fact for index, fact in measured_facts}
    assert facts[1, "quality"].detail["batch"] == 4
    assert facts[1, "quality"].n == len(requests_of(encoded.labels))
    assert facts[1, "overlap_at_10"].value == 1
    assert facts[1, "overlap_at_10"].detail["reference"] == "key"
    assert "flips" not in {name for _, name in facts}


def test_requests_are_for_rerankers(candidate):
    probe = Latency()
    with pytest.raises(InputError, match="this task is a classification"):
        list(probe.measure([candidate], context(probe, target=Target(candidates=6))))
