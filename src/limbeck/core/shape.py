"""The shape of an encoder: the currency that every technique, cost and export speaks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from limbeck.errors import InputError, nearest

CORES = {"softmax": 0, "linformer": 256, "window": 64, "kernel": 0}
"""Attention cores and the size that each has unless given: of linformer the length that keys and values are projected
to, of window how far a token sees; 0: the core has no size."""


def attention_core(text: str) -> str:
    """The full name of a core, as shapes have it: with its size where it has one.

    >>> attention_core("linformer"), attention_core("window:32"), attention_core("softmax")
    ('linformer:256', 'window:32', 'softmax')
    """
    name, colon, size = text.partition(":")
    if name not in CORES:
        raise InputError(f"attention '{text}'; {nearest(name, CORES)}")
    if not CORES[name]:
        if colon:
            raise InputError(f"attention '{text}': {name} has no size; write '{name}'")
        return name
    if colon and not (size.isdecimal() and int(size)):
        raise InputError(f"attention '{text}': the size should be a number from 1; write '{name}:{CORES[name]}'")
    return f"{name}:{int(size) if colon else CORES[name]}"


def skipped_positions(offset: int | None) -> int:
    """Positions that no token of a text takes: RoBERTa's count from behind that of padding (``offset``).

    >>> skipped_positions(None), skipped_positions(1)
    (0, 2)
    """
    return 0 if offset is None else offset + 1


@dataclass(frozen=True)
class LayerShape:
    """Width of one layer.

    ``heads`` counts attention heads (0: the attention module is gone, its output bias stays), ``ffn`` counts
    neurons of the feed-forward part (0: likewise), ``attention`` names the core in ``model/attention.py``, with its
    size: ``linformer:256``.
    """

    heads: int
    ffn: int
    attention: str = "softmax"

    @property
    def core(self) -> tuple[str, int]:
        """Name and size of the attention core.

        >>> LayerShape(12, 1536, "window:64").core
        ('window', 64)
        """
        name, _, size = self.attention.partition(":")
        return name, int(size or 0)

    def __le__(self, other: LayerShape) -> bool:
        return self.heads <= other.heads and self.ffn <= other.ffn and self.attention == other.attention


@dataclass(frozen=True)
class Shape:
    """Shape of an encoder: residual width, head width, and a width for every layer.

    A two-layer example; the second layer keeps one head and half of its neurons:

    >>> full = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    >>> small = full.with_layer(1, heads=1, ffn=32)
    >>> str(small)
    '2x32 heads 4,1 of 8 ffn 64,32'
    >>> small <= full, full <= small
    (True, False)
    >>> Shape.from_json(small.to_json()) == small
    True
    """

    hidden: int
    head_dim: int
    layers: tuple[LayerShape, ...]

    @classmethod
    def uniform(
        cls, layers: int, hidden: int, heads: int, ffn: int, head_dim: int | None = None, attention: str = "softmax"
    ) -> Shape:
        """The same width in every layer; ``head_dim`` is hidden / heads unless given."""
        width = head_dim if head_dim is not None else hidden // heads
        return cls(hidden, width, (LayerShape(heads, ffn, attention),) * layers)

    @property
    def weights(self) -> int:
        """Weights of the layers' matrices: what a cut makes smaller.

        >>> Shape.uniform(layers=1, hidden=8, heads=2, ffn=32).weights
        768
        """
        return self.hidden * sum(4 * row.heads * self.head_dim + 2 * row.ffn for row in self.layers)

    @property
    def attention(self) -> tuple[str, ...]:
        """The core of every layer; nothing where all have softmax."""
        cores = tuple(layer.attention for layer in self.layers)
        return cores if set(cores) - {"softmax"} else ()

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are equal and the heads fill the hidden width: a plain BERT configuration says it."""
        return len(set(self.layers)) <= 1 and all(
            layer.heads * self.head_dim == self.hidden and layer.ffn > 0 and layer.attention == "softmax"
            for layer in self.layers
        )

    def with_layer(self, index: int, **changes: Any) -> Shape:
        """This shape with one layer changed."""
        layers = list(self.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(self, layers=tuple(layers))

    def with_attention(self, *cores: str) -> Shape:
        """This shape with other attention cores: one for all layers, or one for each.

        >>> Shape.uniform(layers=2, hidden=8, heads=2, ffn=16).with_attention("kernel").attention
        ('kernel', 'kernel')
        """
        each = cores * self.depth if len(cores) == 1 else cores
        rows = zip(self.layers, each, strict=True)
        return replace(self, layers=tuple(replace(row, attention=core) for row, core in rows))

    def __le__(self, other: Shape) -> bool:
        """Whether this shape can be cut out of ``other``: some layers dropped, others narrowed, order kept."""
        if self.hidden > other.hidden or self.head_dim > other.head_dim:
            return False
        remaining = iter(other.layers)
        return all(any(mine <= theirs for theirs in remaining) for mine in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry a layer."""
        return {
            "hidden": self.hidden,
            "head_dim": self.head_dim,
            "heads": [layer.heads for layer in self.layers],
            "ffn": [layer.ffn for layer in self.layers],
            "attention": [layer.attention for layer in self.layers],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Shape:
        """Inverse of :meth:`to_json`."""
        rows = zip(data["heads"], data["ffn"], data["attention"], strict=True)
        return cls(data["hidden"], data["head_dim"], tuple(LayerShape(*row) for row in rows))

    def __str__(self) -> str:
        def column(values: list[int]) -> str:
            return str(values[0]) if len(set(values)) == 1 else ",".join(map(str, values))

        heads = column([layer.heads for layer in self.layers]) if self.layers else "-"
        ffn = column([layer.ffn for layer in self.layers]) if self.layers else "-"
        kinds = {layer.attention for layer in self.layers} - {"softmax"}
        suffix = f" {'+'.join(sorted(kinds))}" if kinds else ""
        return f"{self.depth}x{self.hidden} heads {heads} of {self.head_dim} ffn {ffn}{suffix}"


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value, so that it can be hashed.

    >>> canonical_json({"b": 1, "a": (1, 2)})
    '{"a":[1,2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
