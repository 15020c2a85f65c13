"""Objectives of a converted student that a softmax teacher guides (He and Garner, 2025, arXiv:2410.06846).

The loss is that of the task, and beside it distances to a teacher: one that stands still, one that is fine-tuned beside
the student (trajectory), or one that goes through the checkpoints of its own fine-tuning (waypoint). What a step does
follows from its number alone, apart from weights and optimisers, which the loop keeps: every guide resumes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.train.config import TrainingConfig
from limbeck.train.objectives import Batch, CoTrainedModule, LiveTeacher, Loss, Progress, StepTaken, TaskLoss, Weighted


@dataclass
class GuidedLoss:
    """A task loss with the guide's terms beside it, in the first ``until`` steps; then, or without a guide, alone.

    ``prepare``: what a guide does before it answers in a step. ``freeze_steps``: steps in which only the parameters
    that ``fresh`` names are trained.
    """

    alone: Weighted
    guided: Weighted | None = None
    until: int | None = None
    prepare: Callable[[Progress], None] = lambda progress: None
    freeze_steps: int = 0
    fresh: frozenset[str] = frozenset()

    @property
    def modules(self) -> nn.ModuleDict:
        """Projections of the guide's terms, trained with the student."""
        return nn.ModuleDict() if self.guided is None else self.guided.modules

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The loss of a batch."""
        if self.freeze_steps:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(progress.step >= self.freeze_steps or name in self.fresh)
        if self.guided is None or (self.until is not None and progress.step >= self.until):
            yield from self.alone(model, batch, progress)
            return
        self.prepare(progress)
        yield from self.guided(model, batch, progress)


@dataclass
class Trajectory(GuidedLoss):
    """A guide that is fine-tuned beside its student: ``plan`` is its own, and it steps once in ``every`` steps.

    It learns from the batch that the student has just learnt from, with dropout; what it tells the student is without.
    Where gradients are accumulated, that is the last of the step's batches.
    """

    teacher: Any = None
    plan: TrainingConfig = field(default_factory=TrainingConfig)
    every: int = 1

    def __post_init__(self) -> None:
        self.companions = [CoTrainedModule(self.teacher, self.plan, self.every)]
        self._batch: Batch = {}

    def __call__(self, model: Any, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """The student's loss."""
        self._batch = batch
        self.teacher.eval()
        yield from super().__call__(model, batch, progress)

    def follow(self, model: Any, taken: StepTaken) -> Iterator[Loss]:
        """The teacher's loss on the labels."""
        self.teacher.train()
        loss = self.teacher.loss(self.teacher.run(self._batch)[0], self._batch["labels"])
        yield Loss(loss, {"teacher": loss.detach()})


@dataclass
class Waypoints:
    """A teacher whose weights are read from file after file, each for an equal share of the student's steps."""

    teacher: Any
    files: Sequence[Path]
    _at: int = -1

    def __call__(self, progress: Progress) -> None:
        """Load the weights of this moment, unless they are there."""
        from safetensors.torch import load_file

        place = progress.step * len(self.files) // progress.total
        if place != self._at:
            self.teacher.load_state_dict(load_file(self.files[place]))
            self._at = place


def alone(model: Any) -> Weighted:
    """The task's loss and nothing else."""
    return Weighted({"task": (1.0, TaskLoss(model.loss))})


def beside(model: Any, teacher: Any, terms: dict[str, tuple[float, Any]]) -> Weighted | None:
    """The task's loss with terms that look at a teacher; None where they have no weight."""
    kept = {name: term for name, term in terms.items() if term[0]}
    return Weighted({"task": (1.0, TaskLoss(model.loss)), **kept}, LiveTeacher(teacher)) if kept else None
