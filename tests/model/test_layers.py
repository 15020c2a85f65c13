from __future__ import annotations

import torch
import torch.nn.functional as F

from limbeck.model.layers import linear, slice_linear, slice_norm, tapped


def test_slices_are_the_leading_weights():
    layer, norm, x = linear(6, 4), torch.nn.LayerNorm(6), torch.randn(2, 5)
    expected = F.linear(x, layer.weight[:3, :5], layer.bias[:3])
    torch.testing.assert_close(slice_linear(x, layer, 3, 5), expected)
    torch.testing.assert_close(slice_norm(x, norm), F.layer_norm(x, (5,)))


def test_an_empty_layer_gives_its_bias():
    layer = linear(0, 4)
    torch.testing.assert_close(layer(torch.zeros(2, 0)), torch.zeros(2, 4))


def test_a_tap_has_the_gradient_of_what_reads_it_alone():
    taps, states = {"read": []}, torch.tensor([2.0, 3.0], requires_grad=True)
    assert tapped(taps, "other", states) is states
    read = tapped(taps, "read", states)
    (states.sum() + read.square().sum()).backward(inputs=[states, read])
    assert taps["read"][0] is read
    assert read.grad.tolist() == [4.0, 6.0]
    assert states.grad.tolist() == [5.0, 7.0]
