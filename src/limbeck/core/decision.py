"""Decision thresholds: when a score counts as an alarm, fitted so that a smaller model decides like the original.

A compressed model may order texts as well as the original and still give other probabilities, so that a threshold set
for the original has another recall. Fitting one number for each label on validation texts repairs that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Record
from limbeck.core.statistics import wilson

Goal = Literal["same-recall", "same-precision", "same-alarm-rate", "best-f1"]
PositiveScore = Literal["probability", "max-softmax"]

TEMPERATURE, CALIBRATION_ERROR = "temperature", "calibration_error"
THRESHOLD, DETECTION = "threshold", "detection"
"""Names of the facts."""

Figures: TypeAlias = dict[str, float | None]
"""Recall, precision, alarm rate and F1 by name; None where a ratio has no denominator."""


@dataclass(frozen=True)
class Decision:
    """How the scores of a model become its answer, where that is not the usual rule of the kind.

    Attributes:
        temperature: What logits are divided by before they become probabilities.
        thresholds: Scores from which a label is given, by label; of a number, by the band that begins there.
        positive_score: What the threshold of a class is compared with: its probability, which has to reach it, or the
            highest probability of the others, which must not exceed it (Hendrycks and Gimpel, 2017, arXiv:1610.02136).
    """

    temperature: Annotated[float, Gt(0), Le(1000)] = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    positive_score: PositiveScore = "probability"

    def to_json(self) -> dict[str, Any]:  # numbers and text
        """Return a plain dictionary."""
        return {
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "positive_score": self.positive_score,
        }


@dataclass(frozen=True)
class DecisionGoal:
    """What thresholds and temperature are fitted for.

    Attributes:
        threshold: Fit the threshold of each label so that recall, precision or the alarm rate is that of the original
            model, or F1 is best.
        positive: The class that matters: of classes the one that has a threshold, of several labels the one whose
            recall, precision and alarm rate are shown.
        positive_score: What a class is detected by: its probability, or the highest probability of the others, which
            is then low (for out-of-scope texts).
        original_threshold: Threshold that the original model is used with; unless given, its usual rule (the most
            probable class, probabilities over one half).
        bands: Where bands of a number begin: 4 stands for "4 or more".
        temperature: Fit one temperature for all probabilities (Guo et al., 2017, arXiv:1706.04599).
    """

    threshold: Goal | None = None
    positive: str | None = None
    positive_score: PositiveScore = "probability"
    original_threshold: Annotated[float, Gt(0), Le(1)] | None = None
    bands: tuple[Annotated[float, Ge(-1_000_000_000), Le(1_000_000_000)], ...] = ()
    temperature: bool = False


class Detection(NamedTuple):
    """One label as a question of yes or no, for several texts.

    Attributes:
        scores: Greater means more likely [rows].
        truth: Whether texts have the label [rows], bool.
        usual: Whether the model says so without a fitted threshold [rows], bool.
        sign: -1 where scores are negative probabilities of something else, else 1.
    """

    scores: np.ndarray
    truth: np.ndarray
    usual: np.ndarray
    sign: int = 1

    def fitted(self, threshold: float) -> np.ndarray:
        """Return whether the model says so with a threshold, in the unit that users see [rows]."""
        return np.asarray(self.sign * self.scores <= threshold if self.sign < 0 else self.scores >= threshold)


def rates(predicted: np.ndarray, truth: np.ndarray) -> Figures:
    """Compute recall, precision, alarm rate (share of texts with an alarm) and F1.

    Args:
        predicted: Whether there is an alarm [rows].
        truth: Whether there should be one [rows].

    >>> rates(np.array([True, True, False, False]), np.array([True, False, True, False]))
    {'recall': 0.5, 'precision': 0.5, 'alarm_rate': 0.5, 'f1': 0.5}
    """
    hits, alarms, positives = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
    return {
        "recall": hits / positives if positives else None,
        "precision": hits / alarms if alarms else None,
        "alarm_rate": alarms / len(truth) if len(truth) else None,
        "f1": 2 * hits / (alarms + positives) if alarms + positives else None,
    }


class _Curve(NamedTuple):
    """Every way to divide the texts of a detection by a threshold, from no alarm to all."""

    thresholds: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    positives: int


def _curve(detection: Detection) -> _Curve:
    order = np.argsort(-detection.scores, kind="stable")
    scores, truth = detection.scores[order].astype(float), detection.truth[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal scores stay together
    below = np.append(scores[last[:-1] + 1], scores[-1])
    cuts = (scores[last] + below) / 2  # half-way, so that no rounding decides
    cuts = np.where((cuts > below) | (scores[last] == below), cuts, scores[last])
    nothing = np.nextafter(np.float32(scores[0]), np.float32(np.inf))
    hits = np.cumsum(truth)[last]
    return _Curve(
        np.append(float(nothing), cuts), np.append(0, hits), np.append(0, last + 1), int(detection.truth.sum())
    )


def fit_threshold(goal: Goal, detection: Detection, original: Detection) -> tuple[float, str]:
    """Find the threshold of a label that meets a goal on these texts.

    Args:
        goal: Recall, precision and alarm rate are those of the original model by its usual rule. Of thresholds with at
            least its recall, the one with the fewest alarms is taken; with at least its precision, that with the most
            hits; of alarm rates the nearest; of equal F1 that with the fewest alarms.
        detection: Of the model.
        original: Of the original model, on the same texts.

    Returns:
        The threshold in the unit that users see, and what to note about it.
    """
    curve, before = _curve(detection), rates(original.usual, original.truth)
    precision = np.divide(curve.hits, curve.alarms, out=np.zeros(len(curve.hits)), where=curve.alarms > 0)
    note = ""
    if not curve.positives:
        best, note = _nearest(curve, int(original.usual.sum())), "no text has this label: the alarm rate was kept"
    elif goal == "best-f1":
        best = int((2 * curve.hits / (curve.alarms + curve.positives)).argmax())
    elif goal == "same-recall":
        best = int(np.argmax(curve.hits >= int((original.usual & original.truth).sum())))
    elif goal == "same-alarm-rate":
        best = _nearest(curve, int(original.usual.sum()))
    elif before["precision"] is None:
        best, note = _nearest(curve, 0), "the original gives no alarm: neither does this threshold"
    else:
        enough = precision >= before["precision"] - 1e-12
        if enough.any():
            best = int(np.where(enough, curve.hits, -1).argmax())
        else:
            best = int(precision.argmax())
            note = f"no threshold reaches precision {before['precision']:.3f}; this one has {precision[best]:.3f}"
    return detection.sign * float(curve.thresholds[best]), note


def _nearest(curve: _Curve, alarms: int) -> int:
    return int(np.abs(curve.alarms - alarms).argmin())


def detection_detail(
    detections: Mapping[str, Detection], thresholds: Mapping[str, float], positive: str | None
) -> tuple[tuple[float, float | None, float | None], dict[str, Any]]:
    """Return the recall with fitted thresholds and its interval, and all figures with and without them.

    Args:
        detections: By label.
        thresholds: The fitted thresholds, by label; without one the usual rule decides.
        positive: The label whose figures stand for the whole; None for all labels together.
    """
    answers = {
        name: each.fitted(thresholds[name]) if name in thresholds else each.usual for name, each in detections.items()
    }
    by_label = {
        name: {
            "n": int(each.truth.sum()),
            "usual": rates(each.usual, each.truth),
            "fitted": rates(answers[name], each.truth),
        }
        for name, each in detections.items()
    }
    shown = [positive] if positive is not None else list(detections)
    truth = np.concatenate([detections[name].truth for name in shown])
    usual = np.concatenate([detections[name].usual for name in shown])
    fitted = np.concatenate([answers[name] for name in shown])
    figures = rates(fitted, truth)
    low = high = None
    if len(shown) == 1 and truth.any():  # labels of one text are not independent
        low, high = wilson(int((fitted & truth).sum()), int(truth.sum()))[1:]
    detail = {"positive": positive, "usual": rates(usual, truth), "fitted": figures, "by_label": by_label}
    recall = figures["recall"]
    return (float("nan") if recall is None else recall, low, high), detail


def decision_of(record: Record) -> Decision | None:
    """Return the thresholds and the temperature that were fitted for a model; None where none were."""
    threshold, temperature = record.fact(THRESHOLD, "validation"), record.fact(TEMPERATURE, "validation")
    if threshold is not None:  # it holds for the probabilities of its own temperature alone
        detail = threshold.detail
        return Decision(detail["temperature"], dict(detail["thresholds"]), detail["positive_score"])
    return Decision(temperature.value) if temperature is not None else None


def is_number(text: str) -> bool:
    """Return whether a text is a finite number, as the beginning of a band is."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
