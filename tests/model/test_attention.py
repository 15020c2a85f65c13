"""Attention cores against the formula, one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck.core import shape
from limbeck.model.attention import CORES, added_to_scores, core, kernel, linformer, local, scores, softmax, window


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


@pytest.mark.parametrize("size", [1, 9])
def test_a_mask_of_numbers_is_added_to_local_scores(tensors, size):
    """Where they are 0 and hugely negative, as where they are True and False; padding is as if it were not there."""
    query, key, value, mask = tensors
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    torch.testing.assert_close(
        local(query, key, value, added, size=size)[1, :, :3], local(query, key, value, mask, size=size)[1, :, :3]
    )
    half = torch.zeros(mask.shape).masked_fill(~mask, math.log(0.5))
    weights = scores(query, key, half).softmax(-1)
    torch.testing.assert_close(local(query, key, value, half, size=9), weights @ value)
    bias = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(added_to_scores(bias, half), bias + half)
    torch.testing.assert_close(added_to_scores(bias, mask).softmax(-1), added_to_scores(bias, added).softmax(-1))


def test_softmax_is_the_formula(tensors):
    torch.testing.assert_close(softmax(*tensors), reference(*tensors))
    query, key, value, mask = tensors
    torch.testing.assert_close(softmax(query, key, value, None), reference(query, key, value, torch.ones_like(mask)))


def test_scores_are_what_softmax_weighs(tensors):
    query, key, value, mask = tensors
    torch.testing.assert_close(scores(query, key, mask).softmax(-1) @ value, softmax(*tensors))
    assert (scores(query, key, mask)[1, ..., 3:] == torch.finfo(torch.float32).min).all()


def test_a_core_has_the_name_that_shapes_use():
    assert set(CORES) == set(shape.CORES)
    for name in shape.CORES:
        full = shape.attention_core(name)
        assert core(full) == shape.LayerShape(1, 1, full).core == (name, shape.CORES[name])


@pytest.mark.parametrize("heads", [(), (3,)])
def test_linformer_is_softmax_over_projected_keys_and_values(tensors, heads):
    query, key, value, _ = tensors
    generator = torch.Generator().manual_seed(1)
    both = tuple(torch.randn(*heads, 9, 6, generator=generator) for _ in range(2))
    result = linformer(*tensors, size=6, lengths=both)
    for text, real in enumerate((5, 3)):  # as the original: one text at a time, its tokens alone
        short = [
            projection[..., :real, :].transpose(-1, -2) @ states[text, :, :real] / math.sqrt(real)
            for projection, states in zip(both, (key, value), strict=True)
        ]
        weights = (query[text] @ short[0].transpose(-1, -2) / 2).softmax(-1)
        torch.testing.assert_close(result[text], weights @ short[1])


def test_a_smaller_size_takes_the_leading_columns(tensors):
    both = tuple(torch.randn(9, 6) for _ in range(2))
    fewer = tuple(states[:, :4] for states in both)
    assert torch.equal(linformer(*tensors, size=4, lengths=both), linformer(*tensors, size=4, lengths=fewer))


def test_kernel_is_the_formula(tensors):
    query, key, value, mask = tensors
    weights = (torch.nn.functional.elu(query) + 1) @ (torch.nn.functional.elu(key) + 1).transpose(-1, -2) * mask
    torch.testing.assert_close(kernel(*tensors), weights / weights.sum(-1, keepdim=True) @ value)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("tokens", [1, 2, 5, 12])
def test_window_is_softmax_among_neighbors_and_the_first_token(size, tokens):
    query, key, value = (torch.randn(2, 3, tokens, 4) for _ in range(3))
    mask = torch.ones(2, 1, 1, tokens, dtype=torch.bool)
    mask[1, ..., max(1, tokens - 2) :] = False
    positions = torch.arange(tokens)
    near = (positions - positions[:, None]).abs() <= size
    near[0] = near[:, 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask & near)
    torch.testing.assert_close(window(query, key, value, mask, size=size), expected)


def test_a_window_as_wide_as_the_text_is_softmax_attention(tensors):
    torch.testing.assert_close(window(*tensors, size=5), softmax(*tensors))


@pytest.mark.parametrize("name", [name for name in CORES])
def test_padding_more_never_changes_the_answer(tensors, name):
    query, key, value, mask = tensors
    both = tuple(torch.randn(20, 6) for _ in range(2))
    short = CORES[name](*tensors, size=2, lengths=both)
    query, key, value = (torch.cat((part, torch.full((2, 3, 9, 4), 7.0)), 2) for part in (query, key, value))
    mask = torch.cat((mask, torch.zeros(2, 1, 1, 9, dtype=torch.bool)), -1)
    torch.testing.assert_close(CORES[name](query, key, value, mask, size=2, lengths=both)[:, :, :5], short)


@pytest.mark.parametrize("name", [name for name in CORES])
def test_every_token_without_a_mask_is_a_mask_of_ones(tensors, name):
    query, key, value, mask = tensors
    both = tuple(torch.randn(20, 6) for _ in range(2))
    options = {"size": 2, "lengths": both}
    every = CORES[name](query, key, value, torch.ones_like(mask), **options)
    torch.testing.assert_close(CORES[name](query, key, value, None, **options), every)
