"""A class with the probabilities that a model gave, for tasks whose labels are a model's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np


class SoftLabel(int):
    """The index of the class that a model answers, with the probability of each class.

    It counts, compares and is written as the index, so that whatever reads classes reads it, too.

    >>> label = SoftLabel(1, (0.2, 0.8))
    >>> label == 1, label.probabilities
    (True, (0.2, 0.8))
    """

    probabilities: tuple[float, ...]

    def __new__(cls, index: int, probabilities: Sequence[float]) -> Self:
        """Make a label.

        Args:
            index: Index of the class.
            probabilities: Of each class; they sum to 1.
        """
        label = super().__new__(cls, index)
        label.probabilities = tuple(probabilities)
        return label

    def __reduce__(self) -> tuple[type[Self], tuple[int, tuple[float, ...]]]:
        """Keep the probabilities in copies and on the way to other processes."""
        return type(self), (int(self), self.probabilities)


def has_probabilities(labels: Sequence[Any] | np.ndarray) -> bool:
    """Return whether any label has probabilities."""
    return any(isinstance(label, SoftLabel) for label in labels)


def distributions(labels: Sequence[Any] | np.ndarray, width: int) -> np.ndarray:
    """Return the distribution over classes that each label stands for; an index alone is certain.

    Args:
        labels: Indices of classes, with probabilities or without.
        width: Number of classes.

    Returns:
        [rows, classes].

    >>> distributions([SoftLabel(1, (0.25, 0.75)), 0], 2).tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    """
    rows = np.zeros((len(labels), width))
    for row, label in zip(rows, labels, strict=True):
        if isinstance(label, SoftLabel):
            row[:] = label.probabilities
        else:
            row[int(label)] = 1.0
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))
