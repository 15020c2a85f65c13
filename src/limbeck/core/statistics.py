"""Confidence intervals and paired tests: seeded, and without assumptions about distributions."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
RESAMPLES = 1000
Columns: TypeAlias = Sequence[Any] | np.ndarray


class BootstrapOptions(TypedDict, total=False):
    """Keyword arguments of :func:`bootstrap`."""

    level: float
    resamples: int
    seed: int


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


class Resampled(NamedTuple):
    """An estimate with its interval, and the values of the resamples behind it [resamples]; not all need be finite.

    Resamples of as many examples with the same seed hold the same examples, so the values of two models are paired.
    """

    interval: Interval
    values: np.ndarray


def median(samples: ArrayLike, level: float = LEVEL) -> Interval:
    """Compute the median with an interval from order statistics, valid for any distribution (95 % needs n >= 6).

    >>> median([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0])
    Interval(value=4.5, low=1.0, high=8.0)
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    count = len(ordered)
    assert count, "no samples"
    rank = _rank(count, level)
    return Interval(float(np.median(ordered)), float(ordered[rank]), float(ordered[count - 1 - rank]))


def _rank(count: int, level: float) -> int:
    """Return the largest k with P(Binomial(n, 1/2) <= k) <= (1 - level) / 2: samples outside at each end."""
    if count > 1000:  # the normal approximation is good there, and the exact integers get long
        margin = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(count) / 2
        return int(count / 2 - margin) - 1
    tail, below, rank = (1 - level) / 2 * 2**count, 1, 0
    while below + math.comb(count, rank + 1) <= tail:
        rank += 1
        below += math.comb(count, rank)
    return rank


def wilson(successes: int, count: int, level: float = LEVEL) -> Interval:
    """Compute a proportion with an interval that stays within 0 and 1 even for few observations (Wilson, 1927).

    Args:
        successes: Observations that count.
        count: All observations.
        level: Confidence level.


    >>> [round(value, 3) for value in wilson(9, 10)]
    [0.9, 0.596, 0.982]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    proportion = successes / count
    center = proportion + z * z / (2 * count)
    margin = z * math.sqrt(proportion * (1 - proportion) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval(proportion, max((center - margin) / scale, 0.0), min((center + margin) / scale, 1.0))


def largest_share(successes: int, count: int, level: float = LEVEL) -> float:
    """Compute the one-sided upper bound of a proportion that is exact for rare events (Clopper and Pearson, 1934).

    Whatever the proportion is, it is at most the bound with at least the stated probability; the upper end of Wilson's
    interval falls short of that where few observations count.

    Args:
        successes: Observations that count.
        count: All observations.
        level: Confidence level.

    >>> round(largest_share(0, 299), 4), round(wilson(0, 299, 0.9).high, 4)
    (0.01, 0.009)
    """
    from scipy.special import betaincinv  # takes a tenth of a second to load

    return 1.0 if successes == count else float(betaincinv(successes + 1, count - successes, level))


def wilson_count(proportion: float, width: float, level: float = LEVEL) -> float:
    """Return how many observations have a Wilson interval of this width: the inverse of :func:`wilson`.

    Of observations that are not independent, it is the number of independent ones that tell as much.

    Args:
        proportion: Share of the observations that count.
        width: Width of the interval, above 0 and below 1.
        level: Confidence level.

    >>> _, low, high = wilson(9, 10)
    >>> round(wilson_count(0.9, high - low), 6)
    10.0
    """
    z, square = NormalDist().inv_cdf((1 + level) / 2), width * width
    half = 2 * proportion * (1 - proportion) - square  # the width squared is a ratio of polynomials in z^2 / count
    return z * z * (1 - square) / (math.sqrt(half * half + (1 - square) * square) - half)


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, **options: Unpack[BootstrapOptions]) -> Interval:
    """Compute a statistic with its percentile bootstrap interval (Efron, 1979).

    Args:
        statistic: Maps the indices of the resampled examples, with repetition, to a number. Resamples on which it is
            not finite, for example because they have one class only, are left out.
        count: Number of examples.
        **options: ``level``, ``resamples`` and ``seed`` of :func:`resample`.
    """
    return resample(statistic, count, **options).interval


def resample(
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Compute a statistic as :func:`bootstrap` does, and keep its values on the resamples.

    Args:
        statistic: As for :func:`bootstrap`.
        count: Number of examples.
        level: Confidence level.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(np.arange(count)))
    values = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)], dtype=float)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Resampled(Interval(value, value, value), values)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Resampled(Interval(value, float(low), float(high)), values)


def resample_table(
    statistic: Callable[[np.ndarray], float],
    table: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Compute a statistic of a table whose rows and columns are both samples, and keep its values on the resamples.

    Rows and columns are resampled each for itself (the pigeonhole bootstrap: Owen, 2007, arXiv:0712.1111). The same
    seed takes the same rows and columns of every table of this size, so the values of two tables are paired.

    Args:
        statistic: Maps a table to a number.
        table: The observations [rows, columns].
        level: Confidence level.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    >>> resample_table(np.mean, np.ones((2, 3)), resamples=4).interval
    Interval(value=1.0, low=1.0, high=1.0)
    """
    rng, (rows, columns) = np.random.default_rng(seed), table.shape
    chosen = ((rng.integers(0, rows, rows), rng.integers(0, columns, columns)) for _ in range(resamples))
    values = np.array([statistic(table[np.ix_(*each)]) for each in chosen], dtype=float)
    return Resampled(interval_of(float(statistic(table)), values, level), values)


def interval_of(value: float, values: np.ndarray, level: float = LEVEL) -> Interval:
    """Return a value with the percentile interval of its resamples.

    Args:
        value: The value.
        values: Those on the resamples [resamples], all finite.
        level: Confidence level.
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def score(
    metric: Callable[[Any, Any], float], predictions: Columns, labels: Columns, **options: Unpack[BootstrapOptions]
) -> Interval:
    """Compute a metric over examples with its bootstrap interval.

    Args:
        metric: Maps predictions and labels to a number.
        predictions: One prediction per example.
        labels: One label per example.
        **options: ``level``, ``resamples`` and ``seed`` of :func:`resample`.
    """
    return resampled_score(metric, predictions, labels, **options).interval


def resampled_score(
    metric: Callable[[Any, Any], float], predictions: Columns, labels: Columns, **options: Unpack[BootstrapOptions]
) -> Resampled:
    """Compute a metric over examples as :func:`score` does, and keep its values on the resamples.

    Args:
        metric: Maps predictions and labels to a number.
        predictions: One prediction per example.
        labels: One label per example.
        **options: ``level``, ``resamples`` and ``seed`` of :func:`resample`.
    """
    select_predictions, select_labels = _selector(predictions), _selector(labels)
    return resample(
        lambda indices: float(metric(select_predictions(indices), select_labels(indices))), len(labels), **options
    )


def resampled_mean(values: np.ndarray) -> Resampled:
    """Compute the mean of one value per example [examples] as :func:`resampled_score` does a metric."""
    return resample(lambda indices: float(values[indices].mean()), len(values))


def paired_ratio(
    above: ArrayLike, below: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the median ratio of two series measured in the same rounds, with its bootstrap interval over rounds.

    Whatever slows a whole round cancels out. ``paired_ratio(parent, child)`` is the speed-up of the child.

    Args:
        above: Numerators [rounds].
        below: Denominators [rounds].
        level: Confidence level.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    >>> paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    numerators, denominators = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    assert numerators.shape == denominators.shape, "rounds must be paired"
    ratios = numerators / denominators
    return bootstrap(
        lambda indices: float(np.median(ratios[indices])), len(ratios), level=level, resamples=resamples, seed=seed
    )


def probably_less(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of resamples of the same texts on which the mean of the first errors is less.

    Of few texts it is no more than a sign test could show: resamples of four that agree always agree.

    Args:
        first: Errors [texts].
        second: Errors on the same texts [texts].

    >>> probably_less(np.zeros(3), np.ones(3))
    0.875
    """
    gains = second - first
    share = (resample(lambda index: float(gains[index].mean()), len(gains)).values > 0).mean()
    return float(min(share, 1 - 0.5 ** len(gains)))


def difference_of_shares(
    first: ArrayLike, second: ArrayLike, *, level: float = LEVEL, resamples: int = 10 * RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the difference of two accuracies on the same examples, resampled together.

    An interval that excludes 0 shows a difference. Only counts matter, so all resamples are drawn at once.

    Args:
        first: Whether one model was correct [examples], bool.
        second: Whether the other was [examples], bool.
        level: Confidence level.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
    """
    gains = np.asarray(first, dtype=int) - np.asarray(second, dtype=int)
    count = len(gains)
    shares = [np.mean(gains == 1), np.mean(gains == -1), np.mean(gains == 0)]
    counts = np.random.default_rng(seed).multinomial(count, shares, resamples)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / count, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gains.mean()), float(low), float(high))


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Compute the exact two-sided p-value of equal error rates of two classifiers (McNemar, 1947).

    Both arguments say which examples were classified correctly [examples]. Only examples on which exactly one
    classifier is right carry information:

    >>> mcnemar([True] * 6 + [False], [False] * 6 + [False])
    0.03125
    """
    correct, reference = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    assert correct.shape == reference.shape, "the same examples"
    wins, losses = int((correct & ~reference).sum()), int((reference & ~correct).sum())
    discordant = wins + losses
    tail = sum(math.comb(discordant, k) for k in range(min(wins, losses) + 1))
    return min(1.0, tail / 2 ** (discordant - 1)) if discordant else 1.0


def pack(flags: ArrayLike) -> str:
    """Encode booleans as base64 text, eight to a byte, for a ledger.

    >>> unpack(pack([True, False, True]), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(np.asarray(flags, dtype=bool)).tobytes()).decode("ascii")


def unpack(text: str, count: int) -> np.ndarray:
    """Decode ``count`` booleans from :func:`pack`."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def pack_numbers(values: ArrayLike) -> str:
    """Encode numbers as base64 text with the precision of float32, for a ledger.

    >>> unpack_numbers(pack_numbers([0.5, float("nan")])).tolist()
    [0.5, nan]
    """
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


def unpack_numbers(text: str) -> np.ndarray:
    """Decode the numbers of :func:`pack_numbers`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(float)


def _selector(values: Columns) -> Callable[[np.ndarray], Any]:
    """Return a function that selects examples of an array or of a ragged list by their indices."""
    if isinstance(values, np.ndarray):
        return lambda indices: values[indices]
    try:
        array = np.array(values)
    except ValueError:  # ragged: a list of words with their labels
        return lambda indices: [values[i] for i in indices]
    return lambda indices: array[indices]
