from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.sentence_embedding import ACTIVATIONS, POOLINGS, Dense, SentenceEmbedding
from limbeck.model.onnx.onnx_model import answer, open_session, to_onnx


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
