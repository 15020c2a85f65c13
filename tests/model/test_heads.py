"""Heads after inner layers answer what they are sure of, alone and in batches."""

from __future__ import annotations

from functools import partial
from unittest import mock

import exiting_models
import numpy as np
import pytest
import torch
from exiting_models import LAYERS

from limbeck.core.early_exits import EarlyExits, answering_heads, thresholds
from limbeck.core.shape import Shape
from limbeck.model.early_exits import add_exits, all_logits, set_rule
from limbeck.model.heads import head_features, head_logits, mean_of_tokens
from limbeck.model.layers import Layer

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64)


def with_exits(make_model, criterion="confidence", threshold=0.8, layers=LAYERS, **options):
    rule = EarlyExits(layers, criterion, threshold)
    return exiting_models.with_exits(partial(make_model, **options), SHAPE, rule)


def expected(model, batch):
    """Which head answers each text, and what it answers, from the logits of all heads."""
    with torch.no_grad():
        logits = torch.stack(all_logits(model, batch)).numpy()
    heads = answering_heads(EarlyExits.from_json(model.config.early_exits), logits)
    return heads, logits[heads, np.arange(len(heads))]


RULES = [(criterion, each) for criterion in ("confidence", "entropy", "patience") for each in (0, -1)]


@pytest.mark.parametrize(("criterion", "position"), [*RULES, ("confidence", 20), ("entropy", 20)])
def test_a_batch_is_answered_as_its_texts_alone(make_model, make_batch, criterion, position):
    model = with_exits(make_model, criterion, thresholds(criterion, 3, 3)[position])
    batch = make_batch(rows=16)
    heads, answers = expected(model, batch)
    np.testing.assert_allclose(model.predict(batch), answers, atol=1e-5)
    for row in range(16):
        length = int(batch["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}
        np.testing.assert_allclose(model.predict(alone)[0], answers[row], atol=1e-5)
    if position == 20:
        assert len(set(heads)) > 1  # some leave early and some do not


@pytest.mark.parametrize("style", [{}, {"norm_first": True}, {"pooling": "mean", "pooler_norm": True}], ids=str)
def test_layers_after_the_last_sure_head_are_not_computed(make_model, make_batch, style):
    model, batch = with_exits(make_model, threshold=0.6, **style), make_batch(rows=16)
    heads, answers = expected(model, batch)
    forward = Layer.forward
    for row in range(16):
        length = int(batch["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}
        with mock.patch.object(Layer, "forward", autospec=True, side_effect=forward) as computed:
            np.testing.assert_allclose(model.predict(alone)[0], answers[row], atol=1e-5)
        assert computed.call_count == (*LAYERS, SHAPE.depth)[heads[row]]
    assert len(set(heads)) > 1


def test_without_a_threshold_the_last_head_answers(make_model, make_batch):
    model, batch = make_model(SHAPE), make_batch()
    before = model.predict(batch)
    add_exits(model, EarlyExits(LAYERS))
    assert not model.leaves_early
    np.testing.assert_array_equal(model.predict(batch), before)
    set_rule(model, EarlyExits(LAYERS, "confidence", 0.0))
    assert model.leaves_early
    assert not np.allclose(model.predict(batch), before)
    hidden = model.run(batch, taps=("hidden",))[1]["hidden"]
    assert len(hidden) == SHAPE.depth + 1  # what asks for more than the answer gets all layers
    with torch.no_grad():  # what trains the last head sees it
        torch.manual_seed(0)
        given = model.train().run(batch)[0]
        torch.manual_seed(0)
        last = model.logits(model.encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])[0])
    torch.testing.assert_close(given, last)


def test_heads_begin_as_copies_of_the_last(make_model, make_batch):
    model = make_model(SHAPE)
    add_exits(model, EarlyExits((2,)))
    own = {name: value for name, value in model.state_dict().items() if name.split(".")[0] in ("pooler", "classifier")}
    for name, value in own.items():
        assert torch.equal(model.exits[0].state_dict()[name], value)


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_logits_are_the_output_layer_of_the_features(make_model, make_batch, kind):
    model, batch = make_model(SHAPE, kind=kind), make_batch()
    hidden = model.encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])[0]
    given = (model, hidden, batch["attention_mask"], model.style)
    features = head_features(*given, per_token=model.per_token)
    assert features.shape[-1] == 32
    assert torch.equal(model.classifier(features), head_logits(*given, per_token=model.per_token))
    assert torch.equal(model.classifier(features), model.run(batch)[0])


@pytest.mark.parametrize("padded", [True, False])
def test_means_of_long_texts_fit_into_half_precision_though_sums_do_not(padded):
    hidden = torch.rand(2, 9000, 3, generator=torch.Generator().manual_seed(0)) * 20
    mask = (torch.arange(9000) < torch.tensor([[9000], [8500]])).long() if padded else None
    expected = mean_of_tokens(hidden, mask)
    half = mean_of_tokens(hidden.half(), mask)
    assert float(hidden.sum(1).min()) > torch.finfo(torch.float16).max
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, rtol=1e-3, atol=0)
