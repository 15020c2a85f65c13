import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from limbeck.core.candidate import Candidate
from limbeck.core.metrics import METRICS, rmse
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.core.step_keys import identity
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.techniques.distill import Distill
from limbeck.techniques.finetune import Finetune


@pytest.mark.parametrize(
    ("kind", "goal"),
    [("classification", 0.9), ("pairs", 0.85), ("multilabel", 0.9), ("regression", 0.8), ("tokens", 0.9)],
)
def test_every_kind_of_task_is_learned(make_model, kind, goal):
    task = toy_task(kind, train=512, validation=64, test=64)
    tokenizer = toy_tokenizer(task)
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), **quiet)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.3)
    step = Finetune.of(num_train_epochs=12, learning_rate=3e-3, evaluations_per_epoch=1)
    (finetuned,) = step.apply(Candidate(model, tokenizer, task), RunContext())
    test = encode(task, "test", tokenizer)
    assert task.score(predict(finetuned.model, test), test.labels) > goal


@pytest.mark.parametrize(
    ("kind", "fresh", "wanted", "probed"),
    [
        ("classification", True, True, True),
        ("tokens", True, True, True),
        ("classification", False, True, False),
        ("classification", True, False, False),
        ("rerank", True, True, False),
    ],
)
def test_a_new_output_layer_is_fitted_before_training(make_model, kind, fresh, wanted, probed):
    task = toy_task(kind, train=64, validation=16, test=16)
    candidate = small(make_model, task)
    candidate.model.fresh_head = fresh
    lines = []
    context = RunContext(log=lambda message, **numbers: lines.append(message))
    step = Finetune.of(num_train_epochs=1, learning_rate=1e-9, evaluations_per_epoch=0, linear_probe=wanted)
    before = candidate.model.classifier.weight.detach().clone()
    (tuned,) = step.apply(candidate, context)
    assert any("new head was fitted" in line for line in lines) == probed
    assert torch.allclose(tuned.model.classifier.weight, before, atol=1e-4) != probed
    assert not tuned.model.fresh_head


def test_a_training_that_is_worse_than_the_fitted_head_changes_nothing(make_model):
    task = toy_task(train=256, validation=64, test=16)
    candidate = small(make_model, task)
    candidate.model.fresh_head = True
    encoder = {name: tensor.clone() for name, tensor in candidate.model.encoder.state_dict().items()}
    lines = []
    context = RunContext(log=lambda message, **numbers: lines.append(message))
    (tuned,) = Finetune.of(num_train_epochs=1, learning_rate=0.5).apply(candidate, context)
    assert lines[-1].endswith(" at 0")
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in tuned.model.encoder.state_dict().items())


def scaled_task():
    """A regression whose labels lie around 250,000."""
    task = toy_task("regression", train=256, validation=64, test=64)
    splits = {
        name: Split(split.texts, tuple(250_000.0 + 50_000.0 * label for label in split.labels), split.pairs)
        for name, split in task.splits.items()
    }
    return replace(task, splits=splits)


def small(make_model, task, seed=0):
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    tokenizer = toy_tokenizer(task)
    model = make_model(
        Shape.uniform(layers=2, hidden=32, heads=4, ffn=64),
        labels=task.num_labels,
        kind=task.kind,
        vocab_size=len(tokenizer),
        seed=seed,
        **quiet,
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.3)
    return Candidate(model, tokenizer, task)


def test_a_regression_far_from_zero_is_learned_in_its_own_unit(make_model):
    task = scaled_task()
    step = Finetune.of(num_train_epochs=12, learning_rate=3e-3, evaluations_per_epoch=1)
    (finetuned,) = step.apply(small(make_model, task), RunContext())
    test = encode(task, "test", finetuned.tokenizer)
    answers = predict(finetuned.model, test)[:, 0]
    spread = float(np.std(test.labels))
    assert METRICS["r2"](answers, test.labels) > 0.6
    assert rmse(answers, test.labels) < 0.65 * spread
    assert abs(answers.mean() - np.mean(test.labels)) < 0.3 * spread


def test_a_student_of_such_a_regression_learns_from_its_teacher(make_model):
    task = scaled_task()
    step = Finetune.of(num_train_epochs=12, learning_rate=3e-3, evaluations_per_epoch=1)
    (teacher,) = step.apply(small(make_model, task), RunContext())
    context = RunContext(teacher=Teacher("t", lambda: teacher))
    distill = Distill.of(num_train_epochs=10, learning_rate=3e-3, evaluations_per_epoch=1)
    (student,) = distill.apply(small(make_model, task, seed=5), context)
    test = encode(task, "test", student.tokenizer)
    answers = predict(student.model, test)[:, 0]
    assert METRICS["r2"](answers, predict(teacher.model, test)[:, 0]) > 0.6


def test_epochs_kept_of_a_regression_answer_in_the_tasks_unit(make_model, tmp_path):
    task = scaled_task()
    step = Finetune.of(num_train_epochs=2, learning_rate=3e-3, evaluations_per_epoch=0, keep="every_epoch")
    (finetuned,) = step.apply(small(make_model, task), RunContext(scratch=tmp_path))
    checkpoint = load_file(finetuned.epoch_checkpoints[-1])
    for name, weight in finetuned.model.state_dict().items():
        assert torch.equal(checkpoint[name], weight), name


def test_rare_labels_are_found_with_balanced_weights(make_model):
    """3 of 100 texts are positive: the plain loss answers 'no' to all within these steps, the balanced one does not."""
    rng = random.Random(0)
    rows = [("sunny", 1) if row % 33 == 0 else ("gloomy", 0) for row in range(400)]
    texts = [f"the {rng.choice(['film', 'one', 'very'])} {word}" for word, _ in rows]
    split = Split(tuple(texts), tuple(label for _, label in rows))
    task = Task("rare", "classification", {"train": split, "validation": split}, ("no", "yes"), "balanced_accuracy", 32)
    scores = {}
    for weights in ("none", "balanced"):
        step = Finetune.of(num_train_epochs=6, learning_rate=2e-3, evaluations_per_epoch=0, class_weights=weights)
        (finetuned,) = step.apply(small(make_model, task), RunContext())
        encoded = encode(task, "validation", finetuned.tokenizer)
        scores[weights] = task.score(predict(finetuned.model, encoded), encoded.labels)
    assert scores["balanced"] > scores["none"]


def test_fields_that_are_newer_than_stored_results_stay_out_of_the_key():
    """Keys of before these fields: results that people have are found again."""
    plain = identity(Finetune())
    assert not {"min_steps", "early_stopping_patience", "class_weights", "focal_gamma"} & plain.keys()
    assert identity(Finetune.of(min_steps=5))["min_steps"] == 5
    assert identity(Finetune.of(class_weights=(1.0, 2.0)))["class_weights"] == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_checkpoints_of_epochs_begin_with_the_fitted_head(make_model, tmp_path, kind):
    """From the first of them the training leads to the others, so its head is no random one."""
    task = toy_task(kind, train=64, validation=16, test=8)
    tokenizer = toy_tokenizer(task)
    build = partial(make_model, labels=task.num_labels, kind=kind, vocab_size=len(tokenizer))
    model, scores = build(), []
    model.fresh_head = True
    step = Finetune.of(num_train_epochs=1, keep="every_epoch", learning_rate=1e-3, evaluations_per_epoch=1)
    context = RunContext(scratch=tmp_path, log=lambda message, **numbers: scores.append(numbers.get("score")))
    (finetuned,) = step.apply(Candidate(model, tokenizer, task), context)
    before = build()
    before.load_state_dict(load_file(finetuned.epoch_checkpoints[0]))
    validation = encode(task, "validation", tokenizer)
    first = task.score(predict(before, validation), validation.labels)
    assert first == pytest.approx(next(score for score in scores if score is not None), abs=1e-6)


def test_a_training_that_stops_early_leaves_the_epoch_checkpoints_it_reached(make_model, tmp_path):
    task = toy_task(train=64, validation=16, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=3, vocab_size=len(tokenizer))
    step = Finetune.of(
        num_train_epochs=6, keep="every_epoch", learning_rate=1e-12, evaluations_per_epoch=1, early_stopping_patience=1
    )
    finetuned = next(iter(step.apply(Candidate(model, tokenizer, task), RunContext(scratch=tmp_path))))
    assert [path.name for path in finetuned.epoch_checkpoints] == [
        f"epoch_{epoch:03}.safetensors" for epoch in range(3)
    ]
    assert all(path.is_file() for path in finetuned.epoch_checkpoints)
