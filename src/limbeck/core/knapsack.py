"""Spend a budget: choose one level for every unit so that the total loss is least and the total cost fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One level that a unit may take: what it costs and what it loses."""

    cost: float
    loss: float


def choose(units: Sequence[Sequence[Option]], budget: float, resolution: int = 2000) -> list[int] | None:
    """Multiple-choice knapsack by dynamic programming over cost, as in ZipLM (arXiv:2302.04089).

    Costs are rounded up to ``budget / resolution``, so the answer always fits the budget and is optimal up to that
    rounding (``len(units) * budget / resolution``). Returns the index of the chosen option of each unit, or None when
    even the cheapest options do not fit. Time: O(options * resolution).

    >>> choose([[Option(3, 0), Option(1, 2)], [Option(3, 0), Option(1, 5)]], budget=4)
    [1, 0]
    """
    import numpy as np  # here, because prune is imported to answer --help

    floor = sum(min(option.cost for option in unit) for unit in units)
    if floor > budget * (1 + 1e-12):
        return None
    # Spending beyond each unit's cheapest level is all that there is to decide, so only that is discretised.
    spare = max(budget - floor, floor * 1e-12, 1e-300)
    grain = spare / resolution
    best = np.zeros(resolution + 1)
    taken: list[np.ndarray] = []
    for unit in units:
        least = min(option.cost for option in unit)
        found = np.full(resolution + 1, np.inf)
        pick = np.zeros(resolution + 1, dtype=np.int64)
        for index, option in enumerate(unit):
            steps = _steps(option.cost - least, grain)
            if steps > resolution:
                continue
            reached = np.full(resolution + 1, np.inf)
            reached[steps:] = best[: resolution + 1 - steps] + option.loss
            better = reached < found
            found[better], pick[better] = reached[better], index
        best = found
        taken.append(pick)
    chosen: list[int] = []
    left = resolution
    for unit, pick in zip(reversed(units), reversed(taken), strict=True):
        index = int(pick[left])
        chosen.append(index)
        left -= _steps(unit[index].cost - min(option.cost for option in unit), grain)
    return chosen[::-1]


def _steps(cost: float, grain: float) -> int:
    """Cost in grains, rounded up; huge when it is far beyond any budget."""
    return math.ceil(min(cost / grain - 1e-9, 2**31))
