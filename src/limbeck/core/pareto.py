"""Pareto dominance: fronts, ranks and hypervolume.

Points are arrays [points, objectives]; ``senses`` gives the direction of each objective, "max" or "min".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

Sense = Literal["max", "min"]


def costs(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """Negate objectives to be maximized, so that less is always better [points, objectives]."""
    array: npt.NDArray[np.float64] = np.atleast_2d(np.asarray(points, dtype=float))
    if not array.size:
        return array.reshape(0, len(senses))
    assert array.shape[1] == len(senses), "one sense for each objective"
    assert not np.isnan(array).any(), "a point without a value cannot be compared"
    signs: npt.NDArray[np.float64] = np.array([-1.0 if sense == "max" else 1.0 for sense in senses])
    return array * signs


def dominates(first: ArrayLike, second: ArrayLike, senses: Sequence[Sense]) -> bool:
    """Return whether ``first`` is no worse in any objective and better in at least one.

    Args:
        first: One point [objectives].
        second: Another point [objectives].
        senses: Direction of each objective.

    >>> dominates((0.9, 2.0), (0.8, 2.0), ("max", "min"))
    True
    """
    lower, upper = costs(first, senses)[0], costs(second, senses)[0]
    return bool((lower <= upper).all() and (lower < upper).any())


def front(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """Mark the points that no other dominates [points], bool; equal points are all kept.

    >>> front([(0.9, 5.0), (0.8, 2.0), (0.7, 3.0)], ("max", "min")).tolist()
    [True, True, False]
    """
    return _front(costs(points, senses))


def _front(lower: np.ndarray) -> np.ndarray:
    better = (lower[:, None] <= lower[None]).all(2) & (lower[:, None] < lower[None]).any(2)
    return np.logical_not(better.any(axis=0))


def ranks(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """Sort by dominance [points]: 0 on the front, 1 on the front of the rest, and so on."""
    lower = costs(points, senses)
    ranks = np.full(len(lower), -1)
    rank = 0
    while (ranks < 0).any():
        unranked = np.flatnonzero(ranks < 0)
        ranks[unranked[_front(lower[unranked])]] = rank
        rank += 1
    return ranks


def hypervolume(points: ArrayLike, reference: ArrayLike, senses: Sequence[Sense]) -> float:
    """Measure the volume that the points dominate up to a reference point.

    Slices along the last objective, recursively: exact, and fast enough for a few hundred points in four objectives.

    Args:
        points: Points [points, objectives]; those beyond the reference add nothing.
        reference: Corner of the volume [objectives].
        senses: Direction of each objective.

    >>> hypervolume([(1.0, 2.0), (2.0, 1.0)], (3.0, 3.0), ("min", "min"))
    3.0
    """
    corner = costs(reference, senses)[0]
    lower = costs(points, senses)
    return _volume(lower[(lower < corner).all(1)], corner)


def _volume(lower: np.ndarray, corner: np.ndarray) -> float:
    if not len(lower):
        return 0.0
    if lower.shape[1] == 1:
        return float(corner[0] - lower.min())
    lower = lower[np.argsort(lower[:, -1])]
    ends = np.append(lower[1:, -1], corner[-1])
    return sum(
        float(end - row[-1]) * _volume(lower[: index + 1, :-1], corner[:-1])
        for index, (row, end) in enumerate(zip(lower, ends, strict=True))
        if end > row[-1]
    )


def beyond(points: ArrayLike, senses: Sequence[Sense], margin: float = 0.1) -> tuple[float, ...]:
    """Choose a reference point for :func:`hypervolume`: the worst value of each objective, moved out by a margin.

    Without a margin the ends of a front, each the worst in one objective, would add nothing.

    Args:
        points: Points [points, objectives].
        senses: Direction of each objective.
        margin: Distance from the worst value, as a fraction of the objective's range.

    >>> beyond([(0.9, 5.0), (0.8, 2.0)], ("max", "min"), margin=0.5)
    (0.75, 6.5)
    """
    lower = costs(points, senses)
    span = np.ptp(lower, axis=0)
    corner = lower.max(axis=0) + margin * np.where(span > 0, span, 1.0)
    return tuple(round(float(value), 12) for value in costs(corner, senses)[0])


def spread(points: ArrayLike, reference: ArrayLike, senses: Sequence[Sense], count: int) -> list[int]:
    """Select points of the front greedily, each time the one that adds the most hypervolume.

    The first is the point that dominates most; points that add nothing, such as duplicates, are left out.

    Args:
        points: Points [points, objectives].
        reference: Reference point of the hypervolume [objectives].
        senses: Direction of each objective.
        count: Most points to select.

    Returns:
        Indices of the selected points, in order of selection.

    >>> spread([(0.9, 5.0), (0.89, 4.9), (0.7, 1.0), (0.5, 3.0)], (0.4, 6.0), ("max", "min"), 2)
    [2, 1]
    """
    rows = np.atleast_2d(np.asarray(points, dtype=float))
    remaining = [int(index) for index in np.flatnonzero(front(rows, senses))]
    selected: list[int] = []
    volume = 0.0
    while remaining and len(selected) < count:
        volumes = [hypervolume(rows[[*selected, index]], reference, senses) for index in remaining]
        best = int(np.argmax(volumes))
        if volumes[best] <= volume:
            break
        volume = volumes[best]
        selected.append(remaining.pop(best))
    return selected
