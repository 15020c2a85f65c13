"""Objectives for a student with converted attention and a softmax teacher (He and Garner, 2025, arXiv:2410.06846).

The loss is the task's, plus distances to a teacher: one that stays fixed, one that is fine-tuned beside the student
(trajectory), or one that passes through the epoch checkpoints of its own fine-tuning (waypoint). Apart from weights and
optimizer states, which the loop saves, a step depends only on its number, so every guide resumes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from limbeck.core.shape import skipped_positions
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.distillation_losses import HiddenLoss, LogitLoss
from limbeck.train.layer_distillation import adapt_vocabulary
from limbeck.train.objectives import (
    Batch,
    CoTrainedModule,
    LiveTeacher,
    Loss,
    Progress,
    StepTaken,
    Term,
    Weighted,
    WeightedTerms,
)
from limbeck.train.task_loss import TaskLoss

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.model import TrainableEncoder
    from limbeck.model.encoder import LimbeckForSequenceClassification


@dataclass
class GuidedLoss:
    """A task loss, with the terms of a guide in the first steps.

    Attributes:
        unguided: The task loss.
        guided: The task loss with the guide's terms; None for no guide.
        until: Step from which on the guide is ignored; None never ignores it.
        prepare: Called before the guide is used in a step.
        freeze_steps: Steps in which only the parameters named in ``fresh`` are trained.
        fresh: Names of the new parameters.
    """

    unguided: Weighted
    guided: Weighted | None = None
    until: int | None = None
    prepare: Callable[[Progress], None] = lambda progress: None
    freeze_steps: int = 0
    fresh: frozenset[str] = frozenset()

    @property
    def modules(self) -> nn.ModuleDict:
        """Projections of the guide's terms, trained with the student."""
        return nn.ModuleDict() if self.guided is None else self.guided.modules

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield the loss of a batch.

        Args:
            model: The student.
            batch: The inputs and labels.
            progress: Decides whether the guide is used and what is frozen.
        """
        if self.freeze_steps:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(progress.step >= self.freeze_steps or name in self.fresh)
        if self.guided is None or (self.until is not None and progress.step >= self.until):
            yield from self.unguided(model, batch, progress)
            return
        self.prepare(progress)
        yield from self.guided(model, batch, progress)


@dataclass(kw_only=True)
class Trajectory(GuidedLoss):
    """A guide that is fine-tuned beside its student.

    It learns with dropout from the batch that the student has just learned from (the last one of a step where gradients
    are accumulated), and guides the student without dropout.

    Attributes:
        teacher: The guide.
        config: Its hyper-parameters.
        every: Steps of the student for one of the guide.
    """

    teacher: LimbeckForSequenceClassification
    config: TrainingConfig = field(default_factory=TrainingConfig)
    every: int = 1

    def __post_init__(self) -> None:
        self.co_trained = [CoTrainedModule(self.teacher, self.config, self.every)]
        self._batch: Batch = {}

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield the student's loss.

        Args:
            model: The student.
            batch: The inputs and labels.
            progress: Decides whether the guide is used and what is frozen.
        """
        self._batch = batch
        self.teacher.eval()
        yield from super().__call__(model, batch, progress)

    def auxiliary_losses(self, model: LimbeckForSequenceClassification, taken: StepTaken) -> Iterator[Loss]:
        """Yield the teacher's loss on the labels of the student's last batch."""
        self.teacher.train()
        loss = self.teacher.loss(self.teacher.run(self._batch)[0], self._batch["labels"])
        yield Loss(loss, {"teacher": loss.detach()})


@dataclass
class EpochCheckpoints:
    """Loads one checkpoint after the other into a teacher, each for an equal share of the student's steps."""

    teacher: nn.Module
    files: Sequence[Path]
    _loaded: int = -1

    def __call__(self, progress: Progress) -> None:
        """Load the checkpoint of this step, unless it is already loaded."""
        from safetensors.torch import load_file

        index = progress.step * len(self.files) // progress.total
        if index != self._loaded:
            self.teacher.load_state_dict(load_file(self.files[index]))
            self._loaded = index


def unguided(model: LimbeckForSequenceClassification) -> Weighted:
    """Return the task's loss alone."""
    return Weighted({"task": (1.0, TaskLoss(model.loss))})


def guided(
    model: LimbeckForSequenceClassification, teacher: LimbeckForSequenceClassification, terms: WeightedTerms
) -> Weighted | None:
    """Return the task's loss with terms that compare the student with a teacher; None if all weights are 0.

    Args:
        model: The student.
        teacher: The guide.
        terms: The terms, with their weights.
    """
    used = {name: term for name, term in terms.items() if term[0]}
    return Weighted({"task": (1.0, TaskLoss(model.loss)), **used}, LiveTeacher(teacher)) if used else None


def distances(
    student: LimbeckForSequenceClassification,
    guide: LimbeckForSequenceClassification,
    alpha_output: float,
    alpha_layer: float,
    temperature: float,
    problem_type: str,
) -> dict[str, tuple[float, Term]]:
    """Build the terms that compare a student with its guide.

    Args:
        student: The converted model.
        guide: The guide, of the same depth or deeper.
        alpha_output: Weight of the logits.
        alpha_layer: Weight of the mean squared errors of the embeddings and of all layers, summed.
        temperature: Softens both distributions of the logits.
        problem_type: Problem type of transformers.

    Returns:
        The terms by name, with their weights.
    """
    depths = (student.shape.depth, guide.shape.depth)
    hidden = HiddenLoss("mse", "uniform", depths, (student.shape.hidden, guide.shape.hidden))
    logits = LogitLoss("kl", temperature, problem_type)
    return {"logits": (alpha_output, logits), "hidden": (alpha_layer * (depths[0] + 1), hidden)}


def checked_teacher(
    candidate: Candidate, teacher: Candidate, *, guides: bool, max_length: int | None, epoch_checkpoints: int
) -> Candidate:
    """Return a teacher that reads the student's tokens, after checking that it can take part.

    Args:
        candidate: The student, before its conversion.
        teacher: The fine-tuned model.
        guides: Whether the student is compared with it.
        max_length: Tokens that the student should be able to read; None for as many as now.
        epoch_checkpoints: How many checkpoints of the teacher's own fine-tuning are needed.

    Returns:
        The teacher, with the student's vocabulary.

    Raises:
        InputError: It cannot guide this student, or has too few checkpoints.
    """
    adapted = adapt_vocabulary(candidate, teacher)
    if adapted is None:
        raise InputError("linearize: the teacher lacks tokens of the candidate's vocabulary")
    if adapted is not teacher and epoch_checkpoints:
        raise InputError("linearize: the kept epochs read another vocabulary than the candidate; use guide: target")
    depth, most = candidate.model.shape.depth, adapted.model.shape.depth
    if guides and depth > most:
        raise InputError(f"linearize: the model has {depth} layers, more than its teacher's {most}")
    if len(adapted.epoch_checkpoints) < epoch_checkpoints:
        short = ", of one epoch at least" if adapted.epoch_checkpoints else ""
        raise InputError(
            f"linearize: the teacher's fine-tuning kept no epochs; give it 'finetune: {{keep: every_epoch}}'{short}, "
            "or name a folder with models epoch_1, epoch_2, … as epoch checkpoints"
        )
    readable = longest(adapted.model)
    if guides and max_length is not None and max_length > readable:
        raise InputError(
            f"linearize.max_length: the teacher reads {readable} tokens, so it cannot guide at {max_length}; use "
            "guide: trajectory or unguided"
        )
    return adapted


def restart(model: LimbeckForSequenceClassification, teacher: Candidate) -> None:
    """Give a model the weights that its teacher had before it was fine-tuned.

    Args:
        model: The model, which is changed in place.
        teacher: The teacher, with its epoch checkpoints.

    Raises:
        InputError: They are those of another model.
    """
    from safetensors.torch import load_file

    weights, state = load_file(teacher.epoch_checkpoints[0]), model.state_dict()
    if {name: tensor.shape for name, tensor in weights.items()} != {
        name: tensor.shape for name, tensor in state.items()
    }:
        raise InputError(
            f"linearize.start: the weights before the fine-tuning are those of another model than the candidate "
            f"({teacher.model.shape} and {model.shape}); use start: candidate"
        )
    model.load_state_dict(weights)


def longest(model: TrainableEncoder) -> int:
    """Return the number of tokens that a model has positions for."""
    return int(model.config.max_positions) - skipped_positions(model.config.position_offset)


def missing_positions(model: TrainableEncoder, max_length: int | None) -> int | None:
    """Return how many positions a model needs to read that many tokens; None if it has enough."""
    if max_length is None or max_length <= longest(model):
        return None
    return max_length + int(model.config.max_positions) - longest(model)
