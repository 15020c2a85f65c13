"""Search spaces of shapes: ranges of depth and widths with sampling, mutation and crossover; and explicit lists.

Reference: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686): number of layers, hidden width, attention width and
feed-forward width, the same in every layer. Differs: with ``per_layer``, every layer has its own heads and neurons.
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

LARGEST_WIDTH = 1_000_000
"""No dimension of a shape is larger."""


@dataclass(frozen=True)
class Range:
    """Integers from ``low`` to ``high`` in steps counted down from ``high``; ``low`` itself is always included.

    >>> list(Range(100, 384, 128))
    [100, 128, 256, 384]
    """

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= LARGEST_WIDTH or self.step < 1:
            raise InputError(
                f"a range needs 0 <= low <= high <= {LARGEST_WIDTH:,} and a step of at least 1, got "
                f"{dataclasses.astuple(self)}"
            )

    @cached_property
    def values(self) -> tuple[int, ...]:
        """All values, ascending."""
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
        """Sample a value uniformly."""
        return rng.choice(self.values)

    def near(self, value: int, steps: int, rng: Random) -> int:
        """Sample a value near another one.

        Args:
            value: The value to start from.
            steps: Most steps to move, up or down.
            rng: Source of randomness.
        """
        values = self.values
        nearest = min(range(len(values)), key=lambda index: abs(values[index] - value))
        return values[min(max(nearest + rng.randint(-steps, steps), 0), len(values) - 1)]


@dataclass(frozen=True)
class Space:
    """All shapes whose depth and widths lie in given ranges.

    ``attention`` names the core of each layer in order; empty: softmax in all layers.

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
        """The shape with the lowest value in every dimension."""
        return self._uniform(*(values.low for values in self._ranges))

    @property
    def largest(self) -> Shape:
        """The shape with the highest value in every dimension, of which all others are slices."""
        return self._uniform(*(values.high for values in self._ranges))

    @property
    def size(self) -> int:
        """Number of shapes."""
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
        """Sample a shape, each dimension independently."""
        depth, hidden, head_dim = (values.sample(rng) for values in (self.layers, self.hidden, self.head_dim))
        rows = [self._sample_layer(rng) for _ in range(depth if self.per_layer else 1)]
        return self.shape(hidden, head_dim, rows if self.per_layer else rows * depth)

    def shape(self, hidden: int, head_dim: int, rows: Sequence[LayerShape]) -> Shape:
        """Build the shape with these widths and the space's attention cores.

        Args:
            hidden: Hidden width.
            head_dim: Width of a head.
            rows: Widths of every layer.
        """
        if self.attention:
            rows = [dataclasses.replace(row, attention=core) for row, core in zip(rows, self.attention, strict=False)]
        return Shape(hidden, head_dim, tuple(rows))

    def mutate(self, shape: Shape, rng: Random, probability: float = 0.25) -> Shape:
        """Sample a neighbor: depth and hidden width change by one step, other widths by up to two.

        Args:
            shape: The shape to change.
            rng: Source of randomness.
            probability: Probability of each change. The hidden width, on which everything else depends, changes with
                twice that (as in AutoTinyBERT's search).
        """

        def flip(probability: float) -> bool:
            return rng.random() < probability

        depth = self.layers.near(shape.depth, 1, rng) if flip(probability) else shape.depth
        hidden = self.hidden.near(shape.hidden, 1, rng) if flip(2 * probability) else shape.hidden
        head_dim = self.head_dim.near(shape.head_dim, 2, rng) if flip(probability) else shape.head_dim

        def mutated(layer: LayerShape) -> LayerShape:
            heads = self.heads.near(layer.heads, 2, rng) if flip(probability) else layer.heads
            ffn = self.ffn.near(layer.ffn, 2, rng) if flip(probability) else layer.ffn
            return LayerShape(heads, ffn)

        if not self.per_layer:
            return self.shape(hidden, head_dim, (mutated(shape.layers[0]),) * depth)
        rows = [mutated(row) for row in shape.layers[:depth]]
        return self.shape(hidden, head_dim, rows + [self._sample_layer(rng) for _ in range(depth - len(rows))])

    def cross(self, first: Shape, second: Shape, rng: Random) -> Shape:
        """Sample a child that takes each value from one of two parents.

        Args:
            first: One parent.
            second: The other parent; a layer that only the deeper parent has is taken from it.
            rng: Source of randomness.
        """
        parents = (first, second)
        depth = rng.choice(parents).depth
        hidden, head_dim = rng.choice(parents).hidden, rng.choice(parents).head_dim

        def crossed(index: int) -> LayerShape:
            layers = [parent.layers[index] for parent in parents if index < parent.depth]
            return LayerShape(rng.choice(layers).heads, rng.choice(layers).ffn)

        rows = [crossed(index) for index in range(depth if self.per_layer else 1)]
        return self.shape(hidden, head_dim, rows if self.per_layer else rows * depth)

    @property
    def dimensions(self) -> dict[str, Range]:
        """Range of every dimension of a shape by name; with ``per_layer``, of the deepest shape.

        >>> list(Space(Range(1, 2), Range(32, 32), Range(1, 4), Range(64, 64), Range(8, 8), per_layer=True).dimensions)
        ['layers', 'hidden', 'head_dim', 'heads', 'ffn', 'heads_1', 'ffn_1']
        """
        ranges = {"layers": self.layers, "hidden": self.hidden, "head_dim": self.head_dim}
        for suffix in self._suffixes:
            ranges |= {f"heads{suffix}": self.heads, f"ffn{suffix}": self.ffn}
        return ranges

    def values(self, shape: Shape) -> dict[str, int]:
        """Return a shape's value in every dimension; layers that it lacks repeat its last one."""
        values = {"layers": shape.depth, "hidden": shape.hidden, "head_dim": shape.head_dim}
        for index, suffix in enumerate(self._suffixes):
            layer = shape.layers[min(index, shape.depth - 1)]
            values |= {f"heads{suffix}": layer.heads, f"ffn{suffix}": layer.ffn}
        return values

    def build(self, values: Mapping[str, int]) -> Shape:
        """Build a shape from its value in every dimension; values of layers beyond its depth are ignored."""
        rows = [LayerShape(values[f"heads{suffix}"], values[f"ffn{suffix}"]) for suffix in self._suffixes]
        depth = values["layers"]
        return self.shape(values["hidden"], values["head_dim"], rows[:depth] if self.per_layer else rows * depth)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        data = dataclasses.asdict(self)
        return data if self.attention else {name: value for name, value in data.items() if name != "attention"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """Rebuild a space from :meth:`to_json`."""
        ranges = {name: Range(**value) for name, value in data.items() if isinstance(value, Mapping)}
        return cls(**ranges, per_layer=data["per_layer"], attention=tuple(data.get("attention", ())))

    @property
    def _ranges(self) -> tuple[Range, ...]:
        return (self.layers, self.hidden, self.heads, self.ffn, self.head_dim)

    @property
    def _suffixes(self) -> list[str]:
        """Suffixes of the dimensions of each layer; empty for the first layer."""
        return [f"_{index}" if index else "" for index in range(self.layers.high if self.per_layer else 1)]

    def _sample_layer(self, rng: Random) -> LayerShape:
        return LayerShape(self.heads.sample(rng), self.ffn.sample(rng))

    @property
    def _cores(self) -> Sequence[str]:
        return self.attention or ("softmax",) * self.layers.high

    def _uniform(self, layers: int, hidden: int, heads: int, ffn: int, head_dim: int) -> Shape:
        return self.shape(hidden, head_dim, (LayerShape(heads, ffn),) * layers)


@dataclass(frozen=True)
class Listed:
    """An explicit list of shapes.

    >>> few = Listed((Shape.uniform(2, 64, 4, 128), Shape.uniform(4, 32, 2, 64), Shape.uniform(1, 32, 2, 64)))
    >>> str(few.largest), str(few.smallest)
    ('2x64 heads 4 of 16 ffn 128', '1x32 heads 2 of 16 ffn 64')
    >>> str(few.whole)
    '4x64 heads 4,4,2,2 of 16 ffn 128,128,64,64'
    """

    shapes: tuple[Shape, ...]

    @property
    def smallest(self) -> Shape:
        """The shape with the fewest weights in its layers."""
        return min(self.shapes, key=lambda shape: shape.weights)

    @property
    def largest(self) -> Shape:
        """The shape with the most weights; others need not be slices of it."""
        return max(self.shapes, key=lambda shape: shape.weights)

    @property
    def whole(self) -> Shape:
        """The smallest shape of which all listed ones are leading slices."""
        rows = []
        for index in range(max(shape.depth for shape in self.shapes)):
            layers = [shape.layers[index] for shape in self.shapes if index < shape.depth]
            heads, ffn = max(layer.heads for layer in layers), max(layer.ffn for layer in layers)
            rows.append(LayerShape(heads, ffn, layers[0].attention))
        hidden, head_dim = max(shape.hidden for shape in self.shapes), max(shape.head_dim for shape in self.shapes)
        return Shape(hidden, head_dim, tuple(rows))

    def sample(self, rng: Random) -> Shape:
        """Sample a shape uniformly."""
        return rng.choice(self.shapes)
