"""INT8 graphs: weights in 8 bits by output channel, activations in 8 bits by tensor, sums in 32 bits.

A linear map ``x W + b`` becomes ``s_x s_W (q_x - z_x) q_W + b`` with ``q_x`` unsigned and ``q_W`` signed and
symmetric. In *dynamic* mode ``s_x``, ``z_x`` come from each input's own range, in *static* mode from texts seen
before. Everything between the linear maps stays in float: those nodes cost little, and rounding there costs accuracy.

The graph is written directly (``graph.py``), not rewritten from the float one, so that each linear map is one node
(``MatMulIntegerToFloat``, with its bias) and each attention one (``QAttention``), also with ragged heads. In standard
operators (``fused=False``) a linear map is, with static ranges, a float product of numbers that were rounded and
restored (QDQ): what every runtime with 8-bit kernels recognizes, OpenVINO among them; with dynamic ranges it is
``MatMulInteger``, which they read, but seldom speed up.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.model.onnx.attention import padding_mask
from limbeck.model.onnx.builder import FUSED, Graph, Projections, RowGather, Weights, biased, projection_bias
from limbeck.model.onnx.graph import Blueprint, FloatWriter, build

if TYPE_CHECKING:
    from limbeck.model.external import OnnxGraph

Calibration = Literal["minmax", "percentile", "entropy"]
EMBEDDINGS = "embeddings"
"""Name of the word and position tables, among the linear maps."""
BLOCK = 2**13
"""Rows of a table that are rounded together, so that temporary copies stay small."""


@dataclass(frozen=True)
class Int8:
    """What is stored in 8 bits, and how.

    ``modules``: names of linear maps, and ``embeddings``. ``reduce_range``: weights from -64 to 64 instead of
    -127 to 127. CPUs with AVX2 or AVX512 but without VNNI add two products of 8 bits in 16 bits, which overflow with
    the full range; with the reduced one sums are the same everywhere (see ``vnni_emulation.py``). ``smooth``: by what
    the input of some linear maps is divided, channel by channel, before it is rounded (see ``smooth_quant.py``).
    ``ranges``: (low, high) of each linear map's input, divided; empty: found anew for every input.
    """

    modules: frozenset[str]
    per_channel: bool = True
    reduce_range: bool = True
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    smooth: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        """Largest number that a weight may have."""
        return 64 if self.reduce_range else 127

    def round(self, array: np.ndarray, axis: int | None, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Round an array to integers with scales.

        Args:
            array: The array.
            axis: The axis that shares a scale; None gives one scale to all.
            limit: Largest magnitude of an integer.

        Returns:
            Integers and scales.
        """
        peak = np.abs(array).max(axis=axis, keepdims=axis is not None)
        scale = np.where(peak > 0, peak / limit, 1).astype(np.float32)
        return np.clip(np.rint(array / scale), -limit, limit).astype(np.int8), scale


class Int8Writer(FloatWriter):
    """8 bits for the modules that :class:`Int8` names, float for the others."""

    def __init__(self, int8: Int8, fused: bool = True) -> None:
        super().__init__(fused)
        self.int8 = int8
        self.quantized: dict[str, tuple[str, str, str]] = {}

    def rows(self, graph: Graph, name: str, gather: RowGather) -> str:
        """Gather rows of a table, with a scale for every row.

        Args:
            graph: The graph to add nodes to.
            name: Name of the table.
            gather: Which rows are needed.
        """
        if EMBEDDINGS not in self.int8.modules:
            return super().rows(graph, name, gather)
        whole, scale = self._table(graph.weights[f"{name}.weight"])
        numbers = graph.op("Cast", gather(graph.constant(f"{name}.int8", whole)), to=1)
        return graph.op("Mul", numbers, gather(graph.constant(f"{name}.scale", scale)))

    def _table(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Round to integers, with a scale for every row [rows, columns], [rows, 1]; a large table block by block."""
        whole = np.empty(array.shape, np.int8)
        scale = np.empty((len(array), 1), np.float32)
        for start in range(0, len(array), BLOCK):
            rows = slice(start, start + BLOCK)
            whole[rows], scale[rows] = self.int8.round(array[rows], 1, 127)  # multiplied in float: full range
        return whole, scale

    def linear(self, graph: Graph, x: str, name: str) -> tuple[str, str | None]:
        """Add one integer product with its bias; in standard operators the bias is left to the next node.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input.
            name: Name of the linear map.

        Returns:
            Names of the product and of the bias still to be added, if any.
        """
        if name not in self.int8.modules:
            return super().linear(graph, x, name)
        read, matrix = self._input(graph, x, name), self._matrix(graph, name)
        return self._product(graph, read, matrix, graph.optional_weight(f"{name}.bias"))

    def _product(
        self, graph: Graph, read: tuple[str, str, str], matrix: tuple[str, str], bias: str | None
    ) -> tuple[str, str | None]:
        (numbers, scale, zero), (weight, weight_scale) = read, matrix
        if self.fused:
            inputs = (numbers, weight, scale, weight_scale, zero, None, bias)
            return graph.op("MatMulIntegerToFloat", *inputs, domain=FUSED), None
        if not self.int8.ranges:
            total = graph.op("Cast", graph.op("MatMulInteger", numbers, weight, zero), to=1)
            return graph.op("Mul", total, graph.op("Mul", scale, weight_scale)), bias
        restored = graph.op("DequantizeLinear", numbers, scale, zero)
        return graph.op("MatMul", restored, graph.op("DequantizeLinear", weight, weight_scale, axis=1)), bias

    def projections(self, graph: Graph, x: str, name: str, first_only: bool) -> Projections:
        """Add three products of the same rounded input; cutting one product in three would copy it all.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input [batch, position, hidden].
            name: Name of the linear map.
            first_only: Whether only the first position's queries are needed.

        Returns:
            Names of queries, keys and values.
        """
        if name not in self.int8.modules:
            return super().projections(graph, x, name, first_only)
        numbers, scale, zero = self._input(graph, x, name)
        whole, steps = self._rounded(graph, name)
        bias = graph.weights.get(f"{name}.bias")

        def product(part: str, third: int, read: str) -> str:
            def own(kind: str, array: np.ndarray) -> str:
                return graph.constant(f"{name}.{part}.{kind}", np.split(array, 3, axis=-1)[third])

            scales = own("scale", steps) if self.int8.per_channel else graph.constant(f"{name}.scale", steps)
            matrix, shift = (own("int8", whole), scales), None if bias is None else own("bias", bias)
            return biased(graph, self._product(graph, (read, scale, zero), matrix, shift))

        first = graph.op("Gather", numbers, graph.integers(0), axis=1) if first_only else numbers
        return product("query", 0, first), product("key", 1, numbers), product("value", 2, numbers)

    def attention(self, graph: Graph, x: str, name: str, heads: int) -> str:
        """Add one node where the runtime has one: integer projections, then attention in float.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input [batch, position, hidden].
            name: Prefix of the layer's weights.
            heads: Number of heads.
        """
        if name not in self.int8.modules or not self.fused:
            return super().attention(graph, x, name, heads)
        numbers, scale, zero = self._input(graph, x, name)
        weight, weight_scale = self._matrix(graph, name)
        shift = projection_bias(graph, name)
        inputs = (numbers, weight, shift, scale, weight_scale, padding_mask(graph), zero)
        return graph.op("QAttention", *inputs, domain=FUSED, num_heads=heads)

    def _input(self, graph: Graph, x: str, name: str) -> tuple[str, str, str]:
        if name in self.int8.smooth:
            x = graph.op("Mul", x, graph.constant(f"{name}.inverse", 1 / self.int8.smooth[name]))
        if not self.int8.ranges:
            if x not in self.quantized:
                numbers, scale, zero = graph.op_with_outputs("DynamicQuantizeLinear", x, outputs=3)
                self.quantized[x] = numbers, scale, zero
            return self.quantized[x]
        low, high = (float(value) for value in self.int8.ranges[name])
        low, high = min(low, 0.0), max(high, 0.0)  # zero must have a number of its own
        step = np.float32((high - low) / 255 or 1)
        scale = graph.constant(f"{name}.input_scale", step)
        zero = graph.constant(f"{name}.input_zero", np.uint8(round(-low / float(step))))
        return graph.op("QuantizeLinear", x, scale, zero), scale, zero

    def _matrix(self, graph: Graph, name: str) -> tuple[str, str]:
        whole, scale = self._rounded(graph, name)
        return graph.constant(f"{name}.int8", whole), graph.constant(f"{name}.scale", scale)

    def _rounded(self, graph: Graph, name: str) -> tuple[np.ndarray, np.ndarray]:
        axis = 0 if self.int8.per_channel else None
        weight = graph.weights[f"{name}.weight"]
        if name in self.int8.smooth:
            weight = weight * self.int8.smooth[name][:, None]
        whole, scale = self.int8.round(weight, axis, self.int8.limit)
        return whole, scale.reshape(-1) if self.int8.per_channel else scale


def quantizable_modules(blueprint: Blueprint, weights: Weights, *, embeddings: bool = True) -> list[str]:
    """List everything that can be stored in 8 bits, except the classifier, which is small and sensitive.

    Args:
        blueprint: Blueprint of the graph.
        weights: Its weights.
        embeddings: Whether to include the embedding tables.
    """
    names = [EMBEDDINGS] if embeddings else []
    names += ["embeddings.project"] if "embeddings.project.weight" in weights else []
    for index, layer in enumerate(blueprint.shape.layers):
        parts = ["attention", "attention_out"] if layer.heads else []
        if layer.ffn:
            parts += ["up", "gate", "down"] if f"layers.{index}.gate.weight" in weights else ["up", "down"]
        names += [f"layers.{index}.{part}" for part in parts]
    heads = ["", *(f"exits.{number}." for number in range(len(blueprint.exits.layers) if blueprint.exits else 0))]
    return [*names, *(f"{head}pooler" for head in heads if f"{head}pooler.weight" in weights)]


def quantize(blueprint: Blueprint, weights: Weights, int8: Int8, *, all_heads: bool = False) -> OnnxGraph:
    """Build the INT8 graph of a float graph's parts, fused as the blueprint says.

    Args:
        blueprint: Blueprint of the float graph.
        weights: Its weights.
        int8: What to store in 8 bits, and how.
        all_heads: As for ``graph.build``.
    """
    mixed = replace(blueprint, int8=tuple(sorted(int8.modules)))
    return build(mixed, weights, Int8Writer(int8, blueprint.fused), all_heads=all_heads)[0]


def record_inputs(
    blueprint: Blueprint, weights: Weights, batches: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the input of every linear map in the float model, batch by batch, by the name of the map.

    Args:
        blueprint: Blueprint of the float graph.
        weights: Its weights.
        batches: Inputs of the model, by name.
    """
    from onnx import TensorProto, helper

    from limbeck.model.onnx.onnx_model import open_session

    graph, inputs_of = build(replace(blueprint, fused=True), weights, all_heads=True)
    tensors = sorted(set(inputs_of.values()))
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = open_session(graph)
    for batch in batches:
        values = dict(zip(tensors, session.run(tensors, dict(batch)), strict=True))
        yield {name: values[tensor] for name, tensor in inputs_of.items()}


def calibrate(
    blueprint: Blueprint,
    weights: Weights,
    batches: Iterable[Mapping[str, np.ndarray]],
    method: Calibration = "minmax",
    smooth: Mapping[str, np.ndarray] | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute the range of every linear map's input over batches without padding.

    Args:
        blueprint: Blueprint of the float graph.
        weights: Its weights.
        batches: Inputs of the model, by name.
        method: ``minmax`` covers all values; ``percentile`` leaves out 0.01 % at the ends; ``entropy`` minimizes the
            Kullback-Leibler divergence of the histograms.
        smooth: Divisors of some inputs, channel by channel.

    Returns:
        (low, high) by the name of the map.
    """
    collect = _Extremes() if method == "minmax" else _Histograms(method)
    divisors = smooth or {}
    for inputs in record_inputs(blueprint, weights, batches):
        collect.add({name: array / divisors[name] if name in divisors else array for name, array in inputs.items()})
    return collect.ranges()


class _Extremes:
    """Smallest and largest value of every tensor."""

    def __init__(self) -> None:
        self.extremes: dict[str, tuple[float, float]] = {}

    def add(self, tensors: Mapping[str, np.ndarray]) -> None:
        for name, array in tensors.items():
            low, high = self.extremes.get(name, (np.inf, -np.inf))
            self.extremes[name] = (min(low, float(array.min())), max(high, float(array.max())))

    def ranges(self) -> dict[str, tuple[float, float]]:
        return self.extremes


class _Histograms:
    """ONNX Runtime's histogram calibrators, never wider than what was seen."""

    def __init__(self, method: str) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        bins = 2048 if method == "percentile" else 128
        self.collector = HistogramCollector(method, False, bins, 128, 99.99, "same")
        self.extremes = _Extremes()

    def add(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.extremes.add(tensors)
        with contextlib.redirect_stdout(io.StringIO()):  # the collector prints
            self.collector.collect(dict(tensors))

    def ranges(self) -> dict[str, tuple[float, float]]:
        with contextlib.redirect_stdout(io.StringIO()):
            computed = self.collector.compute_collection_result()
        return {
            name: (max(low, float(np.ravel(computed[name][0])[0])), min(high, float(np.ravel(computed[name][1])[0])))
            for name, (low, high) in self.extremes.ranges().items()
        }


def sensitivity(
    blueprint: Blueprint, weights: Weights, int8: Int8, batches: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Measure the mean squared error of the logits with one module alone in 8 bits, worst first.

    Quantizing one at a time isolates a module's error; leaving one out would hide it in the noise of the others.

    Args:
        blueprint: Blueprint of the float graph.
        weights: Its weights.
        int8: The modules, and how to quantize them.
        batches: Inputs to compare on.
    """
    alone = {name: replace(int8, modules=frozenset({name})) for name in sorted(int8.modules)}
    losses = {name: float(values.mean()) for name, values in errors(blueprint, weights, alone, batches).items()}
    return dict(sorted(losses.items(), key=lambda entry: -entry[1]))


def errors(
    blueprint: Blueprint, weights: Weights, ways: Mapping[str, Int8], batches: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Measure the squared error of the logits of several ways to quantize, batch by batch.

    Of a model with early exits each head is compared with itself, and all count alike. In the served graph rounding may
    let a text leave elsewhere, and the logits of two heads differ however little a part in 8 bits harms.

    Args:
        blueprint: Blueprint of the float graph.
        weights: Its weights.
        ways: The ways to quantize, by name.
        batches: Inputs to compare on.

    Returns:
        The mean squared errors by name [batches].
    """
    from limbeck.model.onnx.onnx_model import open_session

    def answers(int8: Int8) -> list[Any]:
        session = open_session(quantize(blueprint, weights, int8, all_heads=True))
        return [session.run(None, dict(batch))[0] for batch in batches]

    truth = answers(Int8(frozenset()))
    losses = {}
    for name, int8 in ways.items():
        pairs = zip(answers(int8), truth, strict=True)
        losses[name] = np.array([np.mean((logits - expected) ** 2) for logits, expected in pairs])
    return losses
