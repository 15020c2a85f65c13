"""What a model loses or changes against a reference on the same examples, and how probable it is to stay below a limit.

Two accuracies on the same texts differ only where exactly one of the models is right, so a comparison text by text has
a much smaller spread than two intervals suggest.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from limbeck.core.measurement import Measurement
from limbeck.core.metrics import counts_queries, counts_rows
from limbeck.core.statistics import LEVEL, unpack, unpack_numbers, wilson_count
from limbeck.core.target import Budget, Counted, Evidence, TestedLimit, Tests

NORMAL = NormalDist()
PRIOR = 1 / 3
"""Weight of each of the three outcomes of a pair (lost, won, the same) before anything was seen: one example in all
(Perks, 1947)."""

QUANTILES = (np.arange(1000) + 0.5) / 1000
ROUNDING = 1e-5  #: points that values kept in float32 may differ by
CERTAIN = Evidence(1.0)  #: of the model itself


@dataclass(frozen=True)
class Loss(ABC):
    """A loss in points of the metric; negative if the model is better.

    Attributes:
        points: The loss on the examples that were answered.
        n: How many they are; 0 where that is unknown.
    """

    points: float
    n: int

    @abstractmethod
    def below(self, limit: float) -> float:
        """Return the probability that the true loss is at most ``limit`` points."""

    @property
    @abstractmethod
    def deviation(self) -> float:
        """The standard deviation of the loss, in points."""

    @property
    def counted(self) -> Counted:
        """What ``n`` and :meth:`missing` count."""
        return "texts"

    def missing(self, limit: float, confidence: float) -> int | None:
        """Estimate how many more examples would show that the loss is below a limit, if it stays as it is.

        Args:
            limit: Points.
            confidence: Probability to reach.

        Returns:
            The number, to two digits; None where no number would do, or it cannot be estimated.
        """
        gap = limit - self.points
        if gap <= 0 or not self.n:
            return None
        needed = self.n * (NORMAL.inv_cdf(confidence) * self.deviation / gap) ** 2
        more = max(1.0, needed - self.n)
        digit: int = 10 ** max(0, math.floor(math.log10(more)) - 1)
        return math.ceil(more / digit) * digit


@dataclass(frozen=True)
class CountedLoss(Loss):
    """Of right and wrong answers: exact, by the counts of the examples on which exactly one of two models is right.

    Shares of lost, won and other examples have a Dirichlet distribution. A limit holds up to half an example beyond it,
    because on finitely many examples no smaller difference can be seen.

    Attributes:
        lost: Examples that the reference alone answers correctly.
        won: Examples that the model alone answers correctly.
    """

    lost: int
    won: int

    @classmethod
    def of(cls, lost: int, won: int, n: int) -> CountedLoss:
        """Create a loss from its counts.

        Args:
            lost: Examples that the reference alone answers correctly.
            won: Examples that the model alone answers correctly.
            n: All examples.

        >>> round(CountedLoss.of(4, 4, 500).below(1.0), 2), round(CountedLoss.of(9, 4, 500).below(1.0), 2)
        (0.97, 0.57)
        """
        return cls(100 * (lost - won) / n, n, lost, won)

    def below(self, limit: float) -> float:
        """Return the probability that the true loss is at most ``limit`` points."""
        from scipy.special import betainc, betaincinv

        same = self.n - self.lost - self.won
        differing = betaincinv(self.lost + self.won + 2 * PRIOR, same + PRIOR, QUANTILES)  # share of all examples
        margin = limit / 100 + 0.5 / self.n
        lost = np.clip((1 + margin / np.maximum(differing, 1e-300)) / 2, 0, 1)  # share of the differing ones
        return float(betainc(self.lost + PRIOR, self.won + PRIOR, lost).mean())

    @property
    def deviation(self) -> float:
        """The standard deviation of the loss, in points."""
        share, difference = (self.lost + self.won + 2 * PRIOR) / (self.n + 1), self.points / 100
        return 100 * math.sqrt(max(share - difference**2, 0.0) / self.n)


@dataclass(frozen=True)
class ResampledLoss(Loss):
    """Of any metric: by paired bootstrap.

    Attributes:
        values: The loss on each resample, in points [resamples].
        unit: What was resampled.
    """

    values: np.ndarray = field(repr=False)
    unit: Counted = "texts"

    @property
    def counted(self) -> Counted:
        """What ``n`` and :meth:`missing` count."""
        return self.unit

    def below(self, limit: float) -> float:
        """Return the share of resamples on which the loss is at most ``limit`` points.

        Never certainty: resamples of few examples that agree always agree, as a sign test of them would say.
        """
        share = float(np.mean(self.values <= limit + ROUNDING))
        return min(share, 1 - 0.5**self.n) if self.n else share

    @property
    def deviation(self) -> float:
        """The standard deviation of the loss, in points."""
        return float(np.std(self.values))


@dataclass(frozen=True)
class UnpairedLoss(Loss):
    """Of two values whose examples cannot be paired: cautious, by their intervals alone.

    Attributes:
        spread: Standard deviation in points; 0 where values have no interval, and the limit is then compared with one
            number.
    """

    spread: float = 0.0

    def below(self, limit: float) -> float:
        """Return the probability that the true loss is at most ``limit`` points."""
        gap = limit - self.points
        return NORMAL.cdf(gap / self.spread) if self.spread else float(gap >= -1e-9)

    @property
    def deviation(self) -> float:
        """The standard deviation of the loss, in points."""
        return self.spread


@dataclass(frozen=True)
class ChangedShare(Loss):
    """Of answers that should stay as they are, in per cent of all: by the counts of those that changed.

    The share has a Beta distribution (prior: Jeffreys, 1946). Answers to the words of one text are not independent;
    as many independent ones count as have an interval of the measured width (the effective sample size, Kish, 1965).

    Attributes:
        effective: Number of independent answers.
    """

    effective: float

    @classmethod
    def of(cls, flips: Measurement) -> ChangedShare:
        """Create the share from its measurement, which has an interval."""
        assert flips.n
        assert flips.low is not None
        assert flips.high is not None
        width = flips.high - flips.low
        effective = wilson_count(flips.value, width) if 0 < width < 1 else float(flips.n)
        return cls(100 * flips.value, flips.n, min(max(effective, 1.0), float(flips.n)))

    @property
    def counted(self) -> Counted:
        """What the numbers count: texts, or answers that depend on others."""
        return "texts" if round(self.effective) == self.n else "answers"

    @property
    def _posterior(self) -> tuple[float, float]:
        changed = self.points / 100 * self.effective
        return changed + 0.5, self.effective - changed + 0.5

    def below(self, limit: float) -> float:
        """Return the probability that at most ``limit`` per cent of all answers change."""
        from scipy.special import betainc

        return float(betainc(*self._posterior, min(limit / 100, 1.0)))

    @property
    def deviation(self) -> float:
        """The standard deviation of the share, in per cent."""
        changed, same = self._posterior
        whole = changed + same
        return 100 * math.sqrt(changed * same / (whole + 1)) / whole


def loss_against(fact: Measurement, reference: Measurement) -> Loss:
    """Compare two measurements of quality, on the same examples where both have kept what that needs.

    Args:
        fact: Quality of the model.
        reference: Quality of the reference.
    """
    points, n = 100 * (reference.value - fact.value), fact.n or 0
    if n and n == reference.n and fact.split == reference.split and _metric(fact) == _metric(reference):
        after, before = fact.detail.get("resampled"), reference.detail.get("resampled")
        if after and before and len(after) == len(before):
            values = 100 * (unpack_numbers(before) - unpack_numbers(after))
            values = values[np.isfinite(values)]
            if len(values):
                return ResampledLoss(points, n, values, "queries" if counts_queries(_metric(fact)) else "texts")
        after, before = fact.detail.get("correct"), reference.detail.get("correct")
        if after and before and counts_rows(_metric(fact)):
            right, was_right = unpack(after, n), unpack(before, n)
            return CountedLoss.of(int((was_right & ~right).sum()), int((right & ~was_right).sum()), n)
    width = 2 * NORMAL.inv_cdf((1 + LEVEL) / 2)
    spreads = [
        100 * (each.high - each.low) / width
        for each in (fact, reference)
        if each.low is not None and each.high is not None
    ]
    return UnpairedLoss(points, n, math.hypot(*spreads) if len(spreads) == 2 else 0.0)


def evidence(
    budget: Budget, quality: Measurement | None, reference: Measurement | None, flips: Measurement | None
) -> Tests:
    """Return how probable it is that a model loses and changes no more than the budget allows, by limit.

    ``max_flips: 0`` is not tested: no number of texts shows that no answer at all changes.

    Args:
        budget: Says how much, and how probable it has to be.
        quality: Quality of the model.
        reference: Quality of the model that losses are counted from; the same object for that model itself.
        flips: Share of its answers that differ from that model's.

    Returns:
        The evidence; none for a limit that the budget does not have, or where a measurement is unknown.
    """
    itself = quality is not None and quality is reference
    tests: dict[TestedLimit, Evidence] = {}
    if budget.max_drop is not None and quality is not None and reference is not None:
        loss = loss_against(quality, reference)
        tests["max_drop"] = CERTAIN if itself else _weighed(loss, budget.max_drop, budget.confidence)
    if budget.max_flips and flips is not None and flips.n and flips.low is not None and flips.high is not None:
        share = ChangedShare.of(flips)
        tests["max_flips"] = CERTAIN if itself else _weighed(share, budget.max_flips, budget.confidence)
    return tests


def _weighed(loss: Loss, limit: float, confidence: float) -> Evidence:
    probability = loss.below(limit)
    missing = loss.missing(limit, confidence) if probability < confidence else None
    return Evidence(probability, missing, loss.counted)


def _metric(fact: Measurement) -> object:
    return fact.detail.get("metric")
