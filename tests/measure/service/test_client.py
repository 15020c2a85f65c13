"""The client: facts like those of a local session, and one clear error for whatever goes wrong."""

from __future__ import annotations

import json

import httpx2
import numpy as np
import pytest

from limbeck.core.measurement import environment, machine
from limbeck.core.target import Target
from limbeck.errors import InputError, ServiceError
from limbeck.measure.machine_state import Conditions
from limbeck.measure.service.client import Service, check_service, machine_at
from limbeck.measure.service.http_connection import HttpConnection
from limbeck.measure.service.options import TOKEN
from limbeck.measure.service.ray_connection import RayConnection
from limbeck.measure.service.request import TimingAnswer

URL = "http://board:8765"
TARGET = Target(url=URL)
BATCH = {"input_ids": [[1, 5, 2]], "attention_mask": [[1, 1, 1]]}
HEALTH = {
    "service": "limbeck",
    "runtimes": ["onnxruntime"],
    "limits": {"bytes": 10_000_000, "seconds": 60, "graphs": 64},
    "environment": {**environment(), "processor": "Board", "cores": 4},
    "waiting": 0,
}


def answering(**changes):
    """A service whose answers are as given: (status, JSON) by path."""
    seconds = np.arange(1, 13).reshape(2, 3, 2) / 1e3
    timed = TimingAnswer(seconds, [3.0, 3.0], HEALTH["environment"], Conditions((0.1, 0.2))).to_json()
    answers = {"health": (200, HEALTH), "measure": (200, timed), **changes}
    requests = []

    def handle(request):
        request.read()
        requests.append(request)
        status, body = answers[request.url.path.strip("/").rpartition("/")[2]]
        if isinstance(body, Exception):
            raise body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx2.Response(status, content=content)

    service = Service(URL, httpx2.MockTransport(handle))
    service.requests = requests
    return service


def time(service, tmp_path, target=TARGET, **changes):
    paths = []
    for name in ("a.onnx", "b.onnx"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(b"graph " + name.encode())
    options = {"rounds": 3, "warmup": 1, **changes}
    return service.time(paths, [[BATCH, BATCH]] * 2, target, **options)


def test_graphs_and_ids_are_sent_and_the_session_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "s" * 20)
    service = answering()
    answer = time(service, tmp_path)
    assert answer["seconds"].tolist() == (np.arange(1, 13).reshape(2, 3, 2) / 1e3).tolist()
    assert answer["words"] == ["onnxruntime, a.onnx", "onnxruntime, b.onnx"]
    assert (answer["machine"], answer["conditions"]["load"], answer["mean_tokens"]) == ("Board", [0.1, 0.2], [3.0, 3.0])
    post = service.requests[1]
    assert post.headers["authorization"] == "Bearer " + "s" * 20
    assert post.content.index(b"graph a.onnx") < post.content.index(b"graph b.onnx")
    assert str(tmp_path).encode() not in post.content
    assert b'"rounds": 3' in post.content


def test_facts_hold_for_the_machine_of_the_service():
    service = answering()
    assert machine_at(URL, service._transport) != machine()
    assert machine_at(URL, service._transport) == machine_at(URL, service._transport)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (401, {"error": "the token is missing or wrong"}),
            "wrong; set the environment variable LIMBECK_TOKEN",
        ),
        ((403, {"error": "without a token, only programs"}), "give the service a token"),
        ((404, b"Not Found"), "status 404; is it the address"),
        ((500, b"oops"), "status 500"),
        ((503, b"Service Unavailable"), "run again later"),
        ((307, b""), "status 307"),
        ((200, b"<html>"), "no JSON object"),
        ((200, []), "no JSON object"),
        ((200, {"service": "other"}), "is no measuring service"),
        ((200, {**HEALTH, "environment": {}}), "is no measuring service"),
        ((200, {**HEALTH, "limits": {"bytes": "many", "seconds": 1}}), "is no measuring service"),
        ((200, httpx2.ConnectError("refused")), "cannot be reached .refused.; is 'limbeck measure serve' running"),
        ((200, httpx2.ReadError("")), "cannot be reached .ReadError"),
        ((200, httpx2.ReadTimeout("")), "does not answer in time"),
    ],
)
def test_a_service_that_cannot_be_used_is_one_error(answer, message):
    with pytest.raises(ServiceError, match=message):
        answering(health=answer).check(TARGET)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((429, {"error": "busy: 8 requests wait already"}), ServiceError, "busy: 8 requests wait already; run again"),
        ((413, {"error": "is larger than 5 MB"}), InputError, "refuses this: is larger than 5 MB"),
        ((422, {"error": "graph 0: is not valid ONNX"}), InputError, "refuses this: graph 0: is not valid ONNX"),
        ((200, {"seconds": []}), ServiceError, "its answer is no measurement"),
    ],
)
def test_a_refused_session_is_one_error(tmp_path, answer, kind, message):
    with pytest.raises(InputError, match=message) as refused:
        time(answering(measure=answer), tmp_path)
    assert type(refused.value) is kind


def test_the_machine_may_not_change(tmp_path):
    seconds = np.ones((2, 3, 2))
    other = TimingAnswer(
        seconds, [3.0, 3.0], {**HEALTH["environment"], "processor": "Other"}, Conditions((0.1, 0.2))
    ).to_json()
    with pytest.raises(ServiceError, match="another machine than before"):
        time(answering(measure=(200, other)), tmp_path)


def test_the_next_run_of_this_process_takes_the_machine_that_is_there_now(tmp_path):
    health, environment = dict(HEALTH), {**HEALTH["environment"], "processor": "Other"}
    timed = TimingAnswer(np.ones((2, 3, 2)), [3.0, 3.0], environment, Conditions((0.1, 0.2))).to_json()
    service = answering(health=(200, health), measure=(200, timed))
    transport = service._transport
    check_service(TARGET, transport)
    before = machine_at(f"{URL}/", transport)
    health["environment"] = environment  # from now on
    with pytest.raises(ServiceError, match="another machine than before, or has other libraries; run again"):
        time(service, tmp_path)
    assert machine_at(URL, transport) == before  # facts of this run stay those of one machine
    check_service(TARGET, transport)
    assert machine_at(URL, transport) != before
    assert time(service, tmp_path)["machine"] == "Other"


def test_what_the_service_would_refuse_is_not_sent(tmp_path):
    service = answering(health=(200, {**HEALTH, "limits": {"bytes": 1000, "seconds": 60}}))
    with pytest.raises(InputError, match=r"more than http://board:8765 takes \(0 MB\); start it with --max-mb 1"):
        time(service, tmp_path)
    with pytest.raises(InputError, match="rounds: "):
        time(service, tmp_path, rounds=0)
    (tmp_path / "a.onnx_data").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.onnx: is above 2 GB"):
        time(answering(), tmp_path)
    assert [request.method for request in service.requests] == ["GET"]


def test_runtime_and_cores_are_those_of_the_service():
    with pytest.raises(ServiceError, match="no runtime 'openvino'; choose from 'onnxruntime'"):
        answering().check(Target(url=URL, runtime="openvino"))
    with pytest.raises(ServiceError, match="has 4 cores, got 5"):
        answering().check(Target(url=URL, threads=5))
    assert answering().check(TARGET)["environment"]["processor"] == "Board"
    check_service(Target())  # without a service, nothing is asked


def test_the_address_says_how_to_get_there():
    assert isinstance(Service(URL)._connection, HttpConnection)
    connection = Service("ray:limbeck_measure")._connection
    assert isinstance(connection, RayConnection)
    assert connection.resource == "limbeck_measure"
