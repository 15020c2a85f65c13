"""The losses of each type of outputs agree with each other and with transformers."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from limbeck.core.kinds import KINDS
from limbeck.core.task_kind import PROBLEM_TYPES
from limbeck.model.output_losses import OUTPUT_LOSSES, losses_of
from limbeck.model.vector_losses import cosent

GENERATOR = torch.Generator().manual_seed(0)
LABELS = {
    "single_label_classification": torch.tensor([2, 0, 1, 1]),
    "multi_label_classification": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    "regression": torch.tensor([0.5, -1.0, 2.0, 0.0]),
}


def outputs(problem):
    return torch.randn(4, 1 if problem == "regression" else 3, generator=GENERATOR)


def test_every_kind_of_task_has_losses():
    assert {kind.problem_type for kind in KINDS.values()} <= set(OUTPUT_LOSSES)
    assert losses_of(None, 1) is OUTPUT_LOSSES["regression"]
    assert losses_of(None, 2) is OUTPUT_LOSSES["single_label_classification"]
    assert losses_of(None, 1, reranker=True) is OUTPUT_LOSSES["rerank"]


@pytest.mark.parametrize("problem", PROBLEM_TYPES)
def test_the_loss_on_labels_is_that_of_transformers(problem):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=20, num_labels=1 if problem == "regression" else 3, problem_type=problem, **sizes)
    output = BertForSequenceClassification(config).eval()(torch.arange(12).view(4, 3), labels=LABELS[problem])
    torch.testing.assert_close(OUTPUT_LOSSES[problem].on_labels(output.logits, LABELS[problem]), output.loss)


def test_ignored_tokens_do_not_count():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    labels = torch.tensor([[-100, 1, 0], [2, -100, -100]])
    model = BertForTokenClassification(BertConfig(vocab_size=20, num_labels=3, **sizes)).eval()
    output = model(torch.arange(6).view(2, 3), labels=labels)
    losses = OUTPUT_LOSSES["single_label_classification"]
    torch.testing.assert_close(losses.on_labels(output.logits, labels), output.loss)
    torch.testing.assert_close(losses.weighted(output.logits, labels, None, 0.0), output.loss)


def test_texts_without_a_labeled_token_have_no_loss():
    """Words that the tokenizer drops leave none, in a batch of one text for example."""
    logits = torch.randn(1, 3, 2, generator=GENERATOR).requires_grad_()
    losses, labels = OUTPUT_LOSSES["single_label_classification"], torch.full((1, 3), -100)
    for loss in (losses.on_labels(logits, labels), losses.weighted(logits, labels, None, 0.0)):
        (slope,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0.0
        assert not slope.any()


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_weights_of_one_pseudo_labels_and_sure_teachers_are_the_loss_on_labels(problem):
    losses, logits, labels = OUTPUT_LOSSES[problem], outputs(problem), LABELS[problem]
    wanted = losses.on_labels(logits, labels)
    several = problem.startswith("multi")
    sure = 50.0 * ((labels if several else torch.nn.functional.one_hot(labels, 3).float()) - 0.5)
    torch.testing.assert_close(losses.weighted(logits, labels, torch.ones(3), 0.0), wanted)
    pseudo = losses.pseudo_labels(sure, "argmax")
    torch.testing.assert_close(losses.on_pseudo_labels(logits, pseudo).mean(), wanted)

    def cross_entropy(student, teacher):
        return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)

    torch.testing.assert_close(losses.imitation(logits, sure, cross_entropy).mean(), wanted)
    sampled = losses.sampled(sure, GENERATOR)
    torch.testing.assert_close(sampled.to(labels.dtype), labels)


def test_numbers_are_compared_by_squared_error():
    losses, logits, teacher = OUTPUT_LOSSES["regression"], outputs("regression"), outputs("regression")
    wanted = losses.on_labels(logits, teacher[:, 0])
    torch.testing.assert_close(losses.imitation(logits, teacher, lambda a, b: a - b).mean(), wanted)
    torch.testing.assert_close(losses.on_pseudo_labels(logits, losses.pseudo_labels(teacher, "soft")).mean(), wanted)


def test_vectors_learn_from_scores_of_pairs_or_from_vectors():
    losses, (rows, teacher) = OUTPUT_LOSSES["embedding"], torch.randn(2, 4, 6, generator=GENERATOR)
    scores = torch.tensor([0.5, -1.0, 2.0, 0.0])
    assert losses.on_labels(rows, scores) == cosent(rows, scores)
    torch.testing.assert_close(losses.on_labels(rows, teacher), ((rows - teacher) ** 2).mean())
    torch.testing.assert_close(losses.imitation(rows, teacher, lambda a, b: a - b), ((rows - teacher) ** 2).sum(1))
    sampled = torch.stack([losses.sampled(rows, GENERATOR) for _ in range(400)])
    torch.testing.assert_close(sampled.mean(0), rows, rtol=0, atol=0.3)


def test_a_document_is_relevant_or_not_and_a_teachers_score_is_a_number():
    losses, logits, teacher = OUTPUT_LOSSES["rerank"], outputs("regression"), outputs("regression")
    labels = torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [4.0, -1.0, 0.0], [4.0, 1.0, 1.0]])
    relevant = torch.tensor([1.0, 0.0, 0.0, 1.0])
    several = OUTPUT_LOSSES["multi_label_classification"]
    torch.testing.assert_close(losses.on_labels(logits, labels), several.on_labels(logits[:, 0], relevant))
    torch.testing.assert_close(losses.imitation(logits, teacher, lambda a, b: a - b), (logits - teacher) ** 2)
    sure = 50.0 * (relevant[:, None] - 0.5)
    assert losses.sampled(sure, GENERATOR)[:, 1].tolist() == relevant.tolist()
