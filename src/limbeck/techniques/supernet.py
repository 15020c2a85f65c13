"""Train a super-network: one model whose slices of many shapes all answer the task.

References: DynaBERT (Hou et al., 2020, arXiv:2004.04037): heads and neurons sorted by importance, then distilled at
several widths and depths; AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686) and Bigger&Faster (arXiv:2209.12127): one
random slice a step imitates a frozen teacher. Differs: any mixture of both, on the task's own texts and those that
``augment`` made; slices are leading parts of the weights, computed without copies; hidden channels are sorted too.

    steps:
      - finetune: {}
      - supernet: {layers: [2, 6], hidden: [128, 384], heads: [2, 12], ffn: [128, 1536]}
      - search: {}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.step import NO_TEACHER, RunContext, Step, problems_of, step
from limbeck.core.step_keys import ScoresParts
from limbeck.errors import InputError
from limbeck.train.config import LAST_WEIGHTS, TRAINING, TrainingConfig, label_weight_problems, softmax_problems
from limbeck.train.layer_distillation import adapt_vocabulary
from limbeck.train.supernet_config import ChannelOrder, SupernetConfig

if TYPE_CHECKING:
    from limbeck.core.search_space import Space
    from limbeck.core.shape import Shape
    from limbeck.core.task_kind import TaskKind
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.pruning.slicing import Scores


@step(
    replace(
        TRAINING,
        name="supernet",
        label="made elastic",
        version=4,
        needs={"torch", "teacher"},
        gives={"elastic"},
        reads={"seed", "teacher"},
        presets={
            "autotinybert": {
                "rule": "single",
                "samples": 1,
                # the paper has no logits, and no task: see pretrain_supernet
                "match": ["logits", "hidden", "relations"],
                "num_train_epochs": 5,
            },
            "dynabert": {"rule": "sandwich", "in_place": True, "match": ["logits", "hidden"]},
        },
        example={
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "layers": (1, 2),
            "hidden": (16, 32),
            "heads": (1, 4),
            "ffn": (32, 64),
            "samples": 1,
            "match": ("logits", "hidden", "relations"),
        },
    )
)
class Supernet(ScoresParts, TechniqueWithGoal):
    """Train the candidate so that its slices of all shapes of a space are good models; 'search' chooses among them.

    A range that is not given stays at the candidate's own value. Without any, depth, hidden width and heads go down to
    a third of it and neurons to a sixth; or, where 'pretrain_supernet' or 'supernet' came before, the space is the one
    of that step. What is in that step's order is not sorted again. The weights after the last step are kept.

    Attributes:
        training: How the model is trained.
        slices: The space of slices, and how they learn.
        in_place: All but the largest slice learn the answers of the largest, not the teacher's (sandwich).
        match: What is imitated: answers, last hidden states, relations of the last attention.
        temperature: Softens both distributions over classes; without effect on other answers.
        logits_weight: Weight of the logits.
        task_weight: Weight of the task's own loss on the labels.
        sort_samples: Training texts by which importance is judged.
    """

    training: TrainingConfig = group(default=LAST_WEIGHTS)
    slices: SupernetConfig = group(default=SupernetConfig())
    in_place: bool = False
    match: Annotated[tuple[Literal["logits", "hidden", "relations"], ...], MinLen(1)] = ("logits", "hidden")
    temperature: Annotated[float, Gt(0), Le(1_000)] = 2.0
    logits_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    task_weight: Annotated[float, Ge(0), Le(1_000_000)] = 0.0
    sort_samples: Annotated[int, Ge(1)] = 1024

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if self.in_place and self.slices.rule != "sandwich":
            problems.append("in_place: the largest slice teaches the others, so it needs rule: sandwich")
        if self.in_place and "logits" not in self.match:
            problems.append("in_place: the largest slice teaches by its logits; add logits to match")
        return problems

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that a temperature has no effect on answers of a kind."""
        return softmax_problems(kind, self, ("temperature",))

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that the labels cannot have a weight where there are none."""
        return label_weight_problems(self.task_weight)

    def search_space(self, shape: Shape) -> Space:
        """Return the space of slices that a model of this shape is trained for."""
        return self.slices.space(shape, "supernet")

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Estimate the time of training, which is that of the slices.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return self.slices.relative_cost * self.training.estimated_seconds(shape, rows, tokens)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Explain why the model cannot become a super-network; None if it can.

        Args:
            candidate: A model of the shape that will come in.
            context: Services of the run.
            earlier: The steps in between.
        """
        return self.slices.impossible(candidate.model, "supernet")

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the super-network; its configuration says of which space."""
        from accelerate.utils import set_seed

        from limbeck.model.pruning.subnetwork import extract
        from limbeck.train.finetuning import train_on_task
        from limbeck.train.objectives import LiveTeacher
        from limbeck.train.supernet_loss import SandwichLoss
        from limbeck.train.vector_width import match_width

        if problems := problems_of(self):
            raise InputError(f"supernet: {problems[0]}")
        if context.teacher is None:
            raise InputError(f"supernet {NO_TEACHER}")
        teacher = adapt_vocabulary(candidate, context.teacher.open())
        if teacher is None:
            raise InputError("supernet: the teacher lacks tokens of the candidate's vocabulary")
        if candidate.task.task_kind.vectors and "logits" in self.match:
            set_seed(context.seed)
            match_width(candidate.model, teacher.model, context.log)
        trained_order = ChannelOrder.of(candidate.model)
        slices, shape = self.slices, candidate.model.shape
        space = trained_order.space if trained_order is not None and slices.free else slices.space(shape, "supernet")
        order = slices.arrange(candidate.model, trained_order, space, self.importance(candidate, context.seed))
        model = extract(candidate.model, space.largest)
        context.log(f"{space.size:,} slices, from {space.smallest} to {space.largest}")
        set_seed(context.seed)  # the projection is drawn here, before the loop seeds itself
        candidate = replace(candidate, model=model, folder=None)
        terms = self.terms(candidate, teacher, order)
        objective = SandwichLoss(
            terms, LiveTeacher(teacher.model.eval()), space, slices.rule, slices.samples, self.in_place, context.seed
        )
        train_on_task(candidate, objective, self.training, context)
        order.mark(model, answers=True)
        yield candidate

    def importance(self, candidate: Candidate, seed: int) -> Callable[[LimbeckForSequenceClassification], Scores]:
        """Return a function that scores the heads and neurons of a model on the candidate's task."""
        from limbeck.data.calibration import chosen_batches
        from limbeck.model.pruning.importance import fisher

        texts = (candidate.task, candidate.tokenizer, self.sort_samples, seed)
        return lambda model: fisher(model, chosen_batches(*texts))

    def terms(self, candidate: Candidate, teacher: Candidate, order: ChannelOrder) -> dict[str, tuple[float, Any]]:
        """Return the weighted terms of the loss of a slice.

        Args:
            candidate: The candidate that the step works on.
            teacher: The model to imitate.
            order: How the channels are sorted.
        """
        from limbeck.train.distillation_losses import LogitLoss
        from limbeck.train.task_loss import TaskLoss

        terms: dict[str, tuple[float, Any]] = {}
        if self.task_weight:
            terms["task"] = (self.task_weight, TaskLoss(candidate.model.loss))
        if "logits" in self.match:
            terms["logits"] = (self.logits_weight, LogitLoss("kl", self.temperature, candidate.task.problem_type))
        return terms | self.slices.slice_terms(self.match, teacher.model, order)
