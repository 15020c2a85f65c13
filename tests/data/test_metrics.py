"""Every metric against the slow libraries that define it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from limbeck.data.metrics import IGNORED, METRICS, METRICS_OF, check_metric, decode, score
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
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, classes, 40)
    guess = np.where(chance.random(40) < 0.6, truth, chance.integers(0, classes, 40))
    assert METRICS[name](guess, truth) == pytest.approx(CLASS_REFERENCES[name](truth, guess), abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "micro_f1"])
def test_multilabel_metrics_equal_scikit_learn(name):
    chance = np.random.default_rng(0)
    truth, guess = chance.integers(0, 2, (30, 4)), chance.integers(0, 2, (30, 4))
    assert METRICS[name](guess, truth) == pytest.approx(CLASS_REFERENCES[name](truth, guess))


def test_correlations_equal_scipy_with_ties():
    chance = np.random.default_rng(1)
    truth = chance.integers(0, 6, 50) / 2
    guess = truth + chance.integers(-1, 2, 50)
    linear, ranks = stats.pearsonr(guess, truth)[0], stats.spearmanr(guess, truth)[0]
    assert METRICS["pearson"](guess, truth) == pytest.approx(linear)
    assert METRICS["spearman"](guess, truth) == pytest.approx(ranks)
    assert METRICS["pearson_spearman"](guess, truth) == pytest.approx((linear + ranks) / 2)


@pytest.mark.parametrize("name", METRICS)
def test_undefined_is_zero_and_never_a_warning(name):
    same = np.zeros(5, dtype=int)
    value = METRICS[name](same, same)
    assert value == (1.0 if name in ("accuracy", "macro_f1", "micro_f1") else 0.0)


def test_decode_of_every_kind():
    logits = np.array([[0.1, 2.0], [3.0, -1.0]])
    assert decode("classification", logits).tolist() == [1, 0]
    assert decode("multilabel", logits).tolist() == [[1, 1], [1, 0]]
    assert decode("regression", [[0.5], [1.5]]).tolist() == [0.5, 1.5]
    assert decode("tokens", logits[None]).tolist() == [[1, 0]]


def test_tokens_leave_out_ignored_positions_padded_or_ragged():
    logits = np.zeros((2, 3, 3))
    logits[0, 0, 2] = logits[0, 1, 1] = logits[1, 0, 1] = 1.0
    labels = np.array([[2, 1, IGNORED], [2, IGNORED, IGNORED]])
    ragged = score("tokens", "accuracy", [logits[0][:2], logits[1][:1]], [[2, 1], [2]])
    assert score("tokens", "accuracy", logits, labels) == ragged == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("kind", "metric", "names", "message"),
    [
        ("classification", "acuracy", ("a", "b"), "did you mean 'accuracy'"),
        ("regression", "accuracy", (), "choose from 'pearson'"),
        ("classification", "f1", ("a", "b", "c"), "'macro_f1'"),
        ("tokens", "token_f1", ("NOUN", "VERB"), "'accuracy'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(kind, metric, names, message):
    with pytest.raises(InputError, match=message):
        check_metric(kind, metric, names)


def test_every_kind_has_known_metrics():
    assert {name for names in METRICS_OF.values() for name in names} == set(METRICS)
