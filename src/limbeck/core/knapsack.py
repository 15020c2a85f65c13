"""Multiple-choice knapsack: one option for every unit, smallest total loss, total cost within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One setting of a unit: its cost and its loss."""

    cost: float
    loss: float


def choose(units: Sequence[Sequence[Option]], budget: float, resolution: int = 2000) -> list[int] | None:
    """Solve the multiple-choice knapsack by dynamic programming over cost, as ZipLM does (arXiv:2302.04089).

    Costs are rounded up to multiples of ``budget / resolution``, so the solution always fits the budget and is optimal
    up to that rounding (``len(units) * budget / resolution``). Time: O(options * resolution).

    Args:
        units: The options of each unit.
        budget: Largest total cost allowed.
        resolution: Number of steps that the budget is divided into.

    Returns:
        Index of the chosen option of each unit; None if even the cheapest options exceed the budget.

    >>> choose([[Option(3, 0), Option(1, 2)], [Option(3, 0), Option(1, 5)]], budget=4)
    [1, 0]
    """
    import numpy as np  # imported here, because prune is loaded for --help

    floor = sum(min(option.cost for option in unit) for unit in units)
    if floor > budget * (1 + 1e-12):
        return None
    # Only the spending above each unit's cheapest option is to be decided, so only that is discretized.
    spare = max(budget - floor, floor * 1e-12, 1e-300)
    step = spare / resolution
    best = np.zeros(resolution + 1)
    choices: list[np.ndarray] = []
    for unit in units:
        least = min(option.cost for option in unit)
        losses = np.full(resolution + 1, np.inf)
        choice = np.zeros(resolution + 1, dtype=np.int64)
        for index, option in enumerate(unit):
            steps = _count_steps(option.cost - least, step)
            if steps > resolution:
                continue
            with_option = np.full(resolution + 1, np.inf)
            with_option[steps:] = best[: resolution + 1 - steps] + option.loss
            better = with_option < losses
            losses[better], choice[better] = with_option[better], index
        best = losses
        choices.append(choice)
    chosen: list[int] = []
    remaining = resolution
    for unit, choice in zip(reversed(units), reversed(choices), strict=True):
        index = int(choice[remaining])
        chosen.append(index)
        remaining -= _count_steps(unit[index].cost - min(option.cost for option in unit), step)
    return chosen[::-1]


def _count_steps(cost: float, step: float) -> int:
    """Return a cost in steps, rounded up; capped where it is far above any budget."""
    return math.ceil(min(cost / step - 1e-9, 2**31))
