"""Learning-rate schedules: factors of the highest rate, as functions of the fraction of training done (0 to 1)."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def linear(warmup_ratio: float) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1 during warm-up, then falls linearly to 0.

    >>> rate = linear(0.1)
    >>> [round(rate(f), 2) for f in (0, 0.05, 0.1, 0.55, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return lambda fraction: _warm(fraction, warmup_ratio, lambda rest: 1.0 - rest)


def cosine(warmup_ratio: float) -> Schedule:
    """Return a schedule that rises linearly, then falls along half a cosine to 0."""
    return lambda fraction: _warm(fraction, warmup_ratio, lambda rest: 0.5 * (1.0 + math.cos(math.pi * rest)))


def constant(warmup_ratio: float) -> Schedule:
    """Return a schedule that rises linearly, then stays at 1."""
    return lambda fraction: _warm(fraction, warmup_ratio, lambda rest: 1.0)


def _warm(fraction: float, warmup_ratio: float, after: Schedule) -> float:
    if fraction < warmup_ratio:
        return fraction / warmup_ratio
    return after(min(1.0, (fraction - warmup_ratio) / max(1e-12, 1.0 - warmup_ratio)))


SCHEDULES: dict[str, Callable[[float], Schedule]] = {"linear": linear, "cosine": cosine, "constant": constant}
"""Names as in ``lr_scheduler_type`` of transformers."""
