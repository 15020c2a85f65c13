"""Numbers that a teacher gives for a text, checked and put into the order of the task's labels, as logits.

Probabilities become their logarithms: these are the teacher's logits up to a constant in every row, which a softmax at
any temperature ignores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.kinds import Kind, find
from limbeck.core.outputs import match_labels
from limbeck.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from limbeck.core.task import Task

LEAST = 1e-12
"""Smaller probabilities are raised to this, so that their logarithms stay finite."""

LARGEST = float(np.finfo(np.float32).max)
"""Larger numbers would be infinite logits."""


def check_gives_scores(source: str, task: Task) -> None:
    """Refuse a teacher that gives scores where answers are vectors.

    Args:
        source: How the user named it.
        task: The task.

    Raises:
        InputError: The task's answers are vectors.
    """
    if task.task_kind.vectors:
        raise InputError(
            f"teacher '{source}' gives scores, and the answers of a task of kind '{task.kind}' are vectors; give an "
            "embedding model, as a folder of sentence-transformers or a name on the hub"
        )


@dataclass(frozen=True)
class ScoreFormat:
    """How the scores of one text are given.

    Attributes:
        kind: Kind of the task.
        labels: The task's label names; a list of scores is in this order.
        probabilities: Whether the scores are probabilities; else they are logits, or the numbers of a regression.
        cure: What errors advise for logits that were taken for probabilities.
    """

    kind: Kind
    labels: tuple[str, ...]
    probabilities: bool
    cure: str = "if these are logits, name the field 'logits'"

    def read(self, value: Any, where: str) -> list[float]:  # Any: whatever a file or a function gives
        """Return the scores of one text in the order of the labels.

        Args:
            value: A number for each label, as a sequence or by label name; one number for a regression.
            where: Where it is, for messages.

        Raises:
            InputError: Wrong labels, a wrong number of scores, or scores that are not finite, or not probabilities.
        """
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if find(self.kind).numeric and not isinstance(value, (Mapping, list, tuple)):
            value = [value]
        if isinstance(value, Mapping):
            value = self._ordered(value, where)
        width = max(1, len(self.labels))
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise InputError(f"{where}: expected a score for each label, got {shown(value)}")
        if len(value) != width:
            named = f" ({', '.join(self.labels[:6])}{', …' * (len(self.labels) > 6)})" if self.labels else ""
            raise InputError(f"{where}: expected {width} scores{named}, got {len(value)}")
        numbers = [_number(score, where) for score in value]
        return self._normalized(numbers, where) if self.probabilities else numbers

    def read_text(self, value: Any, where: str, words: int | None = None) -> np.ndarray:
        """Return the scores of one text in the order of the labels.

        Args:
            value: As for :meth:`read`; where words have labels a list of those, None for words without scores.
            where: Where it is, for messages.
            words: Number of words of the text; None where it is not known or texts have labels.

        Returns:
            [labels]; of words [words, labels], NaN for words without scores.

        Raises:
            InputError: As :meth:`read`, or there are not as many scores as words.
        """
        if not find(self.kind).per_token:
            return np.asarray(self.read(value, where), dtype=np.float64)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: expected a list with the scores of each word, got {shown(value)}")
        if words is not None and len(value) != words:
            raise InputError(f"{where}: {words} words, but scores of {len(value)}")
        nothing = [math.nan] * len(self.labels)
        rows = [nothing if word is None else self.read(word, f"{where}, word {n}") for n, word in enumerate(value, 1)]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.labels))

    def _ordered(self, value: Mapping[Any, Any], where: str) -> list[Any]:
        names = tuple(str(name) for name in value)
        match = match_labels(names, self.labels, subset=False)
        if not match or match.assumed:
            wrong = next((name for name in names if name not in self.labels), "")
            cure = f"'{wrong}': {nearest(wrong, self.labels)}" if wrong else "every label needs a score"
            raise InputError(
                f"{where}: scores are for the labels {', '.join(names)}, the task has {', '.join(self.labels)}; {cure}"
            )
        scores = list(value.values())
        return [scores[output] for output in match.outputs]

    def _normalized(self, numbers: list[float], where: str) -> list[float]:
        """Return probabilities, those of classes divided by their sum, which is not quite 1 if they were rounded."""
        for number in numbers:
            if not _is_probability(number):
                raise InputError(f"{where}: {number:g} is not a probability (0 to 1); {self.cure}")
        if find(self.kind).several:
            return numbers
        total = sum(numbers)
        if abs(total - 1) > tolerance(len(numbers)) + 1e-9:  # three times 0.34 are 1.02 and a rounding error
            raise InputError(f"{where}: the probabilities sum to {total:.4g}, not to 1; {self.cure}")
        return [number / total for number in numbers]

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Convert scores to logits.

        Args:
            values: Scores as :meth:`read` returns them [..., labels].

        Returns:
            Logits in float32 [..., labels]; of probabilities the logarithms, or for several labels the log-odds.
        """
        values = np.asarray(values, dtype=np.float64)
        if self.probabilities:
            several = find(self.kind).several
            bounded = np.clip(values, LEAST, 1 - LEAST if several else 1.0)
            values = np.log(bounded) - (np.log1p(-bounded) if several else 0.0)
        return values.astype(np.float32)


def names_labels(rows: Iterable[tuple[Any, str]], named: bool | None = None) -> bool | None:
    """Return whether scores come with the names of their labels; None if there are no scores.

    Args:
        rows: The scores of each text, for its words a list of those, and where they are, for messages.
        named: Whether earlier scores did; None if there were none.

    Raises:
        InputError: Some do and some do not; the order of the others could not be checked.
    """
    for scores, where in rows:
        words = scores if isinstance(scores, (list, tuple)) else [scores]
        for by_name in sorted({isinstance(word, Mapping) for word in words if word is not None}):
            if named is not None and by_name != named:
                given, others = ("by label name", "in lists")[:: 1 if by_name else -1]
                raise InputError(f"{where}: scores {given}, where others are {others}; name the labels of all scores")
            named = by_name
    return named


def tolerance(labels: int) -> float:
    """Return how far a sum of so many probabilities, rounded to two digits, may be from 1.

    >>> tolerance(2), tolerance(20), tolerance(1000)
    (0.02, 0.1, 0.5)
    """
    return min(0.5, max(0.02, labels * 5e-3))


def are_probabilities(kind: Kind, values: np.ndarray) -> bool | None:
    """Return whether scores are probabilities [rows, labels]: all are in 0 to 1. None if there are no scores."""
    values = values[~np.isnan(values).any(axis=1)]  # words without scores
    if not len(values):
        return None
    return not find(kind).numeric and all(map(_is_probability, (values.min(), values.max())))


def _is_probability(number: float) -> bool:
    return -1e-6 <= number <= 1 + 1e-6


def _number(score: Any, where: str) -> float:  # Any: whatever a file or a function gives
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise InputError(f"{where}: expected a number for each label, got {shown(score)}")
    if not abs(score) <= LARGEST:
        raise InputError(f"{where}: expected a finite score, at most {LARGEST:.2g}, for each label, got {shown(score)}")
    return float(score)
