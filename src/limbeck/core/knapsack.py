"""Multiple-choice knapsack: one option for every unit, smallest total loss, total cost within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-12  #: relative, on the budget: sums of the same costs in another order differ in their last bits


@dataclass(frozen=True)
class Option:
    """One setting of a unit: its cost and its loss."""

    cost: float
    loss: float


def choose(units: Sequence[Sequence[Option]], budget: float, resolution: int = 2000) -> list[int] | None:
    """Solve the multiple-choice knapsack by dynamic programming, as ZipLM does (arXiv:2302.04089).

    The states of the program are the selections that no other beats in cost and loss at once (Nemhauser and Ullmann,
    1969), with their exact costs, so a solution that costs just the budget is found. Where they become many, each
    interval of ``budget / resolution`` keeps the cheapest and the best of its selections; the solution still fits the
    budget, and is optimal up to that rounding (``len(units) * budget / resolution``). Time: O(options * resolution).

    Args:
        units: The options of each unit.
        budget: Largest total cost allowed.
        resolution: Number of intervals that the budget is divided into.

    Returns:
        Index of the chosen option of each unit; None if even the cheapest options exceed the budget.

    >>> choose([[Option(3, 0), Option(1, 2)], [Option(3, 0), Option(1, 5)]], budget=4)
    [1, 0]
    """
    import numpy as np  # imported here, because prune is loaded for --help

    floor = sum(min(option.cost for option in unit) for unit in units)
    slack = TOLERANCE * max(abs(budget), abs(floor))
    if floor > budget + slack:
        return None
    # Only the spending above each unit's cheapest option is to be decided.
    limit = budget - floor + slack
    costs, losses = np.zeros(1), np.zeros(1)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for unit in units:
        extra = np.array([option.cost for option in unit]) - min(option.cost for option in unit)
        total_cost = (extra[:, None] + costs).ravel()  # by option, each in order: what a stable sort merges fast
        total_loss = (np.array([[option.loss] for option in unit]) + losses).ravel()
        best = _efficient(total_cost, total_loss, limit)
        if len(best) > resolution:
            best = _thinned(best, total_cost / (limit or 1.0) * resolution)  # within a limit of 0 all costs are 0
        history.append(np.divmod(best, len(costs)))
        costs, losses = total_cost[best], total_loss[best]
    state, chosen = len(costs) - 1, []  # the last one costs most and loses least
    for options, states in reversed(history):
        chosen.append(int(options[state]))
        state = int(states[state])
    return chosen[::-1]


def _efficient(costs: np.ndarray, losses: np.ndarray, limit: float) -> np.ndarray:
    """Return the selections within the limit that lose less than all that cost less, by rising cost."""
    import numpy as np

    fitting = np.flatnonzero(costs <= limit)
    order = fitting[np.argsort(costs[fitting], kind="stable")]
    least = np.minimum.accumulate(losses[order])
    efficient: np.ndarray = order[np.append(True, losses[order][1:] < least[:-1])]
    return efficient


def _thinned(selections: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the first and the last selection of every interval of length 1 of costs."""
    import numpy as np

    changes = np.diff(np.floor(costs[selections])) > 0
    ends: np.ndarray = selections[np.append(True, changes) | np.append(changes, True)]
    return ends
