from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.core.speed_up import is_faster, speed_ratio
from limbeck.core.statistics import pack_numbers
from limbeck.measure.timing import Timing


def test_speed_is_paired_within_rounds_of_one_session():
    (fast, *_), (slow, *_) = stories.latency(1e-3), stories.latency(2e-3)
    ratio = speed_ratio(fast, slow)
    assert ratio == pytest.approx((2.0, 2.0, 2.0))  # noise of the rounds cancels
    other = stories.latency(2e-3, session="another day")[0]
    assert speed_ratio(fast, other) == pytest.approx((2.0, 2 * 0.99 / 1.01, 2 * 1.01 / 0.99))


def timed_over_texts(seconds, by_text, session="s"):
    """Times of one model [rounds, texts] as facts, compared by texts."""
    timing = Timing(seconds)
    sampled = timing.over_texts(None)
    detail = {"session": session, "rounds": timing.means.tolist(), "resampled": pack_numbers(sampled.values)}
    bounds = sampled.interval if by_text else timing.mean
    return Measurement.of("latency_mean", bounds, "s", detail=detail | ({"by_text": True} if by_text else {}))


def test_texts_are_resampled_together_where_one_of_both_goes_by_texts():
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.99, 1.01, (2, 15, 40))
    texts = np.where(np.arange(40) < 15, 0.01, 0.001)
    cascade, single = texts * noise[0], np.full(40, 0.0046) * noise[1]
    facts = [timed_over_texts(cascade, True), timed_over_texts(single, False)]
    verdict, ratio, low, high = is_faster(*facts)
    assert verdict == "no measurable gain"
    assert low < ratio < high
    assert ratio == pytest.approx(single.mean() / cascade.mean())
    blind = [replace(fact, detail={**fact.detail, "by_text": False}) for fact in facts]
    assert is_faster(*blind)[0] == "faster"  # as if the same texts were all there are
    other = timed_over_texts(2 * cascade, True)
    assert speed_ratio(facts[0], other) == pytest.approx((2.0, 2.0, 2.0), rel=1e-6)  # the same texts go on
    away = timed_over_texts(2 * cascade, True, "another day")
    assert speed_ratio(facts[0], away).low < 1.9
    lost = replace(other, detail={"session": "s", "rounds": other.detail["rounds"], "by_text": True})
    assert speed_ratio(facts[0], lost).low < 1.9


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
