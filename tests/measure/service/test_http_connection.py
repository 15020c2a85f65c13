"""The way to a measuring service over HTTP; what it answers is read in test_client.py."""

from __future__ import annotations

import httpx2
import pytest

from limbeck.errors import ServiceError
from limbeck.measure.service.http_connection import CONNECT_SECONDS, HttpConnection
from limbeck.measure.service.options import TOKEN

URL = "http://board:8765"


def connection(requests, answer=b"{}"):
    def handle(request):
        requests.append(request)
        return httpx2.Response(200, content=answer)

    return HttpConnection(URL, httpx2.MockTransport(handle))


def test_only_the_token_of_the_environment_is_sent(monkeypatch):
    requests = []
    monkeypatch.delenv(TOKEN, raising=False)
    connection(requests).health()
    monkeypatch.setenv(TOKEN, "s" * 20)
    connection(requests).health()
    assert [request.headers.get("authorization") for request in requests] == [None, f"Bearer {'s' * 20}"]


def test_the_patience_is_that_of_all_who_wait(tmp_path):
    requests, graph = [], tmp_path / "model.onnx"
    graph.write_bytes(b"graph")
    connection(requests).measure("{}", [graph], {"limits": {"seconds": 60}, "waiting": 3})
    timeout = requests[0].extensions["timeout"]
    assert (timeout["read"], timeout["connect"]) == (5 * 2 * (60 + CONNECT_SECONDS), CONNECT_SECONDS)
    assert b'filename="0.onnx"' in requests[0].read()


def test_nobody_listens():
    with pytest.raises(ServiceError, match="cannot be reached"):
        HttpConnection("http://127.0.0.1:9").health()
