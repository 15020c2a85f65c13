"""The service in this process: who is admitted, what is refused, and that one measures at a time."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from limbeck.core.measurement import environment, machine
from limbeck.errors import LimbeckError
from limbeck.measure.machine_state import Conditions
from limbeck.measure.service import app as service
from limbeck.measure.service.app import Line, MeasuringService
from limbeck.measure.service.options import ServiceOptions
from limbeck.measure.service.request import TimingAnswer

TOKEN = "0123456789abcdef"
BATCH = {"input_ids": [[1, 5, 2]], "attention_mask": [[1, 1, 1]]}
REQUEST = {"inputs": [[BATCH]], "rounds": 3, "warmup": 0}


@pytest.fixture
def measured(monkeypatch):
    """The requests that would be measured, without measuring."""
    requests = []

    def measure(request, graphs, alone, seconds):
        requests.append((request, [path.read_bytes() for path in graphs], seconds))
        shape = (len(graphs), request.rounds, len(request.inputs[0]))
        return TimingAnswer(np.full(shape, 1e-3), [3.0] * shape[0], environment(), Conditions((0.1, 0.2)))

    monkeypatch.setattr(service, "measure", measure)
    return requests


def client(token=TOKEN, given=None, alone=nullcontext, **options):
    given = token if given is None else given
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    app = MeasuringService(ServiceOptions(**options), token, alone).app()
    return TestClient(app, headers=headers, base_url="http://localhost:8765")


def form(request=REQUEST, graphs=(b"graph",)):
    text = request if isinstance(request, str) else json.dumps(request)
    return {
        "data": {"request": text},
        "files": [("graph", (f"../../{index}.onnx", content)) for index, content in enumerate(graphs)],
    }


def refusal(response):
    return response.status_code, response.json()["error"]


def test_graphs_come_as_they_were_sent_in_their_order(measured):
    request = {**REQUEST, "inputs": [[BATCH], [BATCH]]}
    answer = client(max_seconds=7).post("/measure", **form(request, [b"one", bytes(3_000_000)]))
    assert answer.status_code == 200, answer.text
    ((parsed, graphs, seconds),) = measured
    assert (graphs, seconds, parsed.rounds) == ([b"one", bytes(3_000_000)], 7.0, 3)
    plain = answer.json()
    assert plain["graphs"][0]["p50"] == pytest.approx([1e-3] * 3)
    assert plain["machine"] == machine()
    assert TimingAnswer.from_json(plain, (2, 3, 1)).conditions.load == (0.1, 0.2)


def test_health_has_the_machine_and_the_limits():
    plain = client(max_mb=5).get("/health").json()
    assert plain["environment"] == json.loads(json.dumps(environment()))
    assert plain["machine"] == machine()
    assert plain["limits"]["bytes"] == 5_000_000
    assert "onnxruntime" in plain["runtimes"]
    assert (plain["busy"], plain["waiting"]) == (False, 0)


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
@pytest.mark.parametrize("path", ["/health", "/measure"])
def test_without_the_token_nothing_is_said_or_read(measured, given, path):
    http = client(given=given)
    answer = http.get(path) if path == "/health" else http.post(path, **form())
    assert refusal(answer) == (401, "the token is missing or wrong")
    assert not measured


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_without_a_token_no_page_of_a_browser_may_ask(measured, headers):
    assert client(token="").get("/health").status_code == 200
    answer = client(token="").post("/measure", headers=headers, **form())
    assert answer.status_code == 403
    assert not measured


def test_an_oversized_body_is_refused_before_it_is_read(measured):
    http = client(max_mb=1)
    assert refusal(http.post("/measure", **form(graphs=[bytes(2_000_000)])))[0] == 413

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    declared = {**kind, "Content-Length": "2000000000"}
    assert refusal(http.post("/measure", content=b"", headers=declared)) == (
        413,
        "the request is larger than 1 MB, the limit of this service",
    )


def test_a_body_without_a_length_is_counted(measured):
    head = b'--x\r\nContent-Disposition: form-data; name="graph"; filename="a"\r\n\r\n'

    def pieces():
        yield head
        for _ in range(30):
            yield bytes(100_000)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client(max_mb=1).post("/measure", content=pieces(), headers=kind)
    assert refusal(answer)[0] == 413
    assert not measured


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"json": REQUEST}, 415, "multipart/form-data"),
        ({"data": {"request": "{}"}}, 415, "multipart/form-data"),
        ({"files": [("graph", b"x")]}, 422, "'request' is missing"),
        ({"files": [("request", b"x"), ("graph", b"x")]}, 422, "'request' is missing"),
        ({"data": {"request": "{}"}, "files": [("model", b"x")]}, 422, "no field 'model'"),
        ({"data": {"request": "{}", "graph": "x"}, "files": [("graph", b"x")]}, 400, "Too many fields"),
        ({"data": {"request": "{}"}, "files": [("graph", b"x")] * 65}, 400, "Too many files"),
        (form({}), 422, "inputs: "),
        (form("no json"), 422, "request: invalid JSON"),
        (form({**REQUEST, "inputs": [[{**BATCH, "input_ids": [[1, -5, 2]]}]]}), 422, "got -5"),
    ],
)
def test_a_malformed_form_is_refused(measured, body, status, message):
    answered, reason = refusal(client().post("/measure", **body))
    assert answered == status
    assert message in reason
    assert not measured


def test_other_paths_and_methods_are_refused():
    assert client().get("/").status_code == 404
    assert client().get("/measure").status_code == 405


@pytest.mark.slow
def test_a_real_session_and_what_it_refuses(graph):
    """Through the processes that check and time."""
    content = graph.read_bytes()
    inside = []

    @contextmanager
    def alone():
        inside.append("in")
        yield
        inside.append("out")

    http = client(alone=alone)
    answer = http.post("/measure", **form({**REQUEST, "inputs": [[BATCH], [BATCH]]}, [content, content]))
    assert answer.status_code == 200, answer.text
    assert np.asarray(answer.json()["seconds"]).shape == (2, 3, 1)
    assert inside == ["in", "out"]

    beyond = {**REQUEST, "inputs": [[{**BATCH, "input_ids": [[1, 44_000, 2]]}]]}
    status, message = refusal(http.post("/measure", **form(beyond, [content])))
    assert status == 422
    assert message.startswith("graph 0: its vocabulary has")
    status, message = refusal(http.post("/measure", **form(REQUEST, [content[:-100]])))
    assert (status, "ONNX" in message) == (422, True)
    assert refusal(http.post("/measure", **form(REQUEST, [content, content])))[1] == (
        "inputs: are for 1 graphs, and 2 graphs came"
    )
    long = {**REQUEST, "inputs": [[{"input_ids": [[1] * 2000], "attention_mask": [[1] * 2000]}]]}
    status, message = refusal(http.post("/measure", **form(long, [content])))
    assert status == 422
    assert message.startswith("onnxruntime cannot run these graphs")


def test_one_measures_at_a_time_and_only_so_many_wait():
    async def work():
        line, order, release = Line(capacity=1), [], asyncio.Event()

        async def measure(name):
            async with line.turn():
                order.append(name)
                await release.wait()

        first = asyncio.create_task(measure("first"))
        await asyncio.sleep(0)
        second = asyncio.create_task(measure("second"))
        await asyncio.sleep(0)
        assert (order, line.waiting) == (["first"], 1)
        with pytest.raises(HTTPException) as refused:
            await measure("third")
        assert refused.value.status_code == 429
        release.set()
        await asyncio.gather(first, second)
        assert order == ["first", "second"]
        assert (line.waiting, line.lock.locked()) == (0, False)

    asyncio.run(work())


def test_a_cancelled_wait_leaves_the_line():
    async def work():
        line = Line(capacity=1)
        async with line.turn():
            waiting = asyncio.create_task(line.turn().__aenter__())
            await asyncio.sleep(0)
            assert line.waiting == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert line.waiting == 0
        async with line.turn():
            pass

    asyncio.run(work())


def test_what_kills_a_measurement_is_one_line_without_paths(monkeypatch, capsys):
    def fail(*given):
        raise LimbeckError("session failed in its own process (killed by signal 9):\nTraceback\n  /home/me/file.py")

    monkeypatch.setattr(service, "measure", fail)
    answered = refusal(client().post("/measure", **form()))
    assert answered == (422, "the measurement failed: session failed in its own process (killed by signal 9)")
    assert "/home/me/file.py" in capsys.readouterr().err
