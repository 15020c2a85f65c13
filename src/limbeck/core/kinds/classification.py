"""One of several classes for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.logits import Activation, activate
from limbeck.core.metrics import counts_rows
from limbeck.core.ranking import resampled_quality
from limbeck.core.statistics import pack, pack_numbers, wilson
from limbeck.core.task_kind import Assessment, Label, Logits, TaskKind, UnseenWord, per_class


class Classification(TaskKind):
    """One of several classes. A label is the index of its class."""

    name = "classification"
    problem_type = "single_label_classification"
    answer_code = "{labels}[logits.argmax()]"
    default_metric = "accuracy"
    single_class = True
    label_noun = ("class", "classes")

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the class, and the probability of each.

        Args:
            logits: [labels].
            labels: The label names.
            activation: The model's own.
        """
        scores = dict(zip(labels, map(float, activate(logits, activation)), strict=True))
        return {"answer": labels[int(logits.argmax())], "scores": scores}

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the index of the class."""
        return list(names).index(answer["answer"])

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with an interval: Wilson's for accuracy, else by bootstrap; keep which rows were right.

        Values on resamples are kept beside a bootstrap interval.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: [rows, labels].
            labels: [rows].
            unseen: Empty.
        """
        stacked, truth = np.stack(list(logits)), np.asarray(labels)
        predicted = self.decode(stacked)
        correct = predicted == truth
        detail = {"per_label": per_class(names, predicted, truth), "correct": pack(correct)}
        if counts_rows(metric):
            return Assessment(wilson(int(correct.sum()), len(correct)), detail)
        quality, values = resampled_quality(metric, self.readings(metric, stacked), truth)
        return Assessment(quality, {**detail, "resampled": pack_numbers(values)})

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Compare the most probable class with the label.

        Args:
            logits: [labels].
            label: The label of the row.
            confidence: Probability from which the model overrules the label.

        >>> KIND.review([0.0, 3.0], 0, 0.9), KIND.review([0.0, 1.0], 0, 0.9)
        ((1, 1), (1, 0))
        """
        probabilities = activate(logits, self.activation)
        best = int(probabilities.argmax())
        return best, best if probabilities[best] >= confidence else label


KIND = Classification()
