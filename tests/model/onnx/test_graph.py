"""The ONNX graph that is written node by node: its operators, its description, and its logits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError
from limbeck.model.onnx.builder import FUSED
from limbeck.model.onnx.graph import Blueprint, build

RAGGED = Shape(32, 8, (LayerShape(3, 40), LayerShape(0, 24), LayerShape(2, 0)))


def parts_of(model, tmp_path):
    from limbeck.model.onnx.onnx_model import read_parts, to_onnx

    to_onnx(model, tmp_path / "model.onnx")
    return read_parts(tmp_path / "model.onnx")


def logits(proto, batch):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: value.numpy() for name, value in batch.items() if name in names})[0]


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("fused", [True, False])
def test_ragged_shapes_answer_as_torch_does(make_model, make_batch, tmp_path, fused, kind):
    model = make_model(RAGGED, kind=kind)
    blueprint, weights = parts_of(model, tmp_path)
    proto, inputs_of = build(replace(blueprint, fused=fused), weights)
    batch = make_batch()
    expected = model.predict(batch)
    real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
    np.testing.assert_allclose(logits(proto, batch)[real], expected[real], atol=2e-5)
    assert {"layers.0.up", "layers.1.down", "layers.2.attention_out"} <= set(inputs_of)
    assert not {"layers.1.attention_out", "layers.2.up"} & set(inputs_of)  # cut away


@pytest.mark.parametrize("fused", [True, False])
def test_norms_before_the_parts_and_no_biases(make_model, make_batch, fused):
    from limbeck.model.onnx.onnx_model import parts

    bare = {"norm_first": True, "norm_bias": False, "attention_bias": False, "ffn_bias": False, "token_types": 0}
    for style in (bare, bare | {"embedding_norm": False, "absolute_positions": False}, {"norm_first": True}):
        model = make_model(RAGGED, **style)
        batch = make_batch()
        proto, _ = build(*parts(model, fused=fused))
        np.testing.assert_allclose(logits(proto, batch), model.predict(batch), atol=2e-5)


def test_attention_is_one_node_for_every_layer_that_has_heads(make_model, tmp_path):
    blueprint, weights = parts_of(make_model(RAGGED), tmp_path)
    fused = build(blueprint, weights)[0].graph.node
    count = Counter(node.op_type for node in fused if node.domain == FUSED)
    assert count == {"Attention": 2, "BiasGelu": 2}
    plain = build(replace(blueprint, fused=False), weights)[0]
    assert not [node for node in plain.graph.node if node.domain]
    assert [entry.domain for entry in plain.opset_import] == [""]


def test_the_blueprint_is_kept_in_the_file(make_model, tmp_path):
    blueprint, _ = parts_of(make_model(RAGGED), tmp_path)
    assert blueprint.shape == RAGGED
    assert Blueprint.from_json(blueprint.to_json()) == blueprint
    assert "long_texts" not in blueprint.to_json()  # readable by versions that do not know it
    long = replace(blueprint, long_texts=True)
    assert Blueprint.from_json(long.to_json()) == long


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_attention_for_long_texts_gives_the_same_answers(make_model, make_batch, kind, int8):
    from limbeck.model.onnx.onnx_model import parts
    from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

    def made(long_texts):
        blueprint, weights = parts(model, long_texts=long_texts)
        names = frozenset(quantizable_modules(blueprint, weights))
        return quantize(blueprint, weights, Int8(names)) if int8 else build(blueprint, weights)[0]

    model, padded = make_model(Shape.uniform(3, 32, 4, 48), kind=kind), make_batch()
    whole = padded | {"attention_mask": padded["attention_mask"].fill_(1)}
    usual, long = made(False), made(True)
    for batch in (make_batch(), whole):
        assert (batch is whole) == bool(batch["attention_mask"].all())
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        expected = logits(usual, batch)[real]
        # in INT8 the last layer of a classifier rounds the first token's query by itself
        np.testing.assert_allclose(logits(long, batch)[real], expected, atol=(0.05 if int8 else 1e-5))
    assert not {"Attention", "QAttention"} & {node.op_type for node in long.graph.node}
    assert sum(node.op_type == "If" for node in long.graph.node) == 3


def test_what_cannot_be_exported_is_refused(make_model, tmp_path):
    blueprint, _ = parts_of(make_model(RAGGED), tmp_path)
    with pytest.raises(InputError, match="activation 'gelu_nw' cannot be exported to ONNX; did you mean 'gelu_new'"):
        replace(blueprint, activation="gelu_nw")
    with pytest.raises(InputError, match="attention 'linear'; choose from 'kernel'"):
        replace(blueprint, shape=RAGGED.with_layer(0, attention="linear"))
