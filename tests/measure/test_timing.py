from __future__ import annotations

import gc

import numpy as np
import pytest

from limbeck.core.statistics import resample_table
from limbeck.measure.timing import Timing, alternate, time_call


class Clock:
    """Stands still until told otherwise."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time

    def sleeper(self, seconds, log=None, name=None):
        def call(index):
            if log is not None:
                log.append((name, index))
            self.time += seconds * (1 + index)

        return call


def test_time_call_reads_the_clock_before_and_after():
    clock = Clock()
    assert time_call(lambda: clock.sleeper(0.25)(0), clock) == 0.25


def test_every_round_times_every_callable_over_the_same_inputs():
    clock, log = Clock(), []
    calls = [clock.sleeper(1.0, log, "a"), clock.sleeper(2.0, log, "b")]
    timings = alternate(calls, inputs=3, rounds=4, warmup=1, now=clock)
    for timing, seconds in zip(timings, (1.0, 2.0), strict=True):
        assert timing.seconds.tolist() == [[seconds, 2 * seconds, 3 * seconds]] * 4
        assert timing.calls == 12
    turns = [log[at : at + 4] for at in range(0, len(log), 4)]
    assert len(turns) == 2 * (4 + 1)
    for turn in turns:
        assert [index for _, index in turn] == [0, 0, 1, 2]
        assert len({name for name, _ in turn}) == 1
    for first, second in zip(turns[::2], turns[1::2], strict=True):
        assert {first[0][0], second[0][0]} == {"a", "b"}


def test_the_order_changes_between_rounds_and_depends_on_the_seed_alone():
    def order(seed):
        clock, log = Clock(), []
        calls = [clock.sleeper(1.0, log, name) for name in "abcd"]
        alternate(calls, inputs=1, rounds=6, warmup=0, seed=seed, now=clock)
        names = [name for name, _ in log[::2]]
        return [tuple(names[at : at + 4]) for at in range(0, 24, 4)]

    assert order(1) == order(1) != order(2)
    assert len(set(order(1))) > 1


def test_warm_up_is_left_out():
    clock, turns = Clock(), []

    def slow_at_first(index):
        turns.append(index)
        clock.time += 100.0 if len(turns) <= 2 else 1.0

    assert alternate([slow_at_first], inputs=1, rounds=3, warmup=1, now=clock)[0].seconds.tolist() == [[1.0]] * 3


def test_garbage_collection_waits_and_comes_back_after_a_failure():
    seen = []

    def fail(index):
        seen.append(gc.isenabled())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        alternate([fail], inputs=1, rounds=1)
    assert seen == [False]
    assert gc.isenabled()


def exiting(rng, texts, share=0.3, rounds=15):
    """Seconds of a model that computes everything for this share of the texts, and a tenth for the others."""
    whole = rng.random(texts) < share
    return np.where(whole, 0.01, 0.001) * rng.uniform(0.99, 1.01, (rounds, texts))


def test_the_interval_over_texts_holds_the_truth_and_that_over_rounds_does_not():
    rng = np.random.default_rng(0)
    truth, over_texts, over_rounds = 0.3 * 0.01 + 0.7 * 0.001, 0, 0
    for _ in range(40):
        timing = Timing(exiting(rng, 120, rounds=6))
        _, low, high = resample_table(np.mean, timing.seconds, resamples=200).interval
        over_texts += low <= truth <= high
        over_rounds += timing.mean.low <= truth <= timing.mean.high
    assert over_texts >= 36
    assert over_rounds < 10


def test_over_texts_the_figures_are_the_same():
    timing = Timing(exiting(np.random.default_rng(1), 40))
    assert timing.over_texts(0.5).interval.value == timing.p50.value
    assert timing.over_texts(None).interval.value == pytest.approx(timing.mean.value)
    assert timing.over_texts(0.99).interval.value == timing.quantile(0.99).value
    for share in (0.5, None, 0.9, 0.99):
        value, low, high = timing.over_texts(share).interval
        assert low <= value <= high


def test_one_disturbed_round_hardly_moves_the_median():
    quiet = np.ones((15, 10)) * np.linspace(1.0, 1.01, 15)[:, None]
    disturbed = quiet.copy()
    disturbed[3] *= 50
    assert Timing(disturbed).p50.value == pytest.approx(Timing(quiet).p50.value, rel=0.01)
    assert Timing(disturbed).quantile(0.99).value > 40
    assert Timing(disturbed).p50.low <= Timing(disturbed).p50.value <= Timing(disturbed).p50.high < 2
    assert Timing(quiet).spread < 0.01
