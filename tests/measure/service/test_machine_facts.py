"""What a machine that measures says of itself."""

from __future__ import annotations

import importlib.util

from limbeck.core.measurement import machine, machine_of
from limbeck.measure.service.machine_facts import machine_facts


def test_it_names_the_machine_its_runtimes_and_its_limits(monkeypatch):
    facts = machine_facts(1_000, 60)
    assert facts["limits"] == {"bytes": 1_000, "seconds": 60, "graphs": 64}
    assert facts["machine"] == machine_of(facts["environment"]) == machine()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert machine_facts(1, 1)["runtimes"] == ["onnxruntime"]
