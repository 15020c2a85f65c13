"""Distillation of answers: its hyper-parameters as a group of fields, and the loss terms built from them.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.field_groups import CheckedGroup, without_effect
from limbeck.train.config import label_weight_problems, softmax_problems, weight_problems

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.task_kind import TaskKind
    from limbeck.train.objectives import Term


@dataclass(frozen=True)
class AnswerDistillationConfig(CheckedGroup):
    """How a student learns from the answers of its teacher, and from labels beside them.

    Attributes:
        temperature: Softens both distributions over classes; without effect on other answers, and with mse.
        logits_weight: Weight of the logits.
        task_weight: Weight of the task's own loss on the labels.
        logits_loss: How logits are compared: those of classes in each of these ways, those of several labels by binary
            cross-entropy unless by mse, numbers and vectors always by their squared error.
        class_weights: Weight of every label in the task's own loss: 'none', 'balanced', or numbers in their order.
        focal_gamma: Focus of the task's own loss on texts that are still wrong; 0 for plain cross-entropy.
        matryoshka: Of vectors, numbers of leading components that are to be vectors of their own, as the teacher's
            leading components are; none unless given.
    """

    temperature: Annotated[float, Gt(0), Le(1_000)] = 2.0
    logits_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    task_weight: Annotated[float, Ge(0), Le(1_000_000)] = 0.0
    logits_loss: Literal["kl", "soft_cross_entropy", "mse"] = "kl"
    class_weights: Literal["none", "balanced"] | tuple[Annotated[float, Ge(0), Le(1_000_000)], ...] = "none"
    focal_gamma: Annotated[float, Ge(0), Le(100)] = 0.0
    matryoshka: tuple[Annotated[int, Ge(1), Le(100_000)], ...] = ()

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if (self.class_weights != "none" or self.focal_gamma) and not self.task_weight:
            problems.append(
                "class_weights, focal_gamma: weigh the loss on labels, which has no weight here; set task_weight"
            )
        if self.logits_loss == "mse":
            problems += without_effect(self, ("temperature",), "with logits_loss: mse")
        if len(set(self.matryoshka)) < len(self.matryoshka):
            problems.append(f"matryoshka: should differ, got {list(self.matryoshka)}")
        return problems

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return why the labels of a kind of task cannot be weighted, or what its answers are not compared by."""
        unused = {"matryoshka": "is for vectors"} if self.matryoshka and not kind.vectors else {}
        if self.logits_loss != "mse":  # which is what numbers are compared by, and excludes a temperature
            unused |= softmax_problems(kind, self, ("temperature", "logits_loss"))
        return unused | weight_problems(kind, self.class_weights, self.focal_gamma)

    def label_problems(self) -> dict[str, str]:
        """Return that labels cannot have a weight where there are none."""
        return label_weight_problems(self.task_weight)

    def terms(self, candidate: Candidate, match: Collection[str]) -> dict[str, tuple[float, Term]]:
        """Return the terms of the loss that compare answers: with the labels, and with the teacher's logits.

        Args:
            candidate: The student.
            match: What is imitated.

        Raises:
            InputError: The student's vectors have not so many components.
        """
        from limbeck.train.distillation_losses import LogitLoss
        from limbeck.train.finetuning import target_scale
        from limbeck.train.matryoshka import LeadingComponents, check_sizes
        from limbeck.train.task_loss import task_loss

        terms: dict[str, tuple[float, Term]] = {}
        if self.task_weight:
            loss = task_loss(candidate.model, candidate.task, self.class_weights, self.focal_gamma)
            terms["task"] = (self.task_weight, loss)
        if "logits" in match:
            distance: Term = LogitLoss(
                self.logits_loss, self.temperature, candidate.task.problem_type, target_scale(candidate.task)
            )
            if self.matryoshka:
                check_sizes(self.matryoshka, candidate.model.width)
                distance = LeadingComponents(distance, self.matryoshka)
            terms["logits"] = (self.logits_weight, distance)
        return terms
