from __future__ import annotations

import math

import numpy as np
import pytest

from limbeck.core import statistics


def accuracy(predictions, labels):
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


@pytest.mark.parametrize("count", [6, 15, 40, 101])
def test_median_interval_leaves_out_as_many_samples_as_the_binomial_allows(count):
    def coverage(rank):
        return 1 - 2 * sum(math.comb(count, k) for k in range(rank + 1)) / 2**count

    value, low, high = statistics.median(np.arange(count))
    rank = int(low)
    assert value == (count - 1) / 2
    assert high == count - 1 - rank
    assert coverage(rank) >= 0.95 > coverage(rank + 1)


def test_median_of_few_samples_is_bounded_by_their_range():
    assert statistics.median([2.0]) == (2.0, 2.0, 2.0)
    assert statistics.median([3.0, 1.0]) == (2.0, 1.0, 3.0)


def test_exact_and_approximate_ranks_meet():
    assert abs(statistics._rank(1000, 0.95) - statistics._rank(1001, 0.95)) <= 1


def test_median_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [statistics.median(rng.exponential(size=15)) for _ in range(400)]
    covered = np.mean([low <= math.log(2) <= high for _, low, high in intervals])
    assert covered >= 0.93


def test_score_is_seeded_and_holds_its_value():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    predictions = np.where(rng.random(200) < 0.85, labels, 1 - labels)
    first = statistics.score(accuracy, predictions, labels, seed=3)
    assert first == statistics.score(accuracy, predictions, labels, seed=3)
    assert first.low < first.value < first.high
    closed = statistics.wilson(int((predictions == labels).sum()), 200)
    assert first.value == closed.value
    assert np.allclose(first[1:], closed[1:], atol=0.02)


def test_score_of_ragged_examples():
    labels = [[0, 1], [1], [0, 0, 1]]

    def words(predictions, truth):
        pairs = [(p, t) for row, other in zip(predictions, truth, strict=True) for p, t in zip(row, other, strict=True)]
        return sum(p == t for p, t in pairs) / len(pairs)

    assert statistics.score(words, labels, labels) == (1.0, 1.0, 1.0)


def test_bootstrap_leaves_out_resamples_without_a_value():
    values = np.array([1.0, 1.0, 2.0])
    interval = statistics.bootstrap(lambda chosen: values[chosen].mean() if np.ptp(values[chosen]) else math.nan, 3)
    assert np.isfinite(interval).all()
    nothing = statistics.bootstrap(lambda chosen: 1.0 if chosen.tolist() == [0, 1] else math.nan, 2, resamples=0)
    assert nothing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("correct", "count"), [(0, 1), (0, 50), (1, 2), (3, 100), (50, 50), (700, 1000)])
def test_as_many_observations_as_an_interval_is_wide_for(correct, count):
    interval = statistics.wilson(correct, count, 0.9)
    assert statistics.wilson_count(interval.value, interval.high - interval.low, 0.9) == pytest.approx(count)


def test_a_table_is_resampled_in_rows_and_columns():
    table = np.random.default_rng(0).normal(size=(4, 6))
    sampled = statistics.resample_table(np.mean, table, resamples=20, seed=3)
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(20):
        rows, columns = rng.integers(0, 4, 4), rng.integers(0, 6, 6)
        expected.append(np.mean([table[row, column] for row in rows for column in columns]))
    np.testing.assert_allclose(sampled.values, expected)
    assert sampled.interval.value == pytest.approx(table.mean())
    assert sampled.interval[1:] == pytest.approx(np.quantile(expected, [0.025, 0.975]))


@pytest.mark.parametrize("count", [20, 300])
def test_the_bound_of_a_share_holds_as_often_as_it_says(count):
    """Of Wilson's bound that is not so where few observations count."""
    from scipy.stats import beta, binom

    bounds = [statistics.largest_share(successes, count) for successes in range(count + 1)]
    assert bounds[:-1] == pytest.approx([beta.ppf(0.95, some + 1, count - some) for some in range(count)])
    assert bounds[-1] == 1.0
    for share in (0.002, 0.01, 0.03, 0.2, 0.5, 0.97):
        chances = binom.pmf(np.arange(count + 1), count, share)
        assert chances @ (np.array(bounds) >= share) >= 0.95 - 1e-9
    wilson = [statistics.wilson(successes, 300, 0.9).high for successes in range(301)]
    assert binom.pmf(np.arange(301), 300, 0.009) @ (np.array(wilson) >= 0.009) < 0.95


def test_wilson_stays_within_its_range():
    assert 0.99 < statistics.wilson(10, 10).high <= 1.0
    assert 0.0 <= statistics.wilson(0, 10).low < 0.01


def test_paired_ratio_ignores_what_slows_a_whole_round():
    rng = np.random.default_rng(0)
    noise = rng.exponential(size=15) + 1
    ratio, low, high = statistics.paired_ratio(3.0 * noise, noise)
    assert (ratio, low, high) == pytest.approx((3.0, 3.0, 3.0))


def test_the_difference_of_shares_of_the_same_examples_is_tighter_than_two_intervals():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.8
    second = first.copy()
    second[np.flatnonzero(first)[:10]] = False
    value, low, high = statistics.difference_of_shares(first, second)
    assert value == pytest.approx(10 / 400)
    assert 0 < low < value < high < 0.05


@pytest.mark.parametrize(("correct", "count"), [(0, 5), (3, 10), (87, 100), (1500, 1500)])
def test_wilson_equals_scipy(correct, count):
    from scipy.stats import binomtest

    expected = binomtest(correct, count).proportion_ci(method="wilson")
    interval = statistics.wilson(correct, count)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_mcnemar_equals_the_binomial_test():
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    first, second = rng.random(100) < 0.8, rng.random(100) < 0.7
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    assert statistics.mcnemar(first, second) == pytest.approx(binomtest(wins, wins + losses).pvalue)
    assert statistics.mcnemar(first, first) == 1.0


def test_errors_of_the_same_texts_are_compared_in_pairs():
    """No difference seems to be one in no more than the share of cases that it should."""
    rng = np.random.default_rng(0)
    pairs = np.exp(rng.normal(size=(300, 1, 32)) * 2) * np.exp(rng.normal(0, 0.2, (300, 2, 32)))
    assert np.mean([statistics.probably_less(first, second) >= 0.95 for first, second in pairs]) < 0.09
    assert statistics.probably_less(pairs[0, 0] * 0.9, pairs[0, 0]) > 0.999
    assert statistics.probably_less(pairs[0, 0, :4] * 0.9, pairs[0, 0, :4]) == 0.9375, (
        "four texts that agree show little"
    )
