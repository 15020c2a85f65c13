"""One of several classes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from limbeck.core.kinds.classification import KIND
from limbeck.core.soft_label import SoftLabel
from limbeck.core.statistics import unpack


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([0.0, 5.0], 0, (1, 1)),  # sure of another label
        ([0.0, 0.5], 0, (1, 0)),  # of another label, but not sure
        ([5.0, 0.0], 0, (0, 0)),
        ([0.0, np.log(9)], 0, (1, 1)),  # exactly 0.9 counts
    ],
)
def test_confident_predictions_overrule_classes(logits, label, expected):
    assert KIND.review(np.array(logits), label, 0.9 - 1e-12) == expected


def test_the_most_probable_class_is_the_answer():
    logits = np.array([[0.1, 2.0], [3.0, -1.0]])
    assert KIND.decode(logits).tolist() == [1, 0]
    answer = KIND.answer(logits[0], ("no", "yes"), "softmax")
    assert answer["answer"] == "yes"
    assert answer["scores"]["yes"] == pytest.approx(1 / (1 + np.exp(-1.9)))


def test_right_rows_are_recorded_for_paired_tests():
    assessment = KIND.assess("accuracy", ("a", "b"), np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]]), [0, 1, 0])
    assert unpack(assessment.detail["correct"], 3).tolist() == [True, True, False]
    assert assessment.detail["per_label"]["b"] == {"examples": 1, "predicted": 2, "correct": 1}


def test_confusion_counts_by_label_and_output():
    tables, constant, totals = KIND.confusion([np.array([0.0, 1.0])] * 3, [0, 1, 1], 2)
    assert tables.sum(0).tolist() == [[0, 1], [0, 2]]
    assert constant.tolist() == [0, 1, 1]  # class 1 is the more frequent
    assert totals.tolist() == [1, 1, 1]


def test_kl_divergence_from_a_model_stands_beside_agreement_and_can_be_the_metric():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 40, 3))
    labels = [KIND.answered_label(row, 0) for row in before]
    assert all(
        isinstance(label, SoftLabel) and label == row.argmax() for label, row in zip(labels, before, strict=True)
    )
    p, q = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (before, after))
    expected = stats.entropy(p, q, axis=1).mean()
    beside = KIND.assess("agreement", ("a", "b", "c"), after, labels)
    assert beside.beside["kl_divergence"].value == pytest.approx(expected, abs=1e-4)
    chosen = KIND.assess("neg_kl_divergence", ("a", "b", "c"), after, labels)
    assert chosen.quality.value == pytest.approx(-expected, abs=1e-4)
    assert chosen.quality.low < chosen.quality.value < chosen.quality.high <= 0
    assert chosen.beside["agreement"].value == beside.quality.value
    assert KIND.score("neg_kl_divergence", ("a", "b", "c"), after, labels) == pytest.approx(chosen.quality.value)
    assert KIND.score("neg_kl_divergence", ("a", "b", "c"), before, labels) == pytest.approx(0, abs=1e-6)
    assert not KIND.assess("accuracy", ("a", "b", "c"), after, [0, 1] * 20).beside


def test_kl_divergence_from_labels_of_the_data_is_the_log_loss():
    logits, labels = np.random.default_rng(1).normal(size=(30, 3)), [0, 1, 2] * 10
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert KIND.score("neg_kl_divergence", ("a", "b", "c"), logits, labels) == pytest.approx(-log_loss(labels, p))
