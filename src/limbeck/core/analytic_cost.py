"""Parameters, multiply-accumulates and bytes of a shape, in closed form: costs that need no machine.

``style`` is anything with the attributes of :class:`limbeck.model.style.Style` (a style, a configuration).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError

NumberFormat = Literal["float", "int8"]


def check_format(known: NumberFormat, asked: str | None) -> None:
    """Refuse to answer for one number format from what was measured in the other; None asks for what is known."""
    if asked not in (None, known):
        raise InputError(f"number_format: this latency was measured in {known}, so it cannot tell that in {asked}")


def as_shape(shape: Any) -> Shape:
    """The shape as a plain value; a model that was opened without limbeck's classes has its own tuple."""
    layers = tuple(LayerShape(layer.heads, layer.ffn, layer.attention) for layer in shape.layers)
    return Shape(shape.hidden, shape.head_dim, layers)


def matrices(shape: Shape, style: Any, labels: int = 2, pooler: bool = True) -> int:
    """Weights of the linear layers: two projections in and out of each part of each layer, and the head."""
    hidden = shape.hidden
    layers = sum(4 * hidden * layer.heads * shape.head_dim + 2 * hidden * layer.ffn for layer in shape.layers)
    return layers + _projection(shape, style) + hidden * hidden * pooler + hidden * labels


def tables(shape: Shape, style: Any) -> int:
    """Weights of the embedding tables."""
    return (style.vocab_size + style.max_positions + style.token_types) * _embedding(shape, style)


def lengths(shape: Shape, style: Any) -> int:
    """Weights of the projections of the length (linformer)."""
    rows = [(size, layer.heads) for layer in shape.layers for name, size in [layer.core] if name == "linformer"]
    share = getattr(style, "projections", "none")
    if share == "layer":
        columns = max((size for size, _ in rows), default=0)
    elif share == "per_head":
        columns = sum(2 * size * heads for size, heads in rows)
    else:
        columns = sum(size * (1 if share == "kv" else 2) for size, _ in rows)
    return columns * style.max_positions if columns else 0


def vectors(shape: Shape, style: Any, labels: int = 2, pooler: bool = True) -> int:
    """Biases and LayerNorms."""
    hidden = shape.hidden
    layers = sum(3 * layer.heads * shape.head_dim + layer.ffn + 6 * hidden for layer in shape.layers)
    projection = hidden if _projection(shape, style) else 0
    return layers + 2 * _embedding(shape, style) + projection + hidden * pooler + labels


def parameters(shape: Shape, style: Any, labels: int = 2, pooler: bool = True) -> int:
    """All weights of an encoder with its head.

    >>> from types import SimpleNamespace
    >>> bert = SimpleNamespace(vocab_size=30522, max_positions=512, token_types=2, embedding_size=None)
    >>> parameters(Shape.uniform(layers=12, hidden=768, heads=12, ffn=3072), bert)
    109483778
    """
    many = matrices(shape, style, labels, pooler) + tables(shape, style)
    return many + lengths(shape, style) + vectors(shape, style, labels, pooler)


def macs(shape: Shape, seq_len: float, style: Any = None, labels: int = 2, pooler: bool = True) -> float:
    """Multiply-accumulates of one text of ``seq_len`` tokens (two floating-point operations each).

    Each layer: ``n (4 d h + 2 d f) + 2 n^2 h`` for n tokens, hidden width d, attention width h and f neurons; the head
    works on one token. In place of ``n^2`` a linear core of size k has ``2 n k`` (linformer: two products shorten keys
    and values, two more attend), ``n (3 k + 2)`` (window: three blocks and the first token) or ``n head_dim``
    (kernel). Sums, activations and norms are not counted, as is usual.
    """
    hidden, total = shape.hidden, 0.0
    for layer in shape.layers:
        width = layer.heads * shape.head_dim
        products = reach(*layer.core, seq_len, shape.head_dim)
        total += seq_len * (4 * hidden * width + 2 * hidden * layer.ffn) + 2 * seq_len * products * width
    projection = seq_len * _projection(shape, style) if style is not None else 0
    return total + projection + hidden * hidden * pooler + hidden * labels


def reach(name: str, size: int, seq_len: float, head_dim: int, first_only: bool = False) -> float:
    """Products that a token takes part in, in place of one with every token.

    ``first_only``: where the first token alone asks, as in the last layer of an exported classifier. Keys and values
    are shortened or summed all the same; of a window, the first token sees all.
    """
    if first_only and name != "softmax":
        return {"linformer": size, "window": 1, "kernel": head_dim / 2}[name]
    return {"linformer": 2 * size, "window": 3 * size + 2, "kernel": head_dim}.get(name, seq_len)


def bytes(shape: Shape, style: Any, number_format: NumberFormat = "float", labels: int = 2, pooler: bool = True) -> int:
    """Bytes of the weights: four a number, or, in INT8, one for matrices and tables and four for the rest."""
    width = {"float": 4, "int8": 1}[number_format]
    many = matrices(shape, style, labels, pooler) + tables(shape, style)
    return width * many + 4 * (lengths(shape, style) + vectors(shape, style, labels, pooler))


def _embedding(shape: Shape, style: Any) -> int:
    return style.embedding_size or shape.hidden


def _projection(shape: Shape, style: Any) -> int:
    width = _embedding(shape, style)
    return width * shape.hidden if width != shape.hidden else 0


def of_model(model: Any) -> tuple[Shape, Any]:
    """Shape and style of a torch model or an ONNX one (whose configuration is a dictionary)."""
    config = model.config
    if isinstance(config, Mapping):
        from types import SimpleNamespace

        config = SimpleNamespace(**{"embedding_size": None, **config})
    return as_shape(model.shape), config
