"""Temperature scaling against an exhaustive search, and the calibration error against a loop over bins."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.logits import activate
from limbeck.core.temperature import (
    BINS,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


def noisy(activation, sharpness, rows=600, labels=4, seed=0):
    """Logits whose labels are drawn from their probabilities, then multiplied: too sure, or not sure enough."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * 2
    shares = activate(logits, activation)
    if activation == "sigmoid":
        truth = (rng.random(shares.shape) < shares).astype(int)
    else:
        truth = np.array([rng.choice(labels, p=row) for row in shares])
    return logits * sharpness, truth


def slow_likelihood(logits, truth, activation):
    total = []
    for row, label in zip(activate(logits, activation), truth, strict=True):
        if activation == "sigmoid":
            total += [-np.log(share if is_true else 1 - share) for share, is_true in zip(row, label, strict=True)]
        else:
            total.append(-np.log(row[label]))
    return np.mean(total)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_likelihood_is_that_of_a_loop(activation):
    logits, truth = noisy(activation, 1.0, rows=50)
    assert negative_log_likelihood(logits, truth, activation) == pytest.approx(
        slow_likelihood(logits, truth, activation)
    )
    assert negative_log_likelihood(logits, truth, activation, 2.5) == pytest.approx(
        slow_likelihood(logits / 2.5, truth, activation)
    )
    assert np.isfinite(negative_log_likelihood(logits * 1e4, truth, activation))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_best_of_many(activation, sharpness):
    logits, truth = noisy(activation, sharpness)
    temperature = fit_temperature(logits, truth, activation)
    assert temperature == pytest.approx(sharpness, rel=0.25)
    tried = np.geomspace(sharpness / 2, sharpness * 2, 200)
    best = min(tried, key=lambda each: negative_log_likelihood(logits, truth, activation, each))
    assert temperature == pytest.approx(best, rel=0.01)


def test_labels_that_cannot_say_leave_probabilities_as_they_are():
    right = np.eye(3)[[0, 1, 2] * 20] * 4.0
    assert fit_temperature(right, right.argmax(1), "softmax") == 1.0
    assert fit_temperature(right, (right.argmax(1) + 1) % 3, "softmax") == 1.0


def slow_error(confidence, right):
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        member = [(c, r) for c, r in zip(confidence, right, strict=True) if low < c <= high or (c == 0 == number)]
        if member:
            shares, hits = zip(*member, strict=True)
            total += len(member) / len(confidence) * abs(np.mean(hits) - np.mean(shares))
    return total


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_calibration_error_is_that_of_a_loop_over_bins(activation):
    logits, truth = noisy(activation, 2.0)
    shares = activate(logits / 1.7, activation)
    if activation == "sigmoid":
        expected = slow_error(shares.ravel(), truth.ravel() > 0)
    else:
        expected = slow_error(shares.max(1), shares.argmax(1) == truth)
    assert expected_calibration_error(logits, truth, activation, 1.7) == pytest.approx(expected)


def test_a_fitted_temperature_calibrates_new_texts():
    logits, truth = noisy("softmax", 3.0, rows=2000)
    new, labels = noisy("softmax", 3.0, rows=2000, seed=1)
    temperature = fit_temperature(logits, truth, "softmax")
    before, after = (expected_calibration_error(new, labels, "softmax", each) for each in (1.0, temperature))
    assert after < before / 3
    assert ((new / temperature).argmax(1) == new.argmax(1)).all()
