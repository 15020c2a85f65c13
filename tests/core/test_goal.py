"""Techniques with a goal say whether it may be met."""

from __future__ import annotations

import pytest

from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.step import REGISTRY, Step, Technique


def test_each_says_when_its_goal_is_out_of_reach():
    class Silent(TechniqueWithGoal):
        def apply(self, candidate, context):
            yield candidate

    assert issubclass(TechniqueWithGoal, Technique)
    with pytest.raises(TypeError, match="out_of_reach"):
        Silent()


def test_no_other_step_claims_to_have_one():
    """It would never be asked."""
    assert not hasattr(Step, "out_of_reach")
    asked = {name for name, cls in REGISTRY.items() if issubclass(cls, TechniqueWithGoal)}
    assert asked == {name for name, cls in REGISTRY.items() if hasattr(cls, "out_of_reach")}
    assert {"prune", "search"} <= asked
    assert "finetune" not in asked
