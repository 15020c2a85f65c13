"""Timing: a clock that tests can replace, warm-up, alternation, and statistics that are robust to a noisy machine."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from limbeck.core.statistics import Interval, Resampled, bootstrap, median, resample_table

Clock = Callable[[], float]
"""Seconds since any fixed moment."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every call of one candidate, [rounds, inputs].

    The median is that of the medians of the rounds: what disturbs one round moves one of many numbers. Its interval
    treats rounds, not calls, as the observations, because calls within a round share their disturbances. The upper
    quantiles and the mean are taken over all calls: noise belongs to what a user waits for and a server spends.
    """

    seconds: np.ndarray

    @cached_property
    def rounds(self) -> np.ndarray:
        """Median of every round [rounds]."""
        return np.asarray(np.median(self.seconds, axis=1))

    @cached_property
    def means(self) -> np.ndarray:
        """Mean of every round [rounds]."""
        return np.asarray(np.mean(self.seconds, axis=1))

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return int(self.seconds.size)

    @property
    def p50(self) -> Interval:
        """Median call with its interval."""
        return median(self.rounds)

    @property
    def mean(self) -> Interval:
        """Mean call, over all calls as what a server spends is; the interval resamples rounds."""
        return bootstrap(lambda chosen: float(self.means[chosen].mean()), len(self.means))

    def quantile(self, share: float) -> Interval:
        """Return the time within which this fraction of all calls ended; the interval resamples rounds."""
        return bootstrap(
            lambda chosen: float(np.quantile(self.seconds[chosen], share)), len(self.seconds), resamples=300
        )

    def over_texts(self, share: float | None) -> Resampled:
        """Return a quantile of the calls, or their mean, with an interval that resamples rounds and inputs.

        It is for models of which the input decides how much is computed: which inputs are in the sample is then most of
        the noise. A sample that is spread evenly over lengths has less of it than this interval says.

        Args:
            share: Which quantile: 0.5 is that of :attr:`p50`, another one that of :meth:`quantile`; None: the mean.
        """
        statistic: Callable[[np.ndarray], Any]
        if share is None:
            statistic = np.mean
        elif share == 0.5:
            statistic = _median_of_rounds
        else:
            statistic = partial(np.quantile, q=share)
        return resample_table(statistic, self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles of the rounds, as a fraction of the median: the noise of the machine."""
        low, high = np.quantile(self.rounds, [0.25, 0.75])
        return float((high - low) / np.median(self.rounds))


def _median_of_rounds(seconds: np.ndarray) -> float:
    """Return the median of the medians of the rounds [rounds, inputs]."""
    return float(np.median(np.median(seconds, axis=1)))


def time_call(call: Callable[[], Any], now: Clock = time.perf_counter) -> float:
    """Time one call, in seconds."""
    start = now()
    call()
    return now() - start


def alternate(
    callables: Sequence[Callable[[int], Any]],
    inputs: int,
    rounds: int,
    *,
    warmup: int = 1,
    seed: int = 0,
    now: Clock = time.perf_counter,
) -> list[Timing]:
    """Time several callables in turn on the same inputs, so that drift of the machine affects all of them equally.

    Each round runs every callable over inputs 0 .. ``inputs`` - 1, with the callables in a new random order.
    A turn starts with one call that is not timed: it brings the weights back into the caches that the others used.
    The first ``warmup`` rounds are not timed at all.

    Args:
        callables: What to time; each takes the index of an input.
        inputs: Number of inputs.
        rounds: Timed rounds.
        warmup: Rounds before those.
        seed: Seed of the orders.
        now: Clock in seconds.
    """
    assert callables, "nothing to time"
    assert min(inputs, rounds) > 0, "at least one input and one round"
    rng = random.Random(seed)
    seconds = np.zeros((len(callables), warmup + rounds, inputs))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            for which in rng.sample(range(len(callables)), len(callables)):
                call = callables[which]
                call(0)
                for index in range(inputs):
                    start = now()
                    call(index)
                    seconds[which, turn, index] = now() - start
            gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return [Timing(times[warmup:]) for times in seconds]


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
