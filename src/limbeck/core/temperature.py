"""Calibration of probabilities: one temperature for all logits, and the expected calibration error.

Temperature scaling (Guo et al., 2017, arXiv:1706.04599) divides logits by the number that minimizes the negative
log-likelihood of validation labels. It changes no answer of the most probable class, only how sure the model seems.
"""

from __future__ import annotations

import numpy as np

from limbeck.core.logits import Activation, activate

BINS = 15
"""Bins of equal width that probabilities are sorted into, as in the paper."""

RANGE = 0.01, 100.0
"""Temperatures that are tried. The best one is at an end only where the labels cannot say: if all answers are right,
less is always better; if answers are no better than chance, more is."""


def negative_log_likelihood(
    logits: np.ndarray, truth: np.ndarray, activation: Activation, temperature: float = 1.0
) -> float:
    """Return the mean negative log-likelihood of labels, in nats.

    Args:
        logits: [decisions, labels].
        truth: Of classes [decisions]; of several labels 0 or 1 [decisions, labels].
        activation: What turns logits into probabilities.
        temperature: What logits are divided by.
    """
    scaled = np.asarray(logits, dtype=float) / temperature
    if activation == "sigmoid":
        return float(np.logaddexp(0.0, np.where(truth > 0, -scaled, scaled)).mean())
    shifted = scaled - scaled.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(shifted).sum(axis=-1))
    return float((normalizer - np.take_along_axis(shifted, truth[:, None], axis=-1)[:, 0]).mean())


def fit_temperature(logits: np.ndarray, truth: np.ndarray, activation: Activation) -> float:
    """Return the temperature that minimizes the negative log-likelihood; 1 where that is at an end of ``RANGE``.

    Args:
        logits: [decisions, labels].
        truth: Of classes [decisions]; of several labels 0 or 1 [decisions, labels].
        activation: What turns logits into probabilities.
    """
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        return negative_log_likelihood(logits, truth, activation, float(np.exp(power)))

    low, high = np.log(RANGE)  # the likelihood has one optimum in the inverse of the temperature, so in its logarithm
    minimum = minimize_scalar(loss, bounds=(low, high), method="bounded")
    at_an_end = min(loss(low), loss(high)) <= minimum.fun + 1e-9
    return 1.0 if at_an_end else float(np.exp(minimum.x))


def expected_calibration_error(
    logits: np.ndarray, truth: np.ndarray, activation: Activation, temperature: float = 1.0
) -> float:
    """Return the expected calibration error in ``BINS`` bins of equal width (Naeini et al., 2015).

    Of classes, the probability of the answer is compared with how often it is right; of several labels, the probability
    of each with how often it is there.

    Args:
        logits: [decisions, labels].
        truth: Of classes [decisions]; of several labels 0 or 1 [decisions, labels].
        activation: What turns logits into probabilities.
        temperature: What logits are divided by.
    """
    probabilities = activate(np.asarray(logits, dtype=float) / temperature, activation)
    if activation == "sigmoid":
        confidence, right = probabilities.ravel(), (truth > 0).ravel()
    else:
        confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == truth
    member = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(member, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
