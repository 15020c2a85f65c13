from __future__ import annotations

import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.report.speed_up import is_faster, speed_ratio


def test_speed_is_paired_within_rounds_of_one_session():
    (fast, *_), (slow, *_) = stories.latency(1e-3), stories.latency(2e-3)
    ratio = speed_ratio(fast, slow)
    assert ratio == pytest.approx((2.0, 2.0, 2.0))  # noise of the rounds cancels
    other = stories.latency(2e-3, session="another day")[0]
    assert speed_ratio(fast, other) == pytest.approx((2.0, 2 * 0.99 / 1.01, 2 * 1.01 / 0.99))


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(0.5, "faster"), (1.0, "no measurable gain"), (0.995, "no measurable gain"), (2.0, "slower")],
)
def test_is_faster_judges_by_the_whole_interval(seconds, verdict):
    fact, reference = stories.latency(seconds, "a")[0], stories.latency(1.0, "b")[0]
    answer, ratio, low, high = is_faster(fact, reference)
    assert answer == verdict
    assert low <= ratio <= high


def test_a_time_without_interval_proves_nothing():
    assert is_faster(Measurement("latency_p50", 1.0, "s"), Measurement("latency_p50", 2.0, "s"))[0] == "unproven"
