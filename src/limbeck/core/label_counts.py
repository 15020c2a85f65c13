"""Counts of rows by label: those that have it, those predicted to have it, and those predicted rightly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def per_class(names: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, int]]:
    """Count the rows of every class, those predicted, and those predicted correctly.

    Args:
        names: The label names.
        predicted: Predicted classes [rows].
        truth: True classes [rows].
    """
    classes = np.arange(len(names))
    return per_label(names, predicted[:, None] == classes, truth[:, None] == classes)


def per_label(names: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, int]]:
    """Count the rows that have each label, those predicted to have it, and those predicted correctly.

    Args:
        names: The label names.
        predicted: Whether a row is predicted to have a label [rows, labels].
        truth: Whether it has it [rows, labels].
    """
    counts = (truth.sum(0), predicted.sum(0), (predicted & truth).sum(0))
    return {
        name: {"examples": int(examples), "predicted": int(answers), "correct": int(correct)}
        for name, examples, answers, correct in zip(names, *counts, strict=True)
    }
