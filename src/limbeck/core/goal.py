"""Techniques with a goal that no model of some shape may meet: they say so before anything is trained for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext, Step, Technique


class TechniqueWithGoal(Technique):
    """A technique that knows by the shape of a model whether its goal may be met (``engine/reachability.py`` asks)."""

    @abstractmethod
    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why nothing that the step could make of a model of this shape meets its goal.

        Args:
            candidate: The model that training is about to start from.
            context: The services that ``apply`` gets; the teacher may not be there yet.
            earlier: The steps between that model and this step; they keep its shape.

        Returns:
            The reason, or None if the goal may be met.
        """
