"""Any number of labels for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.decision import Decision, DecisionGoal, Detection
from limbeck.core.label_counts import per_label
from limbeck.core.logits import Activation, activate
from limbeck.core.ranking import resampled_quality
from limbeck.core.statistics import pack_numbers
from limbeck.core.task_kind import Label, Logits, TaskKind
from limbeck.errors import nearest

DECIDED = """\
decision = metadata["decision"]
scores = numpy.exp(-numpy.logaddexp(0, -logits / decision["temperature"]))
thresholds = [decision["thresholds"].get(label, 0.5) for label in metadata["labels"]]
rows = zip(metadata["labels"], scores, thresholds)
print({label: float(score) for label, score, threshold in rows if score >= threshold})"""
"""Labels that reach their threshold, with their probabilities, for the artefact's example."""


class Multilabel(TaskKind):
    """Any number of labels. A label is a tuple of 0 and 1, one for each label name."""

    name = "multilabel"
    problem_type = "multi_label_classification"
    activation = "sigmoid"
    several = True
    answer_code = "[label for label, logit in zip({labels}, logits) if logit > 0]"
    default_metric = "micro_f1"
    label_dtype = "float32"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the labels with a probability above one half, and the probability of each.

        Args:
            logits: [labels].
            labels: The label names.
            activation: The model's own.
        """
        scores = dict(zip(labels, map(float, activate(logits, activation)), strict=True))
        return {"answer": ", ".join(label for label, score in scores.items() if score > 0.5), "scores": scores}

    def decide(
        self, logits: np.ndarray, labels: Sequence[str], activation: Activation, decision: Decision
    ) -> dict[str, Any]:
        """Return the labels that reach their thresholds, and the calibrated probability of each.

        Args:
            logits: [labels].
            labels: The label names.
            activation: The model's own.
            decision: Thresholds and temperature.
        """
        scores = activate(logits / decision.temperature, activation)
        given = _reached(scores[None], labels, decision)[0]
        answer = ", ".join(label for label, present in zip(labels, given, strict=True) if present)
        return {"answer": answer, "scores": dict(zip(labels, map(float, scores), strict=True))}

    def decision_code(self, decision: Decision) -> str:
        """Return code that prints the labels and their calibrated probabilities."""
        return DECIDED

    def goal_problems(self, goal: DecisionGoal, names: Sequence[str]) -> dict[str, str]:
        """Return what does not fit.

        Args:
            goal: What is to be fitted.
            names: The label names.
        """
        if goal.bands:
            return {"bands": "are of numbers, and the task has labels; leave it out"}
        if goal.positive_score != "probability":
            return {"positive_score": "labels do not exclude each other: each is detected by its own probability"}
        if goal.positive is not None and goal.positive not in names:
            return {"positive": f"no label is called '{goal.positive}'; {nearest(goal.positive, names)}"}
        return {}

    def detections(
        self,
        logits: np.ndarray,
        labels: Sequence[Label] | np.ndarray,
        names: Sequence[str],
        goal: DecisionGoal,
        temperature: float,
    ) -> dict[str, Detection]:
        """Return every label as a question of yes or no.

        Args:
            logits: [rows, labels].
            labels: [rows, labels].
            names: The label names.
            goal: Says what the original model's threshold is.
            temperature: What logits are divided by for the scores, not for the model's usual rule.
        """
        scores = activate(logits / temperature, self.activation)
        usual = activate(logits, self.activation) >= (goal.original_threshold or np.nextafter(0.5, 1))
        truth = np.asarray(labels) > 0
        return {name: Detection(scores[:, index], truth[:, index], usual[:, index]) for index, name in enumerate(names)}

    def decided(self, logits: np.ndarray, names: Sequence[str], decision: Decision) -> np.ndarray:
        """Return 0 or 1 for every label, by the thresholds [rows, labels].

        Args:
            logits: [rows, labels].
            names: The label names.
            decision: Thresholds and temperature.
        """
        return _reached(activate(logits / decision.temperature, self.activation), names, decision).astype(np.int64)

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return which labels are probable."""
        return tuple(int(score > 0.5) for score in answer["scores"].values())

    def parts(self, cell: Any, separator: str | None) -> Any:  # a cell of any type
        """Divide a text at the separator; keep a list."""
        return [part for part in cell.split(separator) if part.strip()] if isinstance(cell, str) else cell

    def encode(self, indices: Sequence[int], width: int, words: int) -> Label:
        """Return 0 or 1 for every label name.

        Args:
            indices: Indices of the labels.
            width: Number of label names.
            words: Ignored.
        """
        return tuple(int(index in indices) for index in range(width))

    def renumber(self, label: Label, indices: Sequence[int], width: int) -> Label:
        """Move the values to the places of other label names.

        Args:
            label: The label.
            indices: The new index of each old label.
            width: Number of new label names.
        """
        row = [0] * width
        for index, value in zip(indices, label, strict=True):
            row[index] = value
        return tuple(row)

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return the indices of the labels that are 1."""
        return (index for index, present in enumerate(label) if present)

    def describe(self, label: Label, names: Sequence[str]) -> str:
        """Join the names of the labels that are 1 by commas."""
        return ", ".join(names[index] for index in self.classes_in(label)) or "none"

    def decode(self, logits: npt.ArrayLike) -> np.ndarray:
        """Return 0 or 1 for every logit."""
        return np.asarray(np.asarray(logits) > 0, dtype=np.int64)

    def drift(self, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the change of probability of the label that changed most [decisions].

        Args:
            before: Logits of the reference [decisions, labels].
            after: Logits of another model.
            truth: Ignored.
        """
        scores = activate(before, self.activation), activate(after, self.activation)
        return np.asarray(np.abs(scores[0] - scores[1]).max(axis=-1))

    def answer_name(self, answer: Any, names: Sequence[str]) -> str:  # a row of what ``decode`` returns
        """Join the names of the labels that are 1 by commas.

        Args:
            answer: 0 or 1 for every label name.
            names: The label names.
        """
        return self.describe(answer, names)

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over the rows; keep the values on the resamples.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: [rows, labels].
            labels: [rows, labels].
            unseen: Empty.
        """
        stacked, truth = np.stack(list(logits)), np.asarray(labels).astype(int)
        predicted = self.decode(stacked)
        counts = per_label(names, predicted, truth)
        quality, values = resampled_quality(metric, self.readings(metric, stacked), truth)
        return Assessment(quality, {"per_label": counts, "resampled": pack_numbers(values)})

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Compare every label by itself.

        Args:
            logits: [labels].
            label: The label of the row.
            confidence: Probability, of 1 or of 0, from which the model overrules a label.
        """
        probabilities = activate(logits, self.activation)
        predicted = tuple(int(probability > 0.5) for probability in probabilities)
        confident = [max(probability, 1 - probability) >= confidence for probability in probabilities]
        return predicted, tuple(
            new if sure else old for new, old, sure in zip(predicted, label, confident, strict=True)
        )

    def constants(self, truth: np.ndarray, width: int) -> Iterator[tuple[float | np.ndarray, Sequence[int]]]:
        """Yield the most frequent labels, from none to all.

        Args:
            truth: [rows, labels].
            width: Number of label names.
        """
        order = np.argsort(-truth.mean(axis=0), kind="stable")
        for count in range(len(order) + 1):
            value = np.isin(np.arange(len(order)), order[:count]).astype(np.int64)
            yield value, tuple(self.classes_in(value))

    def confusion(
        self, logits: Sequence[npt.ArrayLike] | np.ndarray, labels: Sequence[Any], count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compare every output with every label: both yes or both no is a right decision.

        Args:
            logits: [texts, labels].
            labels: [texts, labels].
            count: Number of labels.
        """
        predicted, truth = np.asarray(logits) > 0, np.asarray(labels) > 0
        tables = (truth[:, :, None] == predicted[:, None, :]).astype(float)
        constant = (truth == (truth.mean(0) > 0.5)).sum(1)
        return tables, np.asarray(constant), np.full(len(truth), count)


def _reached(probabilities: np.ndarray, names: Sequence[str], decision: Decision) -> np.ndarray:
    """Return whether probabilities reach the thresholds, one half without one [rows, labels]."""
    return np.asarray(probabilities >= [decision.thresholds.get(name, 0.5) for name in names])


KIND = Multilabel()
