"""Softmax attention within a window as ONNX nodes: blocks of queries, each with the keys around it.

A long text has blocks as long as the window reaches, so that the operations grow with the length alone. A shorter one
is a single block with no more keys than it has tokens: the sizes are computed by the graph. Tokens outside the window,
or beyond the ends of a text, are hidden by what is added to the scores, as padding is. A text within the window has
attention like that of other layers.

ONNX Runtime's ``MultiHeadAttention`` would do for a block, but copies keys and values once more, and its weights of
hidden tokens are denormal numbers, over which a processor takes long: with three tokens in four hidden, twice the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from limbeck.core.shape import LayerShape
from limbeck.model.onnx.attention import (
    MASKED,
    Rotary,
    full_attention,
    hidden,
    plain,
    scores,
    split_heads,
    text_length,
    turned,
)
from limbeck.model.onnx.builder import Graph, Projections

FEW = 3
"""Up to so many blocks are computed as one."""
NEGLIGIBLE = np.float32(70)
"""Scores further below the largest one count as that: exp(-70) is nothing, but not yet a denormal number."""


def local(
    graph: Graph,
    parts: Projections,
    layer: LayerShape,
    head_dim: int,
    positions: Rotary | None,
    first_only: bool,
    fused: bool,
) -> str:
    """Write softmax attention over the tokens in a window.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        layer: Heads and core of the layer.
        head_dim: Channels of a head.
        positions: Its rotary positions; None for none.
        first_only: Whether only the first position is needed.
        fused: Whether ONNX Runtime's own operators may be used.

    Returns:
        Name of the context [batch, position, heads x head_dim].
    """
    states = turned(graph, parts, layer.heads, head_dim, positions, first_only, fused)
    size = layer.core[1]
    if first_only:
        query, key, value = states
        near = (query, _first(graph, key, size + 1, 1), _first(graph, value, size + 1, 1))
        mask = graph.once(f"first {size}", lambda: _first(graph, hidden(graph), size + 1, 3))
        return plain(graph, near, layer.heads, head_dim, mask)
    blocks = _blocks(graph, size, fused)
    if not fused:
        return _in_blocks(graph, states, layer.heads, head_dim, blocks)
    short = _within(graph, size)
    return graph.either(
        short,
        lambda: [full_attention(graph, states, layer.heads)],
        lambda: [_in_blocks(graph, states, layer.heads, head_dim, blocks)],
    )[0]


def _in_blocks(graph: Graph, states: Projections, heads: int, head_dim: int, blocks: Blocks) -> str:
    query, key, value = (split_heads(graph, part, heads, [0, 2, 1, 3]) for part in states)
    query = graph.op("Gather", query, blocks.queries, axis=2)
    key, value = (graph.op("Gather", part, blocks.keys, axis=2) for part in (key, value))
    key = graph.op("Transpose", key, perm=[0, 1, 2, 4, 3])
    seen = scores(graph, query, key, head_dim, blocks.added)
    largest = graph.op("ReduceMax", seen, graph.integers(-1), keepdims=1)
    least = graph.op("Sub", largest, graph.constant("constant.negligible", NEGLIGIBLE))
    weights = graph.op("Softmax", graph.op("Max", seen, least), axis=-1)
    context = graph.op("Transpose", graph.op("MatMul", weights, value), perm=[0, 2, 3, 1, 4])
    context = graph.op("Reshape", context, graph.integers(0, -1, heads * head_dim))
    return graph.op("Slice", context, graph.integers(0), text_length(graph), graph.integers(1))


def _first(graph: Graph, x: str, count: int, axis: int) -> str:
    return graph.op("Slice", x, graph.integers(0), graph.integers(count), graph.integers(axis))


class Blocks(NamedTuple):
    """Positions of queries [block, query] and of keys [block, key], and what is added to scores.

    ``added`` [batch, 1, block, query, key].
    """

    queries: str
    keys: str
    added: str


def _within(graph: Graph, size: int) -> str:
    """Write whether all tokens of a text see each other."""
    most = graph.integers(size + 1)
    return graph.once(f"within {size}", lambda: graph.op("Squeeze", graph.op("LessOrEqual", text_length(graph), most)))


def _blocks(graph: Graph, size: int, fused: bool) -> Blocks:
    """Write the blocks of a window that reaches ``size`` tokens to either side, once for all layers."""

    def none() -> Blocks:
        """Write what nothing reads."""
        zero = graph.constant("constant.zero", np.float32(0))
        empty = (graph.integers(0), graph.integers(0), zero)
        return Blocks(*(graph.op("Identity", value) for value in empty))

    def make() -> Blocks:
        if not fused:
            return _new_blocks(graph, size)
        return Blocks(*graph.either(_within(graph, size), none, lambda: _new_blocks(graph, size)))

    return graph.once(f"blocks {size}", make)


def _new_blocks(graph: Graph, size: int) -> Blocks:
    zero, one, reach, least = (graph.integers(number) for number in (0, 1, size, max(1, size)))
    length = text_length(graph)
    few = graph.op("LessOrEqual", length, graph.integers(FEW * size))
    block, margin = graph.op("Where", few, length, least), graph.op("Where", few, zero, reach)

    def steps(*bounds: str) -> str:
        return graph.op("Range", *(graph.op("Squeeze", bound) for bound in bounds))

    last = graph.op("Sub", length, one)
    starts = graph.op("Unsqueeze", steps(zero, length, block), one)
    queries = steps(zero, block, one)
    keys = steps(graph.op("Neg", margin), graph.op("Add", block, margin), one)
    each_key = graph.op("Add", starts, keys)
    inside = graph.op("Min", graph.op("Max", each_key, zero), last)
    real = graph.op("Gather", graph.op("Cast", graph.mask, to=9), inside, axis=1)
    visible = graph.op("And", real, graph.op("Equal", each_key, inside))
    apart = graph.op("Abs", graph.op("Sub", keys, graph.op("Unsqueeze", queries, one)))
    near = graph.op("LessOrEqual", apart, reach)
    visible = graph.op("And", graph.op("Unsqueeze", visible, graph.integers(1, 3)), near)
    nothing, masked = graph.constant("constant.zero", np.float32(0)), graph.constant("constant.masked", MASKED)
    each_query = graph.op("Min", graph.op("Add", starts, queries), last)
    return Blocks(each_query, inside, graph.op("Where", visible, nothing, masked))
