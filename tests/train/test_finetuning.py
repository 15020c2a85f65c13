"""Training on a task: it learns, keeps the best weights, and says what came out."""

from __future__ import annotations

import torch

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.core.task import Task
from limbeck.data.batching import Encoded, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.train.config import TrainingConfig
from limbeck.train.finetuning import _standardize_output, train_on_task
from limbeck.train.objectives import Weighted
from limbeck.train.task_loss import TargetScale, TaskLoss

TASK = toy_task(train=96, validation=48, test=8)
PLAN = TrainingConfig(num_train_epochs=8, learning_rate=3e-3, per_device_train_batch_size=16, evaluations_per_epoch=1)


def trained(make_model, task, plan):
    tokenizer = toy_tokenizer(TASK)
    candidate = Candidate(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, task)
    lines = []
    context = RunContext(log=lambda message, **numbers: lines.append(message) if message else None)
    objective = Weighted({"task": (1.0, TaskLoss(candidate.model.loss))})
    return candidate, train_on_task(candidate, objective, plan, context), lines


def test_the_best_weights_on_validation_are_kept(make_model):
    candidate, report, lines = trained(make_model, TASK, PLAN)
    encoded = encode(TASK, "validation", candidate.tokenizer)
    assert TASK.score(predict(candidate.model, encoded), encoded.labels) == report.best_score
    assert report.best_score == max(entry["score"] for entry in report.history)
    assert lines[-1].endswith(f"best accuracy {report.best_score:.4f} at {report.best_step}")
    assert report.steps == 8 * 6


def test_without_a_validation_split_the_last_weights_are_kept(make_model):
    task = Task(TASK.name, TASK.kind, {"train": TASK.split("train")}, TASK.label_names, TASK.metric, max_length=32)
    _, report, lines = trained(make_model, task, TrainingConfig(num_train_epochs=1))
    assert report.best_score is None
    assert "best" not in lines[-1]


def test_texts_all_over_the_split_show_whether_a_regression_head_is_trained(make_model, monkeypatch):
    model = make_model(labels=1, kind="regression")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(10.0)  # trained: always the mean, in the task's unit
    labels = [10.0 + (i - 200) / 20 for i in range(401)]
    scale = TargetScale.of(labels)
    texts = Encoded(
        [[2, 7, 3]] * 401, None, [float(scale.standardize(torch.tensor(x))) for x in labels], 0, "regression"
    )
    seen = []

    def predicted(model, some):
        seen.extend(some.labels)
        return torch.zeros(len(some), 1).numpy() + 10.0

    monkeypatch.setattr("limbeck.train.finetuning.predict", predicted)
    _standardize_output(scale, model, texts)
    assert (len(seen), seen[0], seen[-1]) == (64, texts.labels[0], texts.labels[-1])
    assert abs(model.classifier.bias.item()) < 1e-5  # rescaled to standard deviations from the mean
