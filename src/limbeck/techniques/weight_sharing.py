"""Train one model whose slices of a few given shapes all answer the task, on its labels.

References: single-path one-shot search (Guo et al., 2020, arXiv:1904.00420): one slice a step; the sandwich rule (Yu
and Huang, 2019, arXiv:1903.05134): the largest, the smallest and some between in every step. Differs: the shapes are a
list, not a space, and nothing is distilled: that is ``supernet``. A slice learns from the same labels as a model of its
shape that is fine-tuned alone, so the two can be compared.

    steps:
      - weight_sharing: {layers: [2, 4, 6]}
      - each: {student_init: {layers: [2, 4, 6], init: slice}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.search_space import Listed
from limbeck.core.shape import Shape, check_head_widths
from limbeck.core.step import RunContext, Step, step
from limbeck.errors import InputError
from limbeck.train.config import LAST_WEIGHTS, NO_LABELS, TRAINING, TrainingConfig

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind

LISTS = ("layers", "hidden", "heads", "ffn", "head_dim")
Sizes = tuple[Annotated[int, Ge(1), Le(1_000_000)], ...]


@step(
    replace(
        TRAINING,
        name="weight_sharing",
        formerly="share",
        label="weight-shared",
        version=2,
        needs={"torch"},
        drops={"elastic"},
        reads={"seed"},
        standardizes=True,
        sizes={"layers", "heads", "ffn"},
        example={
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "layers": (1, 2),
            "head_dim": (4, 8),
            "resplit": True,
        },
    )
)
class WeightSharing(TechniqueWithGoal):
    """Train the candidate so that its slices of the listed shapes answer the task.

    'student_init: {init: slice}' takes one of them.

    Lists are read side by side: the first shape has the first of every list. One number stands for all shapes, and
    what is not given stays as it is. What no slice uses is cut away first. The weights after the last step are kept.

    Attributes:
        training: How the model is trained.
        layers: Numbers of layers; slices keep the first.
        hidden: Widths of the hidden states.
        heads: Heads in a layer.
        ffn: Feed-forward neurons in a layer.
        head_dim: Widths of a head.
        resplit: Narrower heads are the leading channels of all heads together, split anew; else the leading of each.
        rule: Slices of a step (the largest, the smallest and some drawn; or some drawn, nothing else).
        samples: Slices that are drawn in each step.
    """

    training: TrainingConfig = group(default=LAST_WEIGHTS)
    layers: Sizes = ()
    hidden: Sizes = ()
    heads: Sizes = ()
    ffn: Sizes = ()
    head_dim: Sizes = ()
    resplit: bool = False
    rule: Literal["sandwich", "single"] = "sandwich"
    samples: Annotated[int, Ge(1)] = 1

    def problems(self) -> list[str]:
        """Return the problems of the lists."""
        counts = {name: len(getattr(self, name)) for name in LISTS if getattr(self, name)}
        if not counts:
            return [f"give the shapes: {', '.join(LISTS)}, each a list"]
        if len(set(counts.values()) - {1}) > 1:
            lengths = ", ".join(f"{name} has {count}" for name, count in counts.items())
            return [f"lists are read side by side, so they should be equally long, or of one number: {lengths}"]
        return []

    def shapes(self, before: Shape) -> Listed:
        """Return the slices of a model of that shape."""
        count = max(len(getattr(self, name)) for name in LISTS)
        columns = {name: (given := getattr(self, name)) * (count if len(given) == 1 else 1) for name in LISTS}
        shapes = []
        for index in range(count):
            sizes = {name: column[index] for name, column in columns.items() if column}
            depth = sizes.get("layers", before.depth)
            if depth > before.depth:
                raise InputError(f"weight_sharing.layers: {depth} is more than the model's {before.depth}")
            rows = [
                replace(row, heads=sizes.get("heads", row.heads), ffn=sizes.get("ffn", row.ffn))
                for row in before.layers[:depth]
            ]
            hidden, head_dim = sizes.get("hidden", before.hidden), sizes.get("head_dim", before.head_dim)
            shapes.append(Shape(hidden, head_dim, tuple(rows)))
            if not shapes[-1] <= before:
                raise InputError(
                    f"weight_sharing: {shapes[-1]} is larger than the model, {before}; a slice can only be smaller"
                )
        return Listed(tuple(dict.fromkeys(shapes)))

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot become the shared model; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            shapes = self.shapes(candidate.model.shape).shapes
            check_head_widths((shape.head_dim for shape in shapes), rotary=bool(candidate.model.style.rotary_theta))
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible."""
        try:
            return self.shapes(shape).whole
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: a drawn slice has about half the work of the whole.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        slices = self.samples * 0.5 + (1.2 if self.rule == "sandwich" else 0.0)
        return slices * self.training.estimated_seconds(shape, rows, tokens)

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that there is nothing to learn from without labels."""
        return {"": f"{NO_LABELS}; use 'supernet', whose slices learn from the teacher's answers"}

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the model of which all are slices."""
        from limbeck.model.pruning.subnetwork import check_slice, extract
        from limbeck.train.finetuning import target_scale, train_on_task
        from limbeck.train.supernet_loss import SandwichLoss
        from limbeck.train.task_loss import TaskLoss

        if problems := self.problems():
            raise InputError(f"weight_sharing: {problems[0]}")
        few, style = self.shapes(candidate.model.shape), candidate.model.style
        for shape in few.shapes:  # 'student_init' would refuse it, but after the training
            check_slice(shape, candidate.model.shape, style.embedding_size, rotary=bool(style.rotary_theta))
        candidate = replace(candidate, model=extract(candidate.model, few.whole, self.resplit), folder=None)
        context.log(f"{len(few.shapes)} slices of {few.whole}")
        rule: Literal["sandwich", "single"] = self.rule if len(few.shapes) > 1 else "single"
        between = len(few.shapes) - 2 if rule == "sandwich" else len(few.shapes)
        terms = {"task": (1.0, TaskLoss(candidate.model.loss))}
        samples = min(self.samples, between)  # of two shapes a sandwich has both already
        objective = SandwichLoss(terms, None, few, rule, samples, seed=context.seed)
        train_on_task(candidate, objective, self.training, context, scale=target_scale(candidate.task))
        yield candidate
