"""Runs of the toy steps with a limit of time. Not a test."""

from __future__ import annotations

import pytest
from format_cost import FormatCost

from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget
from limbeck.recipe.recipe import Fork
from limbeck.techniques.selection import Cheapest

LOOSE = Budget(max_drop=100.0)


@pytest.fixture
def family(toys):
    """Build the steps of a run: a teacher, and a branch for each width with its training."""

    def build(*members, choice=None):
        branches = [
            (toys.ToyLevels((width,), goal=True), toys.ToyTrain(by=by), toys.ToyExport())
            for width, by in (member if isinstance(member, tuple) else (member, 0.5) for member in members)
        ]
        return toys.ToyTrain(), Fork(((), *branches)), toys.ToyQuality(), toys.ToyClock(), choice or Cheapest()

    return build


@pytest.fixture
def limited(go):
    """Run steps; a millisecond for each neuron is predicted."""
    cost = FormatCost(lambda shape, number_format: Measurement("latency_p50", shape.layers[0].ffn / 1e3, "s"))

    def run(*steps, **options):
        result = go(*steps, cost=lambda *given: cost, **options)
        run.events = go.events
        return result

    return run


def widths(result):
    """Neurons of the models that the final probe measured."""
    return sorted(record.shape.layers[0].ffn for record in result.records.values() if record.fact("latency_p50"))


def left_out(go):
    return [event["message"] for event in go.events if "is left out" in event.get("message", "")]
