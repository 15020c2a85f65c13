"""Soft gates in place of dropped tokens: at a low temperature both are the same."""

from itertools import pairwise

import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.core.token_schedule import choosing_layers
from limbeck.model.pruning.token_gates import GatedTokens, logits_with
from limbeck.model.token_pruning import RemainingTokens

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=48)
SHARES = (0.801, 0.601, 0.301)  # of no number of tokens here are these whole numbers
STYLES = {
    "bert": {},
    "pre-norm": {"norm_first": True},
    "rotary": {"rotary_theta": (100.0,), "absolute_positions": False, "token_types": 0},
    "relative": {"relative_buckets": 8, "relative_heads": 4, "relative_distance": 9, "token_types": 0},
    "mean pooling": {"pooling": "mean"},
}


@pytest.fixture
def batch(make_batch):
    return make_batch(rows=5, longest=17)


def gated(batch, shares, temperature):
    return GatedTokens(batch["attention_mask"], batch["input_ids"], map(torch.as_tensor, shares), temperature)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", ["classification", "tokens", "embedding"])
@torch.no_grad()
def test_gates_of_0_and_1_equal_tokens_that_are_left_behind(make_model, batch, style, kind):
    model = make_model(SHAPE, kind=kind, **STYLES[style])
    dropped = model.run(batch, shape=SHAPE.with_tokens(*SHARES, SHARES[-1]))[0]
    logits = logits_with(model, gated(batch, SHARES, 1e-6), batch)
    if kind == "tokens":
        real = batch["attention_mask"].bool()
        logits, dropped = logits[real], dropped[real]
    torch.testing.assert_close(logits, dropped, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits_with(model, gated(batch, (1, 1, 1), 1e-6), batch)[0], logits[0], atol=1e-3)


@torch.no_grad()
def test_open_gates_change_nothing(make_model, batch):
    model = make_model(SHAPE)
    logits = logits_with(model, gated(batch, (2, 2, 2), 0.01), batch)
    torch.testing.assert_close(logits, model.run(batch)[0])
    remaining = RemainingTokens(batch["attention_mask"], batch["input_ids"])
    torch.testing.assert_close(logits_with(model, remaining, batch), logits)


@torch.no_grad()
def test_layers_that_cannot_choose_read_what_remains(make_model, batch):
    """Layers without heads, and local ones whose window sees the whole text."""
    shape = SHAPE.with_layer(0, heads=0).with_layer(2, attention="local:20")
    model = make_model(shape, layer_attention=["softmax", "softmax", "local:20", "softmax"])
    assert choosing_layers(shape) == (1,)
    dropped = model.run(batch, shape=shape.with_tokens(1, 0.401, 0.401, 0.401))[0]
    torch.testing.assert_close(logits_with(model, gated(batch, (0.401,), 1e-6), batch), dropped, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_window_is_one_over_all_positions(make_model, batch):
    """Gates do not move tokens together, so a narrow window reads what is left of it."""
    cores = ("softmax", "local:2", "softmax", "softmax")
    model = make_model(SHAPE.with_attention(*cores), layer_attention=list(cores))
    logits = logits_with(model, gated(batch, (2, 2), 0.01), batch)
    torch.testing.assert_close(logits, model.run(batch)[0])
    assert torch.isfinite(logits_with(model, gated(batch, (0.3, 0.3), 1e-6), batch)).all()


def test_padding_plays_no_part_and_gates_never_open_again(make_model, batch):
    model = make_model(SHAPE)
    remaining = gated(batch, (0.5, 0.9, 0.4), 0.1)
    logits, seen = [], []
    for _ in model.encoder.states(remaining, batch["input_ids"], batch["token_type_ids"]):
        seen.append(remaining.gates)
    assert all((later <= earlier).all() for earlier, later in pairwise(seen))
    assert (remaining.gates[:, 0] == 1).all()
    assert (remaining.gates[batch["attention_mask"] == 0] == 0).all()
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}
        logits.append(logits_with(model, gated(alone, (0.5, 0.9, 0.4), 0.1), alone))
    together = logits_with(model, gated(batch, (0.5, 0.9, 0.4), 0.1), batch)
    torch.testing.assert_close(torch.cat(logits), together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_gates_sum_to_the_share_of_every_layer(make_model, make_batch):
    """Also where layers rank differently: what a layer would leave behind ranks behind all that remains."""
    model, batch = make_model(SHAPE), make_batch(rows=4, longest=60)
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    for temperature, tolerance in ((0.3, 0.1), (0.1, 0.04), (0.01, 0.02)):
        remaining, sums = gated(batch, SHARES, temperature), []
        for _ in model.encoder.states(remaining, batch["input_ids"]):
            sums.append(remaining.gates.mean())
        torch.testing.assert_close(torch.stack(sums[1:4]), torch.tensor(SHARES), atol=tolerance, rtol=0)


def test_every_share_has_a_gradient(make_model, batch):
    model = make_model(SHAPE)
    shares = torch.tensor([0.8, 0.6, 0.4], requires_grad=True)
    (slope,) = torch.autograd.grad(logits_with(model, gated(batch, shares, 0.1), batch)[:, 0].sum(), shares)
    assert torch.isfinite(slope).all()
    assert slope.all()
    step = 1e-2
    up, down = (
        float(logits_with(model, gated(batch, shares.detach() + sign * step, 0.1), batch)[:, 0].sum().detach())
        for sign in (torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, -1.0]))
    )
    # ranks of the last layer that chooses do not depend on its share
    assert float(slope[2]) == pytest.approx((up - down) / (2 * step), rel=0.1)
