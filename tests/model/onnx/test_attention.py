"""Softmax attention as ONNX nodes: the answers of torch, with rotary positions and with biases by distance."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.onnx.onnx_model import open_session, parts, read_parts, to_onnx
from limbeck.model.onnx.onnx_model import write as write_graph
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

SHAPE = Shape(32, 8, (LayerShape(4, 24), LayerShape(4, 24)))
STYLES = {
    "rotary": {"rotary_theta": (100.0,), "absolute_positions": False, "norm_first": True},
    "biases": {"relative_buckets": 8, "relative_heads": 4, "relative_distance": 6},
    "mean": {"relative_buckets": 8, "relative_heads": 4, "relative_distance": 6, "pooling": "mean"},
}


def answers(session, batch):
    names = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: value.numpy() for name, value in batch.items() if name in names})[0]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_texts_of_every_length_are_answered_as_in_torch(make_model, make_batch, tmp_path, style, fused, kind):
    model = make_model(SHAPE, kind=kind, **STYLES[style])
    path = to_onnx(model, tmp_path / "model.onnx", fused=fused)
    blueprint, weights = read_parts(path)
    int8 = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights))))
    sessions = open_session(path), open_session(write_graph(int8, tmp_path / "int8.onnx"))
    for longest in (3, 5, 7, 20):
        batch = make_batch(longest=longest, seed=longest)
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        expected = model.predict(batch)[real]
        np.testing.assert_allclose(answers(sessions[0], batch)[real], expected, atol=5e-5)
        np.testing.assert_allclose(answers(sessions[1], batch)[real], expected, atol=0.15)


def test_biases_are_one_row_a_head(make_model):
    _, weights = parts(make_model(SHAPE, **STYLES["biases"]))
    assert weights["position_bias"].shape == (4, 13)
