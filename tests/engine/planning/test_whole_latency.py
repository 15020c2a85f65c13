"""The latency of the whole model, as pruning predicts it."""

from __future__ import annotations

import pytest
from format_cost import FormatCost
from planned import TASK

from limbeck.core.measurement import Measurement
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.data.loading import load_task
from limbeck.engine.planning.whole_latency import whole_latency
from limbeck.engine.store.store import Store
from limbeck.techniques.prune import Prune


@pytest.fixture
def machine(monkeypatch):
    """A machine on which every neuron takes its time, in INT8 half of it; and how often it was asked."""
    requests = []

    def latency(shape, number_format):
        requests.append(number_format)
        value = (1e-6 if number_format == "int8" else 2e-6) * sum(layer.ffn for layer in shape.layers)
        return Measurement("latency_p50", value, "s", value, value)

    monkeypatch.setattr("limbeck.cost_models.measured_cost.MeasuredCost", lambda *services: FormatCost(latency))
    return requests


def test_it_is_the_latency_that_pruning_compares_goals_with(workspace, tmp_path, machine, candidate_of):
    whole = whole_latency(str(workspace / "other"), load_task(workspace / "task"), Target(), Store(tmp_path))
    assert set(machine) == {"int8"}
    cost = FormatCost(lambda shape, form: Measurement("latency_p50", 1e-6 * sum(row.ffn for row in shape.layers), "s"))
    for goal, cuts in ((1.01 * whole, False), (0.99 * whole, True)):
        (child,) = Prune.of(latency_ms=goal, samples=8).apply(candidate_of(workspace / "other"), RunContext(cost=cost))
        assert (child.model.shape != candidate_of(workspace / "other").model.shape) == cuts


@pytest.fixture
def candidate_of():
    """Open a folder as a candidate."""
    from limbeck.core.candidate import Candidate
    from limbeck.model.checkpoints import open_model

    def open_candidate(folder):
        return Candidate(*open_model(folder, task=TASK, seed=0), TASK)

    return open_candidate
