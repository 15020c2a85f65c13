"""The cost that a step asks: built for its candidate, over what the candidate was cut out of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from format_cost import FormatCost

from limbeck.core.candidate import Candidate, Record
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.engine.costs import make_cost


def test_the_cost_is_built_for_candidate_and_target(go, toys):
    def factory(candidate, target, memo, whole):
        return FormatCost(
            lambda shape, number_format: Measurement(
                "latency", target.threads * candidate.model.shape.layers[0].ffn, "s"
            )
        )

    result = go(toys.ToyCost(), cost=factory)
    assert result.open(result.front[0]).model.weights == [8]


def test_the_cost_knows_the_whole_that_a_candidate_was_cut_out_of(go, toys):
    def factory(candidate, target, memo, whole):
        return FormatCost(lambda shape, number_format: Measurement("latency", whole.layers[0].ffn, "s"))

    own, cut = (go(*steps, toys.ToyCost(), cost=factory) for steps in ([], [toys.ToyTrain(), toys.ToyPrune(keep=0.5)]))
    assert own.open(own.front[0]).model.weights == cut.open(cut.front[0]).model.weights == [8]
    lone = go(toys.ToyPrune(keep=0.5), toys.ToyCost(), cost=factory)  # nothing was fine-tuned: nobody's slice
    assert lone.open(lone.front[0]).model.weights == [4]


def test_the_whole_has_the_schedule_of_the_candidate(toys, tmp_path):
    """So that a table knows layers that read fewer tokens, and is the same whatever else was cut."""

    def factory(candidate, target, memo, whole):
        return FormatCost(lambda shape, number_format: Measurement(str(whole), 1.0, "s"))

    class Model:
        shape = Shape.uniform(layers=3, hidden=8, heads=2, ffn=16).with_tokens(0.8, 0.5, 0.5)

    whole = Shape.uniform(layers=5, hidden=8, heads=2, ffn=32)
    teacher = Record("teacher", None, "teacher", {}, whole)
    cost = make_cost(Candidate(Model(), None, None), teacher, Target(), toys.store(tmp_path), factory)
    assert cost.for_format("int8")(whole).name == str(whole.with_tokens(0.8, 0.8, 0.5, 0.5, 0.5))


@pytest.mark.parametrize(("ancestor", "depth"), [(True, 3), (False, 2)])
def test_the_whole_of_a_narrower_candidate_is_as_narrow(toys, tmp_path, ancestor, depth):
    """So that one table prices every stage at that width; a larger model of another origin has no part in it."""

    class Costs(FormatCost):
        def __init__(self, whole):
            super().__init__(lambda shape, number_format: Measurement(str(whole), 1.0, "s"))
            self.whole = whole

        def of_width(self, hidden):
            return Costs(replace(self.whole, hidden=hidden))

    def factory(candidate, target, memo, whole):
        return Costs(whole)

    whole = Shape.uniform(layers=3, hidden=16, heads=2, ffn=32)

    class Model:
        shape = replace(whole, hidden=12, layers=whole.layers[:2]).with_layer(0, heads=1)

    teacher, store = Record("t", None, "t", {}, whole), toys.store(tmp_path)
    cost = make_cost(Candidate(Model(), None, None), teacher, Target(), store, factory, ancestor=ancestor)
    expected = replace(whole, hidden=12) if ancestor else Model.shape
    assert expected.depth == depth
    assert cost.for_format("int8")(whole).name == str(expected)
