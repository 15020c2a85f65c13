"""Sessions of the service: the same code as the latency probe, in processes that may not run forever."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from limbeck.errors import InputError, LimbeckError, MissingExtra
from limbeck.measure.service.request import TimingRequest, TokenBatch
from limbeck.measure.service.timing_session import measure, session

BATCH = TokenBatch([[1, 5, 2]], [[1, 1, 1]])


def request(**changes):
    return TimingRequest([[BATCH, BATCH]], rounds=2, warmup=0, **changes)


def test_the_child_times_graphs_as_the_probe_does(graph):
    plain = {**request().to_json(), "files": [str(graph)]}
    answer = session(plain)
    assert answer["seconds"].shape == (1, 2, 2)
    assert (answer["seconds"] > 0).all()
    assert answer["mean_tokens"] == [3.0]


def test_a_file_that_cannot_be_opened_is_a_problem_without_its_path(tmp_path):
    (tmp_path / "0.onnx").write_bytes(b"nothing")
    problem = session({**request().to_json(), "files": [str(tmp_path / "0.onnx")]})["problem"]
    assert problem.startswith("onnxruntime cannot run these graphs")
    assert str(tmp_path) not in problem


def test_a_session_has_the_load_and_the_machine(graph):
    answer = measure(request(), [graph], nullcontext, 300)
    assert isinstance(answer.seconds, np.ndarray)
    assert answer.seconds.shape == (1, 2, 2)
    assert answer.environment["processor"]
    assert min(answer.conditions.load) >= 0
    assert answer.conditions.seconds > 0


def test_a_session_ends_when_its_time_is_over(graph):
    with pytest.raises(LimbeckError, match=r"took longer than 0\.05 seconds"):
        measure(request(), [graph], nullcontext, 0.05)


def test_what_does_not_fit_is_refused_before_a_process_starts(graph, monkeypatch):
    with pytest.raises(InputError, match="for 1 graphs, and 2 graphs came"):
        measure(request(), [graph, graph], nullcontext, 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra):
        measure(request(runtime="openvino"), [graph], nullcontext, 1)
