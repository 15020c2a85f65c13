"""Goals in milliseconds, which are medians, beside a budget that is about another time of a call."""

from __future__ import annotations

from limbeck.core.field_groups import parameters
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, placed_steps


def median_goals(recipe: Recipe) -> list[str]:
    """Say of each target whose latency is limited as mean or 99th percentile which goals for it are medians.

    Costs of shapes are measured at one length of texts, that of the median call, so they know no other time.

    Args:
        recipe: The recipe.
    """
    steps = [located.step for located in leaves(placed_steps(recipe)) if parameters(located.step).get("latency_ms")]
    goals = [(step.info.name, step.goal_target()) for step in steps]
    first, messages = next(iter(recipe.settings)), []
    for name, (_, budget) in recipe.settings.items():
        names = dict.fromkeys(step for step, target in goals if target is not None and (target or first) == name)
        if names and budget.latency_ms is not None and budget.latency_statistic != "p50":
            where = f"target {name}: " if name else ""
            messages.append(
                f"{where}latency_ms of {' and '.join(names)} is a median, as costs of shapes are; that of the budget "
                f"is the {budget.latency_statistic} of a call, so what meets the goal may exceed it; ask for less then"
            )
    return messages
