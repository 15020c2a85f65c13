"""One of several classes for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.decision import Decision, DecisionGoal, Detection
from limbeck.core.label_counts import per_class
from limbeck.core.logits import Activation, activate
from limbeck.core.metrics import METRICS, counts_rows, kl_divergences
from limbeck.core.ranking import resampled_quality
from limbeck.core.soft_label import SoftLabel, distributions, has_probabilities
from limbeck.core.statistics import Resampled, pack, pack_numbers, resampled_mean, wilson
from limbeck.core.task_kind import Label, Logits, TaskKind
from limbeck.errors import nearest

SCALED = """\
decision, labels = metadata["decision"], metadata["labels"]
scores = numpy.exp((logits - logits.max()) / decision["temperature"])
scores = dict(zip(labels, scores / scores.sum()))
"""
"""Calibrated probabilities by label, for the artefact's example."""


PROBABILITY_DECIMALS = 6
"""Digits of stored probabilities; the order of sums moves later ones."""


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

    def decide(
        self, logits: np.ndarray, labels: Sequence[str], activation: Activation, decision: Decision
    ) -> dict[str, Any]:
        """Return the class by the threshold, and the calibrated probability of each.

        Args:
            logits: [labels].
            labels: The label names.
            activation: The model's own.
            decision: Threshold of one class, and temperature.
        """
        scores = activate(logits / decision.temperature, activation)
        index = _by_threshold(scores[None], labels, decision)[0]
        return {"answer": labels[index], "scores": dict(zip(labels, map(float, scores), strict=True))}

    def decision_code(self, decision: Decision) -> str:
        """Return code that prints the class and its calibrated probability."""
        if not decision.thresholds:
            return SCALED + "answer = max(labels, key=scores.get)\nprint(answer, float(scores[answer]))"
        by_others = decision.positive_score == "max-softmax"
        rule = "scores[other] <= threshold" if by_others else "scores[label] >= threshold"
        return SCALED + (
            '((label, threshold),) = decision["thresholds"].items()\n'
            "other = max((name for name in labels if name != label), key=scores.get)\n"
            f"answer = label if {rule} else other\nprint(answer, float(scores[answer]))"
        )

    def goal_problems(self, goal: DecisionGoal, names: Sequence[str]) -> dict[str, str]:
        """Return what does not fit: the class that matters has to be named.

        Args:
            goal: What is to be fitted.
            names: The label names.
        """
        if goal.bands:
            return {"bands": "are of numbers, and the task has classes; leave it out"}
        if goal.threshold is not None and goal.positive is None:
            example = names[-1] if names else "LABEL"
            return {"positive": f"is required with a threshold: the class that matters, such as {example}"}
        if goal.positive is not None and goal.positive not in names:
            return {"positive": f"no class is called '{goal.positive}'; {nearest(goal.positive, names)}"}
        return {}

    def detections(
        self,
        logits: np.ndarray,
        labels: Sequence[Label] | np.ndarray,
        names: Sequence[str],
        goal: DecisionGoal,
        temperature: float,
    ) -> dict[str, Detection]:
        """Return the class that matters as a question of yes or no.

        Args:
            logits: [rows, labels].
            labels: [rows].
            names: The label names.
            goal: Names the class, and by which score it is detected.
            temperature: What logits are divided by for the scores, not for the model's usual rule.
        """
        if goal.positive is None:
            return {}
        index, by_others = list(names).index(goal.positive), goal.positive_score == "max-softmax"
        scores = [_score(activate(each, self.activation), index, by_others) for each in (logits / temperature, logits)]
        usual = self.decode(logits) == index
        if goal.original_threshold is not None:
            limit = goal.original_threshold
            usual = scores[1] <= limit if by_others else scores[1] >= limit
        sign = -1 if by_others else 1
        return {goal.positive: Detection(sign * scores[0], np.asarray(labels) == index, usual, sign)}

    def decided(self, logits: np.ndarray, names: Sequence[str], decision: Decision) -> np.ndarray:
        """Return the classes by the threshold [rows].

        Args:
            logits: [rows, labels].
            names: The label names.
            decision: Threshold of one class, and temperature.
        """
        return _by_threshold(activate(logits / decision.temperature, self.activation), names, decision)

    def renumber(self, label: Label, indices: Sequence[int], width: int) -> Label:
        """Change a label to another list of label names.

        Args:
            label: The label.
            indices: The new index of each old label.
            width: Number of new label names.
        """
        index = super().renumber(int(label), indices, width)
        if not isinstance(label, SoftLabel):
            return index
        probabilities = np.zeros(width)
        probabilities[list(indices)] = label.probabilities
        return SoftLabel(index, probabilities.tolist())

    def answered_label(self, logits: npt.ArrayLike, label: Label) -> Label:
        """Return the class with the probability of each."""
        probabilities = activate(logits, self.activation)
        return SoftLabel(int(probabilities.argmax()), probabilities.round(PROBABILITY_DECIMALS).tolist())

    def score(self, metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Label] | np.ndarray) -> float:
        """Compute a metric of logits.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: [rows, labels].
            labels: [rows].
        """
        if not METRICS[metric].reads_distributions:
            return super().score(metric, names, logits, labels)
        stacked = np.stack(list(logits))
        return METRICS[metric](activate(stacked, self.activation), distributions(labels, stacked.shape[-1]))

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

        Values on resamples are kept beside a bootstrap interval. Where labels are a model's answers, the KL divergence
        from its probabilities stands beside the metric.

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
        right = wilson(int(correct.sum()), len(correct))
        if METRICS[metric].reads_distributions:
            quality, values = self._divergence(stacked, labels, sign=-1)
            return Assessment(quality, {**detail, "resampled": pack_numbers(values)}, {"agreement": right})
        beside = {"kl_divergence": self._divergence(stacked, labels).interval} if has_probabilities(labels) else {}
        if counts_rows(metric):
            return Assessment(right, detail, beside)
        quality, values = resampled_quality(metric, self.readings(metric, stacked), truth)
        return Assessment(quality, {**detail, "resampled": pack_numbers(values)}, beside)

    def _divergence(self, logits: np.ndarray, labels: Sequence[Label], sign: int = 1) -> Resampled:
        """Return the mean KL divergence, times a sign, from the probabilities of the labels."""
        rows = kl_divergences(activate(logits, self.activation), distributions(labels, logits.shape[-1]))
        return resampled_mean(sign * rows)

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


def _score(probabilities: np.ndarray, index: int, by_others: bool) -> np.ndarray:
    """Return the probability of a class, or the highest one of the others [rows]."""
    scores = np.delete(probabilities, index, axis=1).max(axis=1) if by_others else probabilities[:, index]
    return np.asarray(scores)


def _by_threshold(probabilities: np.ndarray, names: Sequence[str], decision: Decision) -> np.ndarray:
    """Return the class of each row: the one with a threshold if its score allows, else the most probable other one."""
    answers = np.asarray(probabilities.argmax(axis=1))
    for name, threshold in decision.thresholds.items():
        index, by_others = list(names).index(name), decision.positive_score == "max-softmax"
        scores = _score(probabilities, index, by_others)
        others = probabilities.copy()
        others[:, index] = -1.0
        answers = np.where(scores <= threshold if by_others else scores >= threshold, index, others.argmax(axis=1))
    return answers


KIND = Classification()
