"""What an INT8 graph answers on x86 processors without VNNI, computed on any processor.

ONNX Runtime multiplies unsigned inputs by signed weights. With AVX2 or AVX-512 but without VNNI it uses VPMADDUBSW,
which adds the products of two neighboring rows k = 2i, 2i + 1 of a matrix [inputs, outputs] in 16 bits and saturates:

    sum_i clip(q_x[2i] q_W[2i, n] + q_x[2i+1] q_W[2i+1, n], -2^15, 2^15 - 1) - z_x sum_k q_W[k, n]

VNNI does the same without the clip. The sums of columns for the zero point are exact on both, the inputs keep their 8
bits, and a last odd row has a zero beside it. With weights from -64 to 64 nothing is ever clipped: 2 x 255 x 64 < 2^15.

Read in ONNX Runtime's sources: ``mlas/lib/amd64/QgemmU8X8KernelAvx2.asm`` (``ComputeBlockU8S8Avx2``) and
``QgemmU8X8KernelAvx512Core.asm`` have the instruction, ``QgemmU8S8KernelAvx2.asm`` the packing by four rows, padded by
zeros; ``QgemvU8S8KernelAvx2.asm`` (one row of inputs) takes the same pairs; ``mlas/lib/platform.cpp`` chooses. The
projections of ``QAttention`` (``contrib_ops/cpu/quantization/attention_quant.cc``) go through the same product, head
by head, which changes no pair.

Differs from a full emulation: only pairs whose weights can overflow with some input are looked at (1.6 % of a
fine-tuned MiniLM's), and what the clip cuts off is subtracted from the runtime's own product. So the last bit of a sum
in float may be another, and a number between two 8-bit steps may be rounded the other way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from limbeck.model.external import LargeGraph, array_of, extended
from limbeck.model.onnx.builder import FUSED, Graph, all_initializers

if TYPE_CHECKING:
    from onnx import NodeProto

    from limbeck.model.external import OnnxGraph

LOW, HIGH = -(2**15), 2**15 - 1  # of 16 bits with a sign
LARGEST = 2**8 - 1  # of 8 bits without
CELLS = 2**14  # pairs looked at together: 32 MB for 512 tokens


def overflowing(whole: np.ndarray) -> np.ndarray:
    """Which pairs of rows of an int8 matrix [inputs, outputs] overflow with some input: booleans [pairs, outputs]."""
    count = len(whole) // 2  # a last row without a partner fits
    pairs = whole[: 2 * count].astype(np.int32).reshape(count, 2, whole.shape[1])
    highest, lowest = (limited.sum(axis=1) * LARGEST for limited in (np.maximum(pairs, 0), np.minimum(pairs, 0)))
    overflows: np.ndarray = (highest > HIGH) | (lowest < LOW)
    return overflows


def integer(model: OnnxGraph) -> OnnxGraph:
    """Return the graph with products of restored tensors (QDQ) as the integer products that ONNX Runtime computes.

    Its own rewriting fails where sums are to be exact and weights have a scale for every output.
    """
    return _with(model, _integer(model.graph.node))


def _integer(graph_nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Return nodes of one graph, and of its branches, with integer products."""
    from onnx import helper

    given = list(graph_nodes)
    restored = {node.output[0]: node.input for node in given if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in given:
        if node.op_type == "MatMul" and all(name in restored for name in node.input):
            (x, scale, zero), (weight, weight_scale) = (restored[name] for name in node.input)
            names = [x, weight, scale, weight_scale, zero]
            nodes.append(helper.make_node("MatMulIntegerToFloat", names, node.output, name=node.name, domain=FUSED))
        elif node.output[0] not in restored:  # which only such products read
            nodes.append(_in_branches(node, _integer))
    return nodes


def _in_branches(node: NodeProto, rewrite: Callable[[Iterable[NodeProto]], list[NodeProto]]) -> NodeProto:
    """Return a node whose branches are rewritten; one without branches as it is."""
    from onnx import NodeProto

    if not any(attribute.HasField("g") for attribute in node.attribute):
        return node
    copied = NodeProto()
    copied.CopyFrom(node)
    for attribute in copied.attribute:
        if attribute.HasField("g"):
            nodes = rewrite(list(attribute.g.node))
            del attribute.g.node[:]
            attribute.g.node.extend(nodes)
    return copied


def saturating(model: OnnxGraph) -> tuple[OnnxGraph, int]:
    """Return the graph with sums as they are without VNNI, and how many pairs of its weights can overflow.

    To be opened with ``exact`` (``onnx_model.open_session``): what is clipped here must not be clipped before. With no
    such pair the graph is as it was, and so are its sums on any processor.
    """
    from onnx import TensorProto

    stored = {entry.name: entry for entry in all_initializers(model.graph) if entry.data_type == TensorProto.INT8}
    constants: dict[str, np.ndarray] = {}
    counts: list[int] = []
    scopes = itertools.count()

    def rewrite(nodes: Iterable[NodeProto]) -> list[NodeProto]:
        # what a graph's products share lies in that graph, for no other can read the tensors of a branch
        graph = Graph({}, prefix=f"saturating.{next(scopes)}.")
        graph.constants = constants
        for node in nodes:
            name = node.input[1] if node.op_type in WRITERS else ""
            whole = array_of(model, stored[name]) if name in stored else np.zeros((0, 0), np.int8)
            risky = overflowing(whole)
            if risky.any():
                WRITERS[node.op_type](graph, node, whole, risky)
                graph.nodes[-1].output[0] = node.output[0]
                counts.append(int(risky.sum()))
            else:
                graph.nodes.append(_in_branches(node, rewrite))
        return graph.nodes

    nodes, existing = rewrite(model.graph.node), {entry.name for entry in model.graph.initializer}
    added = {name: array for name, array in constants.items() if name not in existing}
    return _with(model, nodes, added), sum(counts)


def _with(model: OnnxGraph, nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray] | None = None) -> OnnxGraph:
    """Return the graph with other nodes and more constants."""
    from onnx import helper

    copy = extended(model, nodes, constants or {})
    proto = copy.proto if isinstance(copy, LargeGraph) else copy
    if FUSED not in {entry.domain for entry in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(FUSED, 1))
    return copy


def _linear(graph: Graph, node: NodeProto, whole: np.ndarray, risky: np.ndarray) -> str:
    """Write a product with its bias, corrected."""
    x, weight, scale, weight_scale, *rest = node.input
    product = graph.op("MatMulIntegerToFloat", x, weight, scale, weight_scale, *rest, domain=FUSED)
    excess = graph.op("Reshape", _excess(graph, x, weight, whole, risky), graph.op("Shape", product))
    return graph.op("Sub", product, graph.op("Mul", graph.op("Mul", excess, scale), weight_scale))


def _attention(graph: Graph, node: NodeProto, whole: np.ndarray, risky: np.ndarray) -> str:
    """Write the projections as a product of their own, corrected, then attention in float."""
    from onnx import helper

    x, weight, bias, scale, weight_scale, mask, zero = node.input
    product = helper.make_node("MatMulIntegerToFloat", [x, weight, scale, weight_scale, zero, "", bias], [""])
    projected = _linear(graph, product, whole, risky)
    query, key, value = graph.op_with_outputs("Split", projected, axis=2, num_outputs=3, outputs=3)
    heads = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}["num_heads"]
    return graph.op("MultiHeadAttention", query, key, value, None, mask, domain=FUSED, num_heads=heads)


def _whole(graph: Graph, node: NodeProto, whole: np.ndarray, risky: np.ndarray) -> str:
    """Write a product in whole numbers, corrected."""
    product = graph.op("MatMulInteger", *node.input)
    excess = graph.op("Cast", _excess(graph, node.input[0], node.input[1], whole, risky), to=6)
    return graph.op("Sub", product, graph.op("Reshape", excess, graph.op("Shape", product)))


WRITERS = {"MatMulIntegerToFloat": _linear, "QAttention": _attention, "MatMulInteger": _whole}


def _excess(graph: Graph, x: str, weight: str, whole: np.ndarray, risky: np.ndarray) -> str:
    """Return what the clip cuts off every sum, in whole numbers [rows of x, outputs].

    Rows of x lie side by side meanwhile, [inputs, rows of x]: picking single numbers out of rows took 90 % of the time.
    """

    def turned() -> str:
        rows = graph.op("Reshape", graph.op("Cast", x, to=1), graph.integers(-1, len(whole)))
        return graph.op("Transpose", rows, perm=[1, 0])

    numbers = graph.once(x, turned)
    low, high = (graph.constant(f"saturating.{value}", np.float32(value)) for value in (LOW, HIGH))
    width = max(1, CELLS // int(risky.sum(axis=0).max()))
    blocks = []
    for start in range(0, risky.shape[1], width):
        products = []
        for half, (rows, factors) in enumerate(_padded(whole, risky, slice(start, start + width))):
            name = f"saturating.{weight}.{start}.{half}"
            picked = graph.op("Gather", numbers, graph.constant(f"{name}.rows", rows))
            products.append(graph.op("Mul", picked, graph.constant(f"{name}.factors", factors[..., None])))
        total = graph.op("Add", *products)
        beyond = graph.op("Sub", total, graph.op("Clip", total, low, high))
        blocks.append(graph.op("ReduceSum", beyond, graph.integers(1), keepdims=0))
    return graph.op("Transpose", graph.op("Concat", *blocks, axis=0), perm=[1, 0])


def _padded(whole: np.ndarray, risky: np.ndarray, columns: slice) -> list[tuple[np.ndarray, np.ndarray]]:
    """Row and weight of either half of the pairs, each [outputs, pairs]; where an output has fewer, weights are 0."""
    selected, weights = risky[:, columns].T, whole[:, columns].T
    most = max(1, int(selected.sum(axis=1).max()))
    pairs = np.argsort(~selected, axis=1, kind="stable")[:, :most]
    present = np.take_along_axis(selected, pairs, axis=1)
    halves = (2 * pairs, 2 * pairs + 1)
    return [(rows, np.take_along_axis(weights, rows, axis=1).astype(np.float32) * present) for rows in halves]
