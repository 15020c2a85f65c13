"""A label for every word of a text; the first token of a word carries it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.entities import OUTSIDE, Scores, TagScheme, count_entities, join_rows, scheme_of, scores_of
from limbeck.core.label_counts import per_class
from limbeck.core.logits import Activation, activate
from limbeck.core.metrics import IGNORED, METRICS, default_label
from limbeck.core.statistics import Resampled, pack_numbers, resample, resampled_score
from limbeck.core.task_kind import Label, Logits, TaskKind
from limbeck.errors import InputError


class Tokens(TaskKind):
    """A label for every word. A label is a tuple of class indices, one for each word."""

    name = "tokens"
    problem_type = "single_label_classification"
    per_token = True
    answer_code = "[{labels}[seen[i].argmax()] if i in seen else {labels}[{default}] for i in range(len(words))]"
    default_metric = "entity_f1"
    first_label = OUTSIDE
    label_noun = ("word label", "word labels")
    auto_class = "AutoModelForTokenClassification"
    pipeline = "token-classification"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the labels of the words as a list, and joined by spaces.

        Args:
            logits: [words, labels].
            labels: The label names.
            activation: The model's own.
        """
        tags = [labels[index] for index in logits.argmax(axis=-1)]
        return {"answer": " ".join(tags), "labels": tags}

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the class of every word."""
        index = {name: position for position, name in enumerate(names)}
        return tuple(index[name] for name in answer["labels"])

    def parts(self, cell: Any, separator: str | None) -> Any:  # a cell of any type
        """Divide a text at white space; keep a list."""
        return cell.split() if isinstance(cell, str) else cell

    def encode(self, indices: Sequence[int], width: int, words: int) -> Label:
        """Return the class of every word.

        Args:
            indices: Index of each word's class.
            width: Number of label names.
            words: Number of words of the text.

        Raises:
            InputError: There is not one for each word.
        """
        if len(indices) != words:
            raise InputError(f"{words} words but {len(indices)} tags")
        return tuple(indices)

    def renumber(self, label: Label, indices: Sequence[int], width: int) -> Label:
        """Change the class of every word.

        Args:
            label: The label.
            indices: The new index of each old label.
            width: Number of new label names.
        """
        return tuple(indices[tag] if tag >= 0 else tag for tag in label)

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return the class of every word."""
        classes: Iterable[int] = label
        return classes

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return the classes of all words, one row after another [words]."""
        return np.concatenate([np.asarray(row, dtype=np.int64).reshape(-1) for row in labels])

    def decisions(self, logits: Logits, labels: Sequence[Label] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Join the rows, without positions labeled ``IGNORED``.

        Args:
            logits: For each row [positions, labels].
            labels: For each row [positions].

        Returns:
            Logits [words, labels], and classes [words].
        """
        truth = self.truth(labels)
        rows = [np.asarray(row) for row in logits]
        joined = np.concatenate([row.reshape(-1, row.shape[-1]) for row in rows])
        counted = truth != IGNORED
        return joined[counted], truth[counted]

    def same_answers(self, first: Logits, second: Logits, labels: Sequence[npt.ArrayLike]) -> np.ndarray:
        """Return whether two models label every word alike [rows].

        Args:
            first: For each row [positions, labels].
            second: For each row [positions, labels].
            labels: For each row [positions]; positions labeled ``IGNORED`` do not count.
        """
        masks = [np.asarray(row) != IGNORED for row in labels]
        triples = zip(first, second, masks, strict=True)
        return np.array([bool((self.decode(a)[mask] == self.decode(b)[mask]).all()) for a, b, mask in triples])

    def usual_metric(self, names: Sequence[str]) -> str:
        """Return the F1 of entities where the tags mark any; else of words that are not 'O'; else accuracy."""
        if scheme_of(tuple(names)) is not None:
            return self.default_metric
        return "token_f1" if names[0] == OUTSIDE else "accuracy"

    def fidelity_metric(self, names: Sequence[str]) -> str:
        """Return the F1 of the model's own entities; of other labels, the share of words."""
        return self.default_metric if scheme_of(tuple(names)) is not None else "agreement"

    def score(self, metric: str, names: Sequence[str], logits: Logits, labels: Sequence[Label] | np.ndarray) -> float:
        """Compute a metric of logits.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: For each row [positions, labels].
            labels: For each row [positions], where ``IGNORED`` ones do not count.
        """
        scheme = scheme_of(tuple(names))
        if not METRICS[metric].reads_entities or scheme is None:
            return super().score(metric, names, logits, labels)
        guesses, truths = self._answers(logits, labels)
        return METRICS[metric](join_rows(scheme, guesses), join_rows(scheme, truths))

    def _answers(
        self, logits: Logits, labels: Sequence[Label] | np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the predicted and the right classes of the words of each row that have a token."""
        truths = [np.asarray(row, dtype=np.int64) for row in labels]
        guesses = [self.decode(row)[truth != IGNORED] for row, truth in zip(logits, truths, strict=True)]
        return guesses, [truth[truth != IGNORED] for truth in truths]

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[UnseenWord]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over the texts; keep the values on the resamples.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: For each row [positions, labels].
            labels: For each row [positions].
            unseen: For each row, the words that have no token.
        """
        guesses, truths = self._answers(logits, labels)
        if unseen:
            other = default_label(names)
            guesses = [
                _insert(row, [word._replace(label=other) for word in rest])
                for row, rest in zip(guesses, unseen, strict=True)
            ]
            truths = [_insert(row, rest) for row, rest in zip(truths, unseen, strict=True)]
        detail: dict[str, Any] = {"per_label": per_class(names, np.concatenate(guesses), np.concatenate(truths))}
        if count := sum(map(len, unseen)):
            detail["unseen_words"] = count
        scheme = scheme_of(tuple(names))
        entities = _entity_scores(scheme, guesses, truths, detail) if scheme is not None else {}
        chosen = entities.pop(metric, None) or resampled_score(
            lambda guess, truth: METRICS[metric](np.concatenate(guess), np.concatenate(truth)), guesses, truths
        )
        detail["resampled"] = pack_numbers(chosen.values)
        return Assessment(chosen.interval, detail, {name: each.interval for name, each in entities.items()})

    def review(self, logits: npt.ArrayLike, label: Label, confidence: float) -> tuple[Label, Label]:
        """Compare the most probable class of every word with its label.

        Args:
            logits: [words, labels]; NaN for words that the model did not see, which keep their labels.
            label: The label of the row.
            confidence: Probability from which the model overrules the label of a word.
        """
        best = np.asarray(logits).argmax(axis=-1)
        largest = np.asarray(activate(logits, self.activation)).max(axis=-1)  # NaN is no probability
        pairs = list(zip(label, best.tolist(), largest.tolist(), strict=True))
        predicted = tuple(old if math.isnan(sure) else new for old, new, sure in pairs)
        return predicted, tuple(new if sure >= confidence and old != IGNORED else old for old, new, sure in pairs)


def _insert(row: np.ndarray, words: Sequence[UnseenWord]) -> np.ndarray:
    """Insert the labels of words without a token into those of the others, in the order of the text."""
    labels = row.tolist()
    for word, label in words:  # in ascending order
        labels.insert(word, label)
    return np.asarray(labels, dtype=np.int64)


def _entity_scores(
    scheme: TagScheme, guesses: Sequence[np.ndarray], truths: Sequence[np.ndarray], detail: dict[str, Any]
) -> dict[str, Resampled]:
    """Score whole entities, with intervals over the texts.

    Args:
        scheme: The scheme of the tags.
        guesses: Predicted classes of each row's words.
        truths: Their right classes.
        detail: Receives the figures of each type.

    Returns:
        F1, precision and recall by the names of the metrics.
    """
    counts = count_entities(scheme, guesses, truths)
    detail["per_type"] = {
        name: {
            **dict(zip(("correct", "predicted", "examples"), map(int, sums), strict=True)),
            **scores_of(sums)._asdict(),
        }
        for name, sums in zip(scheme.types, counts.sum(0), strict=True)
    }
    rows = counts.sum(1)

    def resampled(column: int) -> Resampled:
        return resample(lambda chosen: scores_of(rows[chosen].sum(0))[column], len(rows))

    return {f"entity_{name}": resampled(column) for column, name in enumerate(Scores._fields)}


KIND = Tokens()
