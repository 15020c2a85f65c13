from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from limbeck.core.analytic_cost import macs, reach
from limbeck.core.shape import LayerShape, Shape
from limbeck.cost_models.features import (
    SHAPE_FEATURES,
    TERMS,
    additive,
    columns_of,
    design,
    fit_additive,
    shape_features,
)

RAGGED = Shape(64, 8, (LayerShape(4, 100), LayerShape(0, 20), LayerShape(2, 0), LayerShape(3, 50)))

LINEAR = Shape(64, 8, tuple(LayerShape(4, 64, core) for core in ("linformer:8", "softmax", "window:2", "kernel")))

LINEAR_LAST = tuple(Shape(64, 8, (LayerShape(4, 64, core),) * 2) for core in ("linformer:8", "window:2", "kernel"))


def reference(shape, setting):
    """One shape, layer by layer."""
    texts, n, d = setting.target.batch, setting.seq_len, shape.hidden
    m = texts * n
    counts = dict.fromkeys(TERMS, 0.0) | {"call": 1, "embeddings": m * d, "head": texts * d * d}
    for index, row in enumerate(shape.layers):
        a, (core, _) = row.heads * shape.head_dim, row.core
        n_squared = core == "softmax"
        if not n_squared:
            first_only = index == shape.depth - 1 and not setting.per_token
            counts[f"{core} attention"] += 2 * m * reach(*row.core, n, shape.head_dim, first_only) * a
        if index < shape.depth - 1 or setting.per_token:
            counts["layers"] += 1
            counts["attentions"] += row.heads > 0
            counts["feed-forwards"] += row.ffn > 0
            counts["norms"] += m * d
            counts["projections"] += 4 * m * d * a
            counts["scores and contexts"] += 2 * m * n * a * n_squared
            counts["softmax"] += m * n * row.heads * n_squared
            counts["feed-forward products"] += 2 * m * d * row.ffn
            counts["activations"] += m * row.ffn
        else:
            counts["last attention"] += row.heads > 0
            counts["last feed-forward"] += row.ffn > 0
            counts["last projections"] += 3 * m * d * a + texts * d * a
            counts["last scores and contexts"] += 2 * m * n * a * n_squared
            counts["last softmax"] += m * n * row.heads * n_squared
            counts["last feed-forward products"] += 2 * texts * d * row.ffn
            counts["last activations"] += texts * row.ffn
    return [counts[name] for name in TERMS]


@pytest.mark.parametrize("per_token", [False, True])
def test_every_column_is_what_a_loop_over_layers_counts(setting, space, per_token):
    setting = replace(setting, per_token=per_token, seq_len=7, target=replace(setting.target, batch=3))
    shapes = [
        RAGGED,
        LINEAR,
        *LINEAR_LAST,
        replace(RAGGED, layers=()),
        *(space.sample(Random(seed)) for seed in range(20)),
    ]
    matrix = design(columns_of(shapes), setting)
    assert matrix.tolist() == [reference(shape, setting) for shape in shapes]


def test_the_products_are_the_multiply_accumulates(setting, space):
    setting = replace(setting, per_token=True)
    shapes = [space.sample(Random(seed)) for seed in range(5)]
    shapes.append(LINEAR)
    matrix = design(columns_of(shapes), setting)
    names = ("projections", "scores and contexts", "feed-forward products", *TERMS[-3:])
    products = sum(matrix[:, TERMS.index(name)] for name in names)
    assert products.tolist() == [macs(shape, 32, labels=0, pooler=False) for shape in shapes]


def test_prices_are_learned_and_never_negative(setting, space):
    shapes = [space.sample(Random(seed)) for seed in range(120)]
    matrix = design(columns_of(shapes), setting)
    true = np.random.default_rng(0).uniform(0.5, 2, len(TERMS)) * 1e-4 / np.maximum(matrix.max(axis=0), 1)
    prices = fit_additive(matrix, matrix @ true)
    assert additive(matrix, prices) == pytest.approx(matrix @ true, rel=1e-4)
    noisy = fit_additive(matrix, matrix @ true * np.random.default_rng(1).uniform(0.5, 2, len(shapes)))
    assert (noisy >= 0).all()


def test_looks_of_a_ragged_shape(setting):
    columns = columns_of([RAGGED])
    (seen,) = shape_features(columns, design(columns, setting))
    heads, ffn = np.array([4, 0, 2, 3]), np.array([100, 20, 0, 50])
    uneven = heads.std() / heads.mean(), ffn.std() / ffn.mean()
    assert seen[:-1] == pytest.approx([4, 64, 8, 4, 0, uneven[0], 100, 0, uneven[1], 3, 50])
    uniform = columns_of([Shape.uniform(3, 64, 4, 100), Shape(64, 8, ())])
    alike, empty = shape_features(uniform, design(uniform, setting))
    assert alike[SHAPE_FEATURES.index("unevenness of heads")] == 0
    assert empty[:-1].tolist() == [0, 64, 8] + [0] * 8
