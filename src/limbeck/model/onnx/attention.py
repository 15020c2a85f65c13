"""Softmax attention as ONNX nodes, from projected queries, keys and values to the context, and what it adds to scores.

A classifier's last layer asks for the first token alone: there softmax attention is linear in the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from limbeck.core.shape import LayerShape
from limbeck.model.onnx.builder import EXACT, FUSED, Graph, Projections

MASKED = np.float32(-1e9)  # added to scores of what is not seen


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: their base, and how many positions a text may have."""

    theta: float
    positions: int

    def tables(self, graph: Graph, head_dim: int) -> tuple[str, str]:
        """Write cosines and sines [position, head_dim / 2]; layers with one base share them."""
        frequencies = self.theta ** -(np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
        angles = np.arange(self.positions, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
        name = f"constant.{{}}_{self.theta:g}_{head_dim}"
        return graph.constant(name.format("cos"), np.cos(angles)), graph.constant(name.format("sin"), np.sin(angles))

    def turned(self, graph: Graph, x: str, heads: int, head_dim: int, fused: bool) -> str:
        """Turn queries or keys by their positions.

        Args:
            graph: The graph to add nodes to.
            x: Name of the states [batch, position, heads x head_dim].
            heads: Number of heads.
            head_dim: Channels of a head.
            fused: Whether ONNX Runtime's own operators may be used.

        Returns:
            Name of the turned states, of the same shape.
        """
        cos, sin = self.tables(graph, head_dim)
        where = graph.positions
        if fused:
            return graph.op("RotaryEmbedding", x, where or graph.integers(0), cos, sin, domain=FUSED)

        def used(table: str) -> str:
            if where is not None:
                return graph.op("Unsqueeze", graph.op("Gather", table, where), graph.integers(2))
            rows = graph.op("Slice", table, graph.integers(0), text_length(graph), graph.integers(0))
            return graph.op("Unsqueeze", rows, graph.integers(1))

        cos, sin = (graph.once(f"{table}, used", partial(used, table)) for table in (cos, sin))
        states = graph.op("Reshape", x, graph.integers(0, 0, heads, -1))
        first, second = graph.op_with_outputs("Split", states, axis=-1, num_outputs=2, outputs=2)
        turned = (
            graph.op("Sub", graph.op("Mul", first, cos), graph.op("Mul", second, sin)),
            graph.op("Add", graph.op("Mul", second, cos), graph.op("Mul", first, sin)),
        )
        return graph.op("Reshape", graph.op("Concat", *turned, axis=-1), graph.integers(0, 0, -1))


def attention(
    graph: Graph,
    parts: Projections,
    layer: LayerShape,
    head_dim: int,
    positions: Rotary | None,
    bias: str | None,
    first_only: bool,
    fused: bool,
) -> str:
    """Write softmax attention over all tokens, with rotary positions or biases by distance.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        layer: Heads and core of the layer.
        head_dim: Channels of a head.
        positions: Its rotary positions; None for none.
        bias: Name of what is added to the scores [1, heads, query, key]; None for nothing.
        first_only: Whether only the first position is needed.
        fused: Whether ONNX Runtime's own operators may be used.

    Returns:
        Name of the context [batch, position, heads x head_dim].
    """
    parts = turned(graph, parts, layer.heads, head_dim, positions, first_only, fused)
    if bias is not None and first_only:
        bias = graph.op("Gather", bias, graph.integers(0), axis=2)
    if not fused:
        return plain(graph, parts, layer.heads, head_dim, hidden(graph), bias)
    if bias is not None:
        return graph.op(
            "MultiHeadAttention", *parts, None, padding_mask(graph), bias, domain=FUSED, num_heads=layer.heads
        )
    return full_attention(graph, parts, layer.heads)


def full_attention(graph: Graph, parts: Projections, heads: int) -> str:
    """Write ONNX Runtime's attention over all tokens; without padding it has no mask, which has a faster kernel.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        heads: Number of heads.
    """

    def masked(mask: str | None) -> list[str]:
        return [graph.op("MultiHeadAttention", *parts, None, mask, domain=FUSED, num_heads=heads)]

    def whole() -> str:
        return graph.op("Cast", graph.op("ReduceMin", graph.mask, keepdims=0), to=9)

    mask, unpadded = padding_mask(graph), graph.once("no padding", whole)
    return graph.either(unpadded, lambda: masked(None), lambda: masked(mask))[0]


def turned(
    graph: Graph, parts: Projections, heads: int, head_dim: int, positions: Rotary | None, first_only: bool, fused: bool
) -> Projections:
    """Turn queries and keys by rotary positions, if there are any.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values [batch, position, heads x head_dim].
        heads: Number of heads.
        head_dim: Channels of a head.
        positions: The rotary positions; None leaves everything as it is.
        first_only: Whether only the first token attends.
        fused: Whether ONNX Runtime's own operators may be used.
    """
    query, key, value = parts
    if positions is None:
        return parts
    if not first_only:  # at position 0 nothing turns
        query = positions.turned(graph, query, heads, head_dim, fused)
    return query, positions.turned(graph, key, heads, head_dim, fused), value


def plain(
    graph: Graph, parts: Projections, heads: int, head_dim: int, added: str | None, bias: str | None = None
) -> str:
    """Write softmax attention in standard operators.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        heads: Number of heads.
        head_dim: Channels of a head.
        added: Name of what is added to the scores [batch, 1, 1, key]; None for nothing.
        bias: Name of biases added to them too [1, heads, query, key]; None for nothing.
    """
    if bias is not None:
        added = bias if added is None else graph.op("Add", added, bias)
    query, value = (split_heads(graph, part, heads, [0, 2, 1, 3]) for part in (parts[0], parts[2]))
    key = split_heads(graph, parts[1], heads, [0, 2, 3, 1])
    return join_heads(graph, softmax(graph, query, key, value, head_dim, added))


def scores(graph: Graph, query: str, key: str, head_dim: int, added: str | None) -> str:
    """Score keys for queries: scaled products.

    Args:
        graph: The graph to add nodes to.
        query: Name of the queries [batch, heads, position, head_dim].
        key: Name of the keys [batch, heads, head_dim, position].
        head_dim: Channels of a head.
        added: Name of what is added to the scores, such as a mask; None adds nothing.

    Returns:
        Name of the scores [batch, heads, query, key].
    """
    scale = graph.constant(f"constant.scale_{head_dim}", np.float32(head_dim**-0.5))
    products = graph.op("Mul", graph.op("MatMul", query, key), scale)
    return products if added is None else graph.op("Add", products, added)


def softmax(graph: Graph, query: str, key: str, value: str, head_dim: int, added: str | None) -> str:
    """Attend by softmax.

    Args:
        graph: The graph to add nodes to.
        query: Name of the queries [batch, heads, position, head_dim].
        key: Name of the keys [batch, heads, head_dim, position].
        value: Name of the values [batch, heads, position, head_dim].
        head_dim: Channels of a head.
        added: Name of what is added to the scores, such as a mask; None adds nothing.

    Returns:
        Name of the contexts [batch, heads, position, head_dim].
    """
    return graph.op("MatMul", graph.op("Softmax", scores(graph, query, key, head_dim, added), axis=-1), value)


def split_heads(graph: Graph, x: str, heads: int, order: list[int]) -> str:
    """Split states into heads.

    Args:
        graph: The graph to add nodes to.
        x: Name of the states [batch, position, heads x head_dim].
        heads: Number of heads.
        order: Order of the axes [batch, position, heads, head_dim] in the result.

    Returns:
        Name of the states by head.
    """
    return graph.op("Transpose", graph.op("Reshape", x, graph.integers(0, 0, heads, -1)), perm=order)


def join_heads(graph: Graph, context: str) -> str:
    """Join the contexts of heads: [batch, heads, position, head_dim] to [batch, position, heads x head_dim]."""
    return graph.op("Reshape", graph.op("Transpose", context, perm=[0, 2, 1, 3]), graph.integers(0, 0, -1))


# --- the mask -------------------------------------------------------------------------------------------------------


def real_tokens(graph: Graph) -> str:
    """1 where a token is, 0 where padding is [batch, position, 1]."""
    return graph.once("real", lambda: graph.op("Unsqueeze", graph.op("Cast", graph.mask, to=1), graph.integers(2)))


def padding_mask(graph: Graph) -> str:
    """Write the mask of the fused operators: 1 where a token is [batch, position]."""
    return graph.once("mask", lambda: graph.op("Cast", graph.mask, to=6))


def hidden(graph: Graph) -> str:
    """Write the mask that is added to the scores [batch, 1, 1, position]."""

    def make() -> str:
        real = graph.op("Cast", graph.mask, to=1)
        padding = graph.op("Sub", graph.constant("constant.one", np.float32(1)), real)
        return graph.op(
            "Unsqueeze", graph.op("Mul", padding, graph.constant("constant.masked", MASKED)), graph.integers(1, 2)
        )

    return graph.once("hidden", make)


def sums_of_tokens(graph: Graph, x: str) -> tuple[str, str]:
    """Write the sum of the hidden states of a text's tokens [batch, hidden], and their number, at least 1 [batch, 1].

    Both are in float32 also in half precision, which ends at 65,504.
    """
    real = graph.op("Unsqueeze", graph.exact(graph.mask), graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", graph.exact(x), real), graph.integers(1), keepdims=0)
    count = graph.op("ReduceSum", real, graph.integers(1), keepdims=0)
    return total, graph.op("Max", count, graph.constant(f"constant.{EXACT}one", np.float32(1)))


def mean(graph: Graph, x: str) -> str:
    """Write the mean of the hidden states of a text's tokens [batch, hidden]."""
    return graph.op("Cast", graph.op("Div", *sums_of_tokens(graph, x)), to=1)


def text_length(graph: Graph) -> str:
    """Write the number of positions that the next layer reads [1]."""
    read = "input_ids" if graph.positions is None else graph.mask
    return graph.once("length", lambda: graph.op("Shape", read, start=1, end=2))


# --- biases by distance ---------------------------------------------------------------------------------------------


def bias_by_distance(graph: Graph, name: str) -> str:
    """Write the biases of softmax attention [batch or 1, heads, query, key] from one row a head.

    Heads are gathered side by side and then moved to the front: gathered one by one they take three times as long.

    Args:
        graph: The graph to add nodes to.
        name: Name of the rows [heads, distance]: biases for the distances key - query from -D to D, where D is half of
            what a row holds. All greater distances are like D.
    """
    most, positions, axes = graph.weights[name].shape[1] // 2, graph.positions, (1, 2)
    if positions is None:
        axes = (0, 1)
        length = graph.op("Squeeze", text_length(graph))
        zero, step = graph.constant("constant.first", np.int64(0)), graph.constant("constant.axis", np.int64(1))
        positions = graph.op("Range", zero, length, step)
    key, query = (graph.op("Unsqueeze", positions, graph.integers(axis)) for axis in axes)
    least, largest = (graph.constant(f"constant.distance_{n}", np.int64(n)) for n in (-most, most))
    distances = graph.op("Add", graph.op("Clip", graph.op("Sub", key, query), least, largest), largest)
    pairs = graph.op("Gather", graph.op("Transpose", graph.weight(name), perm=[1, 0]), distances, axis=0)
    if graph.positions is not None:
        return graph.op("Transpose", pairs, perm=[0, 3, 1, 2])
    return graph.op("Unsqueeze", graph.op("Transpose", pairs, perm=[2, 0, 1]), graph.integers(0))
