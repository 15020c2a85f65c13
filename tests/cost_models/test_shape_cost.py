from dataclasses import replace

import pytest
from format_cost import FormatCost

from limbeck.core import analytic_cost
from limbeck.core.candidate import Candidate
from limbeck.core.cost import WidthCost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.core.token_schedule import geometric
from limbeck.cost_models.shape_cost import counted_cost, latency_cost, predicted_latency, pruning_cost
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.samples import typical_length
from limbeck.model.pruning.config import PruningConfig

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


@pytest.fixture
def candidate(make_model):
    task = toy_task("classification", train=48, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def test_counts_are_those_of_the_model(candidate):
    parameters = sum(p.numel() for p in candidate.model.parameters())
    assert counted_cost("parameters", candidate)(FULL).value == parameters
    assert counted_cost("size", candidate, "float")(FULL).value == 4 * parameters
    assert parameters <= counted_cost("size", candidate, "int8")(FULL).value < 2 * parameters
    macs = counted_cost("macs", candidate)(FULL)
    expected = analytic_cost.macs(FULL, typical_length(candidate), candidate.model.encoder.style, labels=3)
    assert (macs.value, macs.unit) == (expected, "MAC")


def test_latency_is_measured_in_the_format_that_serves():
    seconds = {"float": 2e-3, "int8": 1e-3}
    measured = FormatCost(lambda shape, number_format: Measurement("latency_p50", seconds[number_format], "s"))
    for number_format, value in seconds.items():
        assert latency_cost(measured, Target(), number_format)(FULL).value == value
    with pytest.raises(InputError, match="no model of latency for this target"):
        latency_cost(None, Target(), "int8")


def test_a_prediction_says_its_format_and_whether_it_is_of_another_machine():
    latency = Measurement("latency_p50", 1e-3, "s", 0.9e-3, 1.1e-3, detail={"source": "table"})
    here, there = (predicted_latency(latency, "int8", elsewhere=elsewhere) for elsewhere in (False, True))
    assert (here.name, here.value, here.low, here.high) == ("latency_predicted", 1e-3, 0.9e-3, 1.1e-3)
    assert here.detail == {"source": "table", "number_format": "int8"}
    assert there.detail == {**here.detail, "elsewhere": True}


def test_a_goal_of_pruning_is_priced_at_the_width_of_each_shape(candidate):
    class Measured(FormatCost):
        def of_width(self, hidden):
            return FormatCost(lambda shape, number_format: Measurement("latency_p50", float(hidden), "s"))

    measured = Measured(lambda shape, number_format: Measurement("latency_p50", 1.0, "s"))
    cost = pruning_cost(PruningConfig(speedup=2.0, hidden=24), candidate, measured, Target())
    assert isinstance(cost, WidthCost)
    assert [cost(replace(FULL, hidden=hidden)).value for hidden in (32, 24)] == [32.0, 24.0]
    assert pruning_cost(PruningConfig(speedup=2.0), candidate, measured, Target())(FULL).value == 1.0
    macs = pruning_cost(PruningConfig(keep=0.5, hidden=24, cost="macs"), candidate, None, Target())
    assert macs(FULL).value == counted_cost("macs", candidate)(FULL).value


@pytest.mark.parametrize(("tokens", "least"), [("auto", 0.5), (0.7, 0.7)])
def test_a_goal_with_a_schedule_is_priced_by_what_knows_the_strictest_one(candidate, tokens, least):
    class Measured(FormatCost):
        def of_schedule(self, shape):
            return FormatCost(lambda other, number_format: Measurement("latency_p50", min(shape.tokens), "s"))

    measured = Measured(lambda shape, number_format: Measurement("latency_p50", 1.0, "s"))
    for fields in ({}, {"hidden": 24}):
        config = PruningConfig(speedup=2.0, tokens=tokens, **fields)
        cost = pruning_cost(config, candidate, measured, Target())
        assert isinstance(cost, WidthCost), "nothing is measured before it is asked for"
        assert cost(FULL).value == min(geometric(FULL, least).tokens)
