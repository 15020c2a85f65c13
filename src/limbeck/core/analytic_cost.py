"""Parameters, multiply-accumulates and bytes of a shape in closed form: costs that need no machine."""

from __future__ import annotations

from typing import Literal, Protocol

from limbeck.core.model import EmbeddingSizes, EncoderStyle, Runnable
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
    layers = tuple(LayerShape(layer.heads, layer.ffn, layer.attention) for layer in shape.layers)
    return Shape(shape.hidden, shape.head_dim, layers)


def matrices(shape: Shape, style: EmbeddingSizes, labels: int = 2, pooler: bool = True) -> int:
    """Count the weights of the linear layers: attention, feed-forward, embedding projection and head.

    Args:
        shape: Shape of the encoder.
        style: Sizes of the embedding tables.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    hidden = shape.hidden
    return shape.weights + _projection(shape, style) + hidden * hidden * pooler + hidden * labels


def tables(shape: Shape, style: EmbeddingSizes) -> int:
    """Count the weights of the embedding tables."""
    return (style.vocab_size + style.max_positions + style.token_types) * _embedding(shape, style)


def lengths(shape: Shape, style: EmbeddingSizes) -> int:
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


def vectors(shape: Shape, style: EmbeddingSizes, labels: int = 2, pooler: bool = True) -> int:
    """Count the parameters of biases and LayerNorms.

    Args:
        shape: Shape of the encoder.
        style: Sizes of the embedding tables.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    hidden = shape.hidden
    layers = sum(3 * layer.heads * shape.head_dim + layer.ffn + 6 * hidden for layer in shape.layers)
    projection = hidden if _projection(shape, style) else 0
    return layers + 2 * _embedding(shape, style) + projection + hidden * pooler + labels


def parameters(shape: Shape, style: EmbeddingSizes, labels: int = 2, pooler: bool = True) -> int:
    """Count all parameters of an encoder with its head.

    Args:
        shape: Shape of the encoder.
        style: Sizes of the embedding tables.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.

    >>> from types import SimpleNamespace
    >>> bert = SimpleNamespace(
    ...     vocab_size=30522, max_positions=512, token_types=2, embedding_size=None, projections="none"
    ... )
    >>> parameters(Shape.uniform(layers=12, hidden=768, heads=12, ffn=3072), bert)
    109483778
    """
    quantizable = matrices(shape, style, labels, pooler) + tables(shape, style)
    return quantizable + lengths(shape, style) + vectors(shape, style, labels, pooler)


def macs(
    shape: Shape, seq_len: float, style: EmbeddingSizes | None = None, labels: int = 2, pooler: bool = True
) -> float:
    """Count the multiply-accumulates of one text (two floating-point operations each).

    Each layer: ``n (4 d h + 2 d f) + 2 n^2 h`` for n tokens, hidden width d, attention width h and f neurons; the head
    runs on one token. A linear core of size k has, in place of ``n^2``, ``2 n k`` (linformer: two products project
    keys and values, two attend), ``n (3 k + 2)`` (window: three blocks and the first token) or ``n head_dim``
    (kernel). Sums, activations and norms are not counted, as usual.

    Args:
        shape: Shape of the encoder.
        seq_len: Tokens of the text; a mean may be fractional.
        style: Sizes of the embedding tables; needed only for an embedding projection.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    hidden, total = shape.hidden, 0.0
    for layer in shape.layers:
        width = layer.heads * shape.head_dim
        products = reach(*layer.core, seq_len, shape.head_dim)
        total += seq_len * (4 * hidden * width + 2 * hidden * layer.ffn) + 2 * seq_len * products * width
    projection = seq_len * _projection(shape, style) if style is not None else 0
    return total + projection + hidden * hidden * pooler + hidden * labels


def reach(name: str, size: int, seq_len: float, head_dim: int, first_only: bool = False) -> float:
    """Count the products per token and channel in attention; softmax attention has one per key.

    Args:
        name: Attention core.
        size: Size of the core, 0 where it has none.
        seq_len: Tokens of the text.
        head_dim: Width of a head.
        first_only: Count for the first token's query alone, as in the last layer of an exported classifier. Keys and
            values are projected or summed all the same; in a window core the first token attends to all.
    """
    if first_only and name != "softmax":
        return {"linformer": size, "window": 1, "kernel": head_dim / 2}[name]
    return {"linformer": 2 * size, "window": 3 * size + 2, "kernel": head_dim}.get(name, seq_len)


def bytes(
    shape: Shape, style: EmbeddingSizes, number_format: NumberFormat = "float", labels: int = 2, pooler: bool = True
) -> int:
    """Count the bytes of the weights: four per weight, or in INT8 one for matrices and tables and four for the rest.

    Args:
        shape: Shape of the encoder.
        style: Sizes of the embedding tables.
        number_format: Number format of matrices and tables.
        labels: Outputs of the head.
        pooler: Whether the head has a dense layer before its outputs.
    """
    width = {"float": 4, "int8": 1}[number_format]
    quantizable = matrices(shape, style, labels, pooler) + tables(shape, style)
    return width * quantizable + 4 * (lengths(shape, style) + vectors(shape, style, labels, pooler))


def _embedding(shape: Shape, style: EmbeddingSizes) -> int:
    return style.embedding_size or shape.hidden


def _projection(shape: Shape, style: EmbeddingSizes) -> int:
    width = _embedding(shape, style)
    return width * shape.hidden if width != shape.hidden else 0


def of_model(model: Runnable) -> tuple[Shape, EncoderStyle]:
    """Return the shape and the style of a model."""
    return as_shape(model.shape), model.style
