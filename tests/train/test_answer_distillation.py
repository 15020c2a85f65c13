"""How a student learns from answers: the fields and the terms that follow from them."""

from __future__ import annotations

import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import KINDS
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.train.answer_distillation import AnswerDistillationConfig
from limbeck.train.matryoshka import LeadingComponents


def candidate(make_model, kind):
    task = toy_task(kind, train=8, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(kind=task.kind, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def test_terms_are_those_that_have_a_weight(make_model):
    student = candidate(make_model, "classification")
    assert set(AnswerDistillationConfig().terms(student, ("logits", "hidden"))) == {"logits"}
    assert set(AnswerDistillationConfig(task_weight=0.5).terms(student, ("logits",))) == {"task", "logits"}
    assert not AnswerDistillationConfig().terms(student, ("hidden",))


def test_leading_components_of_vectors(make_model):
    student = candidate(make_model, "embedding")
    (weight, term) = AnswerDistillationConfig(matryoshka=(16, 8), logits_weight=2.0).terms(student, ("logits",))[
        "logits"
    ]
    assert weight == 2.0
    assert isinstance(term, LeadingComponents)
    with pytest.raises(InputError, match="vectors have 32 components, give fewer, got 32"):
        AnswerDistillationConfig(matryoshka=(32,)).terms(student, ("logits",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"focal_gamma": 1.0}, "set task_weight"),
        ({"logits_loss": "mse", "temperature": 1.0}, "temperature: has no effect with logits_loss: mse"),
        ({"matryoshka": (8, 8)}, r"matryoshka: should differ, got \[8, 8\]"),
    ],
)
def test_conflicts_between_fields(fields, message):
    (problem,) = AnswerDistillationConfig(**fields).problems()
    assert message.replace("\\", "") in problem


def test_fields_that_a_kind_of_task_or_texts_without_labels_do_not_have():
    config = AnswerDistillationConfig(matryoshka=(8,), task_weight=1.0)
    assert config.kind_problems(KINDS["classification"]) == {"matryoshka": "is for vectors"}
    assert not config.kind_problems(KINDS["embedding"])
    assert set(config.label_problems()) == {"task_weight"}
    assert not AnswerDistillationConfig().label_problems()


SOFT = {"temperature": 4.0, "logits_loss": "soft_cross_entropy"}


@pytest.mark.parametrize("fields", [*({name: value} for name, value in SOFT.items()), {"logits_loss": "mse"}])
@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_nothing_for_a_kind_of_task_is_refused_and_nothing_else(make_model, kind, fields):
    """Against the losses themselves: a field is refused where two random models are as far apart without it."""
    import torch

    from limbeck.train.objectives import Outputs

    student = candidate(make_model, kind)
    shape = (5, 4, 3) if KINDS[kind].per_token else (5, 1 if kind in ("regression", "rerank") else 3)
    student_outputs, teacher_outputs = (
        Outputs(3 * torch.randn(shape, generator=torch.Generator().manual_seed(i)), {}) for i in (1, 2)
    )
    batch = {"labels": torch.zeros(shape[:-1]), "input_ids": torch.zeros((5, 4))}

    def distance(config):
        return config.terms(student, ("logits",))["logits"][1](student_outputs, teacher_outputs, batch)

    changes = bool(abs(distance(AnswerDistillationConfig(**fields)) - distance(AnswerDistillationConfig())) > 1e-6)
    refused = AnswerDistillationConfig(**fields).kind_problems(KINDS[kind])
    assert refused.keys() == (set() if changes or fields == {"logits_loss": "mse"} else fields.keys())


def test_a_refusal_says_what_is_compared_instead_and_what_to_write():
    reason = "has no effect on answers of kind multilabel, which are compared by binary cross-entropy; keep the default"
    reasons = AnswerDistillationConfig(**SOFT).kind_problems(KINDS["multilabel"])
    assert reasons == {"temperature": f"{reason}, 2.0", "logits_loss": f"{reason}, kl"}
    assert "compared by squared error" in AnswerDistillationConfig(**SOFT).kind_problems(KINDS["rerank"])["temperature"]
