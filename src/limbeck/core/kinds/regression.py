"""A number for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.decision import Decision, DecisionGoal, Detection
from limbeck.core.logits import Activation, activate
from limbeck.core.metrics import METRICS, r2, rmse
from limbeck.core.single_number import SingleNumber
from limbeck.core.statistics import pack_numbers, resampled_score, score
from limbeck.core.task_kind import Label, Logits

BANDED = """\
thresholds, value = metadata["decision"]["thresholds"], float(logits[0])
bands = [float(band) for band, threshold in thresholds.items() if value >= threshold]
print(value, max(bands, default=None))"""
"""The number and the beginning of its band, for the artefact's example."""


def name_of_band(band: float) -> str:
    """Return the shortest text that is read as the number again."""
    short = f"{band:g}"
    return short if float(short) == band else repr(float(band))


class Regression(SingleNumber):
    """A number. A label is a float; there are no label names."""

    name = "regression"
    problem_type = "regression"
    standardized = True
    default_metric = "pearson_spearman"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the number.

        Args:
            logits: [1].
            labels: Ignored.
            activation: The model's own.
        """
        return {"answer": float(activate(logits, activation)[0]), "scores": {}}

    def decide(
        self, logits: np.ndarray, labels: Sequence[str], activation: Activation, decision: Decision
    ) -> dict[str, Any]:
        """Return the number, and the ``band`` that it is in: where that begins, None below all of them.

        Args:
            logits: [1].
            labels: Ignored.
            activation: The model's own.
            decision: The threshold of each band.
        """
        answer = self.answer(logits, labels, activation)
        reached = [float(band) for band, least in decision.thresholds.items() if answer["answer"] >= least]
        return {**answer, "band": max(reached, default=None)}

    def decision_code(self, decision: Decision) -> str:
        """Return code that prints the number and its band."""
        return BANDED

    def goal_problems(self, goal: DecisionGoal, names: Sequence[str]) -> dict[str, str]:
        """Return what does not fit: a threshold needs bands, and numbers have no probabilities.

        Args:
            goal: What is to be fitted.
            names: Empty.
        """
        problems = {} if goal.threshold is None or goal.bands else {"bands": "is required: where a band begins, as [4]"}
        no_meaning = {
            "temperature": goal.temperature,
            "positive": goal.positive is not None,
            "positive_score": goal.positive_score != "probability",
            "original_threshold": goal.original_threshold is not None,
        }
        reason = "has no meaning for numbers, which have no classes and no probabilities; leave it out"
        return problems | {field: reason for field, given in no_meaning.items() if given}

    def detections(
        self,
        logits: np.ndarray,
        labels: Sequence[Label] | np.ndarray,
        names: Sequence[str],
        goal: DecisionGoal,
        temperature: float,
    ) -> dict[str, Detection]:
        """Return every band as a question of yes or no: is the number at least that much?

        Args:
            logits: [rows, 1].
            labels: [rows].
            names: Empty.
            goal: Says where bands begin.
            temperature: Ignored.
        """
        values, truth = self.decode(logits), self.truth(labels)
        return {name_of_band(band): Detection(values, truth >= band, values >= band) for band in goal.bands}

    def describe(self, label: Label, names: Sequence[str]) -> str:
        """Format the number."""
        return f"{label:g}"

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return the numbers [rows]."""
        return np.asarray(labels, dtype=float)

    def fidelity_metric(self, names: Sequence[str]) -> str:
        """Return the correlation with the model's numbers."""
        return self.default_metric

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over the rows, whose values are kept; ``rmse`` and ``r2`` stand beside it.

        Args:
            metric: Name of the metric.
            names: Empty.
            logits: [rows, 1].
            labels: [rows].
            unseen: Empty.
        """
        predicted, truth = self.decode(np.stack(list(logits))), self.truth(labels)
        beside = {function.__name__: score(function, predicted, truth) for function in (rmse, r2)}
        quality, values = resampled_score(METRICS[metric], predicted, truth)
        return Assessment(quality, {"resampled": pack_numbers(values)}, beside)

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Return the prediction, and the label as it is.

        Args:
            logits: [1].
            label: The label of the row.
            confidence: Ignored: a number has none.
        """
        return float(np.asarray(logits).reshape(-1)[0]), label

    def constants(self, truth: np.ndarray, width: int) -> Iterator[tuple[float | np.ndarray, Sequence[int]]]:
        """Yield the mean.

        Args:
            truth: [rows].
            width: Ignored.
        """
        yield float(np.mean(truth)), ()


KIND = Regression()
