"""Linear attention as ONNX nodes, from projected queries, keys and values to the context: cores of ``attention.py``.

Their operations grow with the length alone.
"""

from __future__ import annotations

import numpy as np

from limbeck.core.shape import LayerShape
from limbeck.model.onnx.attention import (
    MASKED,
    Rotary,
    hidden,
    join_heads,
    plain,
    real_tokens,
    softmax,
    split_heads,
    text_length,
    turned,
)
from limbeck.model.onnx.builder import FUSED, Graph, Projections


def linear(
    graph: Graph,
    parts: Projections,
    name: str,
    layer: LayerShape,
    head_dim: int,
    first_only: bool,
    fused: bool,
    positions: Rotary | None = None,
) -> str:
    """Write an attention core that is not softmax.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        name: Prefix of the layer's weights.
        layer: Heads and core of the layer.
        head_dim: Channels of a head.
        first_only: Whether only the first position is needed.
        fused: Whether ONNX Runtime's own operators may be used.
        positions: Rotary positions; None for none.

    Returns:
        Name of the context [batch, position, heads x head_dim].
    """
    parts = turned(graph, parts, layer.heads, head_dim, positions, first_only, fused)
    kind, size = layer.core
    if kind == "linformer":
        return _linformer(graph, parts, name, layer.heads, head_dim, size, fused)
    if kind == "kernel":
        return _kernel(graph, parts, layer.heads)
    if first_only:
        return plain(graph, parts, layer.heads, head_dim, hidden(graph))
    return _window(graph, parts, layer.heads, head_dim, size)


# --- linformer ------------------------------------------------------------------------------------------------------


def _linformer(graph: Graph, parts: Projections, name: str, heads: int, head_dim: int, size: int, fused: bool) -> str:
    def scale() -> str:
        """Write the weights of positions [batch, position, 1]: 0 for padding, else 1 / sqrt(number of tokens)."""
        count = graph.op("ReduceSum", real_tokens(graph), graph.integers(1), keepdims=1)
        least = graph.op("Max", count, graph.constant("constant.one", np.float32(1)))
        return graph.op("Div", real_tokens(graph), graph.op("Sqrt", least))

    def projection(which: str) -> str:
        """Write the part that a text of this length uses: [size, position], or [heads, size, position]."""
        whole, start = graph.weight(which), graph.integers(0)  # under its own name: the file is read back
        if graph.weights[which].shape[-2] > size:  # layers that share may differ
            rows = (start, graph.integers(size), graph.integers(-2))
            whole = graph.once(f"{which} to {size}", lambda: graph.op("Slice", graph.weight(which), *rows))
        ends = (start, text_length(graph), graph.integers(-1))
        return graph.once(f"{which} to {size}, used", lambda: graph.op("Slice", whole, *ends))

    own = f"{name.removesuffix('.attention')}.key_lengths"
    first = own if own in graph.weights else "lengths"
    second = own.replace("key", "value") if own.replace("key", "value") in graph.weights else first
    each = graph.weights[first].ndim == 3
    short = []
    for part, which in zip(parts[1:], (first, second), strict=True):
        states = graph.op("Mul", part, graph.once("scale of lengths", scale))
        states = split_heads(graph, states, heads, [0, 2, 1, 3]) if each else states
        short.append(graph.op("MatMul", projection(which), states))
    if each:
        query = split_heads(graph, parts[0], heads, [0, 2, 1, 3])
        key = graph.op("Transpose", short[0], perm=[0, 1, 3, 2])
        return join_heads(graph, softmax(graph, query, key, short[1], head_dim, None))
    if fused:
        return graph.op("MultiHeadAttention", parts[0], *short, domain=FUSED, num_heads=heads)
    return plain(graph, (parts[0], short[0], short[1]), heads, head_dim, None)


# --- kernel ---------------------------------------------------------------------------------------------------------


def _kernel(graph: Graph, parts: Projections, heads: int) -> str:
    def positive(x: str) -> str:
        return graph.op("Add", graph.op("Elu", x), graph.constant("constant.one", np.float32(1)))

    query = split_heads(graph, positive(parts[0]), heads, [0, 2, 1, 3])
    key = split_heads(graph, graph.op("Mul", positive(parts[1]), real_tokens(graph)), heads, [0, 2, 3, 1])
    value = split_heads(graph, parts[2], heads, [0, 2, 1, 3])
    total = graph.op("MatMul", query, graph.op("ReduceSum", key, graph.integers(-1), keepdims=1))
    tiny = graph.constant("constant.tiny", np.finfo(np.float32).tiny)
    context = graph.op("MatMul", query, graph.op("MatMul", key, value))
    return join_heads(graph, graph.op("Div", context, graph.op("Max", total, tiny)))


# --- window ---------------------------------------------------------------------------------------------------------


def _window(graph: Graph, parts: Projections, heads: int, head_dim: int, size: int) -> str:
    """Blocks of ``size`` queries, each with the keys of its own block, of the two beside it, and of the first token."""
    query, key, value = (split_heads(graph, part, heads, [0, 2, 1, 3]) for part in parts)
    first = graph.op("Slice", query, graph.integers(0), graph.integers(1), graph.integers(2))
    across = graph.op("Transpose", key, perm=[0, 1, 3, 2])
    globally = softmax(graph, first, across, value, head_dim, hidden(graph))

    scale = graph.constant(f"constant.scale_{head_dim}", np.float32(head_dim**-0.5))
    blocks = graph.op("Reshape", _padded(graph, query, 2, size, False), graph.integers(0, 0, -1, size, head_dim))
    blocks = graph.op("Mul", blocks, scale)
    beside, values = (_beside(graph, part, size, head_dim) for part in (key, value))
    scores = graph.op("MatMul", blocks, graph.op("Transpose", beside, perm=[0, 1, 2, 4, 3]))
    scores = graph.op("Add", scores, graph.once(f"seen {size}", lambda: _seen(graph, size)))
    key_0, value_0 = (_first(graph, part) for part in (key, value))
    to_first = graph.op("MatMul", blocks, graph.op("Transpose", key_0, perm=[0, 1, 2, 4, 3]))
    weights = graph.op("Softmax", graph.op("Concat", scores, to_first, axis=-1), axis=-1)
    local, to_first = graph.op_with_outputs("Split", weights, graph.integers(3 * size, 1), axis=-1, outputs=2)
    context = graph.op("Add", graph.op("MatMul", local, values), graph.op("Mul", to_first, value_0))
    context = graph.op("Reshape", context, graph.integers(0, 0, -1, head_dim))
    rest = graph.op("Slice", context, graph.integers(1), text_length(graph), graph.integers(2))
    return join_heads(graph, graph.op("Concat", globally, rest, axis=2))


def _first(graph: Graph, x: str) -> str:
    """Return the first position of [batch, heads, position, head_dim], as [batch, heads, 1, 1, head_dim]."""
    taken = graph.op("Slice", x, graph.integers(0), graph.integers(1), graph.integers(2))
    return graph.op("Unsqueeze", taken, graph.integers(2))


def _padded(graph: Graph, x: str, axis: int, size: int, around: bool) -> str:
    """Zeros behind, up to a multiple of ``size``; with ``around`` a block of them before and one more behind."""

    def ragged() -> str:
        divisor = graph.integers(size)
        return graph.op("Mod", graph.op("Neg", text_length(graph)), divisor)

    def amounts() -> str:
        missing = graph.once(f"ragged {size}", ragged)
        if around:
            return graph.op("Concat", graph.integers(size), graph.op("Add", missing, graph.integers(size)), axis=0)
        return graph.op("Concat", graph.integers(0), missing, axis=0)

    zero = graph.constant("constant.zero", np.float32(0))
    return graph.op("Pad", x, graph.once(f"pads {size} {around}", amounts), zero, graph.integers(axis))


def _beside(graph: Graph, x: str, size: int, head_dim: int) -> str:
    """[batch, heads, position, head_dim] to [batch, heads, block, 3 size, head_dim]."""
    blocks = graph.op("Reshape", _padded(graph, x, 2, size, True), graph.integers(0, 0, -1, size, head_dim))
    return _three(graph, blocks, 2)


def _three(graph: Graph, blocks: str, axis: int) -> str:
    """Every block but the outermost together with its neighbors."""
    spans = ((0, -2), (1, -1), (2, np.iinfo(np.int64).max))
    where = graph.integers(axis)
    moved = [graph.op("Slice", blocks, graph.integers(a), graph.integers(int(b)), where) for a, b in spans]
    return graph.op("Concat", *moved, axis=axis + 1)


def _seen(graph: Graph, size: int) -> str:
    """Write the mask of local scores [batch, 1, block, size, 3 size]; every token sees the first one anyway."""
    real = graph.op("Cast", graph.mask, to=1)
    most = graph.integers(np.iinfo(np.int64).max)
    rest = graph.op("Slice", real, graph.integers(1), most, graph.integers(1))
    zero = graph.constant("constant.zero", np.float32(0))
    rest = graph.op("Pad", rest, graph.integers(1, 0), zero, graph.integers(1))
    blocks = graph.op("Reshape", _padded(graph, rest, 1, size, True), graph.integers(0, -1, size))
    keys = graph.op("Unsqueeze", _three(graph, blocks, 1), graph.integers(1, 3))
    positions = np.arange(3 * size)
    band = np.abs(positions - size - positions[:size, None]) <= size
    visible = graph.op("Mul", keys, graph.constant(f"constant.band_{size}", band.astype(np.float32)))
    hidden = graph.op("Sub", graph.constant("constant.one", np.float32(1)), visible)
    return graph.op("Mul", hidden, graph.constant("constant.masked", MASKED))
