import copy

import numpy as np
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.model.pruning.kept_orders import kept_orders
from limbeck.model.pruning.slicing import RemovalOrder, RemovalOrders

FULL = Shape.uniform(layers=2, hidden=16, heads=2, ffn=16)


def orders():
    return RemovalOrders(
        tuple(RemovalOrder.of(np.arange(2.0)) for _ in range(2)), tuple(RemovalOrder.of(np.arange(16.0)) for _ in "ab")
    )


def test_orders_are_kept_by_weights_method_and_texts(make_model, tmp_path):
    model, stored = make_model(FULL), {}

    def keep(name, fill):
        if name not in stored:
            stored[name] = tmp_path / str(len(stored))
            stored[name].mkdir()
            fill(stored[name])
        return stored[name]

    first = kept_orders(keep, "obs-6", "texts", model, orders)
    again = kept_orders(keep, "obs-6", "texts", copy.deepcopy(model), lambda: pytest.fail("they are kept"))
    for ours, others in zip((*first.heads, *first.ffn), (*again.heads, *again.ffn), strict=True):
        assert np.array_equal(ours.parts, others.parts)
        assert np.array_equal(ours.lost, others.lost)
    assert np.array_equal(first.ffn[1].lost, orders().ffn[1].lost)
    kept_orders(keep, "ziplm-6", "texts", model, orders)
    kept_orders(keep, "obs-6", "other texts", model, orders)
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    kept_orders(keep, "obs-6", "texts", model, orders)
    assert len(stored) == 4
