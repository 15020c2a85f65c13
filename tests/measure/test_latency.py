from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from timed_here import timed_here

from limbeck.core.candidate import Record
from limbeck.core.early_exits import EarlyExits
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.shape import Shape
from limbeck.core.speed_up import speed_ratio
from limbeck.core.step import Probe, RunContext
from limbeck.core.target import Budget, Target
from limbeck.engine.store.stored_form import read_fact
from limbeck.errors import MissingExtra
from limbeck.measure import latency
from limbeck.measure.latency import MORE_TEXTS, Latency, facts
from limbeck.measure.timed_session import TimedModels
from limbeck.model.early_exits import add_exits, set_rule
from limbeck.techniques.selection import is_as_fast


def context(**target):
    return RestrictedContext(RunContext(target=Target(**target)), Latency.info)


def test_candidates_are_timed_in_one_session(candidate, exported, make_model):
    ragged = replace(candidate, model=make_model(Shape.uniform(2, 32, 4, 64).with_layer(1, heads=1)))
    measured = list(Latency.of(samples=4, rounds=3).measure([candidate, ragged, exported], context()))
    by_name = {(index, fact.name): fact for index, fact in measured}
    assert len(by_name) == len(measured) == 3 * 5
    assert {fact.detail["session"] for _, fact in measured} == {by_name[0, "speedup"].detail["session"]}
    for index in range(3):
        p50, p99 = by_name[index, "latency_p50"], by_name[index, "latency_p99"]
        assert p50.low <= p50.value <= p50.high
        assert p50.value <= p99.value
        mean = by_name[index, "latency_mean"]
        assert mean.low <= mean.value <= mean.high
        assert len(mean.detail["rounds"]) == 3
        assert (p50.unit, p50.n, p50.target) == ("s", 4 * 3 * 2, str(Target()))
        assert len(p50.detail["rounds"]) == 3
        assert 3 < p50.detail["mean_tokens"] < 32
    assert by_name[0, "speedup"].value == 1.0
    runtimes = [by_name[index, "latency_p50"].detail["runtime"] for index in range(3)]
    assert runtimes[0] == "torch eager, BertForSequenceClassification"
    assert runtimes[1] == "torch eager, LimbeckForSequenceClassification"
    assert runtimes[2] == "onnxruntime, model.onnx"


def test_facts_are_computed_from_the_rounds():
    noise = np.random.default_rng(0).uniform(1, 3, (9, 1)) * np.ones((9, 5))
    answer = {
        "seconds": np.stack([noise, 4 * noise, 2 * noise]),
        "words": list("abc"),
        "mean_tokens": [5.0] * 3,
        "machine": "x",
        "conditions": {"load": [0.1, 0.2]},
    }
    timed = TimedModels(answer, ["onnxruntime", "torch", "torch"], Target())
    measured = {(index, fact.name): fact for index, fact in facts(timed)}
    assert measured[0, "latency_p50"].detail["load"] == [0.1, 0.2]
    assert measured[0, "speedup"].value == pytest.approx(4)
    assert measured[1, "latency_mean"].value == pytest.approx(4 * noise.mean())
    assert measured[1, "latency_mean"].detail["rounds"] == pytest.approx((4 * noise[:, 0]).tolist(), rel=1e-5)
    assert measured[0, "speedup"].low == pytest.approx(4)
    assert measured[2, "speedup"].detail["over"] == "b"
    on_gpu = {**answer, "conditions": {**answer.get("conditions", {}), "gpu_mhz": [1980.0, 1965.0]}}
    (first, *_) = (fact for _, fact in facts(TimedModels(on_gpu, ["onnxruntime"] * 3, Target(device="cuda"))))
    assert (first.detail["gpu_mhz"], first.target) == ([1980.0, 1965.0], str(Target(device="cuda")))
    alone = {(index, fact.name) for index, fact in facts(TimedModels(answer, ["onnxruntime"] * 3, Target()))}
    assert (0, "speedup") not in alone


def test_where_a_text_decides_what_is_computed_texts_are_resampled():
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.99, 1.01, (3, 9, 20))
    exits = np.where(np.arange(20) < 9, 0.010, 0.001)
    answer = {
        "seconds": np.stack([exits, np.full(20, 0.004), np.full(20, 0.016)])[:, None] * noise,
        "words": list("abc"),
        "mean_tokens": [5.0] * 3,
        "machine": "x",
    }
    timed = TimedModels(answer, ["onnxruntime", "onnxruntime", "torch"], Target(), [True, False, False])
    measured = {(index, fact.name): fact for index, fact in facts(timed)}
    plain = {(index, fact.name): fact for index, fact in facts(replace(timed, text_decides=()))}
    assert measured.keys() == plain.keys()
    for (index, name), fact in measured.items():
        assert fact.value == pytest.approx(plain[index, name].value, rel=0.02)
        assert fact.low <= fact.value <= fact.high
        assert ("by_text" in fact.detail) == (index == 0 and name != "speedup")
        assert ("resampled" in fact.detail) == (name != "speedup")
        read_fact(fact.to_json())
        if index:
            assert (fact.low, fact.high) == (plain[index, name].low, plain[index, name].high)
    mean, ratio = measured[0, "latency_mean"], measured[0, "speedup"]
    assert mean.high / mean.low > 1.5 > 1.02 > plain[0, "latency_mean"].high / plain[0, "latency_mean"].low
    assert ratio.high / ratio.low > 3 > 1.1 > plain[0, "speedup"].high / plain[0, "speedup"].low
    later = speed_ratio(measured[0, "latency_p50"], measured[2, "latency_p50"])
    assert later == pytest.approx((ratio.value, ratio.low, ratio.high), rel=1e-6)
    records = [Record(key, None, "export", facts=(measured[index, "latency_mean"],)) for index, key in enumerate("ab")]
    assert mean.value > measured[1, "latency_mean"].value
    assert is_as_fast(*records, "latency_mean")  # it is slower on these texts, which says little of others
    blind = [replace(each, facts=(plain[index, "latency_mean"],)) for index, each in enumerate(records)]
    assert not is_as_fast(*blind, "latency_mean")


def test_more_texts_are_timed_beside_a_model_with_early_exits(candidate, exported, make_model):
    model = make_model(Shape.uniform(2, 32, 4, 64), labels=candidate.task.num_labels)
    add_exits(model, EarlyExits((1,)))
    set_rule(model, EarlyExits((1,), "confidence", 0.9))
    probe, early = Latency.of(samples=4, rounds=2), replace(candidate, model=model, folder=None)
    with timed_here():
        measured = {(index, fact.name): fact for index, fact in probe.measure([early, exported], context())}
    assert measured[0, "latency_p50"].n == 2 * max(4, 8) * MORE_TEXTS
    assert measured[0, "latency_p50"].detail["by_text"]
    assert "by_text" not in measured[1, "latency_p50"].detail
    assert measured[1, "latency_p50"].detail["resampled"]


def test_a_missing_runtime_is_refused_before_any_work(candidate, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(latency, "sample_rows", lambda *_, **__: pytest.fail("worked"))
    with pytest.raises(MissingExtra):
        list(Latency().measure([candidate], context(runtime="openvino")))


def test_nothing_to_measure():
    assert list(Latency().measure([], context())) == []
    assert isinstance(Latency(), Probe)


def test_only_a_budget_on_the_mean_needs_it():
    assert Latency().newer_facts(Budget()) == frozenset()
    assert Latency().newer_facts(Budget(latency_statistic="p99")) == frozenset()
    assert Latency().newer_facts(Budget(latency_statistic="mean")) == {"latency_mean"}


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"precision": "float16"}, {"precision": "bfloat16", "compile": True}], ids=str)
def test_models_are_timed_on_a_gpu(candidate, options):
    target = {"device": "cuda", "runtime": "torch", **options}
    measured = {fact.name: fact for _, fact in Latency(samples=4, rounds=3).measure([candidate], context(**target))}
    assert 0 < measured["latency_p50"].value < 1
    assert measured["latency_p50"].target == str(Target(**target))
    assert (
        measured["latency_p50"]
        .detail["runtime"]
        .startswith("torch compiled" if "compile" in options else "torch eager")
    )
