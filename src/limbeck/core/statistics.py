"""Intervals and paired tests, so that no figure stands without its uncertainty; seeded, and no distribution assumed."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
RESAMPLES = 1000
Columns: TypeAlias = Sequence[Any] | np.ndarray


class Interval(NamedTuple):
    """An estimate with the bounds of its interval."""

    value: float
    low: float
    high: float


def median(samples: ArrayLike, level: float = LEVEL) -> Interval:
    """Median, bounded by order statistics: exact for any distribution, at least ``level`` where n allows it (n >= 6).

    >>> median([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0])
    Interval(value=4.5, low=1.0, high=8.0)
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    count = len(ordered)
    assert count, "no samples"
    rank = _rank(count, level)
    return Interval(float(np.median(ordered)), float(ordered[rank]), float(ordered[count - 1 - rank]))


def _rank(count: int, level: float) -> int:
    """How many samples may be left out at each end: the largest k with P(Binomial(n, 1/2) <= k) <= (1 - level) / 2."""
    if count > 1000:  # the normal approximation is good, and the exact numbers grow long
        reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(count) / 2
        return int(count / 2 - reach) - 1
    tail, below, rank = (1 - level) / 2 * 2**count, 1, 0
    while below + math.comb(count, rank + 1) <= tail:
        rank += 1
        below += math.comb(count, rank)
    return rank


def wilson(successes: int, count: int, level: float = LEVEL) -> Interval:
    """Interval of a proportion that stays within 0 and 1, also for few observations (Wilson, 1927).

    >>> [round(value, 3) for value in wilson(9, 10)]
    [0.9, 0.596, 0.982]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / count
    centre = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval(share, max((centre - reach) / scale, 0.0), min((centre + reach) / scale, 1.0))


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of ``count`` examples (Efron, 1979).

    ``statistic`` receives the indices of the examples that count (with repetition). A resample on which it is not
    a number (one class only, say) is left out.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(np.arange(count)))
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)], dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, value, value)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def score(metric: Callable[[Any, Any], float], predictions: Columns, labels: Columns, **options: Any) -> Interval:
    """A metric over examples, with its bootstrap interval."""
    take = _taker(predictions), _taker(labels)
    return bootstrap(lambda chosen: float(metric(take[0](chosen), take[1](chosen))), len(labels), **options)


def paired_ratio(
    above: ArrayLike, below: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Ratio of two series measured in the same rounds: median of the ratios of each round, rounds resampled.

    What slows a whole round cancels out. ``paired_ratio(parent, child)`` is the speed-up of the child.

    >>> paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    numerators, denominators = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    assert numerators.shape == denominators.shape, "rounds must be paired"
    ratios = numerators / denominators
    return bootstrap(
        lambda chosen: float(np.median(ratios[chosen])), len(ratios), level=level, resamples=resamples, seed=seed
    )


def paired_difference(
    metric: Callable[[Any, Any], float],
    first: Columns,
    second: Columns,
    labels: Columns,
    **options: Any,
) -> Interval:
    """``metric(first) - metric(second)`` on the same examples, resampled together.

    An interval without 0 says that the two really differ.
    """
    mine, other, truth = _taker(first), _taker(second), _taker(labels)

    def difference(chosen: np.ndarray) -> float:
        kept = truth(chosen)
        return float(metric(mine(chosen), kept)) - float(metric(other(chosen), kept))

    return bootstrap(difference, len(labels), **options)


def difference_of_shares(
    first: ArrayLike, second: ArrayLike, *, level: float = LEVEL, resamples: int = 10 * RESAMPLES, seed: int = 0
) -> Interval:
    """:func:`paired_difference` of two accuracies, from who was correct where; drawn at once, only counts matter."""
    gains = np.asarray(first, dtype=int) - np.asarray(second, dtype=int)
    count = len(gains)
    shares = [np.mean(gains == 1), np.mean(gains == -1), np.mean(gains == 0)]
    drawn = np.random.default_rng(seed).multinomial(count, shares, resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gains.mean()), float(low), float(high))


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided p value that two classifiers err equally often (McNemar, 1947), from who was correct where.

    Only examples on which exactly one was right say anything:

    >>> mcnemar([True] * 6 + [False], [False] * 6 + [False])
    0.03125
    """
    mine, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    assert mine.shape == other.shape, "the same examples"
    wins, losses = int((mine & ~other).sum()), int((other & ~mine).sum())
    discordant = wins + losses
    tail = sum(math.comb(discordant, k) for k in range(min(wins, losses) + 1))
    return min(1.0, tail / 2 ** (discordant - 1)) if discordant else 1.0


def pack(flags: ArrayLike) -> str:
    """True and false, eight to a byte, as text that a ledger can keep.

    >>> unpack(pack([True, False, True]), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(np.asarray(flags, dtype=bool)).tobytes()).decode("ascii")


def unpack(text: str, count: int) -> np.ndarray:
    """The ``count`` flags that :func:`pack` wrote."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def _taker(values: Columns) -> Callable[[np.ndarray], Any]:
    """Choose examples of an array or of a ragged list."""
    if isinstance(values, np.ndarray):
        return lambda chosen: values[chosen]
    try:
        array = np.array(values)
    except ValueError:  # ragged: a list of words with their labels
        return lambda chosen: [values[i] for i in chosen]
    return lambda chosen: array[chosen]
