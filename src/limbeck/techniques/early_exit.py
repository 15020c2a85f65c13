"""Let heads after inner layers answer the texts that they are sure of.

References: DeeBERT (Xin et al., 2020, arXiv:2004.12993): a head after each layer answers when the entropy of its
probabilities is low. PABEE (Zhou et al., 2020, arXiv:2006.04152): it answers when enough heads in a row agree; all
heads are trained together, weighted by their depth. Differs: heads stand after a third and two thirds of the layers
unless told otherwise, since each costs time; they begin as copies of the last one and also learn from the teacher, or
without one from the last head (Zhang et al., 2019, arXiv:1905.08094); the threshold is not tried by hand, but tested on
validation texts so that a stated share of changed answers holds with 95 % confidence (as in CALM, Schuster et al.,
2022, arXiv:2207.07061); and a batch is answered as its texts would be alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.early_exits import Criterion, EarlyExits, kind_problem, length_problem, usual_layers
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.model import AnswersOnly, AnswerSource
from limbeck.core.step import RunContext, Step, step
from limbeck.errors import InputError
from limbeck.train.answer_distillation import AnswerDistillationConfig
from limbeck.train.config import TRAINING, TrainingConfig
from limbeck.train.layer_distillation import answers_only_problems

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.core.task_kind import TaskKind

ANSWERS = AnswerDistillationConfig(task_weight=1.0)


@step(
    replace(
        TRAINING,
        name="early_exit",
        label="with early exits",
        needs={"torch"},
        gives={"exits"},
        drops={"elastic"},
        reads={"seed", "teacher"},
        example={"num_train_epochs": 1, "learning_rate": 1e-3, "max_changed": 60},
    )
)
class EarlyExit(TechniqueWithGoal):
    """Train heads after inner layers together with the last one, and fit when they answer.

    The model then computes only as many layers as a text needs, in PyTorch and in ONNX. The mean time of a call falls
    most; the 99th percentile rises by the heads of the texts that go to the end.

    Attributes:
        training: How the model is trained.
        answers: How all heads learn from the answers of the teacher, and from labels beside them.
        layers: After how many layers a head stands; unless given, after a third and after two thirds of them.
        criterion: By what a head is sure: its largest probability (confidence), the entropy of its probabilities, or so
            many heads in a row before it that gave its answer (patience).
        max_changed: Largest share of answers (most probable classes) that may differ from the last head's, in per cent;
            it is shown to hold with 95 % confidence on validation, in floating point, or no head answers.
    """

    training: TrainingConfig = group(default=TrainingConfig())
    answers: AnswerDistillationConfig = group(default=ANSWERS)
    layers: tuple[Annotated[int, Ge(1), Le(1000)], ...] = ()
    criterion: Criterion = "confidence"
    max_changed: Annotated[float, Gt(0), Le(100)] = 1.0

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with trained heads and a fitted threshold."""
        from limbeck.model.early_exits import add_exits
        from limbeck.train.distillation import teacher_outputs
        from limbeck.train.early_exits import JointHeads, fit_rule
        from limbeck.train.finetuning import train_on_task

        depth = candidate.model.shape.depth
        try:
            exits = EarlyExits(self._exit_layers(depth), self.criterion)
        except InputError as error:
            raise InputError(f"early_exit: {error}") from error
        terms, outputs = self.answers.terms(candidate, ("logits",)), None
        if context.teacher is not None:
            teacher = context.teacher.open()
            if isinstance(teacher.model, AnswerSource):
                limits = AnswersOnly(context.teacher.key, "of its kind", probabilities=teacher.model.probabilities)
                if problems := self.teacher_problems(limits):
                    raise InputError(f"early_exit: {problems[0]}")
            outputs = teacher_outputs(terms, candidate, teacher, context.teacher.key, context)
        elif not self.answers.task_weight:
            raise InputError("early_exit has no teacher, and task_weight is 0: the last head would learn nothing")
        add_exits(candidate.model, exits)
        train_on_task(candidate, JointHeads(terms, (*exits.layers, depth), outputs), self.training, context)
        fitted = fit_rule(candidate, exits, self.max_changed / 100, context.log)
        yield replace(candidate, folder=None, facts=(fitted.fact("validation"),))

    def _exit_layers(self, depth: int) -> tuple[int, ...]:
        """Return after how many layers heads stand in a model of so many layers."""
        exit_layers = self.layers or usual_layers(depth)
        if not exit_layers:
            raise InputError(f"a head stands before the last layer, and the model has {depth}")
        if exit_layers[-1] >= depth:
            raise InputError(
                f"layers: the model has {depth} layers, so a head stands after at most {depth - 1}, got "
                f"{exit_layers[-1]}"
            )
        if self.criterion == "patience" and len(exit_layers) < 2:
            raise InputError(
                f"patience compares heads, and there is one, after {exit_layers[0]} layers; give more "
                "layers, or criterion: confidence"
            )
        return exit_layers

    def problems(self) -> list[str]:
        """Return what is wrong with the places of heads."""
        problems = []
        if list(self.layers) != sorted(set(self.layers)):
            problems.append(f"layers: should be ascending and differ, got {list(self.layers)}")
        if self.criterion == "patience" and len(self.layers) == 1:
            problems.append(
                f"layers: patience compares heads, so there should be at least two, got {list(self.layers)}"
            )
        return problems

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return that the time of texts that nobody sends says nothing."""
        problem = length_problem(target)
        return {"": problem} if problem else {}

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return why the heads cannot learn from a teacher that only gives answers."""
        return answers_only_problems(teacher, ("logits",), self.answers.logits_loss)

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that a head is sure of classes alone, or why their labels cannot be weighted."""
        problem = kind_problem(kind)
        return {"": problem} if problem else self.answers.kind_problems(kind)

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that the labels cannot have a weight where there are none."""
        return self.answers.label_problems()

    def required_splits(self) -> tuple[str, ...]:
        """Return the split that the threshold is fitted on."""
        return ("validation",)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this depth cannot have the heads; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            self._exit_layers(candidate.model.shape.depth)
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the same shape; None where no head can stand before the last layer."""
        return shape if (self.layers or usual_layers(shape.depth) or (shape.depth,))[-1] < shape.depth else None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Estimate the time of the training; the heads cost little beside the layers.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Mean tokens per text.
        """
        return self.training.estimated_seconds(shape, rows, tokens)
