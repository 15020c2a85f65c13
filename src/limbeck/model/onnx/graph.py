"""An encoder as an ONNX graph, written node by node from its weights.

Nothing is traced and no pattern has to be found again by an optimizer: the operators are chosen here, by measurement
on ONNX Runtime's CPU kernels. Attention is one fused operator a layer, also with ragged heads, unless texts are long.
Three choices are worth their names:

* Residual sums are ``Sum`` followed by ``LayerNormalization``. The fused ``SkipLayerNormalization`` computes its
  statistics one number at a time on the CPU and took 6 times as long; ``Add`` would be fused into it by the
  optimizer, ``Sum`` is not. The same holds for ``EmbedLayerNormalization``.
* A text classifier reads the first position alone, so in the last layer everything after the attention runs on that
  one position: exact, and a layer is mostly that.
* Matrices are shared between formats: ``TensorWriter`` says how each linear map is computed (see ``quantization.py``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.early_exits import EarlyExits
from limbeck.core.finite import load_json
from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.core.shape import Shape, attention_core
from limbeck.errors import InputError, nearest
from limbeck.model.onnx import activations
from limbeck.model.onnx import attention as graph_attention
from limbeck.model.onnx import disentangled as graph_disentangled
from limbeck.model.onnx.assembly import assemble
from limbeck.model.onnx.builder import (
    FUSED,
    Graph,
    Projections,
    RowGather,
    TensorWriter,
    Weights,
    biased,
    projection_bias,
)
from limbeck.model.onnx.early_exits import ExitWriter
from limbeck.model.onnx.linear_attention import linear as linear_attention
from limbeck.model.onnx.local_attention import local as local_attention
from limbeck.model.onnx.sentence_embedding import sentence_embedding
from limbeck.model.onnx.token_pruning import RemainingTokens, judging_attention

if TYPE_CHECKING:
    from limbeck.model.external import OnnxGraph


LONG_TEXT = 128
"""Tokens from which on attention is faster in blocks of scores, which is ``MultiHeadAttention`` without a mask, than in
the one node that also holds its projections; the two are equal there, and more so for few heads."""


@dataclass(frozen=True)
class Blueprint:
    """What the graph of an encoder depends on, besides its weights; kept in the file's metadata.

    ``fused``: use ONNX Runtime's own operators; False gives standard operators alone, for other runtimes.
    ``masks_queries``: padding has embeddings of zero and attends to all tokens alike.
    ``int8``: the linear maps that hold 8-bit writer. ``norm_first``, ``rotary_theta``, ``pooling``: as in the style.
    ``positions``: how many a text may have, where they are rotary. ``embedding``: how texts become vectors, of a model
    whose answers are these. ``exits``: heads after inner layers that answer early. ``long_texts``: attention is written
    for texts of at least some LONG_TEXT tokens, whose scores it does not hold all at once.
    """

    shape: Shape
    activation: str
    pooler: str
    epsilon: float
    pad_token_id: int
    position_offset: int | None
    per_token: bool
    fused: bool = True
    masks_queries: bool = False
    int8: tuple[str, ...] = ()
    norm_first: bool = False
    rotary_theta: tuple[float, ...] = ()
    positions: int = 0
    pooling: str = "cls"
    embedding: SentenceEmbedding | None = None
    exits: EarlyExits | None = None
    long_texts: bool = False

    def __post_init__(self) -> None:
        for name in (self.activation, self.pooler):
            if name not in activations.WRITERS:
                raise InputError(
                    f"activation '{name}' cannot be exported to ONNX; {nearest(name, activations.WRITERS)}"
                )
        for layer in self.shape.layers:
            attention_core(layer.attention)

    def to_json(self) -> str:
        """Return one line of JSON."""
        data = asdict(self) | {"shape": self.shape.to_json()}
        new = {name: data.pop(name) for name in ("exits", "long_texts")}
        # left out where there are none, for versions that do not know them
        return json.dumps(data | {name: value for name, value in new.items() if value}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Blueprint:
        """Invert :meth:`to_json`."""
        data = load_json(text)
        tuples = {name: tuple(data.get(name, ())) for name in ("int8", "rotary_theta")}
        embedding, exits = data.get("embedding"), data.get("exits")
        read = {
            "embedding": None if embedding is None else SentenceEmbedding.from_json(embedding),
            "exits": None if exits is None else EarlyExits.from_json(exits),
        }
        return cls(**data | {"shape": Shape.from_json(data["shape"])} | tuples | read)

    @property
    def first_only(self) -> bool:
        """Whether the output reads the first position alone."""
        return not self.per_token and self.pooling == "cls" and self.embedding is None

    def rotary(self, index: int) -> graph_attention.Rotary | None:
        """Return the rotary positions of a layer; None if there are none."""
        thetas = self.rotary_theta
        return graph_attention.Rotary(thetas[min(index, len(thetas) - 1)], self.positions) if thetas else None


class FloatWriter:
    """Store everything in 32-bit floating point."""

    def __init__(self, fused: bool = True) -> None:
        self.fused = fused

    def rows(self, graph: Graph, name: str, gather: RowGather) -> str:
        """Gather rows of a table.

        Args:
            graph: The graph to add nodes to.
            name: Name of the table.
            gather: Which rows are needed.
        """
        return gather(graph.weight(f"{name}.weight"))

    def linear(self, graph: Graph, x: str, name: str) -> tuple[str, str | None]:
        """Add one product; the bias is left to the next node.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input.
            name: Name of the linear map.

        Returns:
            Names of the product and of the bias still to be added, if any.
        """
        graph.inputs_of[name] = x
        return graph.op("MatMul", x, graph.weight(f"{name}.weight")), graph.optional_weight(f"{name}.bias")

    def projections(self, graph: Graph, x: str, name: str, first_only: bool) -> Projections:
        """Add one product, cut in three: under its own name the matrix can be read back from the file.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input [batch, position, hidden].
            name: Name of the linear map.
            first_only: Whether only the first position's queries are needed.

        Returns:
            Names of queries, keys and values.
        """
        projected = biased(graph, self.linear(graph, x, name))
        query, key, value = graph.op_with_outputs("Split", projected, axis=2, num_outputs=3, outputs=3)
        return graph.op("Gather", query, graph.integers(0), axis=1) if first_only else query, key, value

    def attention(self, graph: Graph, x: str, name: str, heads: int) -> str:
        """Add one fused node, or standard ones.

        Args:
            graph: The graph to add nodes to.
            x: Name of the input [batch, position, hidden].
            name: Prefix of the layer's weights.
            heads: Number of heads.
        """
        width = graph.weights[f"{name}.weight"].shape[1] // 3
        if not self.fused:
            parts, mask = self.projections(graph, x, name, first_only=False), graph_attention.hidden(graph)
            return graph_attention.plain(graph, parts, heads, width // heads, mask)
        graph.inputs_of[name] = x
        inputs = (x, graph.weight(f"{name}.weight"), projection_bias(graph, name), graph_attention.padding_mask(graph))
        return graph.op("Attention", *inputs, domain=FUSED, num_heads=heads, qkv_hidden_sizes=[width] * 3)


def build(
    blueprint: Blueprint, weights: Weights, writer: TensorWriter | None = None, *, all_heads: bool = False
) -> tuple[OnnxGraph, dict[str, str]]:
    """Build the graph.

    Inputs (int64 [batch, sequence]): input_ids, attention_mask, and token_type_ids when the model knows several
    types. Output: logits [batch, classes], or [batch, sequence, classes] for token classification; of a model that
    makes vectors sentence_embedding [batch, width], and last_hidden_state [batch, sequence, hidden].

    Args:
        blueprint: What to build.
        weights: The weights by name.
        writer: How tables and linear maps are stored; float unless given.
        all_heads: Of a model with early exits give the logits of every head, side by side [batch, heads x classes], and
            leave nowhere: then every linear map is in the outermost graph.

    Returns:
        The graph, and the tensor that every linear map reads, by the name of the map.
    """
    writer = writer or FloatWriter(blueprint.fused)
    graph = Graph(weights)
    x, depth = _embeddings(graph, blueprint, writer), blueprint.shape.depth
    remaining = RemainingTokens(graph, first_only=blueprint.first_only)
    layers = partial(_layers, graph, blueprint, writer, remaining)
    head = partial(_head, graph, blueprint, writer, remaining)
    if blueprint.embedding is not None:
        x = layers(x, 0, depth)
        with remaining.all_again():
            sentence_embedding(graph, _last_norm(graph, blueprint, remaining.merged(x)), blueprint.embedding)
        return assemble(graph, blueprint), graph.inputs_of
    heads = 1
    if blueprint.exits is None:
        head(layers(x, 0, depth), "")
    else:
        exits = ExitWriter(graph, blueprint.exits, depth, layers, head)
        if all_heads:
            exits.all_logits(x)
            heads += len(blueprint.exits.layers)
        else:
            exits.logits(x)
    graph.nodes[-1].output[0] = "logits"
    return assemble(graph, blueprint, heads), graph.inputs_of


def _layers(
    graph: Graph, blueprint: Blueprint, writer: TensorWriter, remaining: RemainingTokens, x: str, start: int, stop: int
) -> str:
    """Write the layers from number ``start`` up to ``stop``."""
    for index in range(start, stop):
        x = _layer(graph, blueprint, writer, remaining, x, index)
    return x


def _last_norm(graph: Graph, blueprint: Blueprint, x: str) -> str:
    return _normalize(graph, blueprint, "norm", x) if blueprint.norm_first else x


def _head(
    graph: Graph, blueprint: Blueprint, writer: TensorWriter, remaining: RemainingTokens, x: str, prefix: str
) -> str:
    """Write a head on hidden states of the tokens that remain; ``prefix`` begins the names of its weights."""
    with remaining.all_again():
        x = _last_norm(graph, blueprint, remaining.merged(x))
        if blueprint.first_only:
            x = graph.op("Gather", x, graph.constant("constant.first", np.int64(0)), axis=1)
        elif not blueprint.per_token:
            x = graph_attention.mean(graph, x)
    if f"{prefix}pooler.weight" in graph.weights:
        x = _activate(graph, blueprint, blueprint.pooler, *writer.linear(graph, x, f"{prefix}pooler"))
    if f"{prefix}pooler_norm.weight" in graph.weights:
        x = _normalize(graph, blueprint, f"{prefix}pooler_norm", x)
    weight, bias = graph.weight(f"{prefix}classifier.weight"), graph.weight(f"{prefix}classifier.bias")
    return graph.op("Add", graph.op("MatMul", x, weight), bias)  # in float always: tiny, and it decides


def _activate(graph: Graph, blueprint: Blueprint, activation: str, x: str, bias: str | None) -> str:
    return activations.activate(graph, activation, x, bias, fused=blueprint.fused)


def _embeddings(graph: Graph, blueprint: Blueprint, writer: TensorWriter) -> str:
    parts = [writer.rows(graph, "embeddings.word", lambda array: graph.op("Gather", array, "input_ids"))]
    if "embeddings.position.weight" not in graph.weights:
        pass
    elif blueprint.position_offset is None:
        start, length = graph.integers(0), graph.op("Shape", "input_ids", start=1, end=2)
        parts.append(writer.rows(graph, "embeddings.position", lambda array: graph.op("Slice", array, start, length)))
    else:
        positions = _positions(graph, blueprint.pad_token_id, blueprint.position_offset)
        parts.append(writer.rows(graph, "embeddings.position", lambda array: graph.op("Gather", array, positions)))
    if "embeddings.token_type.weight" in graph.weights:
        parts.append(graph.op("Gather", graph.weight("embeddings.token_type.weight"), "token_type_ids"))
    projected = "embeddings.project.weight" in graph.weights
    if first := projected and "embeddings.project.bias" not in graph.weights:  # DeBERTa projects before the norm
        parts = [writer.linear(graph, _sum(graph, *parts), "embeddings.project")[0]]
    normed = "embeddings.norm.weight" in graph.weights
    x = _normalize(graph, blueprint, "embeddings.norm", *parts) if normed else _sum(graph, *parts)
    if blueprint.masks_queries:
        x = graph.op("Mul", x, graph_attention.real_tokens(graph))
    if projected and not first:
        x = biased(graph, writer.linear(graph, x, "embeddings.project"))
    return x


def _positions(graph: Graph, pad: int, offset: int) -> str:
    """Count the tokens that are not padding, as RoBERTa does; padding has the position ``offset``."""
    same = graph.op("Equal", "input_ids", graph.constant("constant.pad", np.int64(pad)))
    real = graph.op("Cast", graph.op("Not", same), to=7)
    counted = graph.op("Mul", graph.op("CumSum", real, graph.constant("constant.axis", np.int64(1))), real)
    return graph.op("Add", counted, graph.constant("constant.offset", np.int64(offset)))


def _normalize(graph: Graph, blueprint: Blueprint, name: str, *parts: str | None) -> str:
    weight, bias = graph.weight(f"{name}.weight"), graph.optional_weight(f"{name}.bias")
    return graph.op("LayerNormalization", _sum(graph, *parts), weight, bias, axis=-1, epsilon=blueprint.epsilon)


def _sum(graph: Graph, *parts: str | None) -> str:
    terms = [part for part in parts if part is not None]
    return graph.op("Sum", *terms) if len(terms) > 1 else terms[0]


def _layer(
    graph: Graph, blueprint: Blueprint, writer: TensorWriter, remaining: RemainingTokens, x: str, index: int
) -> str:
    name, shape = f"layers.{index}", blueprint.shape
    layer, (share_read, share), received = shape.layers[index], shape.token_shares[index], ""
    first_only, fewer = blueprint.first_only and index == shape.depth - 1, share < share_read

    def narrow(tensor: str) -> str:
        return graph.op("Gather", tensor, graph.integers(0), axis=1) if first_only else tensor

    norm_first = blueprint.norm_first
    # without heads or neurons their output bias stays, as in the encoder
    attention_output: tuple[str | None, ...] = (graph.optional_weight(f"{name}.attention_out.bias"),)
    if layer.heads:
        normed = norm_first and f"{name}.attention_norm.weight" in graph.weights
        read = _normalize(graph, blueprint, f"{name}.attention_norm", x) if normed else x
        if fewer:
            context, received = _judging_context(graph, blueprint, writer, read, index)
            if blueprint.first_only:  # nothing reads what the rest of the layer would make of the others
                remaining.choose(received, share)
                x, context = remaining.take(x), remaining.take(context)
        else:
            context = _context(graph, blueprint, writer, read, index, first_only)
        attention_output = writer.linear(graph, context, f"{name}.attention_out")
    if norm_first:
        x = _sum(graph, narrow(x), *attention_output)
    else:
        x = _normalize(graph, blueprint, f"{name}.attention_norm", narrow(x), *attention_output)
    ffn_output: tuple[str | None, ...] = (graph.optional_weight(f"{name}.down.bias"),)
    if layer.ffn:
        read = _normalize(graph, blueprint, f"{name}.ffn_norm", x) if norm_first else x
        neurons = _activate(graph, blueprint, blueprint.activation, *writer.linear(graph, read, f"{name}.up"))
        if f"{name}.gate.weight" in graph.weights:
            neurons = graph.op("Mul", neurons, biased(graph, writer.linear(graph, read, f"{name}.gate")))
        ffn_output = writer.linear(graph, neurons, f"{name}.down")
    x = _sum(graph, x, *ffn_output) if norm_first else _normalize(graph, blueprint, f"{name}.ffn_norm", x, *ffn_output)
    return remaining.drop(x, received, share) if fewer and not blueprint.first_only else x


def _context(graph: Graph, blueprint: Blueprint, writer: TensorWriter, read: str, index: int, first_only: bool) -> str:
    """Write the attention of a layer; return the contexts of its heads, side by side."""
    name, layer, positions = f"layers.{index}", blueprint.shape.layers[index], blueprint.rotary(index)
    where, bias, head_dim, fused = f"{name}.attention", _bias(graph, name), blueprint.shape.head_dim, blueprint.fused
    one_node = positions is None and bias is None and not blueprint.masks_queries and not blueprint.long_texts
    if layer.core[0] == "softmax" and one_node:
        context = writer.attention(graph, read, where, layer.heads)
        return graph.op("Gather", context, graph.integers(0), axis=1) if first_only else context
    parts = writer.projections(graph, read, where, first_only)
    if layer.core[0] == "softmax" and blueprint.masks_queries:
        heads = graph_disentangled.Heads(layer.heads, head_dim, first_only)
        return graph_disentangled.attention(graph, parts, name, heads, fused)
    if layer.core[0] == "softmax":
        return graph_attention.attention(graph, parts, layer, head_dim, positions, bias, first_only, fused)
    if layer.core[0] == "local":
        return local_attention(graph, parts, layer, head_dim, positions, first_only, fused)
    return linear_attention(graph, parts, where, layer, head_dim, first_only, fused, positions)


def _judging_context(
    graph: Graph, blueprint: Blueprint, writer: TensorWriter, read: str, index: int
) -> tuple[str, str]:
    """Write the attention of a layer that leaves tokens behind; return the contexts, and what each token receives."""
    name, heads, head_dim = f"layers.{index}", blueprint.shape.layers[index].heads, blueprint.shape.head_dim
    bias = _bias(graph, name)
    parts = writer.projections(graph, read, f"{name}.attention", first_only=False)
    parts = graph_attention.turned(graph, parts, heads, head_dim, blueprint.rotary(index), False, blueprint.fused)
    return judging_attention(graph, parts, heads, head_dim, bias)


def _bias(graph: Graph, name: str) -> str | None:
    """Build the biases that a layer adds to its scores; layers share them while no head was removed or moved."""
    for rows in (f"{name}.position_bias", "position_bias"):
        if rows in graph.weights:
            return graph.once(rows, partial(graph_attention.bias_by_distance, graph, rows))
    return None
