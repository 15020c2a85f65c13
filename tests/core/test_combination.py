"""Combinations are techniques that keep what reached them."""

from __future__ import annotations

from limbeck.core.combination import GATHERING, Combination, Pair, as_made, as_written
from limbeck.core.field_groups import parameters
from limbeck.core.step import REGISTRY, Choice, Technique, find
from limbeck.recipe.limits import candidate_count
from limbeck.recipe.parsing import locate


def test_each_has_a_field_for_its_partner(toys):
    steps = [cls for cls in REGISTRY.values() if issubclass(cls, Combination)]
    assert {find("cascade"), toys.ToyPair} <= {*steps}
    for cls in steps:
        assert issubclass(cls, Technique)
        assert parameters(cls())["partner"] == ""
        assert "partner" in cls.info.reads
        assert "partner" not in cls.info.neutral  # it decides the result


def test_what_gathers_candidates():
    assert issubclass(find("cascade"), GATHERING)
    assert issubclass(find("front"), GATHERING)
    assert not issubclass(find("export"), GATHERING)
    assert GATHERING[0] is Choice


def test_what_it_makes_is_counted_beside_what_reached_it(toys):
    levels = toys.ToyLevels((4, 2, 1))
    three = candidate_count(locate([levels]))
    assert candidate_count(locate([levels, find("cascade")(most=2)])) == three + 2


def test_a_pair_names_both():
    assert Pair("large", partner="small") == ("large", "small")


def test_a_step_as_it_made_a_record_and_as_a_recipe_has_it(toys):
    step = toys.ToyPair(2.0)
    recorded = as_made(step, {"by": 2.0, "partner": "key"})
    assert recorded == toys.ToyPair(2.0, "key")
    assert as_written(recorded) == step
    prune = toys.ToyPrune()
    assert as_made(prune, {"partner": "key"}) is as_written(prune) is prune
