"""Linear attention as ONNX nodes: the answers of torch, and a number of operations that grows with the length alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.attention_conversion import convert
from limbeck.model.onnx.graph import build
from limbeck.model.onnx.onnx_model import parts, read_parts, to_onnx
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

MIX = ("linformer:6", "softmax", "window:2", "kernel")
SIZES = ("linformer:4", "linformer:8", "softmax", "linformer:6")
KINDS = ("linformer:6", "window:2", "kernel")
SHARES = ("none", "kv", "layer", "per_head")


def mixed(make_model, attention, share="none", kind="classification", **options):
    shape = Shape(32, 8, tuple(LayerShape(heads, 24) for heads in (3, 4, 2, 3)))
    model = make_model(shape, kind=kind, **options)
    return convert(model, attention, share=share, seed=3).eval()


def logits(proto, batch):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: value.numpy() for name, value in batch.items() if name in names})[0]


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("attention", "share"),
    [(mix, share) for mix in (MIX, SIZES) for share in SHARES]
    + [(MIX[::-1], "none")]
    + [((kind,) * 4, "none") for kind in KINDS],
)
def test_the_graph_answers_as_torch_does(make_model, make_batch, attention, share, fused, kind):
    model = mixed(make_model, attention, share, kind)
    blueprint, weights = parts(model, fused=fused)
    proto, _ = build(blueprint, weights)
    assert fused or not [node for node in proto.graph.node if node.domain]
    for longest in (3, 9, 14):
        batch = make_batch(longest=longest, seed=longest)
        real = batch["attention_mask"].numpy().astype(bool) if kind == "tokens" else slice(None)
        np.testing.assert_allclose(logits(proto, batch)[real], model.predict(batch)[real], atol=2e-5)


@pytest.mark.parametrize("share", SHARES)
def test_a_written_file_is_read_back_and_built_again(make_model, make_batch, tmp_path, share):
    """As quantization does."""
    model = mixed(make_model, ("linformer:6", "window:2", "linformer:4", "kernel"), share)
    blueprint, weights = read_parts(to_onnx(model, tmp_path / "model.onnx"))
    batch = make_batch()
    np.testing.assert_allclose(logits(build(blueprint, weights)[0], batch), model.predict(batch), atol=2e-5)
    int8 = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights))))
    np.testing.assert_allclose(logits(int8, batch), model.predict(batch), atol=0.1)


def test_int8_stays_near_float(make_model, make_batch):
    blueprint, weights = parts(mixed(make_model, MIX))
    batch = make_batch()
    int8 = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights))))
    kinds = [node.op_type for node in int8.graph.node]
    assert kinds.count("QAttention") == 1  # softmax
    assert kinds.count("MatMulIntegerToFloat") == 22  # 4 x out, up, down; 3 x q, k, v of the linear cores; the pooler
    np.testing.assert_allclose(logits(int8, batch), logits(build(blueprint, weights)[0], batch), atol=0.1)


def products(proto, tokens):
    """Multiply-accumulates of all matrix products for a text of so many tokens, from the sizes of the tensors."""
    taps = {name for node in proto.graph.node for name in (*node.input, *node.output) if name}
    outputs = {name for node in proto.graph.node for name in node.output}
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(outputs & taps))
    batch = {"input_ids": torch.ones(1, tokens, dtype=torch.long)}
    batch |= {"attention_mask": batch["input_ids"], "token_type_ids": 0 * batch["input_ids"]}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {entry.name: batch[entry.name].numpy() for entry in session.get_inputs()}
    names = [entry.name for entry in session.get_outputs()]
    sizes = {name: array.shape for name, array in zip(names, session.run(None, feed), strict=True)}
    sizes |= {entry.name: tuple(entry.dims) for entry in proto.graph.initializer}
    return sum(
        int(np.prod(sizes[node.output[0]])) * sizes[node.input[0]][-1]
        for node in proto.graph.node
        if node.op_type == "MatMul"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_operations_grow_linearly_with_the_length(make_model, kind):
    def counts(attention):
        blueprint, weights = parts(mixed(make_model, (attention,) * 4, max_positions=512), fused=False)
        return [products(build(replace(blueprint), weights)[0], tokens) for tokens in (64, 128, 256, 512)]

    linear = np.diff(counts(kind)) / np.array([64, 128, 256])
    assert linear[0] == pytest.approx(linear[1]) == pytest.approx(linear[2])  # so much for each further token
    quadratic = np.diff(counts("softmax")) / np.array([64, 128, 256])
    assert quadratic[2] > 1.5 * quadratic[1] > 2 * quadratic[0]


@pytest.mark.parametrize("attention", [MIX, MIX[::-1], ("window:3",) * 4])
def test_openvino_answers_as_torch_does(make_model, make_batch, tmp_path, attention):
    pytest.importorskip("openvino")
    from limbeck.measure.backends import OpenVinoRunner
    from limbeck.model.onnx.onnx_model import to_onnx

    model = mixed(make_model, attention)
    runner = OpenVinoRunner(to_onnx(model, tmp_path / "model.onnx", fused=False), 1)
    for longest in (4, 13):
        batch = make_batch(longest=longest)
        given = {name: value.numpy() for name, value in batch.items()}
        np.testing.assert_allclose(runner(runner.prepare(given)), model.predict(batch), atol=2e-5)
