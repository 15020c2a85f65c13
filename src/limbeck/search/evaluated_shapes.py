"""Every shape that a search evaluated, as a fact.

A search leaves it with its first winner, so the shapes are kept as long as that record is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.core.measurement import EVALUATED_SHAPES, Measurement
from limbeck.core.shape import Shape


def evaluated_shapes(
    scores: Mapping[Shape, float],
    costs: Sequence[float],
    winners: Sequence[Shape],
    cost: Measurement,
    metric: str,
    split: str,
) -> Measurement:
    """Return the fact that a search leaves with its first winner.

    Args:
        scores: Score of every evaluated shape.
        costs: Cost of each of them.
        winners: The shapes that the search returned.
        cost: The cost of one of them, for its name and unit.
        metric: Metric of the scores.
        split: Split that they were scored on.
    """
    rows = [
        [shape.to_json(), score, float(value), shape in winners]
        for (shape, score), value in zip(scores.items(), costs, strict=True)
    ]
    detail = {"metric": metric, "cost": cost.name, "unit": cost.unit, "shapes": rows}
    return Measurement(EVALUATED_SHAPES, float(len(rows)), "1", n=len(rows), split=split, detail=detail)
