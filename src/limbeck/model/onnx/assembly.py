"""The ONNX model of a graph whose nodes are written: inputs, outputs, versions of the operators, and metadata."""

from __future__ import annotations

from collections.abc import Sequence
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


def assemble(graph: Graph, blueprint: Blueprint, heads: int = 1) -> OnnxGraph:
    """Make a model of the nodes and constants of a graph, with its inputs and outputs and the blueprint as metadata.

    Args:
        graph: The nodes and constants.
        blueprint: What they were written from.
        heads: How many heads' logits stand side by side.
    """
    if blueprint.embedding is not None:
        hidden = blueprint.shape.hidden
        axes: tuple[tuple[str | int, ...], ...]
        axes = ("batch", blueprint.embedding.width(hidden)), ("batch", "sequence", hidden)
        outputs = [float_value(name, *sizes) for name, sizes in zip(OUTPUTS, axes, strict=True)]
    else:
        classes = heads * graph.weights["classifier.bias"].size
        sizes = ("batch", "sequence", classes) if blueprint.per_token else ("batch", classes)
        outputs = [float_value("logits", *sizes)]
    return assemble_with(graph, outputs, KEY, blueprint.to_json(), inward=blueprint.exits is not None)


def float_value(name: str, *axes: str | int) -> ValueInfoProto:
    """Describe an output of numbers in floating point; axes of any length have names."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)


def assemble_with(
    graph: Graph, outputs: Sequence[ValueInfoProto], key: str, metadata: str, *, inward: bool
) -> OnnxGraph:
    """Make a model of the nodes and constants of a graph, which reads token ids.

    Args:
        graph: The nodes and constants.
        outputs: What it computes.
        key: Name of the metadata.
        metadata: Their text.
        inward: Move weights into the branches that read them.
    """
    from onnx import TensorProto, helper

    nodes = list(all_nodes(graph.nodes))
    read = {name for node in nodes for name in node.input}
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in read]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ("batch", "sequence")) for name in names]
    proto = helper.make_graph(graph.nodes, "limbeck", inputs, outputs)
    domains = ["", FUSED] if any(node.domain for node in nodes) else [""]
    opsets = [helper.make_opsetid(domain, OPSET if not domain else 1) for domain in domains]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="limbeck")
    helper.set_model_props(model, {key: metadata})
    whole = with_constants(model, graph.constants)
    if inward and not isinstance(whole, LargeGraph):  # sessions set large arrays from outside
        move_inward(whole.graph)
    return whole
