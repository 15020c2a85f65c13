"""What a shape costs: the one protocol of MACs, latency tables, predictors and stopwatches.

"Latency-aware" is an argument here, not a technique: pruning and search ask a ``Cost`` and do not care where its
numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape

if TYPE_CHECKING:
    import numpy as np

TABLE_SECONDS = 30.0
"""Seconds that measuring a typical latency table takes. It is kept, so later steps on the same model find it."""

Memo = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""Return the arrays stored under a name, which must identify what they measure; measure and store those not there."""


def measure_now(name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure again at every call: the ``Memo`` where nothing is stored."""
    return build()


def in_memory() -> Memo:
    """Return a ``Memo`` that has its arrays in memory, as long as it is there itself."""
    arrays: dict[str, dict[str, Any]] = {}

    def memo(name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in arrays:
            arrays[name] = build()
        return arrays[name]

    return memo


class Cost(Protocol):
    """The cost of a shape on one target, in one number format.

    Implementations inherit from this class and so get ``many``; those that can price many shapes at once override it.
    """

    key: str = ""
    """Identifies the measurements behind the cost; "" where it is a formula."""

    def __call__(self, shape: Shape) -> Measurement:
        """Return the cost of a shape, with its interval where there is one."""
        ...

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value, low end and high end of many shapes [shapes, 3]; the value again where there is no interval."""
        import numpy as np  # not at the top: core.step imports this module, and --help loads no numpy

        rows = []
        for fact in map(self, shapes):
            rows.append(
                (
                    fact.value,
                    fact.value if fact.low is None else fact.low,
                    fact.value if fact.high is None else fact.high,
                )
            )
        return np.array(rows, dtype=float).reshape(-1, 3)


class WidthCost(Cost):
    """A cost for each hidden width, as a Cost; each is made when a shape of that width is first priced.

    Args:
        of_width: Returns the cost of shapes of a hidden width.
    """

    def __init__(self, of_width: Callable[[int], Cost]) -> None:
        self.of_width = cache(of_width)

    def __call__(self, shape: Shape) -> Measurement:
        """Return the cost of a shape by that of its width."""
        return self.of_width(shape.hidden)(shape)

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value, low end and high end of many shapes [shapes, 3]; of one width they are priced at once."""
        widths = {shape.hidden for shape in shapes}
        return self.of_width(widths.pop()).many(shapes) if len(widths) == 1 else super().many(shapes)


class TargetCost(Protocol):
    """The costs on a run's target, by number format: what a step finds as ``context.cost``."""

    def for_format(self, number_format: str) -> Cost:
        """Return the cost in that number format, measured at the first call."""
        ...

    def of_width(self, hidden: int) -> TargetCost:
        """Return the costs of shapes of another hidden width; these, unless they are for one width alone."""
        return self

    def of_schedule(self, shape: Shape) -> TargetCost:
        """Return the costs of shapes with a schedule of tokens; these, unless they are for one schedule alone.

        Args:
            shape: Has the schedule; what is cheaper may be priced like it.
        """
        return self


class FunctionCost(Cost):
    """A function from shapes to measurements, as a Cost.

    >>> from limbeck.core.shape import Shape
    >>> cost = FunctionCost(lambda shape: Measurement("size", 4.0 * shape.weights, "B"))
    >>> cost.many([Shape.uniform(layers=2, hidden=32, heads=2, ffn=64)]).shape
    (1, 3)
    """

    def __init__(self, function: Callable[[Shape], Measurement]) -> None:
        self.function = function

    def __call__(self, shape: Shape) -> Measurement:
        """Return what the function says."""
        return self.function(shape)


class RepeatedCost(Cost):
    """The calls of a request, each of the same cost, as a Cost.

    Args:
        cost: Cost of one call.
        calls: How many there are; may be a fraction.
        target: Where requests are answered.

    >>> from limbeck.core.shape import Shape
    >>> once = FunctionCost(lambda shape: Measurement("latency_p50", 0.25, "s", low=0.0, high=0.5))
    >>> RepeatedCost(once, 4.0, "requests")(Shape.uniform(layers=1, hidden=8, heads=1, ffn=8)).high
    2.0
    """

    def __init__(self, cost: Cost, calls: float, target: str) -> None:
        self.cost, self.calls, self.target = cost, calls, target
        self.key = f"{cost.key} x {calls:g}" if cost.key else ""

    def __call__(self, shape: Shape) -> Measurement:
        """Return the cost of all calls."""
        fact = self.cost(shape)
        low, high = (None if bound is None else bound * self.calls for bound in (fact.low, fact.high))
        return replace(fact, value=fact.value * self.calls, low=low, high=high, target=self.target)

    def many(self, shapes: Sequence[Shape]) -> np.ndarray:
        """Return value, low end and high end of many shapes [shapes, 3]."""
        return self.cost.many(shapes) * self.calls
