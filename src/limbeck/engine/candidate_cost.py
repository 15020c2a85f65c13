"""What a candidate's shapes cost on a run's target, measured alone on the machine and kept in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import limbeck.techniques
from limbeck.core.candidate import Candidate
from limbeck.core.cost import TargetCost
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.engine.store import MACHINE, Store

Memo = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""Return a stored result by name; one that is not there is built, and stored."""
CostFactory = Callable[[Candidate, Target, Memo, Shape], TargetCost]
"""Build ``context.cost`` from the candidate, the target, the memo, and the shape whose slices it will be asked for."""


def cost_of(
    candidate: Candidate, teacher: Shape | None, target: Target, store: Store, factory: CostFactory | None = None
) -> TargetCost:
    """Return the cost of a candidate's shapes; a latency table is timed alone on the machine, as probes are.

    What was cut out of a teacher shares its table: one is measured, and latencies before and after compare.

    Args:
        candidate: The model.
        teacher: Shape of its teacher, if it has one.
        target: What will serve.
        store: Where measurements are kept.
        factory: Builds the cost; the techniques' own unless given.
    """
    own: Shape = candidate.model.shape
    cut = teacher is not None and own <= teacher and (own.hidden, own.head_dim) == (teacher.hidden, teacher.head_dim)
    whole = teacher if cut and teacher is not None else own

    def memo(name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def alone() -> dict[str, Any]:
            with store.lock(MACHINE):
                return build()

        return store.memo(name, alone)

    return (factory or limbeck.techniques.cost_factory)(candidate, target, memo, whole)
