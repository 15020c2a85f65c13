"""Labels of any kind as JSON holds them."""

from __future__ import annotations

from typing import Any

from limbeck.core import judged_texts
from limbeck.core.search_score import SearchScore
from limbeck.core.soft_label import SoftLabel


def to_plain(label: Any) -> Any:  # a label of any kind
    """Return a label as JSON holds it.

    >>> to_plain(SoftLabel(1, (0.2, 0.8)))
    {'class': 1, 'probabilities': [0.2, 0.8]}
    """
    if isinstance(label, SoftLabel):
        return {"class": int(label), "probabilities": list(label.probabilities)}
    if isinstance(label, SearchScore):
        return {"search": float(label)}
    return judged_texts.to_plain(label) if judged_texts.is_judged(label) else label


def from_plain(value: Any) -> Any:  # a JSON value
    """Invert :func:`to_plain`; a list becomes a tuple."""
    if not isinstance(value, dict):
        return tuple(value) if isinstance(value, list) else value
    if "search" in value:
        return SearchScore(value["search"])
    if "class" not in value:
        return judged_texts.from_plain(value)
    return SoftLabel(int(value["class"]), tuple(map(float, value["probabilities"])))
