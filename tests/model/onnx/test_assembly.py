"""The model file around written nodes: its inputs, outputs, operators and metadata."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from limbeck.core.shape import Shape
from limbeck.model.onnx.assembly import IR_VERSION, KEY, OPSET
from limbeck.model.onnx.builder import FUSED
from limbeck.model.onnx.graph import Blueprint, build
from limbeck.model.onnx.onnx_model import parts

SHAPE = Shape.uniform(layers=1, hidden=16, heads=2, ffn=16)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("kind", "axes"), [("classification", [3]), ("tokens", ["sequence", 3])])
def test_a_model_says_what_it_takes_and_gives(make_model, fused, kind, axes):
    blueprint, weights = parts(make_model(SHAPE, labels=3, kind=kind), fused=fused)
    model, _ = build(blueprint, weights)
    onnx.checker.check_model(model)
    assert model.ir_version == IR_VERSION
    domains = {entry.domain: entry.version for entry in model.opset_import}
    assert domains == ({"": OPSET, FUSED: 1} if fused else {"": OPSET})
    assert [entry.name for entry in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    sizes = [axis.dim_param or axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", *axes]
    text = {entry.key: entry.value for entry in model.metadata_props}[KEY]
    assert Blueprint.from_json(text) == blueprint


def test_inputs_that_nothing_reads_are_left_out(make_model):
    model, _ = build(*parts(make_model(SHAPE, labels=3, token_types=0)))
    assert [entry.name for entry in model.graph.input] == ["input_ids", "attention_mask"]
    assert np.all([entry.type.tensor_type.elem_type == onnx.TensorProto.INT64 for entry in model.graph.input])
