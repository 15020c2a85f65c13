"""Flips: texts that a model has wrong and its teacher had right, or the reverse; in all, by label, by third of length.

Two models of the same accuracy may still disagree, and a small loss in all may be a large one in a label.
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
    """A group of texts: how many there are, how many the teacher has right, and which of them changed."""

    texts: str
    n: int
    before: int
    lost: int  # the teacher was right, the model is not
    won: int  # the model is right, the teacher was not


def flips(before: ArrayLike, after: ArrayLike, groups: Mapping[str, np.ndarray]) -> list[Flips]:
    """Count flips in every group of texts (a mask [texts]) from who was right where, the teacher and the model [texts].

    >>> flips([True, True, False], [True, False, True], {"all": np.array([True, True, True])})
    [Flips(texts='all', n=3, before=2, lost=1, won=1)]
    """
    was, stays = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    counted = {name: (mask, mask & was, mask & was & ~stays, mask & ~was & stays) for name, mask in groups.items()}
    return [Flips(name, *(int(part.sum()) for part in parts)) for name, parts in counted.items()]


def groups_of(labels: ArrayLike, label_names: Sequence[str], lengths: ArrayLike, unit: str) -> dict[str, np.ndarray]:
    """All texts, those of every label, and the thirds of the sorted lengths; texts of one length stay together.

    Groups without texts are left out, and a label called 'all' stands in quotes.

    >>> list(groups_of([0, 1, 1], ["no", "yes"], [3, 4, 9], "words"))
    ['all', 'no', 'yes', 'up to 3 words', '4 to 4 words', 'over 4 words']
    """
    classes, sizes = np.asarray(labels), np.asarray(lengths)
    low, high = (int(edge) for edge in np.quantile(sizes, [1 / 3, 2 / 3], method="lower"))
    found = {
        "all": np.full(len(classes), True),
        **{"'all'" if name == "all" else name: classes == place for place, name in enumerate(label_names)},
        f"up to {low} {unit}": sizes <= low,
        f"{low + 1} to {high} {unit}": (sizes > low) & (sizes <= high),
        f"over {high} {unit}": sizes > high,
    }
    return {name: mask for name, mask in found.items() if mask.any()}


def flips_of(summary: RunSummary, row: Row | None, teacher: Row | None, split: str) -> list[Flips]:
    """Flips of a row against the teacher's; nothing where the answers or the texts are not at hand.

    Lengths are in characters, because a report opens no tokenizer.
    """
    rows = getattr(summary.task, "splits", {}).get(split)
    if row is None or teacher is None or row.key == teacher.key or rows is None:
        return []
    facts = teacher.quality.get(split), row.quality.get(split)
    before, after = (correct(fact) if fact is not None else None for fact in facts)
    if before is None or after is None or not len(before) == len(after) == len(rows.labels):
        return []
    lengths = [len(text) + len(pair) for text, pair in zip(rows.texts, rows.pairs or ("",) * len(before), strict=True)]
    return flips(before, after, groups_of(rows.labels, summary.task.label_names, lengths, "characters"))
