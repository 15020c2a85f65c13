"""The score of a pair whose texts are a query and a document, for models with a prompt for each."""

from __future__ import annotations


class SearchScore(float):
    """The label of a query, the first text of a pair, and a document, the second: a number like any other score.

    >>> SearchScore(1.0) == 1.0, isinstance(SearchScore(1.0), float)
    (True, True)
    """
