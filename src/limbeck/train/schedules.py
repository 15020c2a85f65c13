"""Learning-rate schedules: factors of the highest rate, as functions of the fraction of training done (0 to 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.train.config import TrainingConfig

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


def polynomial(warmup_ratio: float, end: float = 0.0, power: float = 1.0) -> Schedule:
    """Return a schedule that rises linearly, then falls to ``end`` as ``(1 - rest) ** power`` falls to 0.

    >>> rate = polynomial(0.0, end=0.2, power=2.0)
    >>> [round(rate(f), 2) for f in (0, 0.5, 1)]
    [1.0, 0.4, 0.2]

    Args:
        warmup_ratio: Fraction of the training in which the rate rises.
        end: Last factor.
        power: Power of the decay; 1 is linear.
    """
    return lambda fraction: _warm(fraction, warmup_ratio, lambda rest: end + (1.0 - end) * (1.0 - rest) ** power)


def _warm(fraction: float, warmup_ratio: float, after: Schedule) -> float:
    if fraction < warmup_ratio:
        return fraction / warmup_ratio
    return after(min(1.0, (fraction - warmup_ratio) / max(1e-12, 1.0 - warmup_ratio)))


SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "polynomial": polynomial,
}
"""Names as in ``lr_scheduler_type`` of transformers."""


def schedule_of(config: TrainingConfig, total: int) -> Schedule:
    """Return the schedule of a training of ``total`` optimizer steps; ``warmup_steps`` stand before the ratio."""
    warmup = min(1.0, config.warmup_steps / total) if config.warmup_steps else config.warmup_ratio
    if config.lr_scheduler_type == "polynomial":
        end = min(1.0, config.end_learning_rate / config.learning_rate)
        return polynomial(warmup, end, config.lr_power)
    return SCHEDULES[config.lr_scheduler_type](warmup)
