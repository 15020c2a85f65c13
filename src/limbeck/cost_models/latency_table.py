"""Latency of any shape from a table measured on the target: a constant, and an amount for each width of each layer.

    latency(shape) = constant + sum over layers (layer + attention[core][heads] + feed_forward[ffn])

The last layer has amounts of its own: an exported classifier needs only its first token and leaves out the rest.
A few dozen encoders with random weights (speed does not depend on their values) are timed alternately in one process:
one dimension varied at a time, and ragged shapes drawn at random. Amounts are fitted to the measured times by least
squares of the relative error, as increments that may not be negative: a wider layer is never predicted to be faster
(isotonic), and widths between two measured ones are interpolated. The error is estimated on shapes left out of the fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat, check_format
from limbeck.core.cost import Cost
from limbeck.core.measurement import Measurement
from limbeck.core.shape import LayerShape, Shape, short_key
from limbeck.core.token_schedule import check_reads_all
from limbeck.errors import InputError, nearest


@dataclass(frozen=True)
class Curve:
    """Seconds by width: measured points, a straight line between them.

    >>> Curve((0, 4), (0.0, 2.0))(3)
    1.5
    """

    widths: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, width: int) -> float:
        """Return the seconds at a width; beyond the widest, those of the widest."""
        return float(np.interp(width, self.widths, self.seconds))

    def __add__(self, other: Curve) -> Curve:
        """Return the sum of two curves, of which the other has no further points."""
        points = zip(self.widths, self.seconds, strict=True)
        return Curve(self.widths, tuple(seconds + other(width) for width, seconds in points))


def tokens_beyond(read: float, left: float, least: float, *, last: bool, all_tokens: bool) -> tuple[float, float]:
    """Return where the tokens that heads and neurons run for lie between the least share measured, 0, and all, 1.

    Args:
        read: Share of the tokens that the layer reads.
        left: Share of the tokens that it passes on.
        least: Least share of tokens that was measured.
        last: Whether it is the last layer.
        all_tokens: Whether all tokens are read at the end: each is answered, or they are averaged; else neurons run for
            the tokens alone that go on, and in the last layer for the first one.
    """

    def beyond(share: float) -> float:
        return 1.0 if least == 1 else min(max((share - least) / (1 - least), 0.0), 1.0)

    return beyond(read), 1.0 if last and not all_tokens else beyond(read if all_tokens else left)


@dataclass(frozen=True)
class FewerTokens:
    """What layers cost that read fewer tokens, and what it costs to choose those.

    Attributes:
        share: Least share of tokens that was measured. Between it and all tokens seconds lie on a straight line.
        all_tokens: Whether all tokens are read at the end: each is answered, or they are averaged; else neurons run for
            the tokens alone that a layer passes on.
        layer: Seconds of any layer but the last, at that share.
        attention: Seconds by heads, for each core, at that share.
        feed_forward: Seconds by neurons, at that share.
        last_attention: Seconds of the last layer by heads, for each core, at that share.
        last_feed_forward: Seconds of the last layer by neurons, at that share.
        judge: Seconds that a layer takes to choose tokens, at any share.
        judging_head: Seconds that each of its heads takes besides, where it reads all tokens.
    """

    share: float
    all_tokens: bool
    layer: float
    attention: Mapping[str, Curve] = field(hash=False)
    feed_forward: Curve
    last_attention: Mapping[str, Curve] = field(hash=False)
    last_feed_forward: Curve
    judge: float
    judging_head: float


@dataclass(frozen=True)
class LatencyTable(Cost):
    """A Cost: predicted p50 latency of a shape, in seconds.

    Two tables are comparable only if one was tied to the other when it was measured (``table_measurement.Anchor``);
    within one, differences are good to ``error_median`` (of the whole latency).

    >>> attention, feed_forward = Curve((0, 2), (0.0, 2e-3)), Curve((0, 16), (0.0, 4e-3))
    >>> nothing = Curve((0,), (0.0,))
    >>> parts = (1e-3, 0.0, {"softmax": attention}, feed_forward, {"softmax": nothing}, nothing)
    >>> table = LatencyTable(8, 4, *parts, target="here", number_format="float", seq_len=10)
    >>> round(table(Shape(8, 4, (LayerShape(2, 16), LayerShape(1, 4), LayerShape(2, 16)))).value * 1e3, 6)
    9.0
    """

    hidden: int
    head_dim: int
    constant: float
    layer: float
    attention: Mapping[str, Curve] = field(hash=False)
    feed_forward: Curve
    last_attention: Mapping[str, Curve] = field(hash=False)
    last_feed_forward: Curve
    target: str
    number_format: NumberFormat
    seq_len: int
    error_median: float = 0.0
    error_p95: float = 0.0
    held_out: int = 0
    noise: float = 0.0
    machine: str = ""
    fewer: FewerTokens | None = None
    """Set where layers of the measured encoders pass on fewer tokens."""

    def __call__(self, shape: Shape, number_format: str | None = None) -> Measurement:
        """Predicted latency; the interval is the error that 95 % of the held-out shapes stayed within."""
        check_format(self.number_format, number_format)
        if (shape.hidden, shape.head_dim) != (self.hidden, self.head_dim):
            widths = f"of width {self.hidden} with heads of {self.head_dim}"
            raise InputError(f"the latency table is for encoders {widths}, got {shape}")
        if self.fewer is None:
            check_reads_all(shape, "the latency table")
        rows = list(zip(shape.layers, shape.token_shares, strict=True))
        value = self.constant + sum(self.of_layer(layer, False, *shares) for layer, shares in rows[:-1])
        value += sum(self.of_layer(layer, True, *shares) for layer, shares in rows[-1:])
        detail = {"source": "table", "number_format": self.number_format, "seq_len": self.seq_len}
        reach = value * self.error_p95
        return Measurement("latency_p50", value, "s", value - reach, value + reach, target=self.target, detail=detail)

    def of_layer(self, layer: LayerShape, last: bool = False, read: float = 1.0, left: float = 1.0) -> float:
        """Return the seconds that one layer takes.

        Args:
            layer: Its shape.
            last: Whether it is the last one.
            read: Share of the tokens that it reads.
            left: Share of the tokens that it passes on.
        """
        if layer.attention not in self.attention:
            suggestion = nearest(layer.attention, self.attention)
            raise InputError(f"the latency table has not measured attention '{layer.attention}'; {suggestion}")
        heads, ffn = (self.last_attention, self.last_feed_forward) if last else (self.attention, self.feed_forward)
        own = 0.0 if last else self.layer  # the cost of an empty last layer is part of the constant
        if self.fewer is None:
            return own + heads[layer.attention](layer.heads) + ffn(layer.ffn)
        few = self.fewer
        few_heads, few_ffn = (few.last_attention, few.last_feed_forward) if last else (few.attention, few.feed_forward)
        more, run = tokens_beyond(read, left, few.share, last=last, all_tokens=few.all_tokens)

        def between(least: float, most: float, beyond: float) -> float:
            return least + beyond * (most - least)

        seconds = 0.0 if last else between(few.layer, own, more)
        seconds += between(few_heads[layer.attention](layer.heads), heads[layer.attention](layer.heads), more)
        seconds += between(few_ffn(layer.ffn), ffn(layer.ffn), run)
        return seconds + (few.judge + few.judging_head * layer.heads * read if left < read else 0.0)

    def for_format(self, number_format: str) -> LatencyTable:
        """Return this table, if it has that number format."""
        check_format(self.number_format, number_format)
        return self

    @property
    def key(self) -> str:  # type: ignore[override]  # computed here, a plain field elsewhere
        """Digest of what was measured; equal keys mean equal predictions."""
        return short_key(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary; of tokens only where layers pass on fewer."""
        data = dataclasses.asdict(self)
        return data if self.fewer is not None else {name: value for name, value in data.items() if name != "fewer"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Inverse of :meth:`to_json`."""

        def curve(value: Mapping[str, Any]) -> Curve:
            return Curve(tuple(value["widths"]), tuple(value["seconds"]))

        def curves(data: Mapping[str, Any]) -> dict[str, Any]:
            cores = {
                name: {core: curve(value) for core, value in data[name].items()}
                for name in ("attention", "last_attention")
            }
            return cores | {name: curve(data[name]) for name in ("feed_forward", "last_feed_forward")}

        few = data.get("fewer")
        if few is not None and "per_token" in few:  # its name in stored tables from before
            few = {name: value for name, value in few.items() if name != "per_token"} | {"all_tokens": few["per_token"]}
        fewer = None if few is None else FewerTokens(**{**few, **curves(few)})
        return cls(**{**data, **curves(data), "fewer": fewer})
