"""Every activation without weights is written, and computes what transformers computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from limbeck.core.shape import Shape
from limbeck.model.families import LEARNED_ACTIVATIONS
from limbeck.model.onnx.activations import WRITERS, activate
from limbeck.model.onnx.assembly import assemble_with, float_value
from limbeck.model.onnx.builder import Graph, all_nodes
from limbeck.model.onnx.float16 import to_float16
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import answer, open_session, parts

X = np.linspace(-14, 14, 281, dtype=np.float32)


def computed(name, *, fused, biased=True, half=False):
    """Return the activation of ``X``, looked up by token ids."""
    graph = Graph({})
    table = graph.constant("table", X[:, None] - biased)
    bias = graph.constant("bias", np.float32([1])) if biased else None
    y = activate(graph, name, graph.op("Gather", table, "input_ids"), bias, fused=fused)
    graph.op("Identity", y)
    graph.nodes[-1].output[0] = "logits"
    whole = assemble_with(graph, [float_value("logits", "batch", "sequence", 1)], "test", "", inward=False)
    session = open_session(to_float16(whole) if half else whole)
    return session.run(None, {"input_ids": np.arange(len(X))[None]})[0].reshape(-1)


def test_all_activations_without_weights_are_written():
    assert set(WRITERS) == set(ACT2FN) - set(LEARNED_ACTIVATIONS)


@pytest.mark.parametrize("name", WRITERS)
def test_an_activation_computes_what_torch_does(name):
    truth = ACT2FN[name](torch.from_numpy(X)).numpy()
    for fused in (True, False):
        for biased in (True, False):
            np.testing.assert_allclose(computed(name, fused=fused, biased=biased), truth, atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(computed(name, fused=True, half=True), truth, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", ["mish", "quick_gelu", "relu2", "laplace"])
def test_a_model_answers_as_in_torch(name, make_model, make_batch):
    model, batch = make_model(Shape.uniform(layers=2, hidden=32, heads=4, ffn=64), activation=name), make_batch()
    for fused in (True, False):
        graph, _ = build(*parts(model, fused=fused))
        assert fused or not any(node.domain for node in all_nodes(graph.graph.node))
        np.testing.assert_allclose(answer(open_session(graph), batch), model.predict(batch), atol=1e-4)
