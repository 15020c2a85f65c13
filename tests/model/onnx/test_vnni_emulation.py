from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.measurement import environment
from limbeck.core.shape import LayerShape, Shape
from limbeck.model.onnx import vnni_emulation as saturation
from limbeck.model.onnx.builder import FUSED
from limbeck.model.onnx.onnx_model import answer, open_session, parts
from limbeck.model.onnx.quantization import Int8, calibrate, quantizable_modules, quantize
from limbeck.model.onnx.vnni_emulation import integer, overflowing, saturating

RAGGED = Shape(32, 8, (LayerShape(3, 40), LayerShape(0, 24), LayerShape(1, 0), LayerShape(2, 17)))
SCALE, ZERO = np.float32(0.01), np.uint8(7)
INSTRUCTIONS = set(environment()["instructions"])
SATURATES = "avx2" in INSTRUCTIONS and not INSTRUCTIONS & {"avx_vnni", "avx512_vnni"}


def whole_numbers(inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)


def activations(*shape, seed=1):
    return np.random.default_rng(seed).integers(120, 256, shape).astype(np.uint8)


def dequantized(x, whole, scales, bias, clipped):
    """Pair after pair, as the instruction does it."""
    total = np.zeros((*x.shape[:-1], whole.shape[1]), np.int64)
    for k in range(0, len(whole), 2):
        pair = x[..., k : k + 2].astype(np.int64) @ whole[k : k + 2].astype(np.int64)
        total += np.clip(pair, -32768, 32767) if clipped else pair
    return (total - int(ZERO) * whole.astype(np.int64).sum(axis=0)) * (SCALE * scales) + bias


def one_node(kind, rank, whole, scales, bias, **attributes):
    """A graph of one node from unsigned inputs, with a mask where the node takes one."""
    constants = {"w": whole, "b": bias, "s": SCALE, "t": scales, "z": ZERO}
    names = ["x", "w", "s", "t", "z", "", "b"] if kind == "MatMulIntegerToFloat" else list("xwbstmz")
    node = helper.make_node(kind, names, ["y"], domain=FUSED, **attributes)
    entries = [helper.make_tensor_value_info("x", TensorProto.UINT8, [None] * (rank - 1) + [len(whole)])]
    if "m" in names:
        entries.append(helper.make_tensor_value_info("m", TensorProto.INT32, [None, None]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([node], "one", entries, [output], initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def linear(inputs, outputs, rank=3):
    """A product whose pairs overflow, and what it computes from."""
    whole, rng = whole_numbers(inputs, outputs), np.random.default_rng(2)
    weights_and_ranges = (
        whole,
        rng.uniform(0.5, 1, outputs).astype(np.float32),
        rng.normal(size=outputs).astype(np.float32),
    )
    return one_node("MatMulIntegerToFloat", rank, *weights_and_ranges), weights_and_ranges


def run(model, exact=True, **feed):
    return open_session(model, exact=exact).run(None, feed)[0]


def test_which_pairs_can_overflow():
    columns = [(127, 2), (127, 1), (-127, -2), (-127, -1), (127, -127), (64, 64), (65, 64), (1, 127)]
    whole = np.array([*zip(*columns, strict=True)], np.int8)
    corners = [255 * (a * whole[0].astype(int) + b * whole[1]) for a in (0, 1) for b in (0, 1)]
    expected = np.any([(sums > 32767) | (sums < -32768) for sums in corners], axis=0)
    assert (overflowing(whole) == expected).all()
    assert expected.tolist() == [True, False, True, False, False, False, True, False]


def test_a_last_row_without_a_partner_cannot_overflow():
    assert not overflowing(np.full((1, 4), -127, np.int8)).any()
    assert overflowing(np.full((5, 4), -127, np.int8)).shape == (2, 4)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("inputs", [16, 17])
def test_a_product_saturates_pair_by_pair(inputs, rank):
    model, linear_parts = linear(inputs, 11, rank)
    x = activations(2, 5, inputs)[: 2 if rank == 3 else 1].reshape((2, 5, inputs) if rank == 3 else (5, inputs))
    clipped, pairs = saturating(model)
    assert pairs == overflowing(linear_parts[0]).sum() > 0
    np.testing.assert_allclose(run(clipped, x=x), dequantized(x, *linear_parts, True), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(run(model, x=x), dequantized(x, *linear_parts, False), rtol=1e-5, atol=1e-4)
    assert np.abs(dequantized(x, *linear_parts, True) - dequantized(x, *linear_parts, False)).max() > 10


def test_blocks_of_columns_make_no_difference(monkeypatch):
    model, _ = linear(24, 13)
    x, whole = activations(1, 4, 24), saturating(model)[0]
    monkeypatch.setattr(saturation, "CELLS", 30)
    blocks = saturating(model)[0]
    assert len(blocks.graph.node) > len(whole.graph.node)
    np.testing.assert_array_equal(run(blocks, x=x), run(whole, x=x))


@pytest.mark.skipif(not SATURATES, reason="this processor has VNNI, or is no x86 with AVX2")
@pytest.mark.parametrize("rows", [1, 6])
def test_this_processor_saturates_so(rows):
    model, _ = linear(48, 37)
    x = activations(1, rows, 48)
    np.testing.assert_allclose(run(model, exact=False, x=x), run(saturating(model)[0], x=x), rtol=1e-5, atol=1e-4)


def test_attention_saturates_in_its_projections():
    heads, width, inputs = 2, 8, 20
    whole, rng = whole_numbers(inputs, 3 * width), np.random.default_rng(3)
    scales, bias = np.full(3 * width, 0.02, np.float32), rng.normal(size=3 * width).astype(np.float32)
    model = one_node("QAttention", 3, whole, scales, bias, num_heads=heads)
    x, mask = activations(2, 5, inputs), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    for graph, clipped in ((model, False), (saturating(model)[0], True)):
        projected = dequantized(x, whole, scales, bias, clipped).reshape(2, 5, 3, heads, width // heads)
        query, key, value = projected.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(width // heads) - 1e4 * (1 - mask[:, None, None])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        context = shares / shares.sum(-1, keepdims=True) @ value
        expected = context.transpose(0, 2, 1, 3).reshape(2, 5, width)
        np.testing.assert_allclose(run(graph, x=x, m=mask), expected, rtol=1e-3, atol=1e-3)


def int8_graph(make_model, kind="classification", **options):
    graph_parts = parts(make_model(RAGGED, kind=kind))
    return quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)), **options))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("reduce_range", [True, False])
def test_where_nothing_is_clipped_it_is_the_ordinary_graph(
    make_model, make_batch, monkeypatch, kind, per_channel, reduce_range
):
    """Every pair is looked at: 7-bit weights stay within the real limits, others within wider ones."""
    graph = int8_graph(make_model, kind, per_channel=per_channel, reduce_range=reduce_range)
    monkeypatch.setattr(saturation, "overflowing", lambda whole: np.ones((len(whole) // 2, whole.shape[1]), bool))
    if not reduce_range:
        monkeypatch.setattr(saturation, "LOW", -(2**20))
        monkeypatch.setattr(saturation, "HIGH", 2**20)
    rewritten, pairs = saturating(graph)
    assert pairs > 1000
    assert "QAttention" not in {node.op_type for node in rewritten.graph.node}
    sessions = [open_session(each, exact=True) for each in (graph, rewritten)]
    for batch in (make_batch(), make_batch(rows=1, seed=4)):
        ordinary, emulated = (answer(session, batch) for session in sessions)
        assert np.abs(emulated - ordinary).max() <= 0.01 * np.abs(ordinary).max()  # one rounding may fall otherwise


@pytest.mark.parametrize("fused", [True, False])
def test_the_full_range_saturates_also_with_ranges_seen_before(make_model, make_batch, fused):
    graph_parts = parts(make_model(RAGGED), fused=fused)
    batch = make_batch()
    inputs = {name: np.asarray(value) for name, value in batch.items() if name != "labels"}
    int8 = Int8(frozenset(quantizable_modules(*graph_parts)), reduce_range=False)
    for ranges in ({}, calibrate(*graph_parts, [inputs])):
        graph = integer(quantize(*graph_parts, replace(int8, ranges=ranges)))
        clipped, pairs = saturating(graph)
        assert pairs > 0
        onnx.checker.check_model(clipped)
        ordinary, other = (answer(open_session(each, exact=True), batch) for each in (graph, clipped))
        assert 0 < np.abs(other - ordinary).max() < 0.5 * np.abs(ordinary).max()


@pytest.mark.parametrize("static", [True, False])
def test_standard_operators_saturate_as_the_fused_ones_do(make_model, make_batch, static):
    model, batch = make_model(RAGGED), make_batch()
    fused, standard = parts(model), parts(model, fused=False)
    inputs = {name: np.asarray(value) for name, value in batch.items() if name != "labels"}
    int8 = Int8(
        frozenset(quantizable_modules(*fused)), reduce_range=False, ranges=calibrate(*fused, [inputs]) if static else {}
    )
    (first, pairs), (other, others) = (saturating(integer(quantize(*each, int8))) for each in (fused, standard))
    assert pairs == others > 0
    clipped = answer(open_session(first, exact=True), batch)
    error = np.abs(clipped - answer(open_session(quantize(*fused, int8), exact=True), batch)).max()
    assert np.abs(answer(open_session(other, exact=True), batch) - clipped).max() < 0.2 * error


@pytest.mark.parametrize("per_channel", [True, False])
def test_seven_bits_cannot_overflow(make_model, per_channel):
    graph = int8_graph(make_model, per_channel=per_channel, reduce_range=True)
    assert saturating(graph) == (graph, 0)
