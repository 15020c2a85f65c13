"""The gentlest schedule of tokens whose latency is within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from limbeck.core.bound import Bound
from limbeck.core.cost import Cost, TargetCost
from limbeck.core.shape import Shape
from limbeck.core.token_schedule import STEPS, even_exponents, scheduled, within_budget
from limbeck.errors import InputError

SLACKS = (0.7, 0.4, 0.0)
"""Shares of the operations that a bound would leave by which schedules are measured, one after the other until one
meets it: fewer operations save less time than operations. The last is the strictest schedule."""


def within_latency(
    shape: Shape,
    bound: Bound,
    costs: TargetCost,
    operations: Cost,
    number_format: str,
    exponents: Sequence[float] | None = None,
) -> Shape:
    """Return the shape with the gentlest schedule of these exponents whose latency is within a bound.

    A latency table knows no fewer tokens than the encoders that it was measured on. So one is measured with a schedule
    that should suffice by its operations, and others with stricter ones until the bound is met (``SLACKS``).

    Args:
        shape: The shape.
        bound: A speed-up or a latency.
        costs: The latencies on the target.
        operations: Operations of a shape for a typical text.
        number_format: Format that serves.
        exponents: As for :func:`~limbeck.core.token_schedule.scheduled`; unless given, every layer passes on the same
            share of what it reads.

    Returns:
        The shape; itself, if it is within the bound.

    Raises:
        InputError: Even the strictest schedule takes longer.
    """
    keep = _share(shape, bound, lambda: costs.of_schedule(shape).for_format(number_format))
    if keep >= 1:
        return shape
    powers = even_exponents(shape.depth) if exponents is None else exponents
    strictest = scheduled(shape, powers, 1 / STEPS)
    for slack in SLACKS:
        fewer = _within(operations, shape, slack * keep * operations(shape).value, powers) or strictest
        latency = costs.of_schedule(fewer).for_format(number_format)
        most = bound.amount(latency, shape)
        if latency(shape).value <= most:
            return shape
        if fitting := _within(latency, shape, most, powers):
            return fitting
    raise InputError(
        f"the goal of {1e3 * most:.4g} ms is below the {1e3 * latency(strictest).value:.4g} ms that are left with the "
        "strictest schedule; ask for less, and prune besides"
    )


def _within(cost: Cost, shape: Shape, most: float, exponents: Sequence[float]) -> Shape | None:
    return within_budget(shape, lambda each: cost(each).value, most, exponents)


def _share(shape: Shape, bound: Bound, cost: Callable[[], Cost]) -> float:
    """Return the share of the latency that is within the bound."""
    if bound.speedup is not None:
        return 1 / bound.speedup
    fact = cost()(shape)
    return bound.amount(cost(), shape) / fact.value
