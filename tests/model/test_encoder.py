"""The encoder run on a slice of its weights is the encoder that owns that slice."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args, get_type_hints

import pytest
import torch
from transformers.utils.generic import ModelOutput

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.encoder import (
    Encoder,
    Gates,
    LimbeckConfig,
    LimbeckForSequenceClassification,
    LimbeckForTokenClassification,
    LimbeckModel,
    Style,
)

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=48)
STYLES = {
    "bert": Style(vocab_size=50, max_positions=16, layer_norm_eps=1e-5),
    "roberta": Style("roberta", vocab_size=50, max_positions=16, position_offset=1, pad_token_id=1, token_types=1),
    "electra": Style("electra", vocab_size=50, max_positions=16, embedding_size=12),
    "distilbert": Style("distilbert", vocab_size=50, max_positions=16, token_types=0),
    "pre-norm": Style("roberta", vocab_size=50, max_positions=16, norm_first=True),
    "bare": Style(
        vocab_size=50,
        token_types=0,
        norm_first=True,
        absolute_positions=False,
        embedding_norm=False,
        norm_bias=False,
        attention_bias=False,
        ffn_bias=False,
    ),
}


def randomised(module):
    """Every weight, bias and norm parameter drawn large, so that a wrong slice shows."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.empty(parameter.shape).normal_(0.0, 0.3, generator=generator)
        if parameter.dim() == 1:
            parameter.data += 0.5
    return module.eval()


def batch(length=7, rows=3):
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(2, 50, (rows, length), generator=generator)
    mask = (torch.arange(length) < torch.tensor([[length], [3], [5]])).long()
    return ids, mask


def leading_slices(encoder, shape):
    """A smaller encoder, loaded parameter by parameter with the leading entries; heads are cut head by head."""
    small = Encoder(shape, encoder.style).eval()
    source = encoder.state_dict()
    full_dim = encoder.shape.head_dim
    for name, parameter in small.named_parameters():
        weight = source[name]
        per_head = {"query": 0, "key": 0, "value": 0, "attention_out": 1}.get(name.split(".")[-2])
        if per_head is not None and weight.dim() > per_head:
            heads = encoder.shape.layers[int(name.split(".")[1])].heads
            own_heads = shape.layers[int(name.split(".")[1])].heads
            channels = torch.arange(heads * full_dim).view(heads, full_dim)[:own_heads, : shape.head_dim].flatten()
            weight = weight.index_select(per_head, channels)
        parameter.data = weight[tuple(slice(width) for width in parameter.shape)].clone()
    return small


SLICES = {
    "same": FULL,
    "depth": replace(FULL, layers=FULL.layers[:2]),
    "no layers": replace(FULL, layers=()),
    "heads": FULL.with_layer(0, heads=3).with_layer(2, heads=1),
    "ffn": FULL.with_layer(1, ffn=7),
    "no heads": FULL.with_layer(1, heads=0),
    "no neurons": FULL.with_layer(1, ffn=0),
    "nothing": FULL.with_layer(1, heads=0, ffn=0),
    "head_dim": replace(FULL, head_dim=5),
    "hidden": replace(FULL, hidden=20),
    "all": Shape(20, 5, (LayerShape(2, 30), LayerShape(0, 9))),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SLICES)
def test_a_smaller_shape_equals_an_encoder_that_owns_the_slice(style, name):
    shape = SLICES[name]
    assert shape <= FULL
    encoder = randomised(Encoder(FULL, STYLES[style]))
    ids, mask = batch()
    expected, _ = leading_slices(encoder, shape)(ids, mask)
    seen, _ = encoder(ids, mask, shape=shape)
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
    assert seen.shape == (3, 7, shape.hidden)
    assert seen.isfinite().all()


@pytest.mark.parametrize("shape", [FULL, SLICES["heads"], SLICES["nothing"]])
def test_gates_of_one_change_nothing(shape):
    encoder = randomised(Encoder(FULL, STYLES["bert"]))
    ids, mask = batch()
    plain, _ = encoder(ids, mask, shape=shape)
    gated, _ = encoder(ids, mask, shape=shape, gates=Gates(torch.ones(3, 4), torch.ones(3, 48), torch.ones(3)))
    torch.testing.assert_close(gated, plain, rtol=1e-6, atol=1e-6)


def test_gates_of_zero_equal_the_part_removed():
    encoder = randomised(Encoder(FULL, STYLES["bert"]))
    ids, mask = batch()
    heads, ffn = torch.ones(3, 4), torch.ones(3, 48)
    heads[1, 2:], heads[2], ffn[0, 10:], ffn[1] = 0, 0, 0, 0
    masked, _ = encoder(ids, mask, gates=Gates(heads, ffn))
    shape = FULL.with_layer(0, ffn=10).with_layer(1, heads=2, ffn=0).with_layer(2, heads=0)
    sliced, _ = encoder(ids, mask, shape=shape)
    torch.testing.assert_close(masked, sliced, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_layer_gate_of_zero_is_a_layer_removed(dropped):
    encoder = randomised(Encoder(FULL, STYLES["bert"]))
    ids, mask = batch()
    gates = torch.ones(3)
    gates[dropped] = 0
    masked, _ = encoder(ids, mask, gates=Gates(layers=gates))
    del encoder.layers[dropped]
    encoder.shape = replace(FULL, layers=FULL.layers[:2])
    torch.testing.assert_close(masked, encoder(ids, mask)[0], rtol=1e-6, atol=1e-6)


def test_gradients_reach_every_gate():
    encoder = randomised(Encoder(FULL, STYLES["bert"]))
    gates = Gates(*(torch.ones(size, requires_grad=True) for size in ((3, 4), (3, 48), (3,))))
    encoder(*batch(), gates=gates)[0][:, 0].square().sum().backward()
    for gate in gates:
        assert gate.grad.ne(0).float().mean() > 0.9


TAPS = ("hidden", "attention", "query", "key", "value", "context", "neurons")


def test_taps_are_the_activations_layer_by_layer():
    shape = FULL.with_layer(1, heads=0, ffn=0).with_layer(2, heads=2, ffn=5)
    encoder = randomised(Encoder(shape, STYLES["bert"]))
    ids, mask = batch()
    out, taps = encoder(ids, mask, taps=TAPS)
    assert torch.equal(out, encoder(ids, mask)[0])
    heads, ffn = [4, 0, 2], [48, 0, 5]
    assert set(taps) == set(TAPS)
    assert [tuple(t.shape) for t in taps["hidden"]] == [(3, 7, 32)] * 4
    assert torch.equal(taps["hidden"][-1], out)
    assert [tuple(t.shape) for t in taps["attention"]] == [(3, h, 7, 7) for h in heads]
    for name in ("query", "key", "value"):
        assert [tuple(t.shape) for t in taps[name]] == [(3, h, 7, 8) for h in heads]
    assert [tuple(t.shape) for t in taps["context"]] == [(3, 7, h * 8) for h in heads]
    assert [tuple(t.shape) for t in taps["neurons"]] == [(3, 7, n) for n in ffn]
    weights = taps["attention"][0].softmax(-1)
    context = (weights @ taps["value"][0]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(context, taps["context"][0], rtol=1e-5, atol=1e-5)
    assert not weights[1, :, :, 3:].any(), "padding gets no attention"


@pytest.mark.parametrize("style", STYLES)
def test_more_padding_changes_nothing(style):
    encoder = randomised(Encoder(SLICES["heads"], STYLES[style]))
    ids, mask = batch()
    pad = STYLES[style].pad_token_id
    ids = torch.where(mask.bool(), ids, pad)
    longer = torch.nn.functional.pad(ids, (0, 5), value=pad), torch.nn.functional.pad(mask, (0, 5))
    short, long = encoder(ids, mask)[0], encoder(*longer)[0][:, :7]
    torch.testing.assert_close(long[mask.bool()], short[mask.bool()], rtol=1e-5, atol=1e-5)
    alone = encoder(ids[1:2, :3])[0]
    torch.testing.assert_close(alone, short[1:2, :3], rtol=1e-5, atol=1e-5)


def model_of(kind=LimbeckForSequenceClassification, **settings):
    return randomised(
        kind(LimbeckConfig(32, 8, [4, 2], [48, 0], vocab_size=50, max_positions=16, **settings))
    )  # fmt: skip


def test_loss_follows_the_problem():
    ids, mask = batch()
    logits = model_of(num_labels=4)(ids, mask).logits
    single = model_of(num_labels=4)(ids, mask, labels=torch.tensor([0, 3, 1])).loss
    torch.testing.assert_close(single, -logits.log_softmax(-1)[range(3), [0, 3, 1]].mean())
    targets = torch.tensor([[1.0, 0, 0, 1]] * 3)
    several = model_of(num_labels=4, problem_type="multi_label_classification")(ids, mask, labels=targets).loss
    odds = logits.sigmoid()
    torch.testing.assert_close(several, -(targets * odds.log() + (1 - targets) * (1 - odds).log()).mean())
    for problem in ("regression", None):  # one output is a number, as in transformers
        number = model_of(num_labels=1, problem_type=problem)
        loss = number(ids, mask, labels=torch.tensor([1.0, 2.0, 3.0])).loss
        difference = number(ids, mask).logits[:, 0] - torch.tensor([1.0, 2.0, 3.0])
        torch.testing.assert_close(loss, difference.square().mean())
    tagger = model_of(LimbeckForTokenClassification, num_labels=4)
    labels = torch.where(mask.bool(), 2, -100)
    expected = -tagger(ids, mask).logits.log_softmax(-1)[mask.bool()][:, 2].mean()
    torch.testing.assert_close(tagger(ids, mask, labels=labels).loss, expected)


def test_predict_has_no_dropout_and_leaves_the_mode():
    ids, mask = batch()
    model = model_of(num_labels=3, dropout=0.5).train()
    inputs = {"input_ids": ids, "attention_mask": mask}
    first, second = model.predict(inputs), model.predict(inputs)
    assert (first == second).all()
    assert model.training
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("kind", [LimbeckModel, LimbeckForSequenceClassification, LimbeckForTokenClassification])
def test_other_programs_read_the_outputs_from_the_annotation(kind):
    """sentence-transformers takes the first class of outputs that it names, and that class's fields."""
    outputs = next(each for each in get_args(get_type_hints(kind.forward)["return"]) if issubclass(each, ModelOutput))
    wanted = "last_hidden_state" if kind is LimbeckModel else "logits"
    assert wanted in {field.name for field in fields(outputs)}
