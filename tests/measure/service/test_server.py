"""The service in a process of its own, as users start it."""

from __future__ import annotations

import sys

import pytest
from measuring_service import TOKEN, running_service

from limbeck.core.measurement import environment, machine
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.errors import InputError, MissingExtra, ServiceError
from limbeck.measure.latency import Latency
from limbeck.measure.service.client import Service, machine_at
from limbeck.measure.service.options import ServiceOptions
from limbeck.measure.service.server import serve
from limbeck.measure.throughput import Throughput


def test_what_is_missing_is_said_before_it_listens(monkeypatch):
    monkeypatch.delenv("LIMBECK_TOKEN", raising=False)
    with pytest.raises(InputError, match="a token is needed"):
        serve(ServiceOptions(host="0.0.0.0"), None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"limbeck\[serve\]"):
        serve(ServiceOptions(), None)


@pytest.mark.slow
def test_its_times_are_those_of_a_local_measurement(candidate, exported, tmp_path, monkeypatch):
    def p50s(target):
        context = RestrictedContext(RunContext(target=target), Latency.info)
        facts = list(Latency.of(samples=8, rounds=9).measure([candidate, exported], context))
        return {(index, fact.name): fact for index, fact in facts}

    with running_service(tmp_path) as url:
        monkeypatch.delenv("LIMBECK_TOKEN", raising=False)
        with pytest.raises(ServiceError, match="set the environment variable LIMBECK_TOKEN"):
            Service(url).health()
        monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
        target = Target(url=url)
        assert machine_at(url) == machine()
        there, here = p50s(target), p50s(Target())
        context = RestrictedContext(RunContext(target=target), Throughput.info)
        rates = [fact for _, fact in Throughput.of(samples=16, batch=4).measure([candidate, exported], context)]
    assert there.keys() == here.keys()
    exact = there[1, "latency_p50"]
    assert 0.5 < exact.value / here[1, "latency_p50"].value < 2
    assert (exact.n, exact.target) == (here[1, "latency_p50"].n, str(target))
    assert exact.detail["machine"] == environment()["processor"]
    assert exact.detail["runtime"] == "onnxruntime, model.onnx"
    assert exact.detail["mean_tokens"] == here[1, "latency_p50"].detail["mean_tokens"]
    for fact in (exact, here[1, "latency_p50"]):
        assert len(fact.detail["load"]) == 2
        assert fact.detail["others"] >= 0
    for rate in rates:
        assert (rate.value > 0, rate.n, rate.target) == (True, 16 * 5, str(Target(url=url, batch=4)))
        assert rate.detail["runtime"].startswith("onnxruntime, ")
        assert rate.detail["others"] >= 0
    # the torch model is measured as its export
    exported_there = there[0, "latency_p50"]
    assert exported_there.detail["runtime"].startswith("onnxruntime, export of Limbeck")
    assert 0.5 < exported_there.value / exact.value < 2
    assert there[1, "speedup"].detail["over"] == exported_there.detail["runtime"]


@pytest.mark.slow
def test_it_speaks_tls(tmp_path, monkeypatch):
    """A client trusts a certificate of one's own if SSL_CERT_FILE names it."""
    import subprocess

    files = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", files["cert"], "-keyout", files["key"]], check=True, capture_output=True)
    monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
    options = ("--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]))
    with running_service(tmp_path, *options, scheme="https", verify=False) as url:
        with pytest.raises(ServiceError, match=r"cannot be reached .*certificate"):
            Service(url).health()
        monkeypatch.setenv("SSL_CERT_FILE", str(files["cert"]))
        assert Service(url).health()["machine"] == machine()
