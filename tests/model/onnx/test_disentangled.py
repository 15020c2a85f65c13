from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.model.onnx.disentangled import INDEX
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import open_session, parts, read_parts, to_onnx

STYLE = {
    "family": "deberta-v2",
    "token_types": 0,
    "pooler": "gelu",
    "absolute_positions": False,
    "masks_queries": True,
    "relative_norm": True,
    "share_att_key": True,
    "max_positions": 20,
    "position_buckets": 6,
    "max_relative_positions": 20,
}
SHAPE = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("p2c",), ("c2p",)])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_texts_of_every_length_are_answered_as_in_torch(tmp_path, make_model, kind, terms, fused):
    model = make_model(SHAPE, kind=kind, **STYLE, pos_att_type=terms)
    session = open_session(to_onnx(model, tmp_path / "model.onnx", fused=fused))
    for tokens in (1, 2, 7, 20):
        ids = torch.randint(5, 60, (2, tokens), generator=torch.Generator().manual_seed(tokens))
        mask = torch.ones_like(ids)
        mask[1, : tokens // 2] = 0  # to the left, so that the first token of a text is padding
        seen = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        expected = model.predict({"input_ids": ids, "attention_mask": mask})
        np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_each_term_is_one_product_with_positions_and_buckets_have_one_row(make_model):
    model = make_model(SHAPE, **STYLE, pos_att_type=("c2p", "p2c"))
    blueprint, weights = parts(model)
    buckets = len(np.unique(weights[INDEX]))
    assert weights["layers.0.c2p_p2c"].shape == (4, buckets, 8)
    assert buckets <= 2 * 6 + 1 < len(weights[INDEX]) == 40
    nodes = Counter(node.op_type for node in build(blueprint, weights)[0].graph.node)
    assert nodes["FusedMatMul"] == 3, "of all queries and keys in the first layer, of one query in the last"
    assert nodes["MultiHeadAttention"] == 2


def test_the_file_gives_back_its_parts(tmp_path, make_model):
    model = make_model(SHAPE.with_layer(0, heads=0), **STYLE, pos_att_type=("c2p", "p2c"))
    blueprint, weights = parts(model)
    again, others = read_parts(to_onnx(model, tmp_path / "model.onnx"))
    assert again == blueprint
    assert others.keys() >= {INDEX, "layers.1.c2p_p2c"}
    for name, array in others.items():
        np.testing.assert_array_equal(array, weights[name])
    first, second = (build(*each)[0].SerializeToString() for each in ((blueprint, weights), (again, others)))
    assert len(onnx.load_from_string(first).graph.node) == len(onnx.load_from_string(second).graph.node)


def test_the_models_own_weights_are_left_alone(make_model):
    model = make_model(SHAPE, **STYLE, pos_att_type=("c2p",))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    parts(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
