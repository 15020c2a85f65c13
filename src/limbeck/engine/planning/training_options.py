"""User options of the trainings that ``compress`` plans, and their minimum length if texts are few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.train.config import TrainingConfig
from limbeck.train.equal_labels import pair_loss_problem, rank_loss_problem

if TYPE_CHECKING:
    from limbeck.core.task import Task

BATCH = 32
"""Texts in a batch of these trainings."""

LEAST_STEPS, STEPS_PER_LABEL = 300, 10
"""Fewest optimizer steps of a training, and fewest for each label: where texts are few, epochs are too short."""


@dataclass(frozen=True)
class Training:
    """Options of the trainings that ``compress`` plans; None leaves the choice to the effort and the task.

    Attributes:
        epochs: Passes over the training texts in the fine-tuning [default: by effort].
        learning_rate: Learning rate of the fine-tuning [default: 5e-5].
        min_steps: Fewest optimizer steps of every training, for small datasets [default: 300, and 10 for each label].
        class_weights: With 'balanced', rare labels weigh as much as frequent ones in the fine-tuning.
        early_stopping_patience: Stop training after this many evaluations without a better score; 0 never stops early.
    """

    epochs: Annotated[float, Gt(0), Le(100_000)] | None = None
    learning_rate: Annotated[float, Gt(0), Le(100)] | None = None
    min_steps: Annotated[int, Ge(0)] | None = None
    class_weights: Literal["none", "balanced"] = "none"
    early_stopping_patience: Annotated[int, Ge(0)] = 0

    def shared(self, task: Task, epochs: float) -> TrainingConfig:
        """Return what every training on the task has in common."""
        steps = self.min_steps
        if steps is None:
            least = max(LEAST_STEPS, STEPS_PER_LABEL * task.num_labels)
            rows = len(task.split("train"))
            steps = least if epochs * rows / BATCH < least else 0
        return TrainingConfig(min_steps=steps, early_stopping_patience=self.early_stopping_patience)

    def finetune(self, task: Task, epochs: float) -> TrainingConfig:
        """Return the hyper-parameters of the fine-tuning."""
        epochs = self.epochs or epochs
        config = replace(self.shared(task, epochs), num_train_epochs=float(epochs))
        return config if self.learning_rate is None else replace(config, learning_rate=self.learning_rate)


def loss_of(task: Task) -> dict[str, str]:
    """Return the field of ``finetune`` with a loss for labels that the usual one cannot learn; empty where it can."""
    kind, labels = task.task_kind, task.split("train").labels
    if kind.grouped:
        gains = [gain for _, gain, _ in labels]
        scores = task.metric == "overlap_at_10" or any(gain < 0 or gain % 1 for gain in gains)
        return {"rank_loss": "pointwise"} if scores or rank_loss_problem("binary", gains) else {}
    if kind.vectors and pair_loss_problem("cosent", labels):
        return {"pair_loss": "contrastive"}
    return {}
