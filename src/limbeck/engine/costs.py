"""The cost of a candidate's shapes on the target, measured once and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limbeck.core.candidate import Candidate, Record
from limbeck.core.cost import Memo, TargetCost
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.core.token_schedule import scheduled_like
from limbeck.cost_models import measured_cost
from limbeck.engine.store.store import Store

CostFactory = Callable[[Candidate, Target, Memo, Shape], TargetCost]
"""Build ``context.cost`` from the candidate, the target, the memo, and the shape whose slices it will be asked for."""


def measured_alone(store: Store) -> Memo:
    """Return a memo in the store; missing values are measured alone on the machine, like probes."""

    def memo(name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def alone() -> dict[str, Any]:
            with store.machine.alone():
                return build()

        with store.machine.resting():
            return store.facts.arrays(name, alone)

    return memo


def make_cost(
    candidate: Candidate,
    teacher: Record | None,
    target: Target,
    store: Store,
    factory: CostFactory | None = None,
    *,
    ancestor: bool = False,
) -> TargetCost:
    """Return the cost model of a candidate's shapes; latencies are measured once (:func:`measured_alone`).

    Models cut from a teacher share its table, so only one is measured and their latencies are comparable; those of
    another hidden width share one of the teacher's layers at their width, which is tied to it.

    Args:
        candidate: The candidate.
        teacher: Record of its teacher.
        target: Where the model will be served.
        store: Where measurements are kept.
        factory: Builds the cost model; the techniques' own unless given.
        ancestor: Whether the candidate was made from the teacher. If not, a teacher of another hidden width is another
            model, even where the candidate would fit into it.
    """
    own: Shape = candidate.model.shape
    wider = teacher.shape if teacher is not None and teacher.shape is not None else own
    whole = wider if own.is_part_of(wider, narrower=ancestor) else own
    whole = scheduled_like(whole, own)  # a table that knows fewer tokens knows all of them, too
    costs = (factory or measured_cost.MeasuredCost)(candidate, target, measured_alone(store), whole)
    return costs.of_width(own.hidden)
