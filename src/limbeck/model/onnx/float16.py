"""An ONNX graph in half precision: the same nodes on 16-bit weights, with token ids and logits as they were.

ONNX Runtime's own converter (``onnxruntime.transformers.float16``) needs one protocol buffer, which holds 2 GiB at
most, and adds its folder of scripts to the import path. Here the graph is known: every float in it is a constant that
the graph itself holds, the result of a cast, or computed from those. So constants and casts change, and the outputs are
cast back. Casts and constants that are marked to stay in float32 do: whether an early exit is sure is a comparison with
a probability that may be 0.99999.

Constants beyond what float16 holds are cut to half of its range: the mask's, added to the lowest score, must not become
minus infinity, for a row of those alone has no softmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from limbeck.errors import InputError
from limbeck.model import external
from limbeck.model.onnx.builder import EXACT, all_initializers

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto, TensorProto

    from limbeck.model.external import OnnxGraph

LARGEST = float(np.finfo(np.float16).max) / 2
"""Largest size of a constant: half of what float16 holds, so that two may be added."""
SMALLEST = float(np.finfo(np.float16).tiny)
"""Least size of a constant that is not 0: what keeps a divisor above 0 must not be rounded to it."""


def to_float16(graph: OnnxGraph) -> OnnxGraph:
    """Return a graph in half precision.

    Args:
        graph: A graph in floating point, as ``graph.build`` makes it.

    Raises:
        InputError: The graph is quantized.
    """
    from onnx import ModelProto, TensorProto, helper

    proto = ModelProto()
    proto.CopyFrom(graph.proto if isinstance(graph, external.LargeGraph) else graph)
    if any(entry.data_type in (TensorProto.INT8, TensorProto.UINT8) for entry in all_initializers(proto.graph)):
        raise InputError("a graph in INT8 cannot be converted to float16; convert the graph that it was made from")
    arrays = dict(graph.arrays) if isinstance(graph, external.LargeGraph) else {}
    for entry in all_initializers(proto.graph):
        if entry.data_type != TensorProto.FLOAT or EXACT in entry.name:
            continue
        if entry.name in arrays:
            arrays[entry.name], entry.data_type = half(arrays[entry.name]), TensorProto.FLOAT16
        else:
            entry.CopyFrom(_half_tensor(entry))
    _convert(proto.graph.node)
    for output in proto.graph.output:
        inner = f"{output.name}.float16"
        _rename(proto.graph.node, output.name, inner)
        proto.graph.node.append(helper.make_node("Cast", [inner], [output.name], name=f"Cast_{output.name}", to=1))
    return external.LargeGraph(proto, arrays) if arrays else proto


def half(array: np.ndarray) -> np.ndarray:
    """Round an array to float16, within the range in which two may be added; a single number that is not 0 stays so.

    >>> half(np.float32([-1e9, 1e-30, 0.5])).tolist(), half(np.float32([1e-30])).tolist()
    ([-32752.0, 0.0, 0.5], [6.103515625e-05])
    """
    bounded = np.clip(array, -LARGEST, LARGEST)
    if array.size == 1 and 0 < abs(float(bounded.reshape(()))) < SMALLEST:  # a weight may as well be 0
        bounded = np.copysign(np.full_like(bounded, SMALLEST), bounded)
    rounded: np.ndarray = bounded.astype(np.float16)
    return rounded


def _half_tensor(tensor: TensorProto) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(half(numpy_helper.to_array(tensor)), tensor.name)


def _convert(nodes: Iterable[NodeProto]) -> None:
    """Let casts to float32 end in float16 unless marked, and convert what attributes hold, also within branches."""
    for node in nodes:
        for attribute in node.attribute:
            _convert_attribute(node, attribute)


def _convert_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    from onnx import TensorProto

    to_float = node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT
    if to_float and EXACT not in node.name:
        attribute.i = TensorProto.FLOAT16
    if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
        attribute.t.CopyFrom(_half_tensor(attribute.t))
    if attribute.HasField("g"):
        _convert(attribute.g.node)


def _rename(nodes: Iterable[NodeProto], old: str, new: str) -> None:
    """Give a tensor of the outermost graph another name, where it is written and wherever it is read."""
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g.node, old, new)
