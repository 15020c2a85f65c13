from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from limbeck.core.shape import LayerShape, Shape
from limbeck.model.onnx import smooth_quant as smoothing
from limbeck.model.onnx.onnx_model import open_session, parts
from limbeck.model.onnx.quantization import Int8, calibrate, quantizable_modules, quantize, record_inputs
from limbeck.model.onnx.smooth_quant import LEAST, Inputs, best, divisors

RAGGED = Shape(32, 8, (LayerShape(3, 40), LayerShape(0, 24), LayerShape(1, 0), LayerShape(2, 17)))


def inputs(batch):
    return {name: np.asarray(value) for name, value in batch.items() if name != "labels"}


@pytest.fixture
def texts(make_batch):
    return [inputs(make_batch(rows=1, seed=seed)) for seed in range(40)]


def uneven(model):
    """A model as pretraining leaves it: a few channels of what the feed-forward parts read are large."""
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.ffn_norm.weight[3] *= 40
            layer.attention_norm.weight[5] *= 40
    return model


def answers(graph, texts):
    session = open_session(graph, exact=True)
    return np.concatenate([session.run(None, dict(text))[0] for text in texts])


def test_rows_are_rounded_as_the_runtime_rounds_them(make_model, texts):
    """The same numbers as DynamicQuantizeLinear's, restored."""
    graph_parts = parts(make_model(RAGGED))
    array = next(record_inputs(*graph_parts, texts[:1]))["layers.0.up"]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    divisor = np.linspace(0.5, 2, array.shape[-1]).astype(np.float32)
    (truth,) = open_session(model).run(None, {"x": array / divisor})
    seen = Inputs.of(array)
    rows = truth.reshape(-1, truth.shape[-1])
    chosen = np.linspace(0, len(rows) - 1, len(seen.rows)).astype(int)
    assert np.abs(seen.rounded(divisor) - rows[chosen]).max() <= 1e-5 * np.abs(rows).max()


def test_fixed_ranges_are_those_of_all_texts():
    first, other = Inputs.of(np.array([[[0.0, 1.0]]])), Inputs.of(np.array([[[-2.0, 0.5]], [[3.0, 0.0]]]))
    joined = Inputs.join([first, other], static=False)
    assert joined.lows.tolist() == [[0.0, 1.0], [-2.0, 0.0]]
    assert joined.text.tolist() == [0, 1, 1]
    assert Inputs.join([first, other], static=True).highs.tolist() == [[3.0, 1.0]] * 2
    assert joined.peaks.tolist() == [3.0, 1.0]


def test_a_map_with_a_large_channel_is_divided_and_an_even_one_is_not():
    rng = np.random.default_rng(0)
    weight, int8 = rng.normal(size=(32, 16)).astype(np.float32), Int8(frozenset({"a"}))
    seen = Inputs.of(rng.normal(size=(1, 64, 32)).astype(np.float32))
    assert best(weight, seen.peaks, seen, int8) is None
    uneven = rng.normal(size=(1, 64, 32)).astype(np.float32)
    uneven[..., 7] *= 60
    seen = Inputs.of(uneven)
    divisor = best(weight, seen.peaks, seen, int8)
    assert divisor.shape == (32,)
    assert divisor.argmax() == 7
    assert (divisor > 0).all()


def test_a_channel_that_was_quiet_is_not_blown_up():
    """It had no number but 0 in the texts that were looked at, as a neuron behind ReLU may."""
    rng = np.random.default_rng(0)
    weight, array = rng.normal(size=(32, 16)).astype(np.float32), rng.normal(size=(1, 64, 32)).astype(np.float32)
    array[..., 7] *= 60
    array[..., 3] = 0
    seen = Inputs.of(array)
    divisor = best(weight, seen.peaks, seen, Int8(frozenset({"a"})))
    assert divisor.max() / divisor.min() <= 1 / LEAST
    assert np.isfinite(best(0 * weight, 0 * seen.peaks, seen, Int8(frozenset({"a"}))) or 0.0)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("per_channel", [True, False])
def test_what_the_runtime_computes_comes_closer_to_float(make_model, texts, static, per_channel):
    """On texts that were not looked at; by the output of the map, before anything else moves it."""
    texts, others = texts[:30], texts[30:]
    graph_parts = parts(uneven(make_model(RAGGED)))
    name = "layers.3.up"
    truth = [
        inputs[name] @ graph_parts[1][f"{name}.weight"] + graph_parts[1][f"{name}.bias"]
        for inputs in record_inputs(*graph_parts, others)
    ]

    def error(smooth):
        ranges = calibrate(*graph_parts, texts, smooth=smooth) if static else {}
        graph = quantize(*graph_parts, Int8(frozenset({name}), per_channel, smooth=smooth, ranges=ranges))
        (node,) = (node for node in graph.graph.node if f"{name}.int8" in node.input)
        graph.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
        session = open_session(graph, exact=True)
        outputs = [session.run([node.output[0]], dict(text))[0] for text in others]
        return sum(np.square(output - expected).sum() for output, expected in zip(outputs, truth, strict=True))

    smooth = divisors(*graph_parts, Int8(frozenset({name}), per_channel), texts, static=static)
    assert error(smooth) < 1.2 * smoothing.MAX_ERROR_SHARE * error({})


@pytest.mark.parametrize("fused", [True, False])
def test_a_division_is_one_node_and_maps_in_float_have_none(make_model, texts, fused):
    graph_parts = parts(uneven(make_model(RAGGED)), fused=fused)
    int8 = Int8(frozenset({"layers.0.up", "layers.3.down"}))
    smooth = divisors(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts))), texts)
    assert set() < divisors(*graph_parts, int8, texts).keys() <= int8.modules
    graph = quantize(*graph_parts, replace(int8, smooth=smooth)).graph
    divided = {name for node in graph.node for name in node.input if name.endswith(".inverse")}
    assert divided == {f"{name}.inverse" for name in int8.modules & smooth.keys()}
    assert "layers.0.up.inverse" in divided


@pytest.mark.parametrize("static", [False, True])
def test_standard_operators_give_what_the_fused_ones_give(make_model, texts, static):
    model = uneven(make_model(RAGGED))
    fused, standard = parts(model), parts(model, fused=False)
    names = frozenset(quantizable_modules(*fused))
    smooth = divisors(*fused, Int8(names), texts, static=static)
    ranges = calibrate(*fused, texts, smooth=smooth) if static else {}
    int8 = Int8(names, ranges=ranges, smooth=smooth)
    truth = answers(quantize(*fused, Int8(frozenset())), texts)
    error = np.abs(answers(quantize(*fused, int8), texts) - truth).max()
    assert (
        np.abs(answers(quantize(*standard, int8), texts) - answers(quantize(*fused, int8), texts)).max() < 0.2 * error
    )


def test_a_text_of_any_length_takes_a_bounded_place():
    seen = Inputs.of(np.zeros((1, 500, 4), dtype=np.float32))
    assert seen.rows.shape == (smoothing.ROWS, 4)
    assert Inputs.of(np.zeros((1, 4), dtype=np.float32)).rows.shape == (1, 4)
