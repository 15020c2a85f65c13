import pytest
import torch
from torch.nn import functional as F

from limbeck.model.dropout import attend, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.25, 0.9])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(probability, dtype):
    torch.manual_seed(0)
    x = torch.ones(101, 1003, dtype=dtype)
    dropped = dropout(x, probability, training=True)
    assert (dropped.dtype, dropped.shape) == (dtype, x.shape)
    retained = dropped != 0
    deviation = (probability * (1 - probability) / x.numel()) ** 0.5
    assert abs(1 - retained.double().mean().item() - probability) < 5 * deviation
    torch.testing.assert_close(
        dropped[retained].double(), torch.full_like(dropped[retained], 1 / (1 - probability)).double()
    )


def test_elements_are_dropped_independently():
    """Also those that share a random number: of neighbors at each distance, as many go together as chance says."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.3, training=True) == 0).double()
    for distance in range(1, 9):
        together = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert together == pytest.approx(0.09, abs=0.003)


def test_the_seed_decides_and_each_call_differs():
    x = torch.randn(7, 33)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)


def test_gradients_pass_what_was_kept():
    x = torch.randn(5, 9, requires_grad=True)
    dropped = dropout(x, 0.4, training=True)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(dropped == 0, 0.0, 1 / 0.6))


@pytest.mark.parametrize(("probability", "training"), [(0.0, True), (0.5, False), (1.0, False)])
def test_nothing_is_dropped(probability, training):
    x = torch.randn(3, 4)
    assert dropout(x, probability, training) is x


def test_almost_all_may_be_dropped():
    torch.manual_seed(0)
    assert (dropout(torch.ones(1000), 0.999999, training=True) != 0).sum() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_query_that_sees_no_key_has_no_nan(dtype):
    query, key, value = (torch.randn(1, 2, 4, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    for nothing in (torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.full((1, 1, 4, 4), float("-inf"), dtype=dtype)):
        contexts = attend(query, key, value, nothing, 0.1)
        contexts.sum().backward()
        assert contexts.isfinite().all()
        assert query.grad.isfinite().all()


def test_all_may_be_dropped_and_an_empty_tensor_stays_empty():
    assert not dropout(torch.ones(3, 4), 1.0, training=True).any()
    assert dropout(torch.ones(0, 4), 0.1, training=True).shape == (0, 4)


def masks():
    seen = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    seen[0, ..., 4:] = False
    return {
        "none": None,
        "keys": seen,
        "pairs": seen & torch.ones(2, 1, 5, 6).tril(2).bool(),
        "added": torch.randn(2, 3, 5, 6),
    }


@pytest.mark.parametrize("name", masks())
def test_attention_is_that_of_torch_but_for_dropped_weights(name):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = masks()[name]
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attend(query, key, value, mask, 0.0), expected)
    mean = torch.stack([attend(query, key, value, mask, 0.2) for _ in range(4000)]).mean(0)
    assert (mean - expected).abs().max() < 0.1
    assert not torch.equal(attend(query, key, value, mask, 0.2), expected)


@pytest.mark.parametrize("name", masks())
def test_gradients_in_bfloat16_are_near_those_in_float32(name):
    torch.manual_seed(0)
    states = [torch.randn(2, 3, rows, 8) for rows in (5, 6, 6)]
    mask, results = masks()[name], {}
    for dtype in (torch.float32, torch.bfloat16):
        own = [part.clone().to(dtype).requires_grad_() for part in states]
        added = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            context = attend(*own, added, 0.0)
        assert context.dtype == dtype
        context.float().square().sum().backward()
        results[dtype] = [context, *(part.grad for part in own)]
    for expected, gradient in zip(*results.values(), strict=True):
        torch.testing.assert_close(gradient.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
