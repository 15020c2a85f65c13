"""The command that measures for other machines, and the option that names it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import pytest
import yaml
from commands import answer, call, recipe
from measuring_service import TOKEN, running_service


def test_help_lists_its_options():
    status, out, _ = call("measure", "serve", "--help")
    assert status == 0
    options = {"--host", "--port", "--token-file", "--tls-cert", "--tls-key", "--max-mb", "--max-seconds", "--queue"}
    assert options <= set(re.findall(r"--[a-z-]+", out))
    status, out, _ = call("measure", "--help")
    assert (status, "over HTTP" in out) == (0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "0.0.0.0"), "a token is needed; set LIMBECK_TOKEN or give --token-file"),
        (("--port", "70000"), "--port should be in [1, 65,535], got 70000"),
        (("--max-mb", "0"), "--max-mb should be in [1, 100,000], got 0"),
        (("--queue", "-1"), "--queue should be in [0, 1,000], got -1"),
        (("--tls-cert", "cert.pem"), "--tls-cert and --tls-key belong together"),
        (("--token-file", "none"), "--token-file none: cannot be read"),
    ],
)
def test_wrong_options_are_refused_before_it_listens(monkeypatch, options, message):
    monkeypatch.delenv("LIMBECK_TOKEN", raising=False)
    with mock.patch("limbeck.measure.service.server.serve", side_effect=AssertionError("listens")):
        status, out, err = call("measure", "serve", *options)
    assert (status, message in " ".join((out + err).split())) == (2, True), out + err


def test_it_listens_alone_on_the_machine_of_its_store(tmp_path):
    with mock.patch("limbeck.measure.service.server.serve") as serve:
        status, _, err = call("measure", "serve", "--port", "8001", "--store", tmp_path / "store")
    assert status == 0, err
    options, alone = serve.call_args.args
    assert (options.host, options.port) == ("127.0.0.1", 8001)
    with alone():
        assert list((tmp_path / "store").rglob("machine-*.lock"))


@pytest.mark.parametrize("command", ["run", "compress"])
def test_a_target_that_is_no_address_is_refused(command):
    recipe("there.yaml", {"export": {}}, "latency")
    words = ["there.yaml"] if command == "run" else ["tuned", "--task", "moods", "--profile", "machine.jsonl"]
    status, _, err = call(command, *words, "--target", "board")
    assert (status, "url: should be http://HOST:PORT" in err) == (2, True), err


def test_a_target_that_does_not_answer_is_refused_before_any_work(tmp_path):
    recipe("there.yaml", {"finetune": {"epochs": 1}}, {"export": {}}, "latency")
    options = ("--target", "http://127.0.0.1:9", "--folder", tmp_path / "run")
    status, _, err = call("run", "there.yaml", *options)
    assert (status, "cannot be reached" in err, Path(tmp_path / "run").exists()) == (2, True, False), err


def test_compress_for_another_machine_needs_its_latency_data(tmp_path):
    common = ("tuned", "--task", "moods", "--folder", tmp_path / "run")
    status, _, err = call("compress", *common, "--target", "http://board:8765")
    assert (status, "limbeck profile --full --out machine.jsonl' there" in err) == (2, True), err
    status, _, err = call("compress", *common, "--profile", "machine.jsonl")
    assert (status, "need target" in err) == (2, True), err


@pytest.mark.slow
def test_a_run_measures_at_its_target_and_again_only_what_is_new(tmp_path, monkeypatch):
    """Exported, quantized and torch candidates, all timed by the service; a lost service ends the run."""
    monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
    fork = {"fork": [[], [{"export": {}}], [{"export": {}}, {"quantize": {}}]]}
    recipe("there.yaml", fork, "quality", {"latency": {"samples": 8, "rounds": 5}}, {"best": {}})
    folder = ("--folder", tmp_path / "run")
    with running_service(tmp_path) as url:
        result = answer("run", "there.yaml", "--target", url, *folder)
        where = url.partition("//")[2]
        assert result["target"] == f"onnxruntime, 1 thread, batch 1, real lengths, at {where}"
        events = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
        facts = [fact for event in events if event["event"] == "facts" for fact in event["facts"]]
        times = [fact for fact in facts if fact["name"] == "latency_p50"]
        assert len(times) == 3
        assert {fact["target"] for fact in times} == {result["target"]}
        runtimes = {fact["detail"]["runtime"].partition(", ")[2].partition(" of ")[0] for fact in times}
        assert runtimes == {"export", "model.onnx", "model_quantized.onnx"}
        assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["target"]["url"] == url

        with mock.patch("limbeck.measure.service.client.Service.time", side_effect=AssertionError("measured again")):
            again = answer("run", "there.yaml", "--target", url, "--folder", tmp_path / "again")
        assert [row["key"] for row in again["rows"]] == [row["key"] for row in result["rows"]]
    status, _, err = call("run", "there.yaml", "--target", url, *folder)
    assert (status, "cannot be reached" in err) == (2, True), err


@pytest.mark.slow
def test_compress_finds_a_model_for_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
    shapes = (
        "--model",
        "tuned",
        "--samples",
        "20",
        "--seq-len",
        "8",
        "--number-format",
        "int8",
        "--ffn",
        "1",
        "32",
        "1",
    )
    status, _, err = call("profile", "--full", *shapes, "--out", tmp_path / "machine.jsonl")
    assert status == 0, err
    options = ("--task", "moods", "--effort", "one-shot", "--max-drop", "60", "--folder", tmp_path / "run")
    with (
        running_service(tmp_path) as url,
        mock.patch("limbeck.engine.planning.compress.faster_runtime", side_effect=OSError),
    ):
        there = ("--target", url, "--profile", tmp_path / "machine.jsonl")
        result = answer("compress", "tuned", *options, *there, statuses=(0, 1))
    assert result["chosen"]
    assert result["target"].endswith(f", at {url.partition('//')[2]}")
    steps = str(yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["steps"])
    assert steps.count("machine.jsonl") == steps.count("'prune'") > 0
    assert not list((tmp_path / "run").rglob("latency-table*"))
