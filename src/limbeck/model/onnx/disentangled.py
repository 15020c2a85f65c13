"""Disentangled attention as ONNX nodes: what ``disentangled_attention.py`` computes in torch.

The projected embeddings of positions depend on the weights alone, so they are constants: a row for every bucket, of
which a text gathers those of its distances. The terms c2p and p2c are each one product of queries or keys with these
rows, and one shift. Their sum is the bias of ONNX Runtime's ``MultiHeadAttention``; scales are part of the constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from limbeck.core.analytic_cost import as_shape
from limbeck.model.onnx import attention as graph_attention
from limbeck.model.onnx.attention import split_heads, text_length
from limbeck.model.onnx.builder import FUSED, Graph, Projections

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification

INDEX = "relative_index"
"""Name of the bucket of every distance key - query, from 1 - n to n for the largest number of tokens n."""


class Heads(NamedTuple):
    """Number of heads, channels of each, and whether only the first position is needed."""

    number: int
    head_dim: int
    first_only: bool


def relative_tables(model: LimbeckForSequenceClassification, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replace relative embeddings and their projections by what the graph needs of them.

    Args:
        model: The torch model.
        weights: Its weights by name, matrices [inputs, outputs]; those that are replaced are taken out, and queries are
            scaled for the number of terms.

    Returns:
        Rows for queries, then for keys [heads or twice as many, bucket, head_dim] by layer, and :data:`INDEX`.
    """
    import torch

    from limbeck.model.disentangled_attention import bucket_rows

    encoder = model.encoder
    style, shape = encoder.style, as_shape(model.shape)
    if encoder.relative is None:
        return {}
    for name in [name for name in weights if ".position_" in name or name.startswith("relative.")]:
        del weights[name]
    factor, terms = (1 + len(style.pos_att_type)) ** -0.5, style.pos_att_type
    distances = torch.arange(1 - style.max_positions, style.max_positions + 1)
    pairs, index = torch.stack((bucket_rows(-distances, style), bucket_rows(distances, style))).unique(
        dim=1, return_inverse=True
    )
    tables = {INDEX: index.numpy()}
    with torch.no_grad():
        rows = encoder.relative.rows(shape.hidden, slice(None))
        for number, layer in enumerate(encoder.layers):
            for part in ("weight", "bias"):
                weights[f"layers.{number}.query.{part}"] = weights[f"layers.{number}.query.{part}"] * np.float32(factor)
            heads, (core, _) = shape.layers[number].heads, shape.layers[number].core
            if not heads or core != "softmax":
                continue
            scale, parts = shape.head_dim**-0.5, []
            if "c2p" in terms:  # the queries are scaled already
                projected = layer.split(rows[None], layer.position_key or layer.key, heads, shape.head_dim)
                parts.append(scale * projected[0, :, pairs[0]])
            if "p2c" in terms:
                projected = layer.split(rows[None], layer.position_query or layer.query, heads, shape.head_dim)
                parts.append(factor * scale * projected[0, :, pairs[1]])
            tables[f"layers.{number}.{'_'.join(terms)}"] = torch.cat(parts).float().cpu().numpy()
    return tables


def attention(graph: Graph, parts: Projections, layer: str, heads: Heads, fused: bool) -> str:
    """Write softmax attention with the terms of positions, where padding attends to all tokens alike.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        layer: Prefix of the layer's weights; attention without terms of positions has no table of theirs.
        heads: The layer's heads.
        fused: Whether ONNX Runtime's own operators may be used.

    Returns:
        Name of the context [batch, position, heads x head_dim].
    """
    query, key, value = parts
    write = _first_scores if heads.first_only else _scores
    bias = None
    for table in (f"{layer}.{terms}" for terms in ("c2p_p2c", "c2p", "p2c")):
        if table in graph.weights:
            bias = write(graph, table, (query, key), heads, fused)
    if fused:
        inputs = (query, key, value, None, graph_attention.padding_mask(graph), bias)
        context = graph.op("MultiHeadAttention", *inputs, domain=FUSED, num_heads=heads.number)
    else:
        hidden = graph_attention.hidden(graph)
        context = graph_attention.plain(graph, (query, key, value), heads.number, heads.head_dim, hidden, bias)
    mean = graph.op("ReduceMean", value, graph.integers(1), keepdims=1)
    return graph.op("Where", _is_token(graph, heads.first_only), context, mean)


def _tables(graph: Graph, table: str) -> tuple[str | None, str | None]:
    """Return the names of the rows for c2p and for p2c."""
    if table.endswith(".c2p"):
        return table, None
    if table.endswith(".p2c"):
        return None, table
    c2p, p2c = graph.op_with_outputs("Split", graph.weight(table), axis=0, num_outputs=2, outputs=2)
    return c2p, p2c


def _scores(graph: Graph, table: str, parts: tuple[str, str], heads: Heads, fused: bool) -> str:
    """Write the terms of all queries [batch, heads, query, key]; ``parts``: queries and keys."""
    terms = []
    for part, rows, transposed in zip(parts, _tables(graph, table), (False, True), strict=True):
        if rows is not None:
            states = split_heads(graph, part, heads.number, [0, 2, 1, 3])
            term = _shifted(graph, _products(graph, states, _rows(graph, rows, _distances(graph)), fused))
            terms.append(graph.op("Transpose", term, perm=[0, 1, 3, 2]) if transposed else term)
    return terms[0] if len(terms) == 1 else graph.op("Add", *terms)


def _first_scores(graph: Graph, table: str, parts: tuple[str, str], heads: Heads, fused: bool) -> str:
    """Write the terms of the first query alone [batch, heads, 1, key]: no shift, and *p2c* is one product a key."""
    c2p, p2c = _tables(graph, table)
    terms = []
    if c2p is not None:
        query = split_heads(graph, parts[0], heads.number, [0, 2, 1, 3])
        terms.append(_products(graph, query, _rows(graph, c2p, _distances_from_first(graph, 1)), fused))
    if p2c is not None:
        key = split_heads(graph, parts[1], heads.number, [0, 2, 1, 3])
        products = graph.op("Mul", key, _rows(graph, p2c, _distances_from_first(graph, -1)))
        total = graph.op("ReduceSum", products, graph.integers(3), keepdims=0)
        terms.append(graph.op("Unsqueeze", total, graph.integers(2)))
    return terms[0] if len(terms) == 1 else graph.op("Add", *terms)


def _rows(graph: Graph, table: str, index: str) -> str:
    """Gather the rows of distances [heads, distance, head_dim]."""
    return graph.op("Gather", graph.weight(table) if table in graph.weights else table, index, axis=1)


def _products(graph: Graph, states: str, rows: str, fused: bool) -> str:
    """Multiply states [batch, heads, position, head_dim] by rows: [batch, heads, position, distance]."""
    if fused:
        return graph.op("FusedMatMul", states, rows, domain=FUSED, transB=1)
    return graph.op("MatMul", states, graph.op("Transpose", rows, perm=[0, 2, 1]))


def _shifted(graph: Graph, products: str) -> str:
    """Take from row i the distances j - i: [batch, heads, n, 2 n] to [batch, heads, n, n]."""

    def shape() -> str:
        row = graph.op("Sub", graph.op("Add", text_length(graph), text_length(graph)), graph.integers(1))
        return graph.op("Concat", graph.integers(0, 0, -1), row, axis=0)

    def skipped() -> str:
        return graph.op("Sub", text_length(graph), graph.integers(1))

    flat = graph.op("Reshape", products, graph.integers(0, 0, -1))
    start, last = graph.once("skipped distances", skipped), graph.integers(-1)
    flat = graph.op("Slice", flat, start, last, graph.integers(2))
    grid = graph.op("Reshape", flat, graph.once("grid of distances", shape))
    return graph.op("Slice", grid, graph.integers(0), text_length(graph), graph.integers(3))


def _distances(graph: Graph) -> str:
    """Write the buckets of the distances from 1 - n to n, for a text of n tokens."""

    def make() -> str:
        most = graph.integers(len(graph.weights[INDEX]) // 2)
        start, end = graph.op("Sub", most, text_length(graph)), graph.op("Add", most, text_length(graph))
        return graph.op("Slice", graph.weight(INDEX), start, end)

    return graph.once("distances", make)


def _distances_from_first(graph: Graph, step: int) -> str:
    """Write the buckets of the distances of the first token's keys: 0, 1, … (``step`` 1), or 0, -1, …."""

    def make() -> str:
        most = len(graph.weights[INDEX]) // 2
        if step > 0:
            start = graph.integers(most - 1)
            return graph.op("Slice", graph.weight(INDEX), start, graph.op("Add", start, text_length(graph)))
        end = graph.op("Sub", graph.integers(-most - 1), text_length(graph))  # counted from the end, never from 0
        axis, steps = graph.integers(0), graph.integers(-1)
        return graph.op("Slice", graph.weight(INDEX), graph.integers(most - 1), end, axis, steps)

    return graph.once(f"distances {step}", make)


def _is_token(graph: Graph, first_only: bool) -> str:
    """Write true where a token is [batch, position or 1, 1]."""

    def make() -> str:
        return graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=9), graph.integers(2))

    flags = graph.once("is token", make)
    return graph.op("Gather", flags, graph.integers(0), axis=1) if first_only else flags
