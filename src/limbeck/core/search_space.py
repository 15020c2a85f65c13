"""Spaces of shapes: ranges of depth and widths with sampling and the small changes that an evolution makes, and lists.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): layers, hidden width, width of attention and of the
feed-forward part, the same in every layer. Differs: with ``per_layer`` heads and neurons of every layer are free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from limbeck.core.shape import LayerShape, Shape
from limbeck.errors import InputError


@dataclass(frozen=True)
class Range:
    """Whole numbers from ``low`` to ``high`` in steps counted down from ``high``; ``low`` itself always belongs.

    >>> list(Range(100, 384, 128))
    [100, 128, 256, 384]
    """

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.step < 1:
            raise InputError(
                f"a range needs 0 <= low <= high and a step of at least 1, got {dataclasses.astuple(self)}"
            )

    @cached_property
    def values(self) -> tuple[int, ...]:
        """All of them, ascending."""
        inner = range(self.high % self.step, self.high + 1, self.step)
        return tuple(sorted({self.low, self.high, *(value for value in inner if value >= self.low)}))

    def __iter__(self) -> Iterator[int]:
        return iter(self.values)

    def __contains__(self, value: int) -> bool:
        inside = self.low <= value <= self.high
        return inside and (value == self.low or (self.high - value) % self.step == 0)

    def __len__(self) -> int:
        return len(self.values)

    def sample(self, rng: Random) -> int:
        """One of the values, each as likely."""
        return rng.choice(self.values)

    def near(self, value: int, steps: int, rng: Random) -> int:
        """A value at most so many steps away."""
        values = self.values
        place = min(range(len(values)), key=lambda index: abs(values[index] - value))
        return values[min(max(place + rng.randint(-steps, steps), 0), len(values) - 1)]


@dataclass(frozen=True)
class Space:
    """All shapes with depth and widths in given ranges; ``attention`` names the core of each layer, in order.

    No ``attention`` is softmax in all layers.

    >>> space = Space(Range(1, 2), Range(32, 32), Range(1, 4), Range(32, 64, 32), head_dim=Range(8, 8))
    >>> str(space.smallest), str(space.largest), space.size
    ('1x32 heads 1 of 8 ffn 32', '2x32 heads 4 of 8 ffn 64', 16)
    >>> space.largest in space
    True
    """

    layers: Range
    hidden: Range
    heads: Range
    ffn: Range
    head_dim: Range
    per_layer: bool = False
    attention: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.attention and len(self.attention) < self.layers.high:
            raise InputError(
                f"layers: the attention of {len(self.attention)} is known, but the space goes up to "
                f"{self.layers.high}; use at most {len(self.attention)}"
            )

    @property
    def smallest(self) -> Shape:
        """The shape of the lowest values."""
        return self._uniform(*(each.low for each in self._ranges))

    @property
    def largest(self) -> Shape:
        """The shape of the highest values; all others are slices of it."""
        return self._uniform(*(each.high for each in self._ranges))

    @property
    def size(self) -> int:
        """How many shapes there are."""
        widths = len(self.heads) * len(self.ffn)
        layers = sum(widths**depth for depth in self.layers) if self.per_layer else widths * len(self.layers)
        return layers * len(self.hidden) * len(self.head_dim)

    def __contains__(self, shape: Shape) -> bool:
        rows = shape.layers
        return (
            shape.depth in self.layers
            and shape.hidden in self.hidden
            and shape.head_dim in self.head_dim
            and all(row.heads in self.heads and row.ffn in self.ffn for row in rows)
            and all(row.attention == core for row, core in zip(rows, self._cores, strict=False))
            and (self.per_layer or len({(row.heads, row.ffn) for row in rows}) <= 1)
        )

    def sample(self, rng: Random) -> Shape:
        """A shape with every value drawn by itself."""
        depth, hidden, head_dim = (each.sample(rng) for each in (self.layers, self.hidden, self.head_dim))
        rows = [self._row(rng) for _ in range(depth if self.per_layer else 1)]
        return self.shape(hidden, head_dim, rows if self.per_layer else rows * depth)

    def shape(self, hidden: int, head_dim: int, rows: Sequence[LayerShape]) -> Shape:
        """The shape of these widths, with the space's attention."""
        if self.attention:
            rows = [dataclasses.replace(row, attention=core) for row, core in zip(rows, self.attention, strict=False)]
        return Shape(hidden, head_dim, tuple(rows))

    def mutate(self, shape: Shape, rng: Random, probability: float = 0.25) -> Shape:
        """A neighbour: depth by one, hidden by one step, heads and neurons by up to two, each with that probability.

        The hidden width, on which all else rests, changes with twice the probability (AutoTinyBERT's search).
        """

        def turned(odds: float) -> bool:
            return rng.random() < odds

        depth = self.layers.near(shape.depth, 1, rng) if turned(probability) else shape.depth
        hidden = self.hidden.near(shape.hidden, 1, rng) if turned(2 * probability) else shape.hidden
        head_dim = self.head_dim.near(shape.head_dim, 2, rng) if turned(probability) else shape.head_dim

        def changed(row: LayerShape) -> LayerShape:
            heads = self.heads.near(row.heads, 2, rng) if turned(probability) else row.heads
            ffn = self.ffn.near(row.ffn, 2, rng) if turned(probability) else row.ffn
            return LayerShape(heads, ffn)

        if not self.per_layer:
            return self.shape(hidden, head_dim, (changed(shape.layers[0]),) * depth)
        rows = [changed(row) for row in shape.layers[:depth]]
        return self.shape(hidden, head_dim, rows + [self._row(rng) for _ in range(depth - len(rows))])

    def cross(self, one: Shape, other: Shape, rng: Random) -> Shape:
        """A child with every value of one of two parents; where only one has a layer, it is that one's."""
        depth = rng.choice((one, other)).depth
        hidden, head_dim = rng.choice((one, other)).hidden, rng.choice((one, other)).head_dim

        def row(place: int) -> LayerShape:
            having = [parent.layers[place] for parent in (one, other) if place < parent.depth]
            return LayerShape(rng.choice(having).heads, rng.choice(having).ffn)

        rows = [row(place) for place in range(depth if self.per_layer else 1)]
        return self.shape(hidden, head_dim, rows if self.per_layer else rows * depth)

    @property
    def dimensions(self) -> dict[str, Range]:
        """The range of every value that a shape consists of, by name; with ``per_layer`` those of the deepest shape.

        >>> list(Space(Range(1, 2), Range(32, 32), Range(1, 4), Range(64, 64), Range(8, 8), per_layer=True).dimensions)
        ['layers', 'hidden', 'head_dim', 'heads', 'ffn', 'heads_1', 'ffn_1']
        """
        found = {"layers": self.layers, "hidden": self.hidden, "head_dim": self.head_dim}
        for suffix in self._suffixes:
            found |= {f"heads{suffix}": self.heads, f"ffn{suffix}": self.ffn}
        return found

    def values(self, shape: Shape) -> dict[str, int]:
        """A shape's value in every dimension; layers that it lacks are taken to be as its last."""
        found = {"layers": shape.depth, "hidden": shape.hidden, "head_dim": shape.head_dim}
        for place, suffix in enumerate(self._suffixes):
            row = shape.layers[min(place, shape.depth - 1)]
            found |= {f"heads{suffix}": row.heads, f"ffn{suffix}": row.ffn}
        return found

    def build(self, values: Mapping[str, int]) -> Shape:
        """The shape of given values; those of layers beyond its depth do not matter."""
        rows = [LayerShape(values[f"heads{suffix}"], values[f"ffn{suffix}"]) for suffix in self._suffixes]
        depth = values["layers"]
        return self.shape(values["hidden"], values["head_dim"], rows[:depth] if self.per_layer else rows * depth)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        data = dataclasses.asdict(self)
        return data if self.attention else {name: value for name, value in data.items() if name != "attention"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """Inverse of :meth:`to_json`."""
        ranges = {name: Range(**value) for name, value in data.items() if isinstance(value, Mapping)}
        return cls(**ranges, per_layer=data["per_layer"], attention=tuple(data.get("attention", ())))

    @property
    def _ranges(self) -> tuple[Range, ...]:
        return (self.layers, self.hidden, self.heads, self.ffn, self.head_dim)

    @property
    def _suffixes(self) -> list[str]:
        """What tells the values of one layer from those of others: nothing for the first."""
        return [f"_{place}" if place else "" for place in range(self.layers.high if self.per_layer else 1)]

    def _row(self, rng: Random) -> LayerShape:
        return LayerShape(self.heads.sample(rng), self.ffn.sample(rng))

    @property
    def _cores(self) -> Sequence[str]:
        return self.attention or ("softmax",) * self.layers.high

    def _uniform(self, layers: int, hidden: int, heads: int, ffn: int, head_dim: int) -> Shape:
        return self.shape(hidden, head_dim, (LayerShape(heads, ffn),) * layers)


@dataclass(frozen=True)
class Listed:
    """Exactly the shapes of a list.

    >>> few = Listed((Shape.uniform(2, 64, 4, 128), Shape.uniform(4, 32, 2, 64), Shape.uniform(1, 32, 2, 64)))
    >>> str(few.largest), str(few.smallest)
    ('2x64 heads 4 of 16 ffn 128', '1x32 heads 2 of 16 ffn 64')
    >>> str(few.whole)
    '4x64 heads 4,4,2,2 of 16 ffn 128,128,64,64'
    """

    shapes: tuple[Shape, ...]

    @property
    def smallest(self) -> Shape:
        """The one with the fewest weights in its layers."""
        return min(self.shapes, key=lambda shape: shape.weights)

    @property
    def largest(self) -> Shape:
        """The one with the most; not all others need be slices of it."""
        return max(self.shapes, key=lambda shape: shape.weights)

    @property
    def whole(self) -> Shape:
        """The smallest shape of which all are leading slices."""
        rows = []
        for place in range(max(shape.depth for shape in self.shapes)):
            having = [shape.layers[place] for shape in self.shapes if place < shape.depth]
            most = (max(row.heads for row in having), max(row.ffn for row in having))
            rows.append(LayerShape(*most, having[0].attention))
        hidden, head_dim = (max(getattr(shape, name) for shape in self.shapes) for name in ("hidden", "head_dim"))
        return Shape(hidden, head_dim, tuple(rows))

    def sample(self, rng: Random) -> Shape:
        """One of them, each as likely."""
        return rng.choice(self.shapes)
