"""Parameters, multiply-accumulates and bytes of a shape in closed form: costs that need no machine."""

from __future__ import annotations

from typing import Literal, Protocol

from limbeck.core.model import EncoderStyle, Runnable
from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError

NumberFormat = Literal["float", "int8"]


class _AnyLayer(Protocol):
    """Fields of a layer's shape."""

    @property
    def heads(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def attention(self) -> str: ...
    @property
    def tokens(self) -> float: ...


class _AnyShape(Protocol):
    """Fields of a shape, in limbeck's class or in that of a saved folder."""

    @property
    def hidden(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def layers(self) -> tuple[_AnyLayer, ...]: ...


def check_format(measured: NumberFormat, requested: str | None) -> None:
    """Refuse a request in another number format than the measured one; None requests the measured one.

    Args:
        measured: The number format that was measured.
        requested: The number format that is asked for; None for any.

    Raises:
        InputError: The formats differ.
    """
    if requested not in (None, measured):
        raise InputError(
            f"number_format: this latency was measured in {measured}, so it cannot tell that in {requested}"
        )


def as_shape(shape: _AnyShape) -> Shape:
    """Convert to a :class:`Shape`; models opened without limbeck's classes have a named tuple of their own."""
    layers = tuple(LayerShape(layer.heads, layer.ffn, layer.attention, layer.tokens) for layer in shape.layers)
    return Shape(shape.hidden, shape.head_dim, layers)


def matrices(shape: Shape, style: EncoderStyle, labels: int = 2, pooler: bool = True) -> int:
    """Count the weights of the linear layers: attention, feed-forward, embedding projection and head.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    hidden = shape.hidden
    dense = hidden * hidden * (pooler or style.pooler_per_token)
    whole = shape.weights + _gates(shape, style) + _projection(shape, style) + dense + hidden * labels
    return whole + hidden * sum(_relative_widths(shape, style))


def tables(shape: Shape, style: EncoderStyle) -> int:
    """Count the weights of the embedding tables, those of relative positions among them."""
    rows = style.vocab_size + style.max_positions * style.absolute_positions + style.token_types
    biases = style.relative_buckets * style.relative_heads
    return rows * _embedding(shape, style) + biases + _buckets(style) * shape.hidden


def lengths(shape: Shape, style: EncoderStyle) -> int:
    """Count the weights of Linformer's projections of the sequence length."""
    sizes = [(size, layer.heads) for layer in shape.layers for name, size in [layer.core] if name == "linformer"]
    share = style.projections
    if share == "layer":
        columns = max((size for size, _ in sizes), default=0)
    elif share == "per_head":
        columns = sum(2 * size * heads for size, heads in sizes)
    else:
        columns = sum(size * (1 if share == "kv" else 2) for size, _ in sizes)
    return columns * style.max_positions if columns else 0


def vectors(shape: Shape, style: EncoderStyle, labels: int = 2, pooler: bool = True) -> int:
    """Count the parameters of biases and LayerNorms.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    hidden = shape.hidden
    attention, ffn, norm = style.attention_bias, style.ffn_bias, 1 + style.norm_bias
    layers = sum(
        attention * (3 * layer.heads * shape.head_dim + hidden) + ffn * ((1 + style.gated) * layer.ffn + hidden)
        for layer in shape.layers
    )
    unnormed = sum(index < shape.depth for index in style.unnormed_layers)
    dense = pooler or style.pooler_per_token
    norms = 2 * shape.depth - unnormed + style.norm_first + (dense and style.pooler_norm)
    projection = hidden if _projection(shape, style) and not style.project_before_norm else 0
    width = hidden if style.project_before_norm else _embedding(shape, style)
    embeddings = norm * width * style.embedding_norm + projection
    relative = sum(_relative_widths(shape, style)) + 2 * hidden * style.relative_norm
    return layers + norm * norms * hidden + embeddings + relative + hidden * (dense and style.pooler_bias) + labels


def parameters(shape: Shape, style: EncoderStyle, labels: int = 2, pooler: bool = True) -> int:
    """Count all parameters of an encoder with its head.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.

    >>> from limbeck.model.style import Style
    >>> parameters(Shape.uniform(layers=12, hidden=768, heads=12, ffn=3072), Style("bert"))
    109483778
    """
    quantizable = matrices(shape, style, labels, pooler) + tables(shape, style)
    return quantizable + lengths(shape, style) + vectors(shape, style, labels, pooler)


def macs(
    shape: Shape,
    seq_len: float,
    style: EncoderStyle | None = None,
    labels: int = 2,
    pooler: bool = True,
    *,
    all_tokens: bool = False,
) -> float:
    """Count the multiply-accumulates of one text (two floating-point operations each).

    Each layer: ``n (4 d h + 2 d f) + 2 n^2 h`` for n tokens, hidden width d, attention width h and f neurons (``3 d f``
    where they are gated); the head runs on one token. A linear core of size k has, in place of ``n^2``, ``2 n k``
    (linformer: two products project keys and values, two attend), ``n (3 k + 2)`` (window: three blocks and the first
    token) or ``n head_dim`` (kernel). Each term of disentangled attention adds a product with all distances, of which
    there are twice as many as tokens, or with their buckets if these are fewer; their projections do not depend on the
    text. Sums, activations and norms are not counted, as usual. Where layers pass on fewer tokens, n is what a layer
    reads; its output projection and its neurons run for those alone that it passes on, as in an exported classifier,
    unless all tokens are read at the end.

    Args:
        shape: Shape of the encoder.
        seq_len: Tokens of the text; a mean may be fractional.
        style: How it computes; None for BERT's, without an embedding projection.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
        all_tokens: Whether every token has an answer, or a part in a vector; a style may say that they are averaged.
    """
    hidden, total = shape.hidden, 0.0
    gates = 1 + (style is not None and style.gated)
    whole = all_tokens or (style is not None and style.pooling == "mean")
    counts = [(read * seq_len, (read if whole else left) * seq_len) for read, left in shape.token_shares]
    for layer, (read, left) in zip(shape.layers, counts, strict=True):
        width = layer.heads * shape.head_dim
        products = reach(*layer.core, read, shape.head_dim)
        total += read * 3 * hidden * width + left * hidden * (width + (1 + gates) * layer.ffn)
        total += 2 * read * products * width
    head: float = hidden * hidden * pooler + hidden * labels
    if style is not None:
        total += seq_len * _projection(shape, style)
        head += seq_len * hidden * hidden * (style.pooler_per_token and not pooler)
        distances = min(2 * seq_len, _buckets(style)) * len(style.pos_att_type)
        total += seq_len * distances * shape.head_dim * sum(layer.heads for layer in _softmax(shape))
    return total + head


def reach(name: str, size: int, seq_len: float, head_dim: int, first_only: bool = False) -> float:
    """Count the products per token and channel in attention; softmax attention has one per key, local
    attention too, which is computed with a mask.

    Args:
        name: Attention core.
        size: Size of the core, 0 where it has none.
        seq_len: Tokens of the text.
        head_dim: Width of a head.
        first_only: Count for the first token's query alone, as in the last layer of an exported classifier. Keys and
            values are projected or summed all the same; in a window core the first token attends to all.
    """
    if first_only and name not in ("softmax", "local"):
        return {"linformer": size, "window": 1, "kernel": head_dim / 2}[name]
    return {"linformer": 2 * size, "window": 3 * size + 2, "kernel": head_dim}.get(name, seq_len)


def bytes(
    shape: Shape, style: EncoderStyle, number_format: NumberFormat = "float", labels: int = 2, pooler: bool = True
) -> int:
    """Count the bytes of the weights: four per weight, or in INT8 one for matrices and tables and four for the rest.

    An INT8 file of disentangled attention holds, in place of relative embeddings and their projections, what those give
    for every distance, in float.

    Args:
        shape: Shape of the encoder.
        style: How it computes.
        number_format: Number format of matrices and tables.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    width = {"float": 4, "int8": 1}[number_format]
    quantizable = matrices(shape, style, labels, pooler) + tables(shape, style)
    rest = lengths(shape, style) + vectors(shape, style, labels, pooler)
    if number_format == "int8" and style.pos_att_type:
        widths = sum(_relative_widths(shape, style))
        quantizable -= shape.hidden * (widths + _buckets(style))
        rest += _distance_rows(shape, style) - widths - 2 * shape.hidden * style.relative_norm
    return width * quantizable + 4 * rest


def _softmax(shape: Shape) -> list[LayerShape]:
    """Layers with softmax attention, the only one that sees relative positions."""
    return [layer for layer in shape.layers if layer.core[0] == "softmax"]


def _relative_widths(shape: Shape, style: EncoderStyle) -> list[int]:
    """Count the outputs of the projections of relative embeddings: one number for each term of a layer."""
    terms = 0 if style.share_att_key else len(style.pos_att_type)
    return [layer.heads * shape.head_dim for layer in _softmax(shape) for _ in range(terms)]


def _buckets(style: EncoderStyle) -> int:
    """Rows of the table of relative embeddings; 0 without disentangled attention."""
    return 2 * (style.position_buckets or style.max_relative_positions) if style.pos_att_type else 0


def _distance_rows(shape: Shape, style: EncoderStyle) -> int:
    """Numbers in the projected embeddings of all distances: a row a distance for each term of a layer."""
    rows = min(2 * style.max_positions, _buckets(style))
    return rows * len(style.pos_att_type) * sum(layer.heads for layer in _softmax(shape)) * shape.head_dim


def _gates(shape: Shape, style: EncoderStyle) -> int:
    """Weights of the second linear map of gated neurons."""
    return shape.hidden * sum(layer.ffn for layer in shape.layers) if style.gated else 0


def _embedding(shape: Shape, style: EncoderStyle) -> int:
    return style.embedding_size or shape.hidden


def _projection(shape: Shape, style: EncoderStyle) -> int:
    width = _embedding(shape, style)
    return width * shape.hidden if width != shape.hidden else 0


def of_model(model: Runnable) -> tuple[Shape, EncoderStyle]:
    """Return the shape and the style of a model."""
    return as_shape(model.shape), model.style
