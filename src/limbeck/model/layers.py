"""The layers of an encoder: embeddings, attention and feed-forward parts that run on leading slices of their weights.

A saved model folder carries this file beside ``encoder.py``; it may import torch, transformers and the files beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .attention import CORES, Lengths, Rotation, core, local_mask, rotate, scores
from .disentangled_attention import RelativeRows, position_scores
from .dropout import dropout
from .style import Style


class LayerWidths(Protocol):
    """Heads, neurons and attention core of one layer, as ``limbeck.core.shape.LayerShape`` has them."""

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        ...

    @property
    def ffn(self) -> int:
        """Number of neurons of the feed-forward part."""
        ...

    @property
    def attention(self) -> str:
        """Name and size of the attention core, such as ``linformer:256``."""
        ...

    @property
    def tokens(self) -> float:
        """Share of a text's tokens that go on after the layer."""
        ...


class EncoderShape(Protocol):
    """Widths of an encoder, as ``limbeck.core.shape.Shape`` has them."""

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        ...

    @property
    def layers(self) -> Sequence[LayerWidths]:
        """Widths of every layer."""
        ...


class ConfigLayer(NamedTuple):
    """The fields of ``limbeck.core.shape.LayerShape``; used where limbeck is not installed."""

    heads: int
    ffn: int
    attention: str
    tokens: float = 1.0


class ConfigShape(NamedTuple):
    """The fields of ``limbeck.core.shape.Shape``; used where limbeck is not installed."""

    hidden: int
    head_dim: int
    layers: tuple[ConfigLayer, ...]


class Gates(NamedTuple):
    """Multipliers of heads [layers, heads], neurons [layers, ffn] and whole layers [layers]; None stands for ones.

    Rows are as wide as the widest layer; a layer uses the leading entries of its row. A layer with gate 0 passes its
    input on. Pruning scores are gradients with respect to gates; a masked model has gates of 0 and 1.
    """

    heads: Tensor | None = None
    ffn: Tensor | None = None
    layers: Tensor | None = None


class Positions(NamedTuple):
    """What layers need to know about the positions of tokens.

    ``bias``: biases joined with the mask, which softmax attention adds to its scores, for every column of the table of
    position biases [batch, heads, query, key]. ``relative``: embeddings of the distances, of disentangled attention.
    ``turn``: cosines and sines of rotary positions.
    """

    bias: Tensor | None = None
    relative: RelativeRows | None = None
    turn: Rotation | None = None


NO_POSITIONS = Positions()


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer initialized as BERT's (normal, 0.02; bias 0).

    Args:
        inputs: Width of the inputs, perhaps 0.
        outputs: Width of the outputs, perhaps 0.
        bias: Whether it has a bias.
    """
    layer = nn.Linear(max(inputs, 1), max(outputs, 1), bias=bias)
    if not inputs * outputs:  # torch warns when it initializes an empty weight
        layer.weight = nn.Parameter(torch.empty(outputs, inputs))
        if bias:
            layer.bias = nn.Parameter(torch.empty(outputs))
        layer.in_features, layer.out_features = inputs, outputs
    with torch.no_grad():
        if bias:
            layer.bias.zero_()
        layer.weight.normal_(0.0, 0.02)
    return layer


def layer_norm(width: int, style: Style) -> nn.LayerNorm:
    """Return a LayerNorm of that width, as the style has it."""
    return nn.LayerNorm(width, eps=style.layer_norm_eps, bias=style.norm_bias)


def slice_linear(x: Tensor, layer: nn.Linear, rows: int, columns: int) -> Tensor:
    """Apply the leading part of a linear layer.

    Args:
        x: Inputs [..., columns].
        layer: The whole layer.
        rows: Number of leading outputs to compute.
        columns: Number of leading inputs to read.

    Returns:
        Outputs [..., rows].
    """
    if (rows, columns) == layer.weight.shape:
        output: Tensor = layer(x)
        return output
    return F.linear(x, layer.weight[:rows, :columns], None if layer.bias is None else layer.bias[:rows])


def slice_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Apply the leading channels of a LayerNorm to ``x`` [..., channels]."""
    width = x.shape[-1]
    bias = None if norm.bias is None else norm.bias[:width]
    return F.layer_norm(x, (width,), norm.weight[:width], bias, norm.eps)


def tapped(taps: dict[str, list[Tensor]], name: str, states: Tensor) -> Tensor:
    """Return states to go on with: where a tap wants them, a view, whose gradient is that of what reads the result.

    Args:
        taps: The lists that collect states, by the name of their tap.
        name: Name of the tap at this point.
        states: The states here [batch, ...].
    """
    if name not in taps:
        return states
    taps[name].append(states.view_as(states))
    return taps[name][-1]


def length_projection(style: Style, size: int, *heads: int) -> nn.Parameter:
    """Sample a projection of the sequence length ~ N(0, 1), [*heads, position, size].

    Args:
        style: How the encoder computes; gives the number of positions.
        size: Length after the projection.
        *heads: Number of heads, if each has a projection of its own.
    """
    return nn.Parameter(torch.randn(*heads, style.max_positions, size))


def position_heads(style: Style, index: int, heads: int) -> tuple[int, ...]:
    """Return the columns of the table of position biases that a layer's heads take; empty without a table.

    Args:
        style: How the encoder computes.
        index: Number of the layer.
        heads: Number of its heads; more heads than columns start again at the first.
    """
    if not style.relative_buckets:
        return ()
    given = style.position_heads[index] if index < len(style.position_heads) else ()
    columns = given or range(style.relative_heads)
    return tuple(columns[head % len(columns)] for head in range(heads))


class Layer(nn.Module):
    """Attention and feed-forward part, each followed by a residual sum.

    A LayerNorm follows each sum (post-norm), or precedes each part (pre-norm: ``Style.norm_first``).

    A layer without heads keeps the output bias of its attention, one without neurons that of its feed-forward part:
    cutting everything is then exactly the same as masking everything.
    """

    def __init__(self, hidden: int, head_dim: int, widths: LayerWidths, style: Style, index: int = 0) -> None:
        super().__init__()
        self.head_dim, self.style = head_dim, style
        self.position_heads = position_heads(style, index, widths.heads)
        thetas = style.rotary_theta
        self.rotary_theta = thetas[min(index, len(thetas) - 1)] if thetas else None
        heads, ffn, (name, size) = widths.heads, widths.ffn, core(widths.attention)
        width = heads * head_dim
        self.query, self.key, self.value = (linear(hidden, width, style.attention_bias) for _ in range(3))
        apart = () if style.share_att_key or name != "softmax" else style.pos_att_type
        self.position_key = linear(hidden, width) if "c2p" in apart else None
        self.position_query = linear(hidden, width) if "p2c" in apart else None
        self.attention_out = linear(width, hidden, style.attention_bias)
        self.attention_norm = None if index in style.unnormed_layers else layer_norm(hidden, style)
        self.up, self.down = linear(hidden, ffn, style.ffn_bias), linear(ffn, hidden, style.ffn_bias)
        self.gate = linear(hidden, ffn, style.ffn_bias) if style.gated else None
        self.ffn_norm = layer_norm(hidden, style)
        self.activation = ACT2FN[style.activation]
        self.key_lengths: nn.Parameter | None = None
        self.value_lengths: nn.Parameter | None = None
        if name == "linformer" and style.projections != "layer":
            leading = (heads,) if style.projections == "per_head" else ()
            self.key_lengths = length_projection(style, size, *leading)
            self.value_lengths = None if style.projections == "kv" else length_projection(style, size, *leading)

    @property
    def head_inputs(self) -> tuple[str, ...]:
        """Names of the linear maps whose outputs are the channels of heads."""
        names = ("query", "key", "value", "position_key", "position_query")
        return tuple(name for name in names if getattr(self, name) is not None)

    def lengths(self, shared: Tensor | None, heads: int) -> Lengths | None:
        """Return the length projections of keys and values; None where the core has none."""
        key = self.key_lengths if shared is None else shared
        value = self.value_lengths if shared is None and self.value_lengths is not None else key
        if key is None or value is None:
            return None
        return (key, value) if key.dim() == 2 else (key[:heads], value[:heads])

    def split(self, x: Tensor, layer: nn.Linear, heads: int, head_dim: int) -> Tensor:
        """Project hidden states to leading heads, and to leading channels of each head (or of all heads together).

        Args:
            x: Hidden states [batch, seq, hidden].
            layer: The projection to queries, keys or values.
            heads: Number of heads.
            head_dim: Channels of each head.

        Returns:
            The projected states [batch, heads, seq, head_dim].
        """
        if head_dim == self.head_dim or self.style.resplit:
            y = slice_linear(x, layer, heads * head_dim, x.shape[-1])
        else:
            weight = layer.weight.unflatten(0, (-1, self.head_dim))[:heads, :head_dim, : x.shape[-1]].flatten(0, 1)
            bias = layer.bias
            if bias is not None:
                bias = bias.unflatten(0, (-1, self.head_dim))[:heads, :head_dim].flatten()
            y = F.linear(x, weight, bias)
        parted: Tensor = y.unflatten(-1, (heads, head_dim))
        return parted.transpose(1, 2)

    def added_to_scores(self, query: Tensor, key: Tensor, mask: Tensor | None, positions: Positions) -> Tensor | None:
        """Return what softmax attention adds to its scores, or the mask if that is all.

        Args:
            query: Queries [batch, heads, position, head_dim].
            key: Keys, likewise.
            mask: True where a token is [batch, 1, 1, key]; None if there is no padding.
            positions: Biases by the distance of tokens, or embeddings of distances.
        """
        heads = query.shape[1]
        if positions.bias is not None:
            columns, bias = self.position_heads[:heads], positions.bias
            return bias[:, :heads] if columns == tuple(range(heads)) else bias[:, list(columns)]
        terms = None if positions.relative is None else self.position_scores(query, key, positions.relative)
        if mask is None or not self.style.masks_queries:
            return mask if terms is None else terms
        added = query.new_zeros(1) if terms is None else terms
        return added.masked_fill(~(mask & mask.transpose(2, 3)), torch.finfo(added.dtype).min)

    def position_scores(self, query: Tensor, key: Tensor, relative: RelativeRows) -> Tensor:
        """Return the scaled terms of disentangled attention besides that of the contents.

        Args:
            query: Queries [batch, heads, position, head_dim].
            key: Keys, likewise.
            relative: Embeddings of the distances.

        Returns:
            What is added to the scores [batch, heads, query, key].
        """
        _, heads, _, head_dim = query.shape
        rows = dropout(relative.rows, self.style.dropout, self.training)[None]
        terms = self.style.pos_att_type
        to_key, to_query = self.position_key or self.key, self.position_query or self.query
        position_key = self.split(rows, to_key, heads, head_dim) if "c2p" in terms else None
        position_query = self.split(rows, to_query, heads, head_dim) if "p2c" in terms else None
        scale: float = (head_dim * (1 + len(terms))) ** -0.5
        return position_scores(query, key, relative, position_key, position_query) * scale

    def _attend(
        self,
        x: Tensor,
        mask: Tensor | None,
        shape: LayerWidths,
        head_dim: int,
        gates: Gates,
        taps: dict[str, list[Tensor]],
        shared: Tensor | None,
        positions: Positions,
    ) -> Tensor:
        """Compute the contexts of all heads, side by side [batch, seq, heads * head_dim]; arguments as of forward."""
        heads = shape.heads
        if not heads:
            for name in taps.keys() & {"query", "key", "value", "attention"}:  # keep the lists aligned with the layers
                width = x.shape[1] if name == "attention" else head_dim
                taps[name].append(x.new_zeros(x.shape[0], 0, x.shape[1], width))
            return x.new_zeros(*x.shape[:2], 0)
        query, key, value = (self.split(x, p, heads, head_dim) for p in (self.query, self.key, self.value))
        if positions.turn is not None:
            query, key = rotate(query, positions.turn), rotate(key, positions.turn)
        for tap, states in (("query", query), ("key", key), ("value", value)):
            if tap in taps:
                taps[tap].append(states)
        name, size = core(shape.attention)
        if name == "softmax":
            mask = self.added_to_scores(query, key, mask, positions)
        if self.style.pos_att_type:
            query = query * (1 + len(self.style.pos_att_type)) ** -0.5  # there are so many terms in the scores
        if "attention" in taps:
            taps["attention"].append(scores(query, key, local_mask(query, mask, size) if name == "local" else mask))
        dropped = self.style.attention_dropout if self.training else 0.0
        context = CORES[name](query, key, value, mask, dropped, size, self.lengths(shared, heads))
        if gates.heads is not None:
            context = context * gates.heads[:heads, None, None]
        return context.transpose(1, 2).flatten(2)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        shape: LayerWidths,
        head_dim: int,
        gates: Gates,
        taps: dict[str, list[Tensor]],
        shared: Tensor | None = None,
        positions: Positions = NO_POSITIONS,
    ) -> Tensor:
        """Compute the layer's hidden states.

        Args:
            x: Hidden states [batch, seq, hidden].
            mask: True where a token is [batch, 1, 1, key]; None if there is no padding.
            shape: Widths to run with, at most those of the layer.
            head_dim: Channels of each head.
            gates: Multipliers of this layer's heads [heads] and neurons [ffn].
            taps: Lists by name of the tap; the layer appends its activations to those that are there.
            shared: The length projection that all layers share, if they do.
            positions: What the layer needs to know about positions.

        Returns:
            Hidden states [batch, seq, hidden].
        """
        style, hidden, norm_first = self.style, x.shape[-1], self.style.norm_first
        drop = style.dropout if style.attention_output_dropout is None else style.attention_output_dropout
        read = slice_norm(x, self.attention_norm) if norm_first and self.attention_norm is not None else x
        read = tapped(taps, "attention_input", read)
        context = tapped(taps, "context", self._attend(read, mask, shape, head_dim, gates, taps, shared, positions))
        out = self.attention_out
        if shape.heads and head_dim != self.head_dim and not style.resplit:
            columns = out.weight.unflatten(1, (-1, self.head_dim))[:hidden, : shape.heads, :head_dim].flatten(1)
            attention_output = F.linear(context, columns, None if out.bias is None else out.bias[:hidden])
        else:
            attention_output = slice_linear(context, out, hidden, context.shape[-1])
        attention_output = tapped(taps, "attention_output", attention_output)
        x = x + dropout(attention_output, drop, self.training)
        if not norm_first and self.attention_norm is not None:
            x = slice_norm(x, self.attention_norm)
        read = tapped(taps, "ffn_input", slice_norm(x, self.ffn_norm) if norm_first else x)
        neurons = self.activation(slice_linear(read, self.up, shape.ffn, hidden)) if shape.ffn else x[..., :0]
        if self.gate is not None and shape.ffn:
            neurons = neurons * slice_linear(read, self.gate, shape.ffn, hidden)
        if gates.ffn is not None and shape.ffn:
            neurons = neurons * gates.ffn[: shape.ffn]
        if style.ffn_dropout == "neurons":
            neurons = dropout(neurons, style.dropout, self.training)
        neurons = tapped(taps, "neurons", neurons)
        ffn_output = tapped(taps, "ffn_output", slice_linear(neurons, self.down, hidden, shape.ffn))
        x = x + dropout(ffn_output, style.dropout if style.ffn_dropout == "output" else 0.0, self.training)
        return x if norm_first else slice_norm(x, self.ffn_norm)
