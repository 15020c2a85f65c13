"""The shape of an encoder, which every technique, cost and export works with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from limbeck.errors import InputError, nearest, shown

CORES = {"softmax": 0, "local": 64, "linformer": 256, "window": 64, "kernel": 0}
"""Attention cores and their default sizes: for linformer the length that keys and values are projected to, for local
and window the distance at which tokens attend; 0: the core has no size."""


def attention_core(text: str) -> str:
    """Return the full name of a core as shapes store it, with its size if it has one.

    >>> attention_core("linformer"), attention_core("window:32"), attention_core("softmax")
    ('linformer:256', 'window:32', 'softmax')
    """
    name, colon, size = text.partition(":")
    if name not in CORES:
        raise InputError(f"attention {shown(text)}; {nearest(name, CORES)}")
    if not CORES[name]:
        if colon:
            raise InputError(f"attention {shown(text)}: {name} has no size; write '{name}'")
        return name
    least = 0 if name == "local" else 1  # of the tokens beside the own one
    if colon and not (size.isdecimal() and int(size) >= least):
        raise InputError(
            f"attention {shown(text)}: the size should be a number from {least}; write '{name}:{CORES[name]}'"
        )
    return f"{name}:{int(size) if colon else CORES[name]}"


def token_share(value: float) -> float:
    """Return a share of a text's tokens as shapes store it: in thousandths, so that every runtime rounds it alike.

    >>> token_share(0.66666)
    0.667
    """
    share = round(value, 3) if isfinite(value) else value
    if not 0 < share <= 1:
        raise InputError(f"tokens: a share of the tokens is above 0 and at most 1, in thousandths, got {value}")
    return share


def kept_tokens(share: float, tokens: int) -> int:
    """Count the tokens of a text that are kept: at least one, and as many as the share asks for, rounded up.

    >>> kept_tokens(0.7, 10), kept_tokens(0.501, 10), kept_tokens(0.1, 3)
    (7, 6, 1)
    """
    return max(1, -(-tokens * round(1000 * share) // 1000))


def check_head_widths(widths: Iterable[int], *, rotary: bool) -> None:
    """Refuse odd widths of heads where positions are rotary: those turn pairs of channels.

    Args:
        widths: Channels of a head.
        rotary: Whether positions are rotary.

    Raises:
        InputError: A width is odd.
    """
    odd = sorted({width for width in widths if width % 2})
    if rotary and odd:
        raise InputError(
            f"head_dim: rotary positions turn pairs of channels, so heads must have an even width, got {odd[0]}; "
            f"use {odd[0] + 1 if odd[0] == 1 else odd[0] - 1}"
        )


def skipped_positions(offset: int | None) -> int:
    """Count the positions that no token takes: RoBERTa starts counting after the padding position (``offset``).

    >>> skipped_positions(None), skipped_positions(1)
    (0, 2)
    """
    return 0 if offset is None else offset + 1


@dataclass(frozen=True)
class LayerShape:
    """Widths of one layer.

    ``heads`` counts attention heads (0: no attention module, only its output bias), ``ffn`` counts neurons of the
    feed-forward part (0: likewise), ``attention`` names the core in ``model/attention.py`` with its size, such as
    ``linformer:256``. ``tokens`` is the share of a text's tokens that go on after the layer
    (``model/token_pruning.py``).
    """

    heads: int
    ffn: int
    attention: str = "softmax"
    tokens: float = 1.0

    @property
    def core(self) -> tuple[str, int]:
        """Name and size of the attention core.

        >>> LayerShape(12, 1536, "window:64").core
        ('window', 64)
        """
        name, _, size = self.attention.partition(":")
        return name, int(size or 0)

    def __le__(self, other: LayerShape) -> bool:
        narrower = self.heads <= other.heads and self.ffn <= other.ffn and self.tokens <= other.tokens
        return narrower and self.attention == other.attention


@dataclass(frozen=True)
class Shape:
    """Shape of an encoder: hidden width, width of a head, and the widths of every layer.

    Two layers, of which the second keeps one head and half of its neurons:

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
        """Build a shape with the same widths in every layer.

        Args:
            layers: Number of layers.
            hidden: Hidden width.
            heads: Attention heads of each layer.
            ffn: Feed-forward neurons of each layer.
            head_dim: Width of a head; hidden / heads when not given.
            attention: Attention core of each layer.
        """
        width = head_dim if head_dim is not None else hidden // heads
        return cls(hidden, width, (LayerShape(heads, ffn, attention),) * layers)

    @property
    def weights(self) -> int:
        """Weights of the layers' matrices, which are what pruning reduces.

        >>> Shape.uniform(layers=1, hidden=8, heads=2, ffn=32).weights
        768
        """
        return self.hidden * sum(4 * row.heads * self.head_dim + 2 * row.ffn for row in self.layers)

    @property
    def attention(self) -> tuple[str, ...]:
        """Attention core of every layer; empty if all are softmax."""
        cores = tuple(layer.attention for layer in self.layers)
        return cores if set(cores) - {"softmax"} else ()

    @property
    def tokens(self) -> tuple[float, ...]:
        """Share of a text's tokens that go on after every layer; empty if all do."""
        shares = tuple(layer.tokens for layer in self.layers)
        return shares if set(shares) - {1.0} else ()

    @property
    def token_shares(self) -> tuple[tuple[float, float], ...]:
        """Share of a text's tokens that every layer reads, and that it passes on.

        Only softmax attention over all tokens judges them, and after the last layer nothing is left to save: a layer
        without heads, one with another core, and the last one pass on what they read.

        >>> full = Shape.uniform(layers=3, hidden=8, heads=2, ffn=16)
        >>> full.with_tokens(0.5, 0.25, 0.1).token_shares
        ((1.0, 0.5), (0.5, 0.25), (0.25, 0.25))
        """
        shares, read = [], 1.0
        for index, layer in enumerate(self.layers):
            judges = layer.heads and layer.attention == "softmax" and index < self.depth - 1
            left = min(read, layer.tokens) if judges else read
            shares.append((read, left))
            read = left
        return tuple(shares)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def is_part_of(self, whole: Shape, *, narrower: bool) -> bool:
        """Return whether this can be cut out of another shape, with heads as wide as they were.

        Args:
            whole: The other shape.
            narrower: Whether the hidden states may have fewer channels.

        >>> whole = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
        >>> cut = replace(whole, hidden=24)
        >>> cut.is_part_of(whole, narrower=True), cut.is_part_of(whole, narrower=False)
        (True, False)
        """
        return self <= whole and self.head_dim == whole.head_dim and (narrower or self.hidden == whole.hidden)

    def with_layer(
        self, index: int, heads: int | None = None, ffn: int | None = None, attention: str | None = None
    ) -> Shape:
        """Return a copy with some fields of one layer changed.

        Args:
            index: Index of the layer.
            heads: Number of heads; None leaves it.
            ffn: Number of neurons; None leaves it.
            attention: Attention core; None leaves it.
        """
        layers = list(self.layers)
        old = layers[index]
        layers[index] = replace(
            old,
            heads=old.heads if heads is None else heads,
            ffn=old.ffn if ffn is None else ffn,
            attention=old.attention if attention is None else attention,
        )
        return replace(self, layers=tuple(layers))

    def with_tokens(self, *shares: float) -> Shape:
        """Return a copy with another share of tokens that go on after each layer.

        >>> str(Shape.uniform(layers=2, hidden=8, heads=2, ffn=16).with_tokens(0.5, 0.5))
        '2x8 heads 2 of 4 ffn 16 tokens 0.5'
        """
        rows = zip(self.layers, shares, strict=True)
        return replace(self, layers=tuple(replace(row, tokens=token_share(share)) for row, share in rows))

    def with_attention(self, *cores: str) -> Shape:
        """Return a copy with other attention cores: one for all layers, or one for each.

        >>> Shape.uniform(layers=2, hidden=8, heads=2, ffn=16).with_attention("kernel").attention
        ('kernel', 'kernel')
        """
        each = cores * self.depth if len(cores) == 1 else cores
        rows = zip(self.layers, each, strict=True)
        return replace(self, layers=tuple(replace(row, attention=core) for row, core in rows))

    def converted(self, attention: Sequence[str]) -> Shape:
        """Return the shape whose attention is replaced: by one core for all layers, or by one for each.

        Where the core is softmax, a layer with local attention keeps it.

        Args:
            attention: The cores, as a user writes them.

        Raises:
            InputError: A core is unknown, or there is not one for each layer; or layers pass on fewer tokens, and none
                is left whose attention judges them.

        >>> shape = Shape.uniform(layers=2, hidden=8, heads=2, ffn=16).with_layer(1, attention="local:64")
        >>> shape.converted(["softmax"]) == shape, shape.converted(["window"]).attention
        (True, ('window:64', 'window:64'))
        """
        cores = [attention_core(core) for core in attention]
        if len(cores) not in (1, self.depth):
            raise InputError(f"attention: has {len(cores)} cores, the model {self.depth} layers; give one for all")
        each = cores * self.depth if len(cores) == 1 else cores
        rows = zip(self.layers, each, strict=True)
        converted = self.with_attention(
            *(row.attention if core == "softmax" and row.core[0] == "local" else core for row, core in rows)
        )
        if self.token_shares[-1:] != converted.token_shares[-1:] == ((1.0, 1.0),):
            raise InputError(
                f"attention: no layer is left that chooses by its softmax attention which tokens go on, as those of "
                f"{self} do; leave softmax in some layers but the last"
            )
        return converted

    def __le__(self, other: Shape) -> bool:
        """Return whether this shape can be cut out of ``other`` by dropping and narrowing layers in order."""
        if self.hidden > other.hidden or self.head_dim > other.head_dim:
            return False
        remaining = iter(other.layers)
        return all(any(layer <= candidate for candidate in remaining) for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary whose lists have one entry per layer; ``tokens`` only where some do not go on."""
        return {
            "hidden": self.hidden,
            "head_dim": self.head_dim,
            "heads": [layer.heads for layer in self.layers],
            "ffn": [layer.ffn for layer in self.layers],
            "attention": [layer.attention for layer in self.layers],
            **({"tokens": list(self.tokens)} if self.tokens else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shape:
        """Rebuild a shape from :meth:`to_json`."""
        tokens = data.get("tokens") or [1.0] * len(data["heads"])
        rows = zip(data["heads"], data["ffn"], data["attention"], map(token_share, tokens), strict=True)
        return cls(data["hidden"], data["head_dim"], tuple(LayerShape(*row) for row in rows))

    def __str__(self) -> str:
        def column(values: Sequence[float]) -> str:
            texts = [str(value) if isinstance(value, int) else f"{value:g}" for value in values]
            return texts[0] if len(set(texts)) == 1 else ",".join(texts)

        heads = column([layer.heads for layer in self.layers]) if self.layers else "-"
        ffn = column([layer.ffn for layer in self.layers]) if self.layers else "-"
        kinds = {layer.attention for layer in self.layers} - {"softmax"}
        suffix = f" {'+'.join(sorted(kinds))}" if kinds else ""
        suffix += f" tokens {column(self.tokens)}" if self.tokens else ""
        return f"{self.depth}x{self.hidden} heads {heads} of {self.head_dim} ffn {ffn}{suffix}"


def canonical_json(value: object) -> str:
    """Serialize JSON values in one canonical spelling, for hashing.

    >>> canonical_json({"b": 1, "a": (1, 2)})
    '{"a":[1,2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_key(value: object) -> str:
    """Name a JSON value by its content, in 16 hexadecimal digits: equal values have equal names, always.

    >>> short_key({"b": 1, "a": (1, "é")})
    '8717ac25ea6b8854'
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
