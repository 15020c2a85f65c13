"""Training on a task: it learns, keeps the best weights, and says what came out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.core.task import Task
from limbeck.data.batching import Encoded, encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.train.config import TrainingConfig
from limbeck.train.finetuning import _standardize_output, train_on_task
from limbeck.train.objectives import Weighted
from limbeck.train.pair_loss import PairLoss
from limbeck.train.rank_loss import RankLoss
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


def test_pairs_that_all_have_one_score_choose_no_weights(make_model):
    """The correlation with a constant is always 0, so the first weights would be the best."""
    task = toy_task("embedding", train=16, validation=8, test=8)
    alike = {name: replace(split, labels=(1.0,) * len(split)) for name, split in task.splits.items()}
    task = replace(task, splits=alike)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(
        make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer)), tokenizer, task
    )
    loss = PairLoss.of("contrastive", [1.0], (), candidate.model.width)
    config = TrainingConfig(num_train_epochs=1.0, per_device_train_batch_size=8)
    report = train_on_task(candidate, Weighted({"task": (1.0, loss)}), config, RunContext())
    assert report.history == []


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


def test_requests_are_kept_together_where_a_loss_compares_their_documents(make_model, monkeypatch):
    task = toy_task("rerank", train=40, validation=12, test=12)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(make_model(labels=1, kind="rerank", vocab_size=len(tokenizer)), tokenizer, task)
    seen = []

    def loss(student, teacher, batch):
        seen.append(batch["labels"][:, 0].tolist())
        return RankLoss("listwise")(student, teacher, batch)

    loss.taps = {}
    config = TrainingConfig(num_train_epochs=1.0, per_device_train_batch_size=20, evaluations_per_epoch=0)
    train_on_task(candidate, Weighted({"task": (1.0, loss)}), config, RunContext(), by_request=True)
    assert sum(map(len, seen)) == 40
    sizes = Counter(int(label[0]) for label in task.split("train").labels)
    for query, size in sizes.items():
        assert sum(query in queries for queries in seen) == -(-size // 20)
