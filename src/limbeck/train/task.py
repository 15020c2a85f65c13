"""Train a candidate on its task: encode, fit, evaluate on the validation split, say what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck.core.candidate import Candidate
from limbeck.data.batches import encode, predict
from limbeck.train.fit import FitReport, fit
from limbeck.train.objectives import Objective
from limbeck.train.plan import Plan

if TYPE_CHECKING:
    from limbeck.core.step import Lab


def train_on_task(candidate: Candidate, objective: Objective, plan: Plan, lab: Lab, phase: str = "") -> FitReport:
    """Train ``candidate.model`` in place on the training split; keep the best weights by the task's metric.

    ``phase`` names the training where a step has several: each has checkpoints of its own.
    """
    task, model = candidate.task, candidate.model
    evaluate = None
    if plan.evaluations_per_epoch and "validation" in task.splits:
        validation = encode(task, "validation", candidate.tokenizer)

        def evaluate(trained: Any) -> float:
            return task.score(predict(trained, validation, 2 * plan.per_device_train_batch_size), validation.labels)

    report = fit(
        model,
        objective,
        encode(task, "train", candidate.tokenizer),
        plan,
        seed=lab.seed,
        evaluate=evaluate,
        scratch=lab.scratch / phase if lab.scratch else None,
        log=lab.log,
    )
    best = "" if report.best_score is None else f", best {task.metric} {report.best_score:.4f} at {report.best_step}"
    lab.log(f"{report.steps} steps in {report.seconds:.0f} s, {report.examples_per_second:.1f} examples/s{best}")
    return report
