"""Attention within a window as ONNX nodes: the answers of torch, and operations that grow with the length alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.onnx.local_attention import FEW
from limbeck.model.onnx.onnx_model import open_session, parts, read_parts, to_onnx
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

SIZE = 4
STYLE = {
    "rotary_theta": (100.0,),
    "absolute_positions": False,
    "token_types": 0,
    "norm_first": True,
    "max_positions": 99,
}
LENGTHS = (1, SIZE, SIZE + 1, FEW * SIZE, FEW * SIZE + 1, 4 * SIZE, 4 * SIZE + 1, 31)


def local_model(make_model, kind="classification", size=SIZE, **style):
    layers = (LayerShape(2, 16, f"local:{size}"), LayerShape(1, 16), LayerShape(2, 16, f"local:{size}"))
    return make_model(Shape(16, 8, layers), kind=kind, **STYLE | style)


def batch_of(length):
    """A whole text, one that ends after a third, so that whole blocks are padding, and one that begins with padding."""
    ids = torch.randint(5, 60, (3, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[1, length // 3 + 1 :] = 0
    mask[2, : length // 2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def answers(session, batch):
    return session.run(None, {name: value.numpy() for name, value in batch.items()})[0]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("kind", "pooling", "size"),
    [("classification", "cls", SIZE), ("classification", "mean", SIZE), ("tokens", "cls", SIZE), ("tokens", "cls", 0)],
)
def test_texts_of_every_length_are_answered_as_in_torch(make_model, tmp_path, kind, pooling, size, fused):
    model = local_model(make_model, kind, size, pooling=pooling)
    path = to_onnx(model, tmp_path / "model.onnx", fused=fused)
    blueprint, weights = read_parts(path)
    int8 = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights))))
    sessions = open_session(path), open_session(int8)
    for batch in map(batch_of, LENGTHS):
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(2 if pooling == "cls" else 3)
        expected = model.predict(batch)[real]
        np.testing.assert_allclose(answers(sessions[0], batch)[real], expected, atol=5e-5)
        np.testing.assert_allclose(answers(sessions[1], batch)[real], expected, atol=0.3)


def test_what_layers_share_is_computed_once(make_model):
    from limbeck.model.onnx.graph import build

    for kind, layers in (("classification", 1), ("tokens", 2)):  # the first token alone needs no blocks
        model = local_model(make_model, kind)
        fused, plain = ([node.op_type for node in build(*parts(model, fused=f))[0].graph.node] for f in (True, False))
        assert fused.count("If") == layers + 2, "one for the layer that sees everything, and one for the blocks"
        assert plain.count("Range") == 3
        assert not plain.count("If")


def test_scores_grow_with_the_length_alone(make_model):
    from onnx import TensorProto, helper

    from limbeck.model.onnx.graph import build

    proto, _ = build(*parts(local_model(make_model, kind="tokens"), fused=False))
    scores = next(node.output[0] for node in proto.graph.node if node.op_type == "Softmax")
    proto.graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, None))
    session = open_session(proto)

    def shape(length):
        batch = {"input_ids": np.full((1, length), 7), "attention_mask": np.ones((1, length), np.int64)}
        return session.run([scores], batch)[0].shape

    assert shape(FEW * SIZE) == (1, 2, 1, FEW * SIZE, FEW * SIZE), "no more keys than tokens"
    assert shape(32) == (1, 2, 8, SIZE, 3 * SIZE)
    assert shape(61) == (1, 2, 16, SIZE, 3 * SIZE)
