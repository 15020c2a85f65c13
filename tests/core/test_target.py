from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.core.target import Budget, Evidence, Target
from limbeck.errors import InputError


def test_target_says_where_in_words():
    assert str(Target(threads=2, batch=8, seq_len=128)) == "onnxruntime, 2 threads, batch 8, 128 tokens"
    assert str(Target(device="cuda", runtime="torch")).startswith("cuda, torch, 1 thread,")


def test_targets_differ_in_words_when_they_differ():
    targets = [Target(), Target(threads=2), Target(batch=2), Target(seq_len=64), Target(runtime="openvino")]
    assert len({str(target) for target in targets}) == len(targets)


@pytest.mark.parametrize(
    ("facts", "broken"),
    [
        ({"latency_p50": 0.002, "size": 10e6, "quality": 0.895}, []),
        ({"latency_p50": 0.0021, "size": 10e6, "quality": 0.895}, ["latency"]),
        ({"latency_p50": 0.003, "size": 11e6, "quality": 0.88}, ["latency", "size", "quality"]),
        ({}, []),
    ],
)
def test_violations_name_every_broken_limit(facts, broken):
    violations = Budget(latency_ms=2, size_mb=10, max_drop=1.0).violations(facts, reference_quality=0.9)
    assert [words.split()[0] for words in violations] == broken


def test_no_limit_and_no_reference_break_nothing():
    facts = {"latency_p50": 9.0, "size": 9e9, "quality": 0.0}
    assert Budget().violations(facts, 0.9) == []
    assert Budget(max_drop=1.0).violations(facts) == []


def test_excess_is_the_sum_of_shares_over_each_limit():
    budget = Budget(latency_ms=2.0, size_mb=1.0, max_drop=2.0)
    facts = {"latency_p50": 3e-3, "size": 0.5e6, "quality": 0.87}
    assert budget.excess(facts, 0.9) == pytest.approx(0.5 + 0.0 + (3 - 2) / 2)
    assert budget.excess(facts) == pytest.approx(0.5)
    assert budget.excess({**facts, "latency_p50": 2e-3}, 0.88) == pytest.approx(0.0)


def test_changed_answers_are_limited_in_per_cent():
    budget = Budget(max_flips=2.0)
    assert budget.violations({"flips": 0.02}) == []
    assert budget.violations({"flips": 0.031}) == ["3.1 % of the answers changed > 2 %"]
    assert budget.violations({}) == []
    assert budget.excess({"flips": 0.03}) == pytest.approx(0.5)
    assert Budget(max_flips=0.5).excess({"flips": 0.01}) == pytest.approx(0.5)


def test_a_doubtful_loss_breaks_the_limit_unless_two_numbers_are_compared():
    facts, doubtful = {"quality": 0.895}, {"max_drop": Evidence(0.7, 300)}
    (text,) = Budget(max_drop=1.0).violations(facts, 0.9, doubtful)
    assert "within 1 only with probability 0.70 < 0.8 (about 300 more validation texts would decide)" in text
    assert Budget(max_drop=1.0, confidence=0.5).violations(facts, 0.9, doubtful) == []
    assert Budget(max_drop=1.0).violations(facts, 0.9, {"max_drop": Evidence(0.85)}) == []
    assert Budget(max_drop=1.0).excess(facts, 0.9, doubtful) == pytest.approx(0.1)
    assert Budget().given == {}
    assert Budget(max_drop=1.0).given == {"max_drop": 1.0, "confidence": 0.8}


def test_changed_answers_within_the_limit_by_luck_break_it_too():
    facts, doubtful = {"flips": 0.03}, {"max_flips": Evidence(0.45, 1_200, "answers")}
    budget = Budget(max_flips=3.0)
    (text,) = budget.violations(facts, tests=doubtful)
    assert text == (
        "3.0 % of the answers changed, within 3 % only with probability 0.45 < 0.8 (about 1,200 more validation "
        "answers would decide)"
    )
    assert budget.excess(facts, tests=doubtful) == pytest.approx(0.35)
    assert replace(budget, confidence=0.5).violations(facts, tests=doubtful) == []
    assert replace(budget, confidence=0.5).excess(facts, tests=doubtful) == 0.0
    assert budget.violations(facts, tests={"max_flips": Evidence(0.8)}) == []
    assert budget.violations({"flips": 0.031}, tests=doubtful) == ["3.1 % of the answers changed > 3 %"]
    assert budget.given == {"max_flips": 3.0, "confidence": 0.8}


@pytest.mark.parametrize("statistic", ["mean", "p99"])
def test_a_latency_is_the_statistic_that_is_named(statistic):
    budget = Budget(latency_ms=2, latency_statistic=statistic)
    facts = {"latency_p50": 0.001, budget.latency_fact: 0.003}
    assert budget.violations(facts) == [f"{statistic} latency 3.00 ms > 2 ms"]
    assert budget.excess(facts) == pytest.approx(0.5)
    assert Budget(latency_ms=2).violations(facts) == []
    assert budget.given == {"latency_ms": 2, "latency_statistic": statistic}


def test_a_request_is_named_and_divided_into_calls():
    target = Target(candidates=50)
    assert str(target) == "onnxruntime, 1 thread, requests of 50 documents, real lengths"
    assert "requests of 50 documents in sub-batches of 4," in str(replace(target, batch=4))
    assert target.of_sub_batch() == (Target(batch=8), 6.25)
    assert replace(target, batch=100).of_sub_batch() == (Target(batch=50), 1.0)
    assert Target(batch=4).of_sub_batch() == (Target(batch=4), 1.0)


def test_keys_of_targets_without_requests_are_as_before_there_were_any():
    assert "candidates" not in Target().identity()
    assert Target(candidates=5).identity() == {**Target().identity(), "candidates": 5}


def test_an_address_is_named_and_enters_no_key():
    target = Target(threads=2, url="https://board:8765/")
    assert str(target) == "onnxruntime, 2 threads, batch 1, real lengths, at board:8765"
    assert target.identity() == Target(threads=2).identity()
    assert "url" not in target.identity()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8765",
        "https://board",
        "http://[::1]:8765",
        "https://measure.example.org/limbeck/",
        "ray:limbeck_measure",
    ],
)
def test_addresses(url):
    assert Target(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "board:8765",
        "ftp://board",
        "file:///etc/passwd",
        "http://user:secret@board",
        "http://board:port",
        "http://board?x=1",
        "http://board#x",
        "http://board/ x",
        "http://board\n",
        "http://" + "x" * 300,
        "ray:",
        "ray://head:10001",
        "ray:a b",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(InputError, match="url: should be http://HOST:PORT, https://HOST:PORT or ray:RESOURCE, got"):
        Target(url=url)


@pytest.mark.parametrize("setting", [{"device": "cuda"}, {"runtime": "torch"}])
def test_a_service_times_graphs_on_a_processor(setting):
    with pytest.raises(InputError, match="times ONNX graphs on a processor, got device"):
        Target(url="http://board", **setting)


def test_a_service_times_no_requests():
    with pytest.raises(InputError, match="times batches"):
        Target(url="http://board", candidates=5)


def test_keys_of_targets_on_a_processor_are_as_before_there_were_gpus():
    for name in ("precision", "compile"):
        assert name not in Target().identity()
        assert name not in Target(device="cuda").identity()
    fast = Target(device="cuda", runtime="torch", precision="bfloat16", compile=True)
    assert fast.identity() == {
        **Target(device="cuda", runtime="torch").identity(),
        "precision": "bfloat16",
        "compile": True,
    }
    assert Target(**fast.identity()) == fast
    assert str(fast) == "cuda, torch, bfloat16, compiled, 1 thread, batch 1, real lengths"
    assert fast.on_gpu
    assert not Target(device="mps").on_gpu


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "cuda", "runtime": "openvino"}, "openvino does not run on 'cuda'; use onnxruntime"),
        ({"runtime": "tensorrt"}, "tensorrt runs on a GPU, got device 'cpu'"),
        ({"runtime": "openvino", "precision": "float16"}, "openvino computes in float32, got 'float16'"),
        ({"device": "cuda", "precision": "bfloat16"}, "the runtime is onnxruntime, got 'bfloat16'; use 'float16'"),
        ({"url": "http://board", "precision": "float16"}, "the measuring service times graphs in float32"),
        ({"url": "http://board", "compile": True}, "leave out 'precision' and 'compile'"),
    ],
)
def test_what_no_device_or_runtime_does_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Target(**fields)
