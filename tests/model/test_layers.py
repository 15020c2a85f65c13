from __future__ import annotations

import torch
import torch.nn.functional as F

from limbeck.model.layers import linear, slice_linear, slice_norm


def test_slices_are_the_leading_weights():
    layer, norm, x = linear(6, 4), torch.nn.LayerNorm(6), torch.randn(2, 5)
    expected = F.linear(x, layer.weight[:3, :5], layer.bias[:3])
    torch.testing.assert_close(slice_linear(x, layer, 3, 5), expected)
    torch.testing.assert_close(slice_norm(x, norm), F.layer_norm(x, (5,)))


def test_an_empty_layer_gives_its_bias():
    layer = linear(0, 4)
    torch.testing.assert_close(layer(torch.zeros(2, 0)), torch.zeros(2, 4))
