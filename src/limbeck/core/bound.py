"""The most that a shape may cost, absolute or relative to another shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.core.measurement import Measurement
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target


@dataclass(frozen=True)
class Bound:
    """The most that a shape may cost: at most one of these.

    Attributes:
        latency_ms: Latency, in milliseconds.
        speedup: Times as fast as the whole: of a latency alone, as half the operations are not twice the speed.
        keep: Fraction of the whole's cost.
        size_mb: Size of the weights, in MB.
    """

    latency_ms: float | None = None
    speedup: float | None = None
    keep: float | None = None
    size_mb: float | None = None

    @property
    def given(self) -> list[str]:
        """Names of the fields that are given."""
        return [name for name, value in vars(self).items() if value is not None]

    def amount(self, cost: Callable[[Shape], Measurement], whole: Shape) -> float:
        """Return the bound in the unit of the cost; infinite where none is given.

        Args:
            cost: Cost of shapes, in seconds for a latency and in bytes for a size.
            whole: The shape that ``speedup`` and ``keep`` are relative to.
        """
        if self.latency_ms is not None:
            return self.latency_ms / 1e3
        if self.size_mb is not None:
            return self.size_mb * 1e6
        if self.speedup is not None:
            return cost(whole).value / self.speedup
        return cost(whole).value * self.keep if self.keep is not None else math.inf


def time_problem(cost: str) -> str:
    """Say that goals of time are for latencies, where the cost is of another kind."""
    return f"speedup and latency_ms need cost: latency, got cost: {cost}; give keep, a share of it"


def missing_profile(target: Target, *, measures: bool) -> dict[str, str]:
    """Say by field that latencies of shapes are needed from a target on another machine, where none can be measured.

    Args:
        target: The target.
        measures: Whether the step would measure latencies of shapes.
    """
    if target.url is None or not measures:
        return {}
    command = "'limbeck profile --full --out machine.jsonl'"
    return {"profile": f"is needed, since the target is at {target.url}; run {command} there and name the file here"}
