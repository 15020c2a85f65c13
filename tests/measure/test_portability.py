from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from limbeck.core.requests import requests_of
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task
from limbeck.measure.portability import Portability, agreement, compared_rows
from limbeck.model.onnx.onnx_model import INT8_FILE, OnnxModel, answer, open_session, read_parts, write
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
from limbeck.model.onnx.vnni_emulation import saturating


@pytest.fixture
def quantized(exported):
    """The exported candidate in INT8, with weights of 7 or 8 bits."""

    def make(reduce_range):
        parts = read_parts(exported.model.path)
        int8 = Int8(frozenset(quantizable_modules(*parts)), reduce_range=reduce_range)
        write(quantize(*parts, int8), exported.folder / INT8_FILE)
        return replace(exported, model=OnnxModel(exported.folder, INT8_FILE, exported.model.config))

    return make


def measure(candidates, target=None, **options):
    probe = Portability(**options)
    return list(probe.measure(candidates, RestrictedContext(RunContext(target=target or Target()), probe.info)))


def test_only_int8_candidates_get_a_fact(candidate, exported, quantized):
    ((index, fact),) = measure([candidate, exported, quantized(False)], samples=4)
    assert (index, fact.name, fact.unit, fact.n, fact.split) == (2, "portability", "1", 4, "validation")


def test_seven_bits_are_safe_and_nothing_is_read(quantized):
    candidate = replace(quantized(True), tokenizer=None)
    ((_, fact),) = measure([candidate], split="test")
    assert (fact.value, fact.low, fact.high, fact.n, fact.split) == (1.0, 1.0, 1.0, None, "test")
    assert fact.detail == {"pairs": 0}


@pytest.mark.parametrize("batch", [1, 8])
def test_the_full_range_is_compared_text_by_text(quantized, batch):
    candidate = quantized(False)
    ((_, fact),) = measure([candidate], Target(batch=batch), samples=40)
    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    graph, pairs = saturating(onnx.load(str(candidate.model.path)))

    class Opened:
        int8 = True

        def __init__(self, source):
            self.session = open_session(source, exact=True)

        def predict(self, batch):
            return answer(self.session, batch)

    emulated, other = (predict(Opened(source), encoded, batch) for source in (candidate.model.path, graph))
    assert fact.detail["pairs"] == pairs > 0
    assert fact.detail["differ"] == (emulated.argmax(-1) != other.argmax(-1)).sum()
    assert fact.detail["largest"] == pytest.approx(np.abs(emulated - other).max())
    assert fact.detail["largest"] > 0
    assert fact.value == 1 - fact.detail["differ"] / 40
    assert fact.low < fact.value <= fact.high


def test_requests_are_compared_whole():
    task = toy_task("rerank", train=20, validation=120)
    requests = requests_of(task.split("validation").labels)
    assert len(requests) > 2
    most = max(map(len, requests))
    rows = set(compared_rows(task, "validation", 2 * most))
    assert len(rows) <= 2 * most
    assert [len(rows & set(request)) for request in requests if rows & set(request)] == [
        len(request) for request in requests if rows & set(request)
    ]
    assert len(compared_rows(toy_task(train=20, validation=30), "validation", 7)) == 7


@pytest.mark.parametrize("static", [False, True])
def test_standard_operators_are_compared_as_the_fused_ones_are(exported, quantized, static):
    parts = read_parts(exported.model.path)
    names = quantizable_modules(*parts)
    ranges = dict.fromkeys(names, (-8.0, 8.0)) if static else {}
    standard = quantize(
        replace(parts[0], fused=False), parts[1], Int8(frozenset(names), reduce_range=False, ranges=ranges)
    )
    fused = quantize(*parts, Int8(frozenset(names), reduce_range=False, ranges=ranges))
    facts = []
    for graph in (standard, fused):
        write(graph, exported.folder / INT8_FILE)
        candidate = replace(exported, model=OnnxModel(exported.folder, INT8_FILE, exported.model.config))
        ((_, fact),) = measure([candidate], samples=20)
        facts.append((fact.value, fact.detail["pairs"]))
    assert facts[0] == facts[1]
    assert facts[0][1] > 0


def test_it_changes_nothing_of_the_file(quantized):
    candidate = quantized(False)
    before = candidate.model.path.read_bytes()
    assert measure([candidate], samples=4) == measure([candidate], samples=4)
    assert candidate.model.path.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "first", "second", "labels", "same"),
    [
        ("classification", [[2, 1], [0, 1]], [[2, 1.5], [1, 0]], [0, 1], [True, False]),
        ("multilabel", [[-1, 1], [1, -1]], [[-1, 1.5], [1, 1]], [(0, 1), (1, 0)], [True, False]),
        ("regression", [[0.5], [1.0]], [[0.5], [2.0]], [0.5, 1.0], [True, False]),
        (
            "tokens",
            [[[1, 0], [1, 0], [0, 9]], [[0, 1]]],
            [[[1, 0], [1, 0], [9.5, 9]], [[1, 0]]],
            [[0, 1, -100], [1]],
            [True, False],
        ),
    ],
)
def test_an_answer_stays_if_all_of_it_does(kind, first, second, labels, same):
    logits = [[np.array(row, dtype=float) for row in rows] for rows in (first, second)]
    agreeing_share, largest = agreement(kind, *logits, labels)
    assert agreeing_share.tolist() == same
    assert largest == max(np.abs(a - b).max() for a, b in zip(*logits, strict=True))


def test_a_large_graph_is_compared_as_a_small_one(quantized, monkeypatch):
    small = measure([quantized(False)], samples=20)
    monkeypatch.setattr("limbeck.model.external.LIMIT", 10_000)
    candidate = quantized(False)
    assert candidate.model.path.with_name(f"{candidate.model.path.name}_data").is_file()
    assert measure([candidate], samples=20) == small
