"""Prediction flips: texts that the reference answers correctly and the model does not, or the reverse.

They are counted over all texts, by label, and by third of length: two models of equal accuracy may disagree, and a
small loss overall may be a large one on one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from limbeck.report.ablation import correct
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row


@dataclass(frozen=True)
class Flips:
    """Flips in a group of ``n`` texts, ``before`` of which the reference answers correctly."""

    texts: str
    n: int
    before: int
    lost: int  # the reference is correct, the model is not
    won: int  # the model is correct, the reference is not


def flips(before: ArrayLike, after: ArrayLike, groups: Mapping[str, np.ndarray]) -> list[Flips]:
    """Count flips in every group of texts.

    Args:
        before: Whether the reference was correct [texts], bool.
        after: Whether the model was correct [texts], bool.
        groups: Masks [texts] by name of the group.

    >>> flips([True, True, False], [True, False, True], {"all": np.array([True, True, True])})
    [Flips(texts='all', n=3, before=2, lost=1, won=1)]
    """
    was, now = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    masks = {name: (mask, mask & was, mask & was & ~now, mask & ~was & now) for name, mask in groups.items()}
    return [Flips(name, *(int(mask.sum()) for mask in parts)) for name, parts in masks.items()]


def groups_of(labels: ArrayLike, label_names: Sequence[str], lengths: ArrayLike, unit: str) -> dict[str, np.ndarray]:
    """Group texts: all, by label, and by third of the sorted lengths; texts of equal length stay together.

    Args:
        labels: Index of each text's label [texts].
        label_names: Names of the labels; one called 'all' is put in quotes.
        lengths: Length of each text [texts].
        unit: Unit of the lengths, in the plural.

    Returns:
        Masks [texts] by name of the group; empty groups are left out.

    >>> list(groups_of([0, 1, 1], ["no", "yes"], [3, 4, 9], "words"))
    ['all', 'no', 'yes', 'up to 3 words', '4 to 4 words', 'over 4 words']
    """
    classes, sizes = np.asarray(labels), np.asarray(lengths)
    low, high = (int(edge) for edge in np.quantile(sizes, [1 / 3, 2 / 3], method="lower"))
    groups = {
        "all": np.full(len(classes), True),
        **{"'all'" if name == "all" else name: classes == index for index, name in enumerate(label_names)},
        f"up to {low} {unit}": sizes <= low,
        f"{low + 1} to {high} {unit}": (sizes > low) & (sizes <= high),
        f"over {high} {unit}": sizes > high,
    }
    return {name: mask for name, mask in groups.items() if mask.any()}


def flips_of(summary: RunSummary, row: Row | None, reference: Row | None, split: str) -> list[Flips]:
    """Count flips of a candidate against the reference; empty if answers or texts are not available.

    Lengths are in characters, because a report opens no tokenizer.

    Args:
        summary: The run.
        row: The candidate's row.
        reference: The row of the model that figures are relative to.
        split: Split to compare on.
    """
    rows = summary.task.splits.get(split) if summary.task is not None else None
    if summary.task is None or row is None or reference is None or row.key == reference.key or rows is None:
        return []
    facts = reference.quality.get(split), row.quality.get(split)
    before, after = (correct(fact) if fact is not None else None for fact in facts)
    if before is None or after is None or not len(before) == len(after) == len(rows.labels):
        return []
    lengths = [len(text) + len(pair) for text, pair in zip(rows.texts, rows.pairs or ("",) * len(before), strict=True)]
    return flips(before, after, groups_of(rows.labels, summary.task.label_names, lengths, "characters"))
