"""The loss on a task's labels: plain, weighted by class, or focal; and the scale of a regression's labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from limbeck.core.kinds import find
from limbeck.errors import InputError
from limbeck.model.output_losses import OUTPUT_LOSSES
from limbeck.train.config import weight_problems
from limbeck.train.objectives import Batch, Outputs, Taps, Term

if TYPE_CHECKING:
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification

MOST_WEIGHT = 100.0  #: of the positives of a very rare label; more would make single rows the whole loss


@dataclass(frozen=True)
class TaskLoss:
    """The loss of the task on its labels: ``model.loss`` of the student."""

    loss: Callable[[Tensor, Tensor], Tensor]
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss on the labels.

        Args:
            student: Outputs of the student.
            teacher: Ignored.
            batch: The inputs and labels.
        """
        return self.loss(student.logits, batch["labels"])


def balanced_weights(kind: str, labels: Sequence[Any], count: int) -> Tensor:
    """Compute a weight for every class, or for the positives of every label, so that rare ones count as much.

    Args:
        kind: 'classification', 'tokens' or 'multilabel'.
        labels: The labels of a split's rows.
        count: Number of classes.

    Returns:
        [classes]: rows / (classes * rows of the class), as scikit-learn's ``balanced``; for multi-label tasks negatives
        per positive, at most ``MOST_WEIGHT``. 1 for a class without rows, and for a label that no row or every row has.
    """
    task_kind = find(kind)
    if task_kind.several:
        positives = torch.tensor(labels, dtype=torch.float32).sum(0)
        negatives = len(labels) - positives
        weights = (negatives / positives.clamp_min(1)).clamp_max(MOST_WEIGHT)
        return torch.where((positives > 0) & (negatives > 0), weights, torch.ones(count))
    flat = [index for label in labels for index in task_kind.classes_in(label)]
    counts = torch.bincount(torch.tensor(flat), minlength=count).to(torch.float32)
    present = (counts > 0).sum()
    return torch.where(counts > 0, len(flat) / (present * counts.clamp_min(1)), torch.ones(count))


@dataclass(frozen=True)
class WeightedTaskLoss:
    """Cross-entropy with a weight for every class, focused on wrong predictions (Lin et al., 2017, arXiv:1708.02002).

    ``-w_y (1 - p_y)^gamma log p_y``, averaged over the weights ``w_y`` for classes, as torch's ``cross_entropy`` does,
    and over all decisions in multi-label tasks, where ``w`` weights positives. ``gamma`` 0 is plain cross-entropy.
    Differs from the paper: no second balance factor beside the class weights.
    """

    problem_type: str
    weights: Tensor | None = None
    gamma: float = 0.0
    taps: ClassVar[Taps] = {}

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Compute the loss on the labels.

        Args:
            student: Outputs of the student.
            teacher: Ignored.
            batch: The inputs and labels.
        """
        logits, labels = student.logits.float(), batch["labels"]
        weights = None if self.weights is None else self.weights.to(logits.device)
        return OUTPUT_LOSSES[self.problem_type].weighted(logits, labels, weights, self.gamma)


def task_loss(
    model: LimbeckForSequenceClassification,
    task: Task,
    class_weights: str | Sequence[float] = "none",
    gamma: float = 0.0,
) -> Term:
    """Choose the loss on the labels of a task.

    Args:
        model: The student; its own ``loss`` is used where nothing is weighted.
        task: The kind of labels, and those of the training split.
        class_weights: 'none', 'balanced', or a weight for every label in the order of ``task.label_names``.
        gamma: Focusing parameter of the focal loss; 0 for none.

    Raises:
        InputError: The task is a regression, or the number of weights is not the number of labels.
    """
    if class_weights == "none" and not gamma:
        return TaskLoss(model.loss)
    for reason in weight_problems(task.task_kind, class_weights, gamma).values():
        raise InputError(reason)
    weights = None
    if class_weights == "balanced":
        weights = balanced_weights(task.kind, task.split("train").labels, task.num_labels)
    elif not isinstance(class_weights, str):
        if len(class_weights) != task.num_labels:
            raise InputError(
                f"class_weights: {len(class_weights)} weights, but the task has {task.num_labels} labels: "
                f"{', '.join(task.label_names[:12])}"
            )
        weights = torch.tensor(list(class_weights), dtype=torch.float32)
    return WeightedTaskLoss(task.problem_type, weights, gamma)


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of a regression's training labels; training uses ``(y - mean) / std``."""

    mean: float
    std: float

    @classmethod
    def of(cls, labels: Sequence[float]) -> TargetScale:
        """Compute the scale of a training split's labels; the standard deviation of constant labels is taken as 1."""
        values = torch.tensor([float(label) for label in labels], dtype=torch.float64)
        std = float(values.std(unbiased=False))
        return cls(float(values.mean()), std if std > 0 else 1.0)

    def standardize(self, values: Tensor) -> Tensor:
        """Convert values in the task's unit to standard deviations from the mean."""
        return (values - self.mean) / self.std

    def fold(self, output: nn.Linear, *, inverse: bool = False) -> None:
        """Rescale an output layer in place, from standardized values to the task's unit; ``inverse`` undoes that."""
        with torch.no_grad():
            if inverse:
                output.weight.div_(self.std)
                output.bias.sub_(self.mean).div_(self.std)
            else:
                output.weight.mul_(self.std)
                output.bias.mul_(self.std).add_(self.mean)
