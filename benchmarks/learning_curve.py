"""The error of a latency predictor by the number of shapes that it is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from limbeck.core.shape import Shape
from limbeck.cost_models.latency_predictor import FEWEST, Errors, Predictor
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting


def learning_curve(
    shapes: Sequence[Shape],
    seconds: np.ndarray,
    setting: Setting,
    sizes: Sequence[int],
    *,
    repeats: int = 3,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure the error on held-out shapes against the number of training shapes.

    Args:
        shapes: Measured shapes, all different.
        seconds: Their latencies [shapes].
        setting: How they were measured.
        sizes: Numbers of training shapes.
        repeats: Random choices of training shapes that the errors are averaged over.
        seed: Seed of the choices and of the fits.

    Returns:
        For each size a row of its mean errors (see :class:`Errors`).
    """
    for size in sizes:
        if not FEWEST <= size < len(shapes):
            raise InputError(f"sizes: should be from {FEWEST} to below the {len(shapes)} measured shapes, got {size}")
    seconds, rng = np.asarray(seconds), np.random.default_rng(seed)
    orders = [rng.permutation(len(shapes)) for _ in range(repeats)]
    rows = []
    for size in sizes:
        errors = []
        for order in orders:
            training, held_out = order[:size], order[size:]
            measured = tuple(shapes[index] for index in training)
            predictor = Predictor(setting, measured, tuple(seconds[training].tolist()), seed=seed)
            predicted = predictor.seconds_of([shapes[index] for index in held_out])
            errors.append(asdict(Errors.of(predicted, seconds[held_out])))
        means = {
            name: float(np.mean([error[name] for error in errors])) for name in ("median", "p95", "within_10", "tau")
        }
        rows.append({"size": size, "left_out": len(shapes) - size, **means})
    return rows
