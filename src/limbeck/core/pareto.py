"""Trade-offs as pure mathematics: who dominates whom, the front, its volume and its knee.

Points are arrays [points, objectives]; ``senses`` says "max" or "min" for each objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Sense = Literal["max", "min"]


def costs(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """The points with every objective turned so that less is better [points, objectives]."""
    array = np.atleast_2d(np.asarray(points, dtype=float))
    if not array.size:
        return array.reshape(0, len(senses))
    assert array.shape[1] == len(senses), "one sense for each objective"
    assert not np.isnan(array).any(), "a point without a value cannot be compared"
    return array * np.array([-1.0 if sense == "max" else 1.0 for sense in senses])


def dominates(first: ArrayLike, second: ArrayLike, senses: Sequence[Sense]) -> bool:
    """Whether ``first`` is nowhere worse and somewhere better.

    >>> dominates((0.9, 2.0), (0.8, 2.0), ("max", "min"))
    True
    """
    mine, other = costs(first, senses)[0], costs(second, senses)[0]
    return bool((mine <= other).all() and (mine < other).any())


def front(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """Which points no other dominates [points], bool; equal points stay together.

    >>> front([(0.9, 5.0), (0.8, 2.0), (0.7, 3.0)], ("max", "min")).tolist()
    [True, True, False]
    """
    return _front(costs(points, senses))


def _front(lower: np.ndarray) -> np.ndarray:
    better = (lower[:, None] <= lower[None]).all(2) & (lower[:, None] < lower[None]).any(2)
    return np.logical_not(better.any(axis=0))


def ranks(points: ArrayLike, senses: Sequence[Sense]) -> np.ndarray:
    """Non-dominated sorting: 0 on the front, 1 on the front of the rest, and so on [points]."""
    lower = costs(points, senses)
    found = np.full(len(lower), -1)
    level = 0
    while (found < 0).any():
        left = np.flatnonzero(found < 0)
        found[left[_front(lower[left])]] = level
        level += 1
    return found


def hypervolume(points: ArrayLike, reference: ArrayLike, senses: Sequence[Sense]) -> float:
    """Volume that the points dominate, up to a reference point; points beyond the reference add nothing.

    Slices along the last objective, recursively: exact, meant for a few hundred points and up to four objectives.

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
        float(end - row[-1]) * _volume(lower[: place + 1, :-1], corner[:-1])
        for place, (row, end) in enumerate(zip(lower, ends, strict=True))
        if end > row[-1]
    )


def beyond(points: ArrayLike, senses: Sequence[Sense], margin: float = 0.1) -> tuple[float, ...]:
    """A reference point for :func:`hypervolume`: the worst of each objective, and so much of its range further.

    Without the margin the ends of a front, which are the worst in one objective, would add nothing.

    >>> beyond([(0.9, 5.0), (0.8, 2.0)], ("max", "min"), margin=0.5)
    (0.75, 6.5)
    """
    lower = costs(points, senses)
    span = np.ptp(lower, axis=0)
    corner = lower.max(axis=0) + margin * np.where(span > 0, span, 1.0)
    return tuple(round(float(value), 12) for value in costs(corner, senses)[0])


def spread(points: ArrayLike, reference: ArrayLike, senses: Sequence[Sense], count: int) -> list[int]:
    """Indices of at most ``count`` points of the front, taken one by one: each adds the most hypervolume to the others.

    The first is the one that dominates most; of points that add nothing (equal ones) none is taken.

    >>> spread([(0.9, 5.0), (0.89, 4.9), (0.7, 1.0), (0.5, 3.0)], (0.4, 6.0), ("max", "min"), 2)
    [2, 1]
    """
    rows = np.atleast_2d(np.asarray(points, dtype=float))
    left = [int(place) for place in np.flatnonzero(front(rows, senses))]
    taken: list[int] = []
    volume = 0.0
    while left and len(taken) < count:
        volumes = [hypervolume(rows[[*taken, place]], reference, senses) for place in left]
        best = int(np.argmax(volumes))
        if volumes[best] <= volume:
            break
        volume = volumes[best]
        taken.append(left.pop(best))
    return taken


def knee(points: ArrayLike, senses: Sequence[Sense]) -> int:
    """Index of the point of the front nearest to the best of everything, objectives scaled to the range of the front.

    >>> knee([(0.90, 10.0), (0.89, 3.0), (0.60, 2.0)], ("max", "min"))
    1
    """
    lower = costs(points, senses)
    members = np.flatnonzero(_front(lower))
    chosen = lower[members]
    span = np.ptp(chosen, axis=0)
    scaled = (chosen - chosen.min(0)) / np.where(span > 0, span, 1.0)
    return int(members[np.argmin((scaled**2).sum(1))])
