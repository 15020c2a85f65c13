"""Thousands of malformed requests to a measuring service, and answers of one: accepted, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fuzzing import examples, mutated, mutated_bytes
from hypothesis import given

from limbeck.core.measurement import environment
from limbeck.errors import InputError, LimbeckError
from limbeck.measure.machine_state import Conditions
from limbeck.measure.service.graph_check import check_graph
from limbeck.measure.service.request import TimingAnswer, parse

pytestmark = pytest.mark.fuzz

BATCH = {"input_ids": [[1, 5, 2], [1, 2, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]]}
REQUESTS = [
    {"inputs": [[BATCH], [BATCH]], "threads": 2, "rounds": 3, "warmup": 0, "runtime": "openvino"},
    {"inputs": [[{**BATCH, "token_type_ids": [[0, 0, 0], [0, 0, 1]]}] * 3]},
]
CONDITIONS = Conditions((0.1, 0.2), (2000.0, 1990.0), 0.1, 0.05, 3.0, (1,))
ANSWER = json.loads(json.dumps(TimingAnswer(np.ones((2, 3, 2)), [3.0, 4.0], environment(), CONDITIONS).to_json()))


def test_requests(rule):
    @examples(2000)
    @given(mutated(REQUESTS))
    def check(data):
        with rule.check():
            request = parse(json.dumps(data))
            assert parse(json.dumps(request.to_json())) == request

    check()


def test_texts_of_requests(rule):
    @examples(2000)
    @given(mutated_bytes([json.dumps(request).encode() for request in REQUESTS]))
    def check(raw):
        with rule.check():
            parse(raw.decode("utf-8", "surrogateescape"))

    check()


def test_answers(rule):
    @examples(2000)
    @given(mutated([ANSWER]))
    def check(data):
        with rule.check():
            answer = TimingAnswer.from_json(data, (2, 3, 2))
            assert answer.seconds.shape == (2, 3, 2)

    check()


def test_graphs(rule, make_model, tmp_path_factory):
    """What other exceptions the parser has, the process that checks turns into one refusal; it must not crash."""
    from limbeck.core.shape import Shape
    from limbeck.model.onnx.onnx_model import to_onnx

    model = make_model(Shape.uniform(1, 8, 1, 8))
    folder = tmp_path_factory.mktemp("graphs")
    corpus = [to_onnx(model, folder / f"{fused}.onnx", fused=fused).read_bytes() for fused in (True, False)]

    @examples(2000)
    @given(mutated_bytes(corpus))
    def check(raw):
        Path("graph.onnx").write_bytes(raw)
        with rule.check():
            try:
                check_graph(Path("graph.onnx"), 1)
            except LimbeckError:
                raise
            except Exception as error:
                raise InputError(type(error).__name__) from error

    check()
