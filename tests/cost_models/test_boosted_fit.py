from __future__ import annotations

import numpy as np

from limbeck.cost_models.boosted_fit import BoostedFit
from limbeck.cost_models.features import SHAPE_FEATURES, columns_of, design, shape_features
from limbeck.cost_models.shape_sampling import sample_shapes


def test_additive_latencies_are_reproduced_without_trees(setting, space):
    shapes = sample_shapes(space, 60)
    columns = columns_of(shapes)
    matrix = design(columns, setting)
    seconds = matrix.sum(axis=1) * 1e-9
    predicted, features = BoostedFit.of(shapes, seconds, setting, seed=0)(shapes, with_trees=False)
    np.testing.assert_allclose(predicted, seconds, rtol=1e-6)
    assert features.shape == (60, len(SHAPE_FEATURES))
    np.testing.assert_array_equal(features, shape_features(columns, matrix))
