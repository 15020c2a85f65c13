"""The ONNX model of a graph whose nodes are written: inputs, outputs, versions of the operators, and metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limbeck.model.external import LargeGraph, with_constants
from limbeck.model.onnx.builder import FUSED, Graph, all_nodes, move_inward
from limbeck.model.onnx.sentence_embedding import OUTPUTS

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from limbeck.model.external import OnnxGraph
    from limbeck.model.onnx.graph import Blueprint

OPSET, IR_VERSION = 20, 9  # 20 has Gelu; ONNX Runtime reads both since 1.17
KEY = "limbeck"  # of the metadata that holds the blueprint


def assemble(graph: Graph, blueprint: Blueprint) -> OnnxGraph:
    """Make a model of the nodes and constants of a graph, with its inputs and outputs and the blueprint as metadata."""
    from onnx import TensorProto, helper

    def value(name: str, kind: int, *axes: str | int) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, axes)

    nodes = list(all_nodes(graph.nodes))
    read = {name for node in nodes for name in node.input}
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in read]
    inputs = [value(name, TensorProto.INT64, "batch", "sequence") for name in names]
    if blueprint.embedding is not None:
        hidden = blueprint.shape.hidden
        axes: tuple[tuple[str | int, ...], ...]
        axes = ("batch", blueprint.embedding.width(hidden)), ("batch", "sequence", hidden)
        outputs = [value(name, TensorProto.FLOAT, *sizes) for name, sizes in zip(OUTPUTS, axes, strict=True)]
    else:
        classes = graph.weights["classifier.bias"].size
        sizes = ("batch", "sequence", classes) if blueprint.per_token else ("batch", classes)
        outputs = [value("logits", TensorProto.FLOAT, *sizes)]
    proto = helper.make_graph(graph.nodes, "limbeck", inputs, outputs)
    domains = ["", FUSED] if any(node.domain for node in nodes) else [""]
    opsets = [helper.make_opsetid(domain, OPSET if not domain else 1) for domain in domains]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="limbeck")
    helper.set_model_props(model, {KEY: blueprint.to_json()})
    whole = with_constants(model, graph.constants)
    if blueprint.exits is not None and not isinstance(whole, LargeGraph):  # sessions set large arrays from outside
        move_inward(whole.graph)
    return whole
