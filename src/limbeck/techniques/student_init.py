"""Make a smaller student of the candidate: drawn anew in another shape, or some of its layers copied.

References: Jiao et al., 2020, arXiv:1909.10351 (TinyBERT: a fresh student, then general distillation); Sanh et al.,
2019, arXiv:1910.01108 (DistilBERT: every second layer copied); Sun et al., 2019, arXiv:1908.09355. A third kind of
student is the pruned model itself: ``prune`` in place of this step. Differs: embeddings are kept where they fit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Step, StepInfo, Technique, step
from limbeck.errors import InputError

WIDTHS = ("hidden", "heads", "ffn", "head_dim")


@step(
    StepInfo(
        "student_init",
        formerly="student",
        label="shrunk",
        needs={"torch"},
        drops={"elastic"},
        reads={"seed"},
        headless=True,
        example={"layers": 1, "hidden": 16, "ffn": 32},
    )
)
class StudentInit(Technique):
    """Give the candidate another, smaller shape; tokenizer, vocabulary and family stay.

    What is not given stays as it is. A fresh student knows nothing yet: let it imitate a teacher next
    (``pretrain_distill``, ``distill``).

    Attributes:
        layers: Number of layers.
        hidden: Width of the hidden states; embeddings of another width are drawn anew.
        heads: Attention heads in every layer; hidden / head_dim where that one alone is given.
        ffn: Feed-forward neurons in every layer.
        head_dim: Width of a head; hidden / heads when one of the two is given.
        init: fresh draws all layers and the head anew; layers copies every k-th layer and changes nothing else; slice
            takes the leading layers, heads, neurons and channels, which is what a super-network is trained for; resplit
            does so too, but narrower heads are the leading channels of all heads together, split anew.
    """

    layers: Annotated[int, Ge(1), Le(1_000)] | None = None
    hidden: Annotated[int, Ge(1), Le(100_000)] | None = None
    heads: Annotated[int, Ge(1), Le(10_000)] | None = None
    ffn: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    head_dim: Annotated[int, Ge(1), Le(10_000)] | None = None
    init: Literal["fresh", "layers", "slice", "resplit"] = "fresh"

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        given = [name for name in WIDTHS if getattr(self, name) is not None]
        if self.layers is None and not given:
            return [f"give the shape of the student: layers, {', '.join(WIDTHS)}"]
        if self.init == "layers" and given:
            return [f"init: layers copies layers as they are, so it cannot change {', '.join(given)}; use init: fresh"]
        return []

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot become the student; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            self.shape(candidate.model.shape)
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible."""
        try:
            return self.shape(shape)
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """No time worth speaking of.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return 0.0

    def chosen(self, depth: int) -> tuple[int, ...]:
        """Return the layers to copy, counted from 0: ``m(j) = round(j N / M)``; of a slice, the first."""
        count = depth if self.layers is None else self.layers
        if self.init in ("slice", "resplit"):
            return tuple(range(count))
        return tuple(max(1, round(j * depth / count)) - 1 for j in range(1, count + 1))

    def shape(self, before: Shape) -> Shape:
        """Return the shape of a student of a model with shape ``before``."""
        if self.layers is not None and self.layers > before.depth:
            raise InputError(f"student.layers: {self.layers} is more than the model's {before.depth}")
        chosen = [before.layers[index] for index in self.chosen(before.depth)]
        hidden, heads, head_dim = self.hidden or before.hidden, self.heads, self.head_dim
        if head_dim is not None and heads is None:
            heads = self._parts(hidden, head_dim, "head_dim")
        elif head_dim is None and (self.hidden or self.heads):
            counts = {heads} if heads else {layer.heads for layer in chosen}
            if len(counts) > 1:
                raise InputError(f"student: the layers have {sorted(counts)} heads; give heads, head_dim, or both")
            head_dim = self._parts(hidden, max(counts), "heads")
        layers = tuple(
            replace(layer, heads=layer.heads if heads is None else heads, ffn=self.ffn or layer.ffn) for layer in chosen
        )
        shape = Shape(hidden, head_dim or before.head_dim, layers)
        if not shape <= before:
            raise InputError(f"student_init: {shape} is larger than the model, {before}; a student can only be smaller")
        return shape

    def _parts(self, hidden: int, size: int, field: str) -> int:
        """``hidden / size``, which must be a whole number."""
        if not size or hidden % size:
            valid = [n for n in range(1, hidden + 1) if hidden % n == 0]
            near = min(valid, key=lambda n: abs(n - size))
            raise InputError(f"student.{field}: {size} does not divide the hidden width {hidden}; use {near}")
        return hidden // size

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the student."""
        from limbeck.model.pruning.subnetwork import extract

        if problems := self.problems():
            raise InputError(f"student_init: {problems[0]}")
        before = candidate.model.shape
        shape = self.shape(before)
        if self.init == "layers":
            model = _copied(candidate.model, self.chosen(before.depth))
        elif self.init in ("slice", "resplit"):
            model = extract(candidate.model, shape, self.init == "resplit" or None)
        else:
            model = _fresh(candidate.model, shape, context.seed)
        context.log(f"{before} -> {shape}")
        yield replace(candidate, model=model, folder=None)


def _copied(model: Any, layers: tuple[int, ...]) -> Any:
    """Return the model with these layers only."""
    from limbeck.model.pruning.slicing import Cut, slice_to

    whole = Cut.everything(model.shape)
    heads, ffn = (tuple(rows[index] for index in layers) for rows in (whole.heads, whole.ffn))
    return slice_to(model, Cut(layers, heads, ffn))


def _fresh(model: Any, shape: Shape, seed: int) -> Any:
    """Return a model of this shape with the old labels, initialized as BERT is: normal, 0.02."""
    import torch

    from limbeck.model.pruning.slicing import write_shape
    from limbeck.model.pruning.subnetwork import forget_slices

    config = copy.deepcopy(model.config)
    forget_slices(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = type(model)(write_shape(config, shape))
    student.encoder.shape = shape
    tables = student.encoder.embeddings.state_dict()
    for name, old in model.encoder.embeddings.state_dict().items():
        if name in tables and tables[name].shape == old.shape:
            tables[name].copy_(old)
    student.fresh_head = True
    return student.eval()
