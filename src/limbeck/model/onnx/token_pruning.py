"""Fewer tokens in later layers as ONNX nodes; ``model/token_pruning.py`` says what is computed, and why.

Numbers of tokens follow from the inputs' own sizes in whole numbers, so one graph serves every length and batch. Where
the output reads the first token alone, all that follows a layer's attention runs for the tokens that remain: what
becomes of the others is not read any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from limbeck.model.onnx import attention as graph_attention
from limbeck.model.onnx.builder import Graph, Projections

FIRST = np.float32(1e9)
"""Stands for the attention that the first token receives: more than any other."""


def judging_attention(
    graph: Graph, parts: Projections, heads: int, head_dim: int, bias: str | None = None
) -> tuple[str, str]:
    """Write softmax attention in standard operators, and what every token receives of it.

    Args:
        graph: The graph to add nodes to.
        parts: Names of queries, keys and values.
        heads: Number of heads.
        head_dim: Channels of a head.
        bias: Name of what is added to the scores [batch or 1, heads, query, key]; None for nothing.

    Returns:
        Names of the context [batch, position, heads x head_dim] and of the attention received, summed over the tokens
        that attend and averaged over the heads [batch, position].
    """
    added = graph_attention.hidden(graph)
    added = added if bias is None else graph.op("Add", bias, added)
    query, value = (graph_attention.split_heads(graph, part, heads, [0, 2, 1, 3]) for part in (parts[0], parts[2]))
    key = graph_attention.split_heads(graph, parts[1], heads, [0, 2, 3, 1])
    weights = graph.op("Softmax", graph_attention.scores(graph, query, key, head_dim, added), axis=-1)
    query_mask = graph.op("Unsqueeze", graph.op("Cast", graph.mask, to=1), graph.integers(1, 2))
    received = graph.op("ReduceMean", graph.op("MatMul", query_mask, weights), graph.integers(1, 2), keepdims=0)
    return graph_attention.join_heads(graph, graph.op("MatMul", weights, value)), received


class RemainingTokens:
    """Writes which tokens the next layers read, and the last states of all others where the output needs them.

    The graph's ``mask`` and ``positions`` are those of the tokens that remain, and so is what its layers share.
    """

    def __init__(self, graph: Graph, *, first_only: bool) -> None:
        self.graph, self.first_only = graph, first_only
        self.of_all = graph.shared, graph.outermost
        self.all_tokens = ""  # their number in the longest text [1]
        self.index = ""  # of those chosen last, among those before [batch, remaining, 1]
        self.columns: str | None = None  # positions of those tokens; their number stands for no token
        self.states: str | None = None

    def drop(self, x: str, received: str, share: float) -> str:
        """Leave tokens behind, with their states.

        Args:
            x: Name of the states of those that remained so far [batch, position, hidden].
            received: Name of the attention that each receives [batch, position].
            share: Share of a text's tokens that remain from now on.

        Returns:
            Name of the states of those [batch, remaining, hidden].
        """
        self.states = self.merged(x)
        self.choose(received, share)
        return self.take(x)

    def take(self, x: str) -> str:
        """Write what :meth:`choose` chose of states [batch, position, channel]."""
        return self.graph.op("GatherND", x, self.index, batch_dims=1)

    def choose(self, received: str, share: float) -> None:
        """Choose the tokens that remain: those that receive most attention, and the first.

        Args:
            received: Name of the attention that each receives [batch, position].
            share: Share of a text's tokens that remain from now on.
        """
        graph, present = self.graph, graph_attention.text_length(self.graph)
        self.all_tokens = self.all_tokens or present
        width = self._remaining_count(share, self.all_tokens)
        first = graph.op("Equal", self._range(present), graph.integers(0))
        padding = graph.constant("constant.padding", np.float32(-1))
        ranked = graph.op("Where", graph.op("Cast", graph.mask, to=9), received, padding)
        ranked = graph.op("Where", first, graph.constant("constant.received", FIRST), ranked)
        _, best = graph.op_with_outputs("TopK", ranked, width, outputs=2, axis=1)
        lengths = graph.op("ReduceSum", "attention_mask", graph.integers(1), keepdims=1)
        counts = self._remaining_count(share, lengths)
        best = graph.op("Where", graph.op("Less", self._range(width), counts), best, present)
        ordered, _ = graph.op_with_outputs("TopK", best, width, outputs=2, axis=1, largest=0)
        index = graph.op("Min", ordered, graph.op("Sub", present, graph.integers(1)))
        chosen = graph.op("Less", ordered, present)
        mask = graph.op("GatherElements", graph.mask, index, axis=1)
        graph.mask = graph.op("Where", chosen, mask, graph.integers(0))
        before = graph.positions
        graph.positions = index if before is None else graph.op("GatherElements", before, index, axis=1)
        self.index = graph.op("Unsqueeze", index, graph.integers(2))
        if not self.first_only:
            self.columns = graph.op("Where", graph.op("Cast", graph.mask, to=9), graph.positions, self.all_tokens)
        graph.shared, graph.outermost = {}, graph.nodes  # what layers share now is known in this branch at the earliest

    def merged(self, x: str) -> str:
        """Write the states of all positions: the present ones, and the last ones of those that were left behind.

        Args:
            x: Name of the states of those that remain [batch, remaining, hidden].
        """
        graph = self.graph
        if self.states is None or self.columns is None:
            return x  # all are present, or the output reads none of the others
        spare = graph.op("Slice", self.states, graph.integers(0), graph.integers(1), graph.integers(1))
        wide = graph.op("Concat", self.states, spare, axis=1)  # a row for the positions that hold no token
        texts = graph.op("Unsqueeze", self._range(graph.op("Shape", self.columns, start=0, end=1)), graph.integers(1))
        rows = graph.op("Expand", texts, graph.op("Shape", self.columns))
        rows, columns = (graph.op("Unsqueeze", part, graph.integers(2)) for part in (rows, self.columns))
        index = graph.op("Concat", rows, columns, axis=2)
        everything = graph.op("ScatterND", wide, index, x)
        return graph.op("Slice", everything, graph.integers(0), self.all_tokens, graph.integers(1))

    @contextmanager
    def all_again(self) -> Iterator[None]:
        """Let the graph see all tokens, as a head does; layers after it see those that remain."""
        graph = self.graph
        before = graph.mask, graph.positions, graph.shared, graph.outermost
        graph.mask, graph.positions, graph.shared, graph.outermost = "attention_mask", None, *self.of_all
        yield
        graph.mask, graph.positions, graph.shared, graph.outermost = before

    def _remaining_count(self, share: float, tokens: str) -> str:
        """Write how many tokens remain of so many, as ``core.shape.kept_tokens`` counts them."""
        graph = self.graph
        scaled = graph.op("Mul", tokens, graph.integers(round(1000 * share)))
        rounded = graph.op("Div", graph.op("Add", scaled, graph.integers(999)), graph.integers(1000))
        return graph.op("Max", rounded, graph.integers(1))

    def _range(self, length: str) -> str:
        """Write the numbers from 0 below a length [1]."""
        graph = self.graph
        zero, step = graph.constant("constant.first", np.int64(0)), graph.constant("constant.axis", np.int64(1))
        return graph.op("Range", zero, graph.op("Squeeze", length), step)
