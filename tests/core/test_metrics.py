"""Every metric against the slow libraries that define it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from limbeck.core.judged_texts import BY_ROW
from limbeck.core.kinds import KINDS
from limbeck.core.metrics import (
    METRICS,
    check_metric,
    counts_queries,
    default_label,
    metrics_of,
    rmse,
)
from limbeck.errors import InputError

CLASS_REFERENCES = {
    "accuracy": reference.accuracy_score,
    "macro_f1": lambda truth, guess: reference.f1_score(truth, guess, average="macro", zero_division=0),
    "micro_f1": lambda truth, guess: reference.f1_score(truth, guess, average="micro", zero_division=0),
    "matthews": reference.matthews_corrcoef,
    "f1": lambda truth, guess: reference.f1_score(truth == 1, guess == 1, zero_division=0),
    "token_f1": lambda truth, guess: reference.f1_score(
        truth, guess, labels=[label for label in range(1, 9)], average="micro", zero_division=0
    ),
}


@pytest.mark.parametrize("name", CLASS_REFERENCES)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_class_metrics_equal_scikit_learn(name, classes, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, 40)
    guess = np.where(rng.random(40) < 0.6, truth, rng.integers(0, classes, 40))
    assert METRICS[name](guess, truth) == pytest.approx(CLASS_REFERENCES[name](truth, guess), abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "micro_f1"])
def test_multilabel_metrics_equal_scikit_learn(name):
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 2, (30, 4)), rng.integers(0, 2, (30, 4))
    assert METRICS[name](guess, truth) == pytest.approx(CLASS_REFERENCES[name](truth, guess))


def test_correlations_equal_scipy_with_ties():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 6, 50) / 2
    guess = truth + rng.integers(-1, 2, 50)
    linear, ranks = stats.pearsonr(guess, truth)[0], stats.spearmanr(guess, truth)[0]
    assert METRICS["pearson"](guess, truth) == pytest.approx(linear)
    assert METRICS["spearman"](guess, truth) == pytest.approx(ranks)
    assert METRICS["pearson_spearman"](guess, truth) == pytest.approx((linear + ranks) / 2)


ALWAYS_RIGHT = ("accuracy", "agreement", "balanced_accuracy", "macro_f1", "micro_f1")
# of vectors there is no constant that is undefined, and rankings have labels of their own (tests/core/kinds)
OTHERS = ("mean_cosine", "neighbor_overlap", "mrr_at_10", "overlap_at_10", *BY_ROW)


@pytest.mark.parametrize("name", [name for name in METRICS if not METRICS[name].reads_scores and name not in OTHERS])
def test_undefined_is_zero_and_never_a_warning(name):
    same = np.full(5, -1 if METRICS[name].reads_entities else 0)  # -1 is outside any entity
    value = METRICS[name](same, same)
    assert value == (1.0 if name in ALWAYS_RIGHT else 0.0)


RANKING = sorted(name for name in METRICS if METRICS[name].reads_scores and not METRICS[name].reads_distributions)


@pytest.mark.parametrize("name", RANKING)
def test_ranking_without_positives_is_chance_and_never_a_warning(name):
    assert METRICS[name](np.zeros((5, 2)), np.zeros(5, dtype=int)) == (0.5 if name == "roc_auc" else 0.0)


def test_kl_divergence_equals_scipy_and_bears_zeros():
    p, q = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 50))
    assert METRICS["neg_kl_divergence"](q, p) == pytest.approx(-stats.entropy(p, q, axis=1).mean())
    assert METRICS["neg_kl_divergence"](p, p) == 0
    certain = np.eye(4)[[0, 1]]
    assert METRICS["neg_kl_divergence"](certain, certain) == 0
    assert np.isfinite(METRICS["neg_kl_divergence"](certain, certain[::-1]))


def test_balanced_accuracy_is_the_mean_of_recalls():
    truth = np.array([0] * 97 + [1] * 3)
    assert METRICS["balanced_accuracy"](np.zeros(100, dtype=int), truth) == 0.5
    guess = np.array([0] * 97 + [1, 1, 0])
    assert METRICS["balanced_accuracy"](guess, truth) == pytest.approx((1 + 2 / 3) / 2)


def average_precision_by_hand(scores, truth):
    """Mean, over the positives, of the precision at the rank of each."""
    order = np.argsort(-scores)
    hits = np.cumsum(truth[order])
    ranks = np.flatnonzero(truth[order])
    return float((hits[ranks] / (ranks + 1)).mean())


def test_average_precision_of_two_classes_several_classes_and_several_labels():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    value = KINDS["classification"].score("average_precision", (), logits, truth)
    assert value == pytest.approx(average_precision_by_hand(logits[:, 1] - logits[:, 0], truth))
    logits, truth = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_hand = np.mean([average_precision_by_hand(shares[:, i], (truth == i).astype(int)) for i in range(3)])
    assert KINDS["classification"].score("average_precision", (), logits, truth) == pytest.approx(by_hand)
    logits, truth = rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 3))
    by_hand = np.mean([average_precision_by_hand(logits[:, i], truth[:, i]) for i in range(3)])
    assert KINDS["multilabel"].score("average_precision", (), logits, truth) == pytest.approx(by_hand)
    micro = KINDS["multilabel"].score("micro_average_precision", (), logits, truth)
    assert micro == pytest.approx(average_precision_by_hand(logits.ravel(), truth.ravel()))


def test_roc_auc_counts_pairs_in_the_right_order():
    rng = np.random.default_rng(1)
    scores, truth = rng.normal(size=40), rng.integers(0, 2, 40)
    pairs = [(a, b) for a in scores[truth == 1] for b in scores[truth == 0]]
    logits = np.stack([np.zeros(40), scores], 1)
    assert KINDS["classification"].score("roc_auc", (), logits, truth) == pytest.approx(
        np.mean([a > b for a, b in pairs])
    )


def test_errors_in_the_unit_of_the_labels():
    truth, guess = np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0])
    assert rmse(guess, truth) == pytest.approx((5 / 3) ** 0.5)
    assert METRICS["r2"](guess, truth) == pytest.approx(1 - 5 / 14)
    assert METRICS["r2"](np.full(3, 3.0), truth) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("kind", "metric", "names", "message"),
    [
        ("classification", "acuracy", ("a", "b"), "did you mean 'accuracy'"),
        ("regression", "accuracy", (), "choose from 'pearson'"),
        ("classification", "f1", ("a", "b", "c"), "'macro_f1'"),
        ("tokens", "token_f1", ("NOUN", "VERB"), "'accuracy'"),
        ("tokens", "entity_f1", ("O", "person"), "needs tags such as B-PER.*got O, person.*'token_f1'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(kind, metric, names, message):
    with pytest.raises(InputError, match=message):
        check_metric(kind, metric, names)


def test_every_kind_has_known_metrics():
    assert {name for kind in KINDS for name in metrics_of(kind)} == set(METRICS)


def test_balanced_accuracy_of_several_labels_is_the_mean_over_labels():
    rng = np.random.default_rng(3)
    truth, guess = rng.integers(0, 2, (40, 3)), rng.integers(0, 2, (40, 3))
    expected = np.mean([reference.balanced_accuracy_score(truth[:, i], guess[:, i]) for i in range(3)])
    assert METRICS["balanced_accuracy"](guess, truth) == pytest.approx(expected)
    assert METRICS["balanced_accuracy"](np.zeros((40, 3), dtype=int), truth) == 0.5


def test_balanced_accuracy_of_several_classes_equals_scikit_learn():
    rng = np.random.default_rng(4)
    truth, guess = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    expected = reference.balanced_accuracy_score(truth, guess)
    assert METRICS["balanced_accuracy"](guess, truth) == pytest.approx(expected)


def test_the_label_of_words_that_were_not_seen():
    assert default_label(["B-PER", "O", "I-PER"]) == 1
    assert default_label(["noun"]) == 0


def test_a_kind_of_task_may_name_metrics_of_others(monkeypatch):
    before = metrics_of("regression")
    monkeypatch.setattr(KINDS["regression"], "metrics", ("macro_f1", "pearson"), raising=False)
    assert sorted(metrics_of("regression")) == sorted({*before, "macro_f1"})
    assert metrics_of("regression")[0] == before[0]


def test_what_is_a_mean_over_queries():
    counted = {name for name in METRICS if counts_queries(name)}
    assert counted == {"ndcg_at_10", "mrr_at_10", "overlap_at_10", "recall_at_100"}
