from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from exiting_models import LAYERS, with_exits

from limbeck.core.early_exits import EarlyExits
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError
from limbeck.model.onnx.onnx_model import OnnxModel, open_session, parts, read_parts, write
from limbeck.model.onnx.quantization import (
    EMBEDDINGS,
    Int8,
    calibrate,
    errors,
    quantizable_modules,
    quantize,
    sensitivity,
)

RAGGED = Shape(32, 8, (LayerShape(3, 40), LayerShape(0, 24), LayerShape(1, 0), LayerShape(2, 17)))


def inputs(batch):
    return {name: np.asarray(value) for name, value in batch.items() if name != "labels"}


def answers(graph, batch):
    """Without saturation: the full range is judged on any processor as on one with VNNI."""
    return open_session(graph, exact=True).run(None, inputs(batch))[0]


def close(logits, truth, share):
    """The largest error is at most this share of the spread of the true logits."""
    return np.abs(logits - truth).max() <= share * np.abs(truth).max()


@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_dynamic_is_close_to_float(make_model, make_batch, kind, per_channel, reduce_range):
    graph_parts, batch = parts(make_model(RAGGED, kind=kind)), make_batch()
    int8 = Int8(frozenset(quantizable_modules(*graph_parts)), per_channel, reduce_range)
    truth = answers(quantize(*graph_parts, Int8(frozenset())), batch)
    logits = answers(quantize(*graph_parts, int8), batch)
    assert np.abs(logits - truth).max() > 0
    assert close(logits, truth, 0.15)


@pytest.mark.parametrize("ranges", ["dynamic", "static"])
@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_standard_operators_give_what_the_fused_ones_give(make_model, make_batch, kind, ranges):
    """To what the order of sums moves a number between two 8-bit steps."""
    model = make_model(RAGGED, kind=kind)
    seen = [inputs(make_batch(rows=1, seed=seed)) for seed in range(8)]
    fused, standard = parts(model), parts(model, fused=False)
    calibrated = calibrate(*fused, seen) if ranges == "static" else {}
    assert calibrate(*standard, seen) == calibrate(*fused, seen)
    int8 = Int8(frozenset(quantizable_modules(*fused)), ranges=calibrated)
    graph = quantize(*standard, int8)
    assert {entry.domain for entry in graph.opset_import} == {""}
    batch = make_batch(rows=1, seed=1)
    truth = answers(quantize(*fused, Int8(frozenset())), batch)
    error = np.abs(answers(quantize(*fused, int8), batch) - truth).max()
    assert np.abs(answers(graph, batch) - answers(quantize(*fused, int8), batch)).max() < 0.2 * error


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_is_close_to_float(make_model, make_batch, method):
    graph_parts = parts(make_model(RAGGED))
    seen = [inputs(make_batch(rows=1, seed=seed)) for seed in range(8)]
    ranges = calibrate(*graph_parts, seen, method)
    assert set(ranges) == set(quantizable_modules(*graph_parts)) - {EMBEDDINGS}
    graph = quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)), ranges=ranges))
    assert "DynamicQuantizeLinear" not in {node.op_type for node in graph.graph.node}
    batch = make_batch(rows=1, seed=1)
    assert close(answers(graph, batch), answers(quantize(*graph_parts, Int8(frozenset())), batch), 0.3)


def test_minmax_ranges_are_those_of_the_activations(make_model, make_batch):
    model, batch = make_model(), make_batch(rows=1)
    ranges = calibrate(*parts(model), [inputs(batch)])
    with torch.no_grad():
        _, taps = model.run(batch, taps=("hidden", "neurons"))
    for index in range(2):
        for name, tensor in (("attention", taps["hidden"][index]), ("down", taps["neurons"][index])):
            seen = tensor if name == "attention" or index == 0 else tensor[:, :1]  # the last layer: one position
            expected = (float(seen.min()), float(seen.max()))
            assert ranges[f"layers.{index}.{name}"] == pytest.approx(expected, abs=1e-4)


def test_matrices_are_rounded_by_output_channel(make_model):
    model = make_model()
    graph = quantize(*parts(model), Int8(frozenset({"layers.0.up"})))
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.graph.initializer}
    whole, scale = stored["layers.0.up.int8"], stored["layers.0.up.scale"]
    truth = model.encoder.layers[0].up.weight.detach().numpy().T
    assert whole.dtype == np.int8
    assert np.abs(whole).max() == 64  # two products of unsigned and signed 8 bits fit into 16: 2 * 255 * 64 < 2^15
    assert (np.abs(whole * scale - truth) <= scale / 2 + 1e-6).all()


def test_every_linear_map_is_one_node(make_model):
    shape = Shape(32, 8, (LayerShape(3, 40), LayerShape(1, 24)))
    graph_parts = parts(make_model(shape))
    counts = Counter(
        node.op_type for node in quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)))).graph.node
    )
    assert (counts["QAttention"], counts["MatMulIntegerToFloat"], counts["Gelu"]) == (2, 2 * 3 + 1, 2)
    assert counts["MatMul"] == 1  # the classifier
    assert counts["LayerNormalization"] == 2 * 2 + 1


def test_the_file_is_about_a_quarter(tmp_path, make_model):
    graph_parts = parts(make_model(Shape.uniform(layers=2, hidden=64, heads=4, ffn=256), vocab_size=2000))
    write(quantize(*graph_parts, Int8(frozenset())), tmp_path / "float.onnx")
    write(quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)))), tmp_path / "int8.onnx")
    sizes = [OnnxModel(tmp_path, file, {}).size_bytes for file in ("int8.onnx", "float.onnx")]
    assert sizes[0] / sizes[1] < 0.32


def test_only_the_named_modules_are_quantized(make_model):
    graph = quantize(*parts(make_model()), Int8(frozenset({"layers.1.down", "layers.0.attention"})))
    stored = {entry.name for entry in graph.graph.initializer if entry.data_type == onnx.TensorProto.INT8}
    assert stored == {"layers.1.down.int8", "layers.0.attention.int8"}


def test_harm_finds_the_module_with_an_outlier(make_model, make_batch):
    model = make_model()
    model.encoder.layers[0].down.weight.data[0, 0] = 60.0
    model.encoder.layers[0].down.bias.data[0] = 0.0
    graph_parts = parts(model)
    int8 = Int8(frozenset(quantizable_modules(*graph_parts)) - {"layers.1.up"}, per_channel=False)
    harm = sensitivity(*graph_parts, int8, [inputs(make_batch())])
    assert next(iter(harm)) == "layers.0.down"
    assert set(harm) == int8.modules
    assert list(harm.values()) == sorted(harm.values(), reverse=True)


def test_heads_of_early_exits_are_judged_each_against_itself(make_model, make_batch):
    """As the only head of the layers before it, wherever texts leave."""
    model = with_exits(make_model, Shape.uniform(4, 32, 4, 64), EarlyExits(LAYERS, "confidence", 0.6))
    blueprint, weights = parts(model)
    maps = ("layers.0.up", "layers.2.down", "embeddings")
    ways = {name: Int8(frozenset({name}), ranges=dict.fromkeys(maps, (-8.0, 8.0))) for name in maps}
    batches = [inputs(make_batch(rows=1, seed=seed)) for seed in range(4)]
    by_head = []
    for number, depth in enumerate((*LAYERS, 4)):
        shorter, prefix = replace(blueprint.shape, layers=blueprint.shape.layers[:depth]), f"exits.{number}."
        head = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
        own = {**weights, **head}
        by_head.append(errors(replace(blueprint, exits=None, shape=shorter), own, ways, batches))
    for name, error in errors(blueprint, weights, ways, batches).items():
        np.testing.assert_allclose(error, np.mean([head[name] for head in by_head], axis=0), rtol=0.05, atol=1e-10)
    assert [bool(head["layers.2.down"].any()) for head in by_head] == [False, False, True, True]


def test_an_int8_file_is_not_quantized_again(tmp_path, make_model):
    graph_parts = parts(make_model())
    write(quantize(*graph_parts, Int8(frozenset(quantizable_modules(*graph_parts)))), tmp_path / "int8.onnx")
    with pytest.raises(InputError, match="quantized already"):
        read_parts(tmp_path / "int8.onnx")
