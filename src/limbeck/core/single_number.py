"""Kinds of task whose answer to a text is a single number: the model's only logit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.task_kind import Label, TaskKind


class SingleNumber(TaskKind):
    """A kind whose answer is a number; there are no label names."""

    activation = "identity"
    numeric = True
    answer_code = "float(logits[0])"
    label_dtype = "float32"
    label_noun = None

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the number."""
        return float(answer["answer"])

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return nothing: there are no label names."""
        return ()

    def decode(self, logits: npt.ArrayLike) -> np.ndarray:
        """Return the numbers [rows] of logits [rows, 1]."""
        values = np.asarray(logits)
        return values.reshape(len(values)).astype(float)

    def drift(self, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return how far the numbers have moved [rows].

        Args:
            before: Logits of the reference [rows, 1].
            after: Logits of another model.
            truth: Ignored.
        """
        return np.asarray(np.abs(self.decode(before) - self.decode(after)))

    def answer_name(self, answer: Any, names: Sequence[str]) -> str:  # a row of what ``decode`` returns
        """Format the number.

        Args:
            answer: The number.
            names: Empty.
        """
        return f"{float(answer):.4g}"
