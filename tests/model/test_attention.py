"""Attention cores against the formula, one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck.model.attention import CORES, scores, softmax


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3))
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    return query, key, value, mask


def reference(query, key, value, mask):
    """Sums and exponentials, written out."""
    result = torch.zeros_like(query)
    for batch in range(query.shape[0]):
        real = [k for k in range(key.shape[2]) if mask[batch, 0, 0, k]]
        for head in range(query.shape[1]):
            for q in range(query.shape[2]):
                products = [
                    float(query[batch, head, q] @ key[batch, head, k]) / math.sqrt(query.shape[3]) for k in real
                ]
                powers = [math.exp(product) for product in products]
                for k, power in zip(real, powers, strict=True):
                    result[batch, head, q] += power / sum(powers) * value[batch, head, k]
    return result


def test_softmax_is_the_formula(tensors):
    torch.testing.assert_close(softmax(*tensors), reference(*tensors))
    query, key, value, mask = tensors
    torch.testing.assert_close(softmax(query, key, value, None), reference(query, key, value, torch.ones_like(mask)))


def test_scores_are_what_softmax_weighs(tensors):
    query, key, value, mask = tensors
    torch.testing.assert_close(scores(query, key, mask).softmax(-1) @ value, softmax(*tensors))
    assert (scores(query, key, mask)[1, ..., 3:] == torch.finfo(torch.float32).min).all()


def test_a_core_has_the_name_that_shapes_use():
    assert {"softmax": softmax} == CORES
