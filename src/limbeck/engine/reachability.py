"""Detect goals that no model can reach before training starts, not after it.

A ``TechniqueWithGoal`` says why nothing it could make from a model of this shape meets its goal, or None. It is asked
about the model that training is about to start from, provided that training keeps the shape. Anything it measures (a
latency table) is cached, so the step itself reuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from limbeck.core.candidate import Candidate
from limbeck.core.combination import Combination
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.step import Step, Technique
from limbeck.engine.builder import CandidateBuilder
from limbeck.errors import LimbeckError, StoreError
from limbeck.recipe.parsing import LocatedStep


@dataclass(frozen=True)
class Obstacle:
    """A step that cannot reach its goal, and why."""

    placed: LocatedStep
    reason: str


@dataclass(frozen=True)
class _Chain:
    """The newest model that is finished, and the steps after it that are not: none of them changes the shape."""

    key: str
    earlier: tuple[Step, ...] = ()


class Reach:
    """Looks ahead along a recipe; opens a model only where a step has a goal and training comes before it."""

    def __init__(self, builder: CandidateBuilder, seed: int) -> None:
        self._builder, self._seed = builder, seed
        self._opened: dict[str, Candidate] = {}
        self._lock = threading.Lock()  # the walk asks, and what is ordered ahead of it

    def obstacle(self, steps: Sequence[LocatedStep], key: str) -> Obstacle | None:
        """Return the step at which every path through ``steps`` fails after training; None if some path may succeed.

        Args:
            steps: The steps that are left.
            key: The record that they begin with.
        """
        with self._lock:
            try:
                return self._along(steps, _Chain(key))
            finally:
                self._opened.clear()  # a model takes memory that training needs

    def _along(self, steps: Sequence[LocatedStep], chain: _Chain) -> Obstacle | None:
        for placed in steps:
            if placed.branches is not None:
                obstacles = [self._along(branch, chain) for branch in placed.branches]
                return obstacles[0] if obstacles and all(obstacles) else None
            step = placed.step
            if not isinstance(step, Technique) or isinstance(step, Combination):
                continue
            if chain.earlier and isinstance(step, TechniqueWithGoal) and (reason := self._ask(step, chain)):
                return Obstacle(placed, reason)
            following = self._after(step, chain)
            if following is None:
                return None
            chain = following
        return None

    def _after(self, step: Technique, chain: _Chain) -> _Chain | None:
        """Return the chain of steps before a step; None if the shape that reaches it is unknown."""
        if not chain.earlier:
            finished = self._builder.finished(self._builder.records[chain.key], step, self._seed)
            if finished is not None:
                return _Chain(finished[0].key) if len(finished) == 1 else None
        shape = self._builder.records[chain.key].shape
        same = shape is not None and step.shape_after(shape) == shape
        trains = step.info.trains
        return replace(chain, earlier=(*chain.earlier, step)) if same and trains else None

    def _ask(self, step: TechniqueWithGoal, chain: _Chain) -> str | None:
        try:
            if chain.key not in self._opened:
                self._opened[chain.key] = self._builder.open(chain.key)
            candidate = self._opened[chain.key]
            log = partial(self._builder.log, step.info.name, chain.key)
            context = self._builder.context(chain.key, step, self._seed, log, candidate=candidate)
            return step.out_of_reach(candidate, context, chain.earlier)
        except StoreError:
            raise
        except LimbeckError:  # whatever is wrong with the step, it reports itself
            return None
