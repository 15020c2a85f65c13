"""Early exits in ONNX: the answers of torch, alone and in batches, in every format."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import exiting_models
import numpy as np
import pytest
import torch
from exiting_models import LAYERS

from limbeck.core.early_exits import EarlyExits, thresholds
from limbeck.core.shape import Shape
from limbeck.errors import LimbeckError
from limbeck.model.early_exits import all_logits, set_rule
from limbeck.model.onnx.assembly import assemble_with, float_value
from limbeck.model.onnx.builder import FUSED, Graph, all_nodes
from limbeck.model.onnx.early_exits import ExitWriter
from limbeck.model.onnx.export import parity
from limbeck.model.onnx.float16 import to_float16
from limbeck.model.onnx.graph import Blueprint, build
from limbeck.model.onnx.onnx_model import answer, open_session, parts, read_parts, to_onnx
from limbeck.model.onnx.quantization import Int8, calibrate, quantizable_modules, quantize
from limbeck.model.onnx.vnni_emulation import integer, saturating

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=64).with_layer(1, heads=2).with_layer(2, ffn=24)
MODERN = {
    "norm_first": True,
    "absolute_positions": False,
    "token_types": 0,
    "gated": True,
    "rotary_theta": [10_000.0],
    "pooler_norm": True,
    "pooling": "mean",
    **dict.fromkeys(("norm_bias", "attention_bias", "ffn_bias", "pooler_bias"), False),
}


def with_exits(make_model, criterion="confidence", threshold=0.6, shape=SHAPE, **style):
    rule = EarlyExits(LAYERS, criterion, threshold)
    return exiting_models.with_exits(partial(make_model, **style), shape, rule)


def alone(batch, row):
    length = int(batch["attention_mask"][row].sum())
    return {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}


def rows_of(session, batch):
    return np.concatenate([answer(session, alone(batch, row)) for row in range(len(batch["input_ids"]))])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("style", [{}, MODERN], ids=["bert", "modern"])
@pytest.mark.parametrize(
    ("criterion", "position"), [("confidence", 20), ("entropy", 20), ("patience", 0), ("patience", 1)]
)
def test_onnx_answers_as_torch(make_model, make_batch, fused, style, criterion, position):
    shape = SHAPE.with_layer(1, attention="local:3") if style else SHAPE
    model = with_exits(make_model, criterion, thresholds(criterion, 3, 3)[position], shape, **style)
    batch = make_batch(rows=12)
    graph, _ = build(*parts(model, fused=fused))
    session = open_session(graph)
    expected = model.predict(batch)
    np.testing.assert_allclose(answer(session, batch), expected, atol=2e-5)
    np.testing.assert_allclose(rows_of(session, batch), expected, atol=2e-5)
    domains = {node.domain for node in all_nodes(graph.graph.node)}
    assert (FUSED in domains) == (FUSED in {entry.domain for entry in graph.opset_import}) == fused


def test_layers_after_a_sure_head_are_branches_inside_each_other(make_model):
    graph, _ = build(*parts(with_exits(make_model)))

    def depths(nodes, depth=0):
        for node in nodes:
            if node.op_type == "Attention":
                yield depth
            for attribute in node.attribute:
                yield from depths(attribute.g.node, depth + 1)

    assert list(depths(graph.graph.node)) == [0, 1, 2, 3]


def test_weights_lie_in_the_branch_that_reads_them(make_model):
    model = with_exits(make_model)
    graph, _ = build(*parts(model))

    def placed(graph, depth=0):
        yield from ((entry.name, depth) for entry in graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from placed(attribute.g, depth + 1)

    depths = dict(placed(graph.graph))
    assert sorted(depths) == sorted(name for name, _ in placed(graph.graph))  # each once
    for layer in range(4):
        assert depths[f"layers.{layer}.up.weight"] == layer
    assert [depths[f"{head}classifier.weight"] for head in ("exits.0.", "exits.1.", "exits.2.", "")] == [0, 1, 2, 3]
    assert depths["embeddings.word.weight"] == 0
    assert {depth for name, depth in depths.items() if name.startswith("constant.")} == {0}


def test_the_logits_of_all_heads_stand_side_by_side(make_model, make_batch):
    model, batch = with_exits(make_model), make_batch(rows=12)
    graph, inputs_of = build(*parts(model), all_heads=True)
    assert not [node for node in graph.graph.node if node.op_type == "If"]
    assert {"exits.0.pooler", "layers.3.down", "pooler"} <= inputs_of.keys()
    with torch.no_grad():
        expected = torch.cat(all_logits(model, batch), dim=-1).numpy()
    np.testing.assert_allclose(answer(open_session(graph), batch), expected, atol=2e-5)


def test_a_file_reads_back(make_model, tmp_path):
    model = with_exits(make_model)
    blueprint, weights = read_parts(to_onnx(model, tmp_path / "model.onnx"))
    assert blueprint.exits == EarlyExits(LAYERS, "confidence", 0.6)
    assert weights.keys() == parts(model)[1].keys()
    assert "exits" not in replace(blueprint, exits=None).to_json()
    assert Blueprint.from_json(replace(blueprint, exits=None).to_json()).exits is None


def test_heads_that_never_answer_are_left_out(make_model):
    model = with_exits(make_model)
    set_rule(model, EarlyExits(LAYERS))
    blueprint, weights = parts(model)
    assert blueprint.exits is None
    assert not [name for name in weights if name.startswith("exits")]


class Opened:
    """A graph in memory as a model."""

    leaves_early = True

    def __init__(self, graph):
        self.session = open_session(graph)

    def predict(self, batch):
        return answer(self.session, batch)


@pytest.mark.parametrize(("half", "tolerance"), [(True, 0.02), (False, 1e-5)])
def test_a_text_that_is_sure_by_a_hairs_breadth_may_leave_elsewhere(make_model, make_batch, half, tolerance):
    """In half precision rounding decides; in the same precision nothing does."""
    model, batch = with_exits(make_model), make_batch(rows=24)
    graph, _ = build(*parts(model))
    batch["index"] = torch.arange(24)
    measured = parity(model, Opened(to_float16(graph) if half else graph), [batch], ["text"] * 24)
    measured.check(tolerance)
    assert measured.elsewhere <= half
    assert ("from another early exit" in str(measured)) == bool(measured.elsewhere)


@pytest.mark.parametrize(("criterion", "threshold"), [("confidence", 0.99999), ("entropy", 0.0001)])
@pytest.mark.parametrize("half", [False, True])
def test_half_precision_knows_strict_thresholds(criterion, threshold, half):
    """Probabilities of 0.9999 and 0.999997 are both 1 in float16; the first text is not sure, the second is."""
    graph = Graph({})
    tables = {"exits.0.": [[9.5, 0], [12.5, 0]], "": [[0, 1], [0, 1]]}

    def head(x, prefix):
        table = graph.constant(f"{prefix}table", np.float32(tables[prefix]))
        return graph.op("Squeeze", graph.op("Gather", table, x), graph.integers(1))

    rule = EarlyExits((1,), criterion, threshold)
    graph.op("Identity", ExitWriter(graph, rule, 2, lambda x, start, stop: x, head).logits("input_ids"))
    graph.nodes[-1].output[0] = "logits"
    whole = assemble_with(graph, [float_value("logits", "batch", 2)], "rule", "", inward=True)
    session = open_session(to_float16(whole) if half else whole)
    assert session.run(None, {"input_ids": np.int64([[0], [1]])})[0].tolist() == [[0, 1], [12.5, 0]]


def test_a_graph_with_another_rule_is_noticed(make_model, make_batch):
    model, batch = with_exits(make_model), make_batch(rows=24)
    blueprint, weights = parts(model)
    other, _ = build(replace(blueprint, exits=EarlyExits(LAYERS, "confidence", 0.0)), weights)
    measured = parity(model, Opened(other), [{**batch, "index": torch.arange(24)}], ["text"] * 24)
    with pytest.raises(LimbeckError, match="of 24 texts leave the model in ONNX at other early exits than in torch"):
        measured.check(0.02)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("fused", [True, False])
def test_int8_in_the_branches_is_near_float(make_model, make_batch, mode, fused):
    """The rule may send a text another way where it is nearly undecided: answers are those of some head in INT8."""
    model, batch = with_exits(make_model), make_batch(rows=12)
    blueprint, weights = parts(model, fused=fused)
    modules = frozenset(quantizable_modules(blueprint, weights))
    assert {"exits.0.pooler", "exits.2.pooler", "layers.3.up"} <= modules
    texts = [{name: np.asarray(value) for name, value in alone(batch, row).items()} for row in range(12)]
    ranges = calibrate(blueprint, weights, texts) if mode == "static" else {}
    assert not ranges or modules - {"embeddings"} <= ranges.keys()
    graph = quantize(blueprint, weights, Int8(modules, ranges=ranges))
    inner = [node.op_type for node in all_nodes(graph.graph.node)]
    outer = [node.op_type for node in graph.graph.node]
    product = "MatMulIntegerToFloat" if fused else "MatMulInteger" if mode == "dynamic" else "DequantizeLinear"
    assert inner.count(product) > outer.count(product) > 0
    logits = rows_of(open_session(graph), batch)
    with torch.no_grad():
        heads = torch.stack(all_logits(model, batch)).numpy()
    nearest = np.abs(heads - logits).max(-1).min(0)
    assert nearest.max() < 0.15 * np.abs(heads).max()


def test_processors_without_vnni_are_emulated_in_the_branches_too(make_model, make_batch):
    model, batch = with_exits(make_model), make_batch(rows=12)
    blueprint, weights = parts(model)
    modules = frozenset(quantizable_modules(blueprint, weights))
    whole = integer(quantize(blueprint, weights, Int8(modules, reduce_range=False)))
    clipping, pairs = saturating(whole)
    straight = quantize(replace(blueprint, exits=None), weights, Int8(modules, reduce_range=False))
    assert pairs > saturating(straight)[1] > 0  # those of the heads besides
    names = {node.name.split(".")[0] for node in all_nodes(clipping.graph.node)} & {"saturating"}
    assert names
    exact, clipped = (rows_of(open_session(each, exact=True), batch) for each in (whole, clipping))
    assert np.isfinite(clipped).all()
    assert exact.shape == clipped.shape
    safe, none = saturating(quantize(blueprint, weights, Int8(modules)))
    assert none == 0
    np.testing.assert_array_equal(
        rows_of(open_session(safe, exact=True), batch),
        rows_of(open_session(quantize(blueprint, weights, Int8(modules)), exact=True), batch),
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("style", [{}, MODERN], ids=["first token", "mean of tokens"])
def test_heads_read_all_tokens_where_layers_pass_on_fewer(make_model, make_batch, fused, style):
    shape = SHAPE.with_tokens(0.8, 0.5, 0.4, 0.4)
    model = with_exits(make_model, threshold=thresholds("confidence", 3, 3)[20], shape=shape, **style)
    batch = make_batch(rows=12)
    session = open_session(build(*parts(model, fused=fused))[0])
    expected = model.predict(batch)
    np.testing.assert_allclose(answer(session, batch), expected, atol=2e-5)
    np.testing.assert_allclose(rows_of(session, batch), expected, atol=2e-5)
    last = model.encoder(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))[0]
    torch.testing.assert_close(all_logits(model, batch)[-1], model.logits(last, batch["attention_mask"]))
