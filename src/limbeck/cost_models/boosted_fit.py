"""One fit of the latency predictor: prices of operations, and gradient-boosted trees for the remainder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.shape import Shape
from limbeck.cost_models.features import (
    SHAPE_FEATURES,
    TERMS,
    additive,
    columns_of,
    design,
    fit_additive,
    shape_features,
)
from limbeck.errors import MissingExtra
from limbeck.measure.dummy_model import Setting

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

TREES = {"max_iter": 150, "learning_rate": 0.06, "max_leaf_nodes": 6, "min_samples_leaf": 6, "l2_regularization": 1.0}


@dataclass(frozen=True)
class BoostedFit:
    """The prices of operations, and the trees if there are any."""

    setting: Setting
    prices: np.ndarray
    trees: HistGradientBoostingRegressor | None = None

    @classmethod
    def of(cls, shapes: Sequence[Shape], seconds: np.ndarray, setting: Setting, seed: int) -> BoostedFit:
        """Fit both parts.

        Args:
            shapes: Measured shapes.
            seconds: Their latencies [shapes].
            setting: How they were measured.
            seed: Seed of the trees.
        """
        columns = columns_of(shapes)
        matrix = design(columns, setting)
        plain = cls(setting, fit_additive(matrix, seconds))
        features, base = plain.features(shapes)
        return cls(setting, plain.prices, _trees(seed).fit(features, np.log(seconds / base)))

    def features(self, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs of the trees [shapes, features] and the additive prediction in seconds [shapes]."""
        columns = columns_of(shapes)
        matrix = design(columns, self.setting)
        base = additive(matrix, self.prices)
        attention, forward = (additive(matrix[:, part], self.prices[part]) / base for part in _PARTS)
        return np.column_stack([shape_features(columns, matrix), np.log(base), attention, forward]), base

    def __call__(self, shapes: Sequence[Shape], with_trees: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Predict seconds [shapes]; also return features of the shapes [shapes, SHAPE_FEATURES]."""
        features, base = self.features(shapes)
        factor = np.exp(self.trees.predict(features)) if with_trees and self.trees is not None else 1.0
        return base * factor, features[:, : len(SHAPE_FEATURES)]


_PARTS = (
    [index for index, name in enumerate(TERMS) if "attention" in name or "proj" in name or "softmax" in name],
    [index for index, name in enumerate(TERMS) if "feed-forward" in name or "activations" in name],
)


def check_extra() -> None:
    """Refuse to go on without scikit-learn, before any work starts."""
    _trees(0)


def _trees(seed: int) -> HistGradientBoostingRegressor:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError:
        raise MissingExtra("scikit-learn", "search") from None
    return HistGradientBoostingRegressor(**TREES, early_stopping=False, random_state=seed)
