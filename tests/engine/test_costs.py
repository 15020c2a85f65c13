"""The cost that a step asks: built for its candidate, over what the candidate was cut out of."""

from __future__ import annotations

from limbeck.core.cost import FormatCost
from limbeck.core.measurement import Measurement


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
