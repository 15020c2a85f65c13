"""The guide of a student with converted attention, a group of fields (He and Garner, 2025, arXiv:2410.06846).

Imports no torch; ``train/linearization.py`` has the losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.field_groups import CheckedGroup, without_effect
from limbeck.core.step import NO_TEACHER
from limbeck.errors import InputError
from limbeck.train.config import PASSES, TrainingConfig, softmax_problems

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.step import RunContext
    from limbeck.core.task_kind import TaskKind
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.train.linearization import GuidedLoss

FINE_TUNED = ("target", "waypoint", "hybrid")
"""Guides that are a fine-tuned model."""


@dataclass(frozen=True)
class GuideConfig(CheckedGroup):
    """What a student with new attention is compared with, and how strongly.

    Attributes:
        guide: Nothing (unguided), the fine-tuned teacher (target), a copy of the candidate that is fine-tuned beside it
            (trajectory), the teacher's epochs one after the other (waypoint), or the teacher for the first steps alone
            (hybrid).
        alpha_output: Weight of the logits.
        alpha_layer: Weight of the hidden states.
        temperature: Softens both distributions over classes; without effect on other answers.
        start: Weights to begin with: those of the candidate, or those that the teacher had before it was fine-tuned;
            pretrained for guide: waypoint unless given, else candidate.
        freeze_steps: Steps in which only the new projections are trained.
        max_distill_steps: Steps after which hybrid goes on without its guide.
        teacher_learning_rate: Highest learning rate of a trajectory's teacher.
        teacher_update_cycle: Steps of the student to one of a trajectory's teacher.
    """

    guide: Literal["unguided", "target", "trajectory", "waypoint", "hybrid"] = "target"
    alpha_output: Annotated[float, Ge(0), Le(1_000_000)] = 0.0
    alpha_layer: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    temperature: Annotated[float, Gt(0), Le(1_000)] = 2.0
    start: Literal["candidate", "pretrained"] | None = None
    freeze_steps: Annotated[int, Ge(0)] = 0
    max_distill_steps: Annotated[int, Ge(1)] | None = None
    teacher_learning_rate: Annotated[float, Gt(0), Le(100)] = 5e-5
    teacher_update_cycle: Annotated[int, Ge(1), Le(1_000_000)] = 1

    @property
    def needs_teacher(self) -> bool:
        """Whether the recipe's teacher takes part."""
        return self.guide in FINE_TUNED or self.start == "pretrained"

    @property
    def compares_states(self) -> bool:
        """Whether hidden states are compared."""
        return self.guide != "unguided" and self.alpha_layer > 0

    @property
    def from_pretrained(self) -> bool:
        """Whether the student begins with the weights from before the fine-tuning."""
        return self.start == "pretrained" or (self.start is None and self.guide == "waypoint")

    @property
    def relative_cost(self) -> float:
        """How long a training step takes beside one without a guide: its forward pass, and a trajectory's steps."""
        more = {"unguided": 0.0, "trajectory": 1 + 3 / self.teacher_update_cycle}.get(self.guide, 1.0)
        return 1 + more / PASSES

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if (self.guide == "hybrid") != (self.max_distill_steps is not None):
            problems.append(f"max_distill_steps belongs to guide: hybrid, which needs it; got guide: {self.guide}")
        if self.guide != "unguided" and not self.alpha_output and not self.alpha_layer:
            problems.append(f"guide: {self.guide} has no weight; give alpha_output or alpha_layer, or guide: unguided")
        if self.guide != "trajectory":
            names = ("teacher_learning_rate", "teacher_update_cycle")
            problems += without_effect(self, names, f"with guide: {self.guide}, whose teacher is not trained")
        if self.guide == "unguided":
            problems += without_effect(self, ("alpha_output", "alpha_layer"), "with guide: unguided")
        if self.guide == "unguided" or not self.alpha_output:
            problems += without_effect(self, ("temperature",), "without alpha_output")
        return problems

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that a temperature has no effect on answers of a kind."""
        return softmax_problems(kind, self, ("temperature",))

    def epoch_problems(self, checkpoints: str | None, *, epochs: bool) -> list[str]:
        """Return whose epochs are missing.

        Args:
            checkpoints: Folder with the teacher's epochs; None for those that it kept.
            epochs: Whether the teacher kept its epochs.
        """
        if epochs or checkpoints is not None or not self.from_pretrained:
            return []
        wanted = "guide: waypoint" if self.guide == "waypoint" else "start: pretrained"
        return [
            f"{wanted} needs the weights that the teacher's fine-tuning kept; give it "
            "'finetune: {keep: every_epoch}', or name a folder with models epoch_1, epoch_2, … as checkpoints"
        ]

    def teacher(
        self, candidate: Candidate, context: RunContext, max_length: int | None, checkpoints: str | None = None
    ) -> Candidate | None:
        """Open the teacher, and check that it can take part; None where there is none.

        Args:
            candidate: The student, before its conversion.
            context: Has the recipe's teacher.
            max_length: Tokens that the student should be able to read; None for as many as now.
            checkpoints: Folder with the teacher's epochs; None for those that it kept.

        Raises:
            InputError: There is no teacher, or it cannot guide this student.
        """
        from limbeck.model.kept_weights import with_epochs
        from limbeck.train.linearization import checked_teacher

        if not self.needs_teacher:
            return None
        if context.teacher is None:
            raise InputError(f"linearize: guide {self.guide} {NO_TEACHER}, or use guide: trajectory")
        return checked_teacher(
            candidate,
            with_epochs(context.teacher.open(), checkpoints, candidate, context.scratch),
            guides=self.guide in FINE_TUNED,
            max_length=max_length,
            epoch_checkpoints=2 if self.guide == "waypoint" else int(self.from_pretrained),
        )

    def objective(
        self,
        student: LimbeckForSequenceClassification,
        guide: LimbeckForSequenceClassification | None,
        training: TrainingConfig,
        *,
        problem_type: str,
        epoch_checkpoints: Sequence[Path] = (),
        fresh: frozenset[str] = frozenset(),
    ) -> GuidedLoss:
        """Return the loss of the student.

        Args:
            student: The converted model.
            guide: The guide; None for an unguided student.
            training: Hyper-parameters of the student's training.
            problem_type: Problem type of transformers.
            epoch_checkpoints: Weights of the guide before its fine-tuning and after every epoch, for waypoint.
            fresh: Names of the student's new weights.
        """
        from limbeck.train import linearization as losses

        alone = losses.unguided(student)
        if self.guide == "unguided" or guide is None:
            return losses.GuidedLoss(alone, freeze_steps=self.freeze_steps, fresh=fresh)
        weights = (self.alpha_output, self.alpha_layer)
        both = losses.guided(student, guide, losses.distances(student, guide, *weights, self.temperature, problem_type))
        if self.guide == "trajectory":
            return losses.Trajectory(
                alone,
                both,
                freeze_steps=self.freeze_steps,
                fresh=fresh,
                teacher=guide,
                config=replace(training, learning_rate=self.teacher_learning_rate),
                every=self.teacher_update_cycle,
            )
        loss = losses.GuidedLoss(alone, both, self.max_distill_steps, freeze_steps=self.freeze_steps, fresh=fresh)
        if self.guide == "waypoint":
            loss.prepare = losses.EpochCheckpoints(guide, epoch_checkpoints[1:])
        return loss
