import pytest

from limbeck.core.cost import FunctionCost
from limbeck.core.measurement import Measurement
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.target import Budget, Target
from limbeck.search.bound_config import BoundConfig
from limbeck.search.bounded_space import BoundedSpace
from limbeck.search.cached_cost import CachedCost

SPACE = Space(Range(1, 3), Range(32, 32), Range(1, 4), Range(16, 64, 16), Range(8, 8))
BOUNDED = BoundedSpace(SPACE, CachedCost(FunctionCost(lambda shape: Measurement("macs", shape.weights, "MAC"))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latency_ms": 1.0, "keep": 0.5}, "give one bound, got latency_ms, keep"),
        ({"latency_ms": 1.0, "cost": "macs"}, "speedup and latency_ms need cost: latency"),
        ({"speedup": 2.0, "cost": "macs"}, "speedup and latency_ms need cost: latency, got cost: macs; give keep"),
        ({"profile": "machine.jsonl", "cost": "macs"}, "profile needs cost: latency"),
        ({"at_least": 0.9, "at_most": 0.9}, "at_least should be below at_most, got 0.9 and 0.9"),
    ],
)
def test_conflicts_between_fields(fields, message):
    (problem,) = BoundConfig(**fields).problems(front=False)
    assert problem.startswith(message)


def test_a_front_has_faster_shapes_too():
    assert (BoundConfig().least(front=True), BoundConfig().least(front=False)) == (0.0, 0.85)
    assert BoundConfig(at_least=0.5).least(front=True) == 0.5


def test_the_budget_may_give_the_bound_of_a_latency_and_of_nothing_else():
    budget = Budget(latency_ms=2.0)
    assert not BoundConfig().budget_problems(budget, front=False)
    assert BoundConfig().budget_problems(Budget(), front=False)
    assert not BoundConfig().budget_problems(Budget(), front=True)
    assert BoundConfig(cost="macs").budget_problems(budget, front=False) == ["give a bound: keep"]


@pytest.mark.parametrize("front", [False, True])
def test_a_budget_of_another_time_than_the_median_gives_no_bound(front):
    budget = Budget(latency_ms=2.0, latency_statistic="p99")
    reason = "the budget's latency_ms is the p99 of a call, and costs of shapes are medians"
    expected = [f"give latency_ms, speedup or keep: {reason}"]
    assert BoundConfig().budget_problems(budget, front=front) == expected
    assert not BoundConfig(latency_ms=1.0).budget_problems(budget, front=front)
    assert BoundConfig(cost="macs").budget_problems(budget, front=front) == ([] if front else ["give a bound: keep"])


def test_only_shapes_that_no_table_covers_must_be_measured():
    whole = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64, head_dim=8)
    narrower = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8))
    assert not BoundConfig().must_measure(SPACE, whole)
    assert BoundConfig().must_measure(narrower, whole)
    assert not BoundConfig(cost="macs").must_measure(narrower, whole)


def test_what_costs_depend_on_is_told_apart():
    assert BoundConfig(cost="macs").source(BOUNDED, Target()).startswith("macs, ")
    first, second = (BoundConfig().source(BOUNDED, Target(threads=threads)) for threads in (1, 2))
    assert first != second
