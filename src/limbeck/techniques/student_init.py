"""Make a smaller student of the candidate: drawn anew in another shape, or some of its layers copied.

References: Jiao et al., 2020, arXiv:1909.10351 (TinyBERT: a fresh student, then general distillation); Sanh et al.,
2019, arXiv:1910.01108 (DistilBERT: every second layer copied); Sun et al., 2019, arXiv:1908.09355. A third kind of
student is the pruned model itself: ``prune`` in place of this step. Differs: embeddings are kept where they fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.shape import Shape, check_head_widths
from limbeck.core.step import RunContext, Step, StepInfo, step
from limbeck.core.student_shape import Init, StudentShape
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
        sizes={"layers", "heads", "ffn"},
        headless=True,
        example={"layers": 1, "hidden": 16, "ffn": 32},
    )
)
class StudentInit(TechniqueWithGoal):
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
    init: Init = "fresh"

    @property
    def student(self) -> StudentShape:
        """The shape that the fields give."""
        return StudentShape(self.layers, self.hidden, self.heads, self.ffn, self.head_dim, self.init)

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
            shape = self.student.of(candidate.model.shape)
            check_head_widths([shape.head_dim], rotary=bool(candidate.model.style.rotary_theta))
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible."""
        try:
            return self.student.of(shape)
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return 0: it takes no time to speak of.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return 0.0

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the student."""
        from limbeck.model.pruning.slicing import Cut, slice_to
        from limbeck.model.pruning.subnetwork import extract, fresh_student

        if problems := self.problems():
            raise InputError(f"student_init: {problems[0]}")
        before = candidate.model.shape
        try:
            shape = self.student.of(before)
            check_head_widths([shape.head_dim], rotary=bool(candidate.model.style.rotary_theta))
        except InputError as error:
            raise InputError(f"student_init: {error}") from error
        if self.init == "layers":
            model = slice_to(candidate.model, Cut.whole_layers(before, self.student.source_layers(before.depth)))
        elif self.init == "fresh":
            model = fresh_student(candidate.model, shape, context.seed)
        else:
            model = extract(candidate.model, shape, self.init == "resplit" or None)
        context.log(f"{before} -> {shape}")
        yield replace(candidate, model=model, folder=None)
