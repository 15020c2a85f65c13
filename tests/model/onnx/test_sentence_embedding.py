from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from limbeck.core.sentence_embedding import ACTIVATIONS, POOLINGS, Dense, SentenceEmbedding
from limbeck.model.onnx.builder import Graph
from limbeck.model.onnx.float16 import to_float16
from limbeck.model.onnx.onnx_model import answer, open_session, to_onnx
from limbeck.model.onnx.sentence_embedding import sentence_embedding
from limbeck.model.sentence_encoder import pool


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("pooling", "activation", "normalize"),
    [*((pooling, "identity", True) for pooling in POOLINGS), *(("mean", name, False) for name in ACTIVATIONS)],
)
def test_the_graph_gives_torch_s_vectors_and_hidden_states(
    make_model, make_batch, tmp_path, pooling, activation, normalize, fused
):
    model = make_model(kind="embedding")
    model.embedding = SentenceEmbedding(pooling, normalize=normalize)
    generator = torch.Generator().manual_seed(0)
    model.widen(Dense(6, True, activation), torch.randn(6, 32, generator=generator), torch.randn(6))
    batch = make_batch()
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    np.testing.assert_allclose(answer(session, batch), model.predict(batch), atol=1e-4)
    assert [output.name for output in session.get_outputs()] == ["sentence_embedding", "last_hidden_state"]
    inputs = {entry.name: batch[entry.name].numpy() for entry in session.get_inputs()}
    hidden = session.run(["last_hidden_state"], inputs)[0]
    expected = model.encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])[0].detach().numpy()
    real = batch["attention_mask"].bool().numpy()
    np.testing.assert_allclose(hidden[real], expected[real], atol=1e-3)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_long_texts_in_half_precision(pooling, precision):
    """Sums over 9,000 tokens are beyond what float16 holds; the reference rounds the result of every node."""
    graph = Graph({})
    states = graph.op("Cast", "states", to=1)
    sentence_embedding(graph, states, SentenceEmbedding(pooling, normalize=False))
    inputs = [helper.make_tensor_value_info("states", TensorProto.INT64, [2, None, 3])]
    inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [2, None]))
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [2, 3])]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    written = helper.make_graph(graph.nodes, "pooling", inputs, outputs, constants)
    proto = helper.make_model(written, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    proto = to_float16(proto) if precision == "float16" else proto
    onnx.checker.check_model(proto, full_check=True)
    hidden = torch.randint(20, (2, 9000, 3), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9000) < torch.tensor([[9000], [8500]])).long()
    batch = {"states": hidden.numpy(), "attention_mask": mask.numpy()}
    expected = pool(hidden.float(), mask, pooling).numpy()
    for run in (ReferenceEvaluator(proto).run, open_session(proto).run):
        np.testing.assert_allclose(run(["sentence_embedding"], batch)[0], expected, rtol=1e-3)
