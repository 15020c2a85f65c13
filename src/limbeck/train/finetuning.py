"""Train a candidate on its task: encode, fit, evaluate on the validation split, log the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.candidate import Candidate
from limbeck.core.requests import requests_of
from limbeck.data.batching import Encoded, encode, predict
from limbeck.storage.drafts import temporary_folder
from limbeck.train.config import TrainingConfig
from limbeck.train.kept_steps import keep_steps, write_weights
from limbeck.train.linear_probe import fit_head
from limbeck.train.loop import Evaluate, FitReport, fit
from limbeck.train.objectives import Objective, Progress, Weighted
from limbeck.train.task_loss import TargetScale, TaskLoss

if TYPE_CHECKING:
    from limbeck.core.step import RunContext
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification


PROBED = 64  #: training texts whose predictions reveal the unit of a regression model


def train_on_task(
    candidate: Candidate,
    objective: Objective,
    config: TrainingConfig,
    context: RunContext,
    phase: str = "",
    scale: TargetScale | None = None,
    after_step: Callable[[Progress], None] = lambda progress: None,
    *,
    by_request: bool = False,
    linear_probe: bool = False,
) -> FitReport:
    """Train ``candidate.model`` in place on the training split; keep the best weights by the task's metric.

    Args:
        candidate: The model and its task.
        objective: What to minimize.
        config: Hyper-parameters.
        context: Seed, scratch folder and log.
        phase: Name of the training where a step has several; each has its own checkpoints.
        scale: Scale of a regression's labels. Training uses standardized labels, and the output layer is rescaled
            before and after it, so that the model predicts in the task's unit again.
        after_step: Called after every optimizer step, and after the output layer was fitted.
        by_request: Whether a batch has whole requests, which the objective compares the documents of.
        linear_probe: Whether the output layer is fitted to the labels before the first step.

    Returns:
        A summary of the training.
    """
    task, model = candidate.task, candidate.model
    texts = _standardized(encode(task, "train", candidate.tokenizer), scale)
    if by_request:
        texts = replace(texts, requests=requests_of(texts.labels))
    if scale is not None:
        _standardize_output(scale, model, texts)
    keep = keep_steps(model, config.save_steps, context.scratch, phase, scale)

    def after(progress: Progress) -> None:
        keep(progress)
        after_step(progress)

    def fit_new_head() -> None:
        fit_head(model, texts, context.seed)
        context.log("the new head was fitted to the labels, before the encoder is trained")

    report = fit(
        model,
        objective,
        texts,
        config,
        seed=context.seed,
        evaluate=_evaluation(candidate, config, scale),
        scratch=context.scratch / phase if context.scratch else None,
        log=context.log,
        before_training=fit_new_head if linear_probe else None,
        after_step=after,
        memo=context.memo,
    )
    if scale is not None:
        scale.fold(model.classifier)
    model.fresh_head, model.untrained = False, ""
    best = "" if report.best_score is None else f", best {task.metric} {report.best_score:.4f} at {report.best_step}"
    context.log(f"{report.pace}, {report.examples_per_second:.1f} examples/s{best}")
    return report


def needs_probe(candidate: Candidate) -> bool:
    """Return whether a candidate's output layer is new, and can be fitted to the labels of its task before training."""
    kind = candidate.task.task_kind
    return candidate.model.fresh_head and not (kind.vectors or kind.grouped)


def _evaluation(candidate: Candidate, config: TrainingConfig, scale: TargetScale | None) -> Evaluate | None:
    """Return what scores a model on the validation split; None where nothing is evaluated, or can be."""
    task = candidate.task
    if not config.evaluations_per_epoch or "validation" not in task.splits:
        return None
    if task.only_score_of("validation") is not None:  # no correlation with it is defined
        return None
    validation = _standardized(encode(task, "validation", candidate.tokenizer), scale)

    def evaluate(trained: LimbeckForSequenceClassification) -> float:
        return task.score(predict(trained, validation, 2 * config.per_device_train_batch_size), validation.labels)

    return evaluate


def finetune_if_better(
    candidate: Candidate, config: TrainingConfig, context: RunContext, phase: str, score: float | None
) -> None:
    """Fine-tune a trained model on the task's labels, in place; weights that score worse than before are undone.

    Args:
        candidate: The model and its task.
        config: Hyper-parameters.
        context: Seed, scratch folder and log.
        phase: Name of this training in the step.
        score: Score of the model on the validation split; None where nothing is evaluated.
    """
    model = candidate.model
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    report = train_on_task(candidate, Weighted({"task": (1.0, TaskLoss(model.loss))}), config, context, phase)
    # one number decides, as between evaluations of one training: both weights cost the same
    if score is not None and report.best_score is not None and score > report.best_score:
        model.load_state_dict(before)
        context.log("fine-tuning on labels did not help: the weights before it are kept")


def target_scale(task: Task) -> TargetScale | None:
    """Compute the scale of a regression's training labels; None for other tasks."""
    kind = task.task_kind
    return TargetScale.of(task.split("train").labels) if kind.standardized else None


def _standardized(encoded: Encoded, scale: TargetScale | None) -> Encoded:
    if scale is None:
        return encoded
    return replace(encoded, labels=[(label - scale.mean) / scale.std for label in encoded.labels])


def _standardize_output(scale: TargetScale, model: LimbeckForSequenceClassification, texts: Encoded) -> None:
    """Make a model predict in standard deviations from the mean.

    A trained output layer predicts in the task's unit and is rescaled; a fresh one predicts values near 0, which
    already is the mean. Predictions on a few training texts, evenly spaced as files may be sorted, show which it is.
    """
    chosen = np.linspace(0, len(texts) - 1, min(len(texts), PROBED)).round().astype(int).tolist()
    some = replace(
        texts,
        input_ids=[texts.input_ids[i] for i in chosen],
        token_type_ids=None if texts.token_type_ids is None else [texts.token_type_ids[i] for i in chosen],
        labels=[texts.labels[i] for i in chosen],
    )
    answers, truth = np.asarray(predict(model, some))[:, 0], np.asarray(some.labels)
    rescaled = (answers - scale.mean) / scale.std
    if np.square(rescaled - truth).mean() < np.square(answers - truth).mean():
        scale.fold(model.classifier, inverse=True)


@contextmanager
def save_epochs(
    model: LimbeckForSequenceClassification, epochs: float, scratch: Path | None, scale: TargetScale | None = None
) -> Iterator[tuple[Callable[[Progress], None], list[Path]]]:
    """Save a model's weights before training, with a new head once it is fitted, and after every epoch.

    Args:
        model: The model that is trained in the body.
        epochs: Number of epochs, may be a fraction.
        scratch: Where the files stay; None deletes them after the body.
        scale: Scale of a regression's labels; the saved weights predict in the task's unit, as the model does before
            and after training.

    Yields:
        A function to call after every optimizer step, and the paths of the files that it writes.
    """
    with temporary_folder() as work:
        folder = (scratch or Path(work)) / "waypoints"
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"epoch_{epoch:03}.safetensors" for epoch in range(math.floor(epochs) + 1)]

        def after_step(progress: Progress) -> None:
            ends = {round(progress.total * epoch / epochs): epoch for epoch in range(len(files))}
            if progress.step in ends:
                write_weights(model, files[ends[progress.step]], scale)

        if not files[0].exists():  # it does after an interruption
            write_weights(model, files[0])
        yield after_step, files
