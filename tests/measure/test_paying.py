import numpy as np
import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.measure.paying import CALLS, LEAST, TRIALS, Paying, paying, pays
from limbeck.model.encoder import Style

BASE = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)


def test_both_are_timed_in_turn():
    trials = []

    def timer(trial):
        trials.append(trial)
        return np.full(9, 2e-3 if trial.shape == BASE else 1e-3 + 1e-5 * len(trials))

    decision = paying(BASE, Style(), Target(threads=2), "linformer:16", 300, per_token=True, timer=timer)
    assert decision.pays
    assert decision.gain == pytest.approx(2e-3 / np.median(decision.linear))
    assert [trial.shape == BASE for trial in trials] == [True, False] * TRIALS
    assert {(trial.setting.number_format, trial.setting.seq_len, trial.calls) for trial in trials} == {
        ("int8", 300, CALLS)
    }
    assert {(trial.setting.target.threads, trial.setting.per_token) for trial in trials} == {(2, True)}


def test_nothing_is_timed_where_there_are_no_fewer_operations():
    def timer(trial):
        raise AssertionError

    assert paying(BASE, Style(), Target(), "linformer:256", 300, timer=timer) is None


def test_a_gain_within_the_noise_does_not_pay():
    assert not Paying("kernel", 64, [1.0] * TRIALS, [0.99] * TRIALS).pays
    assert Paying("kernel", 64, [1.0] * TRIALS, [0.9] * TRIALS).pays
    often = Paying("kernel", 64, [1.0] * TRIALS, [0.5] * (TRIALS - 1) + [1.01])
    assert (often.gain, often.pays) == (2.0, False)


def test_the_same_way_seems_to_pay_no_more_than_once_in_twenty_times():
    rng = np.random.default_rng(0)
    times = rng.normal(1.0, 0.1, (2000, 2, TRIALS))  # a noisy machine, on which LEAST alone would not do
    assert np.mean([pays(first, second) for first, second in times]) < 0.05
    assert np.mean([np.median(first) / np.median(second) >= LEAST for first, second in times]) > 0.2


def test_another_core_in_all_layers():
    assert BASE.with_attention("kernel").attention == ("kernel", "kernel")
