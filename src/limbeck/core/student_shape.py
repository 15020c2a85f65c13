"""The shape of a student, specified in part: the rest follows from its teacher's shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from limbeck.core.shape import Shape
from limbeck.errors import InputError

Init = Literal["fresh", "layers", "slice", "resplit"]


@dataclass(frozen=True)
class StudentShape:
    """A shape relative to a larger one.

    >>> student = StudentShape(layers=2, hidden=32)
    >>> str(student.of(Shape.uniform(layers=4, hidden=64, heads=4, ffn=128)))
    '2x32 heads 4 of 8 ffn 128'

    Attributes:
        layers: Number of layers.
        hidden: Width of the hidden states.
        heads: Attention heads in every layer; hidden / head_dim where that one alone is given.
        ffn: Feed-forward neurons in every layer.
        head_dim: Width of a head; hidden / heads when one of the two is given.
        init: How the student gets its weights, which decides what layers it has.
    """

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    ffn: int | None = None
    head_dim: int | None = None
    init: Init = "fresh"

    def source_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers to copy, counted from 0: ``m(j) = round(j N / M)``; of a slice, the first."""
        count = depth if self.layers is None else self.layers
        if self.init in ("slice", "resplit"):
            return tuple(range(count))
        return tuple(layer - 1 for layer in layer_map("uniform", count, depth))

    def of(self, teacher: Shape) -> Shape:
        """Return the shape of the student.

        Args:
            teacher: Shape of the model that the student is made of.

        Raises:
            InputError: The student would be larger, or its heads do not divide its width.
        """
        if self.layers is not None and self.layers > teacher.depth:
            raise InputError(f"layers: {self.layers} is more than the model's {teacher.depth}")
        sources = [teacher.layers[index] for index in self.source_layers(teacher.depth)]
        hidden, heads, head_dim = self.hidden or teacher.hidden, self.heads, self.head_dim
        if head_dim is not None and heads is None:
            heads = _quotient(hidden, head_dim, "head_dim")
        elif head_dim is None and (self.hidden or self.heads):
            counts = {heads} if heads else {layer.heads for layer in sources}
            if len(counts) > 1:
                raise InputError(f"the layers have {sorted(counts)} heads; give heads, head_dim, or both")
            head_dim = _quotient(hidden, max(counts), "heads")
        layers = tuple(
            replace(layer, heads=layer.heads if heads is None else heads, ffn=self.ffn or layer.ffn)
            for layer in sources
        )
        shape = Shape(hidden, head_dim or teacher.head_dim, layers)
        if not shape <= teacher:
            raise InputError(f"{shape} is larger than the model, {teacher}; a student can only be smaller")
        return shape


def layer_map(kind: str, student: int, teacher: int) -> tuple[int, ...]:
    """Map every student layer to the teacher layer that it imitates; layers count from 1.

    Args:
        kind: 'uniform', 'last_of_block', 'top' or 'bottom'.
        student: Number of student layers.
        teacher: Number of teacher layers.

    Returns:
        The teacher layer of each student layer.

    >>> layer_map("uniform", 3, 6), layer_map("last_of_block", 4, 6), layer_map("top", 2, 6), layer_map("bottom", 2, 6)
    ((2, 4, 6), (1, 3, 4, 6), (5, 6), (1, 2))
    """
    if kind == "top":
        return tuple(range(teacher - student + 1, teacher + 1))
    if kind == "bottom":
        return tuple(range(1, student + 1))
    rounded = round if kind == "uniform" else int
    return tuple(max(1, int(rounded(j * teacher / student))) for j in range(1, student + 1))


def _quotient(hidden: int, size: int, field: str) -> int:
    """Return ``hidden / size``, which must be a whole number."""
    if not size or hidden % size:
        valid = [number for number in range(1, hidden + 1) if hidden % number == 0]
        nearest = min(valid, key=lambda number: abs(number - size))
        raise InputError(f"{field}: {size} does not divide the hidden width {hidden}; use {nearest}")
    return hidden // size
