"""Fine-tune on the labels of the task.

Reference: Devlin et al., 2019, arXiv:1810.04805. Differs: length-bucketed batches, several evaluations an epoch, and
the best checkpoint is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.train.plan import Plan


@step("finetune", needs={"torch"}, gives={"teacher"}, reads={"seed"})
class Finetune(Plan):
    """Fine-tune all weights on the task's labels; later steps take the result as their teacher."""

    example: ClassVar[dict[str, Any]] = {"num_train_epochs": 2, "learning_rate": 1e-3}

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from limbeck.train.objectives import TaskLoss, Weighted
        from limbeck.train.task import train_on_task

        objective = Weighted({"task": (1.0, TaskLoss(candidate.model.loss))})
        train_on_task(candidate, objective, self, lab)
        yield replace(candidate, folder=None)
