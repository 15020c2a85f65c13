from __future__ import annotations

import json

import pytest

from limbeck.core import measurement as facts
from limbeck.core.measurement import Measurement, environment, merge


def test_json_round_trip_leaves_out_the_empty_fields():
    fact = Measurement("quality", 0.86, "1", low=0.84, high=0.88, n=1000, split="test", detail={"metric": "accuracy"})
    data = fact.to_json()
    assert "target" not in data
    assert Measurement.from_json(json.loads(json.dumps(data))) == fact


def test_a_value_of_zero_is_kept():
    fact = Measurement("quality", 0.0, "1", low=0.0, n=0)
    assert Measurement.from_json(fact.to_json()) == fact


def test_unknown_units_are_refused():
    with pytest.raises(AssertionError, match="unknown unit 'ms'"):
        Measurement("latency_p50", 3.0, "ms")


def test_merge_keeps_the_last_of_each_name_target_and_split():
    old, new = Measurement("quality", 0.1, "1", split="test"), Measurement("quality", 0.2, "1", split="test")
    other = Measurement("quality", 0.3, "1", split="validation")
    assert merge([old, other], [new]) == (other, new)


def test_environment_describes_the_machine():
    described = environment()
    assert described["cores"] >= 1
    assert "torch" in described["versions"]
    json.dumps(described)


def test_gpus_are_part_of_the_machine_where_there_are_some():
    plain = {"processor": "a", "instructions": ["avx2"], "versions": {"torch": "2"}}
    assert facts.machine_of(plain) == facts.machine_of({**plain, "accelerators": []})
    first, other = (facts.machine_of({**plain, "accelerators": [name]}) for name in ("NVIDIA H200", "NVIDIA L4"))
    assert len({first, other, facts.machine_of(plain)}) == 3


def test_gpus_are_listed_by_the_driver(monkeypatch, tmp_path):
    for bus, model in (("0000:01", "NVIDIA L4"), ("0000:00", "NVIDIA H200")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ: 7\n")
    monkeypatch.setattr(facts, "DRIVER", tmp_path)
    assert facts._accelerators() == ["NVIDIA H200", "NVIDIA L4"]
    monkeypatch.setattr(facts, "DRIVER", tmp_path / "none")
    assert facts._accelerators() == []


def test_the_machine_is_its_processor_and_libraries(monkeypatch):
    here = facts.machine()
    described = facts.environment()
    monkeypatch.setattr(facts, "environment", lambda: {**described, "system": "after an update"})
    assert facts.machine() == here
    monkeypatch.setattr(facts, "environment", lambda: {**described, "versions": {}})
    assert facts.machine() != here
