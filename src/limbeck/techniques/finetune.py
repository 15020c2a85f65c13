"""Fine-tune on the labels of the task.

Reference: Devlin et al., 2019, arXiv:1810.04805. Differs: length-bucketed batches, several evaluations an epoch, and
the best checkpoint is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

from limbeck.core.candidate import Candidate
from limbeck.core.step import Lab, step
from limbeck.train.plan import Plan


@step("finetune", needs={"torch"}, gives={"teacher"}, reads={"seed"})
class Finetune(Plan):
    """Fine-tune all weights on the task's labels; later steps take the result as their teacher.

    Attributes:
        keep: The best weights alone, or beside them those before the first epoch and after every one: waypoints, which
            'linearize' may follow. Each takes as much disk as the model.
    """

    keep: Literal["best", "every_epoch"] = "best"

    example: ClassVar[dict[str, Any]] = {"num_train_epochs": 2, "learning_rate": 1e-3}

    def apply(self, candidate: Candidate, lab: Lab) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from limbeck.train.objectives import TaskLoss, Weighted
        from limbeck.train.task import epochs_kept, train_on_task

        objective = Weighted({"task": (1.0, TaskLoss(candidate.model.loss))})
        if self.keep == "best":
            train_on_task(candidate, objective, self, lab)
            yield replace(candidate, folder=None)
            return
        with epochs_kept(candidate.model, self.num_train_epochs, lab.scratch) as (after_step, waypoints):
            train_on_task(candidate, objective, self, lab, after_step=after_step)
            yield replace(candidate, folder=None, waypoints=tuple(waypoints))
