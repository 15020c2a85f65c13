from __future__ import annotations

import gc

import numpy as np
import pytest

from limbeck.measure.timing import Timing, alternate, time_call


class Clock:
    """Stands still until told otherwise."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time

    def sleeper(self, seconds, log=None, name=None):
        def call(place):
            if log is not None:
                log.append((name, place))
            self.time += seconds * (1 + place)

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
        assert [place for _, place in turn] == [0, 0, 1, 2]
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

    def slow_at_first(place):
        turns.append(place)
        clock.time += 100.0 if len(turns) <= 2 else 1.0

    assert alternate([slow_at_first], inputs=1, rounds=3, warmup=1, now=clock)[0].seconds.tolist() == [[1.0]] * 3


def test_garbage_collection_waits_and_comes_back_after_a_failure():
    seen = []

    def fail(place):
        seen.append(gc.isenabled())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        alternate([fail], inputs=1, rounds=1)
    assert seen == [False]
    assert gc.isenabled()


def test_one_disturbed_round_hardly_moves_the_median():
    quiet = np.ones((15, 10)) * np.linspace(1.0, 1.01, 15)[:, None]
    disturbed = quiet.copy()
    disturbed[3] *= 50
    assert Timing(disturbed).p50.value == pytest.approx(Timing(quiet).p50.value, rel=0.01)
    assert Timing(disturbed).quantile(0.99).value > 40
    assert Timing(disturbed).p50.low <= Timing(disturbed).p50.value <= Timing(disturbed).p50.high < 2
    assert Timing(quiet).spread < 0.01
