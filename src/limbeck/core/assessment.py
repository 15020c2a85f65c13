"""How well a model answers, with what a reader may ask next; and words that it did not see."""

from __future__ import annotations

from typing import Any, NamedTuple

from limbeck.core.statistics import Interval


class UnseenWord(NamedTuple):
    """A word that has no token, because it was cut off or the tokenizer drops its characters: index and label."""

    word: int
    label: int


class Assessment(NamedTuple):
    """The metric with its interval, and what a reader may ask next."""

    quality: Interval
    detail: dict[str, Any]
    beside: dict[str, Interval] = {}  # noqa: RUF012 never changed
    """Other metrics that belong to the kind: ``rmse`` (in the unit of the labels) and ``r2`` of a regression, precision
    and recall of entities."""
    examples: int | None = None
    """What was resampled, where that is not the rows: queries."""

    def examples_of(self, rows: int) -> int:
        """Return how many examples the metric is of.

        Args:
            rows: Rows that were answered.
        """
        return rows if self.examples is None else self.examples
