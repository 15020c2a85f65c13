"""Heads are trained together, and their rule is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.early_exits import EarlyExits
from limbeck.core.shape import Shape
from limbeck.data.batching import collate, encode
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.model.early_exits import add_exits, all_logits
from limbeck.train.distillation_losses import LogitLoss
from limbeck.train.early_exits import JointHeads, fit_rule, head_answers
from limbeck.train.objectives import Outputs, Progress
from limbeck.train.task_loss import TaskLoss

EXITS = EarlyExits((1, 2))


@pytest.fixture
def candidate(make_model):
    task = toy_task("classification", train=16, validation=40, test=8)
    tokenizer = toy_tokenizer(task)
    shape = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=task.num_labels, vocab_size=len(tokenizer))
    add_exits(model, EXITS)
    return Candidate(model, tokenizer, task)


def terms_of(model):
    kind = "single_label_classification"
    return {"task": (1.0, TaskLoss(model.loss)), "logits": (0.5, LogitLoss("kl", 2.0, kind, None))}


@pytest.mark.parametrize("taught", [True, False])
def test_the_loss_is_the_mean_weighted_by_depth(candidate, taught):
    model, terms = candidate.model, terms_of(candidate.model)
    batch = collate(encode(candidate.task, "train", candidate.tokenizer), list(range(8)))
    logits = [each.detach() for each in all_logits(model, batch)]
    teacher = torch.randn(8, candidate.task.num_labels)
    objective = JointHeads(terms, (1, 2, 3), (lambda batch, taps: Outputs(teacher, {})) if taught else None)
    (loss,) = objective(model, batch, Progress(0, 1))

    def joint(own, given):
        return sum(weight * term(Outputs(own, {}), Outputs(given, {}), batch) for weight, term in terms.values())

    if taught:
        each = [joint(own, teacher) for own in logits]
    else:
        each = [*(joint(own, logits[-1]) for own in logits[:-1]), model.loss(logits[-1], batch["labels"])]
    expected = sum(depth * value for depth, value in zip((1, 2, 3), each, strict=True)) / 6
    torch.testing.assert_close(loss.total, expected)
    assert list(loss.terms) == ["after_1", "after_2", "after_3"]


def test_without_a_teacher_the_last_head_learns_nothing_from_the_others(candidate):
    model = candidate.model
    batch = collate(encode(candidate.task, "train", candidate.tokenizer), list(range(8)))
    terms = {"logits": terms_of(model)["logits"], "task": (0.0, TaskLoss(model.loss))}
    (loss,) = JointHeads(terms, (1, 2, 3))(model, batch, Progress(0, 1))
    loss.total.backward()
    assert not model.classifier.weight.grad.any()
    assert model.exits[0].classifier.weight.grad.any()


def test_answers_of_all_heads_do_not_depend_on_batches(candidate):
    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    together, alone = head_answers(candidate.model, encoded), head_answers(candidate.model, encoded, 1)
    assert together.shape == (3, len(encoded), candidate.task.num_labels)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_rule_is_set_and_reported(candidate):
    messages = []
    fitted = fit_rule(candidate, EXITS, 0.6, messages.append)
    assert candidate.model.config.early_exits == fitted.exits.to_json()
    assert candidate.model.exits.threshold == fitted.exits.threshold is not None
    assert "% after layer 1" in messages[0]
    assert "of 40 validation answers in floating point change, with 95% confidence at most" in messages[0]
    assert np.isclose(sum(fitted.shares), 1)


def test_too_few_texts_leave_all_to_the_last_head(candidate):
    messages = []
    assert fit_rule(candidate, EXITS, 0.01, messages.append).exits.threshold is None
    assert not candidate.model.leaves_early
    assert messages[0].startswith(
        "no head answers early: of 40 validation texts none leaves at a threshold of which they"
    )
