"""Requests: what is accepted, and each malformed one refused with the place and the value."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from limbeck.core.measurement import environment, machine
from limbeck.errors import InputError
from limbeck.measure.machine_state import Conditions
from limbeck.measure.service.request import MAX_TOKENS, TimingAnswer, TimingRequest, parse
from limbeck.measure.timing import Timing

CONDITIONS = Conditions((0.5, 0.6), (3000.0, 2900.0), 0.1, 0.05, 12.0, (3,))
BATCH = {"input_ids": [[1, 5, 2], [1, 2, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]]}


def text(**changes):
    return json.dumps({"inputs": [[BATCH]], **changes})


def batch(**changes):
    return text(inputs=[[{**BATCH, **changes}]])


def test_a_request_is_read_as_it_was_written():
    request = parse(text(threads=2, rounds=3, warmup=0, runtime="openvino"))
    assert (request.threads, request.rounds, request.warmup, request.runtime) == (2, 3, 0, "openvino")
    assert request.to_json()["inputs"] == [[BATCH]]
    assert parse(json.dumps(request.to_json())) == request
    assert request.largest_ids == [5]
    assert isinstance(request, TimingRequest)
    assert asdict(parse(text())) == asdict(TimingRequest([[request.inputs[0][0]]]))


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        ("{", "request: invalid JSON"),
        ("[" * 100_000, "request: invalid JSON"),
        ('{"inputs": ' + "9" * 10_000 + "}", "request: invalid JSON: number out of range"),
        ("[]", "request: .*got"),
        ("{}", "inputs: .*required"),
        (text(inputs=[]), "inputs: .*at least 1"),
        (text(inputs=[[]]), "inputs.0: .*at least 1"),
        (text(inputs=[[BATCH]] * 65), "inputs: .*at most 64"),
        (text(inputs=[[BATCH], [BATCH, BATCH]]), "as many batches, got 1 and 2"),
        (text(path="/etc/passwd"), "path: unexpected"),
        (text(threads=0), "threads: .*greater than or equal to 1, got 0"),
        (text(threads="2"), "threads: .*valid integer, got '2'"),
        (text(threads=True), "threads: .*valid integer"),
        (text(rounds=1e9), "rounds: "),
        (text(rounds=10_000, inputs=[[BATCH] * 100]), "rounds: 1,000,100 calls"),
        (text(warmup=-1), "warmup: "),
        (text(runtime="torch"), "runtime: .*'onnxruntime' or 'openvino', got 'torch'"),
        (batch(input_ids=[[1, -1, 2], [1, 2, 0]]), "input_ids.0.1: .*greater than or equal to 0, got -1"),
        (batch(input_ids=[[1, 2.5, 2], [1, 2, 0]]), "input_ids.0.1: .*integer, got 2.5"),
        (batch(input_ids=[[1, 2.0, 2], [1, 2, 0]]), "input_ids.0.1: .*integer, got 2.0"),
        (batch(input_ids=[[1, None, 2], [1, 2, 0]]), "input_ids.0.1: .*integer, got None"),
        (batch(input_ids=[[1, 2**40, 2], [1, 2, 0]]), "input_ids.0.1: .*less than or equal"),
        (batch(input_ids=[[1, 2], [1, 2, 0]]), "padded to one length, got 2 and 3"),
        (batch(input_ids=[[]]), "input_ids.0: .*at least 1"),
        (batch(input_ids=[[1] * (MAX_TOKENS + 1)]), f"input_ids.0: .*at most {MAX_TOKENS}"),
        (batch(attention_mask=[[1, 1, 1]]), "attention_mask: should have as many rows"),
        (batch(attention_mask=[[1, 1, 2], [1, 1, 0]]), "zeros and ones, got 2"),
        (batch(token_type_ids=[[0, 0, 0], [0, 0]]), "token_type_ids: should have as many rows"),
        (text(inputs=[[{"input_ids": [[1]]}]]), "attention_mask: .*required"),
        (batch(pixel_values=[[1]]), "pixel_values: unexpected"),
    ],
)
def test_a_malformed_request_is_refused(malformed, message):
    with pytest.raises(InputError, match=message) as refused:
        parse(malformed)
    assert len(str(refused.value)) < 800


def test_an_answer_is_read_as_it_was_written():
    seconds = np.random.default_rng(0).uniform(1e-3, 2e-3, (2, 5, 3))
    answer = TimingAnswer(seconds, [3.0, 4.0], environment(), CONDITIONS)
    plain = json.loads(json.dumps(answer.to_json()))
    read = TimingAnswer.from_json(plain, (2, 5, 3))
    assert np.array_equal(read.seconds, seconds)
    assert (read.mean_tokens, read.conditions) == ([3.0, 4.0], CONDITIONS)
    assert plain["machine"] == machine()
    assert plain["graphs"][1]["p50"] == pytest.approx(Timing(seconds[1]).p50)
    assert plain["graphs"][0]["p95"][0] == pytest.approx(np.quantile(seconds[0], 0.95))


def test_an_older_service_says_only_its_load():
    plain = TimingAnswer(np.ones((1, 1, 1)), [3.0], environment(), CONDITIONS).to_json()
    del plain["conditions"]
    read = TimingAnswer.from_json(plain, (1, 1, 1))
    assert read.conditions.to_json() == {"load": [0.5, 0.6]}
    assert read.conditions.warning(1) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": [[[1.0]]]},
        {"seconds": "much"},
        {"seconds": [[[-1.0] * 3] * 5] * 2},
        {"seconds": [[[float("nan")] * 3] * 5] * 2},
        {"load": [1]},
        {"conditions": {"taken": "much"}},
        {"conditions": {"others": float("inf")}},
        {"conditions": []},
        {"environment": {}},
        {"graphs": None},
    ],
)
def test_another_answer_is_refused(changes):
    answer = TimingAnswer(np.ones((2, 5, 3)), [3.0, 4.0], environment(), CONDITIONS)
    with pytest.raises(InputError, match="no measurement"):
        TimingAnswer.from_json(answer.to_json() | changes, (2, 5, 3))
