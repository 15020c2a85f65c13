"""Losses on the same examples, against simulation and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.answer_changes import Changes
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import Measurement
from limbeck.core.paired import ChangedShare, CountedLoss, ResampledLoss, UnpairedLoss, evidence, loss_against
from limbeck.core.statistics import pack, pack_numbers
from limbeck.core.target import Budget, Evidence
from limbeck.core.task_kind import TaskKind

RNG = np.random.default_rng(0)
NAMES = {"classification": ("a", "b", "c"), "multilabel": ("a", "b", "c"), "regression": (), "tokens": ("O", "b", "c")}


def counted(correct):
    share, detail = float(np.mean(correct)), {"metric": "accuracy", "correct": pack(correct)}
    return Measurement("quality", share, "1", n=len(correct), split="validation", detail=detail)


def rows_of(kind: TaskKind, noise: float):
    """Logits of 60 rows with their labels; the more noise, the more are wrong."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    logits = 3.0 * np.eye(3)[labels] - 1.5 + np.random.default_rng(int(noise * 10)).normal(size=(60, 3)) * noise
    if kind.numeric:
        return logits[:, :1], (labels == 0).astype(float)
    if kind.several:
        return logits, [tuple(row) for row in np.eye(3, dtype=int)[labels]]
    if kind.per_token:
        return [row[None] for row in logits], [[label] for label in labels]
    return logits, labels


def assessed(kind, metric, noise):
    logits, labels = rows_of(kind, noise)
    assessment = kind.assess(metric, NAMES[kind.name], logits, labels)
    value, low, high = assessment.quality
    detail = {"metric": metric, **assessment.detail}
    return Measurement("quality", value, "1", low, high, n=60, split="validation", detail=detail)


def test_the_probability_is_that_of_a_dirichlet_distribution():
    for lost, won, n, limit in [(9, 4, 500, 1.0), (30, 12, 400, 5.0), (1, 6, 100, 0.0)]:
        shares = RNG.dirichlet([lost + 1 / 3, won + 1 / 3, n - lost - won + 1 / 3], 200_000)
        expected = np.mean(shares[:, 0] - shares[:, 1] <= limit / 100 + 0.5 / n)
        assert CountedLoss.of(lost, won, n).below(limit) == pytest.approx(expected, abs=0.005)


def test_the_probability_rises_with_the_limit_and_falls_with_the_loss():
    by_limit = [CountedLoss.of(12, 5, 300).below(limit) for limit in (0, 1, 2, 3, 5, 10)]
    assert by_limit == sorted(by_limit)
    by_loss = [CountedLoss.of(lost, 5, 300).below(1.0) for lost in range(0, 30, 3)]
    assert by_loss == sorted(by_loss, reverse=True)


def test_a_loss_that_seems_within_by_luck_is_accepted_as_rarely_as_it_says():
    """Of models that truly lose the limit and half a point more, few are said to be within it."""
    splits = RNG.multinomial(500, [0.035, 0.02, 0.945], 400)
    accepted = [CountedLoss.of(lost, won, 500).below(1.0) >= 0.8 for lost, won, _ in splits]
    assert np.mean(accepted) <= 0.2


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_kind_keeps_what_a_paired_test_needs(name):
    kind = KINDS[name]
    metrics = {"classification": ("accuracy", "macro_f1"), "tokens": ("accuracy", "token_f1")}
    for metric in metrics.get(name, (kind.default_metric,)):
        good, worse = assessed(kind, metric, 0.3), assessed(kind, metric, 2.5)
        same, other = loss_against(good, good), loss_against(worse, good)
        assert not isinstance(other, UnpairedLoss)
        assert (same.points, same.below(0.5)) == (0.0, pytest.approx(1.0, abs=0.2))
        assert other.points == pytest.approx(100 * (good.value - worse.value))
        assert other.below(other.points / 4) < 0.2 < 0.8 < other.below(2 * other.points)


def test_paired_bootstrap_and_counts_agree_on_accuracy():
    right = RNG.random(300) < 0.9
    other = np.where(RNG.random(300) < 0.1, ~right, right)
    exact = loss_against(counted(other), counted(right))
    chosen = [RNG.integers(0, 300, 300) for _ in range(1000)]
    values = np.array([100 * (right[rows].mean() - other[rows].mean()) for rows in chosen])
    resampled = ResampledLoss(exact.points, 300, values)
    for limit in (0.0, 3.0, 8.0):
        assert resampled.below(limit) == pytest.approx(exact.below(limit), abs=0.06)
    assert resampled.deviation == pytest.approx(exact.deviation, rel=0.15)


def test_resamples_of_few_examples_are_no_certainty():
    same = np.zeros(1000)
    assert [ResampledLoss(0.0, n, same).below(1.0) for n in (1, 3)] == [0.5, 0.875]
    assert ResampledLoss(0.0, 300, same).below(1.0) == pytest.approx(1)


def test_what_a_metric_is_a_mean_of_is_what_is_missing():
    values = pack_numbers(np.random.default_rng(0).normal(0.8, 0.01, 1000))
    for metric, counted in (("ndcg_at_10", "queries"), ("macro_f1", "texts")):
        facts = [
            Measurement("quality", value, "1", n=45, split="validation", detail={"metric": metric, "resampled": values})
            for value in (0.8, 0.805)
        ]
        loss = loss_against(*facts)
        assert isinstance(loss, ResampledLoss)
        assert loss.counted == counted


def test_values_without_answers_are_compared_by_their_intervals_or_as_numbers():
    plain = Measurement("quality", 0.9, "1", split="validation")
    assert loss_against(replace(plain, value=0.89), plain).below(1.0) == 1.0
    assert loss_against(replace(plain, value=0.889), plain).below(1.0) == 0.0
    wide = replace(plain, low=0.88, high=0.92)
    assert 0.5 < loss_against(replace(wide, value=0.895), wide).below(1.0) < 0.8
    other_split = replace(counted(np.ones(50, bool)), split="test")
    assert isinstance(loss_against(other_split, counted(np.ones(50, bool))), UnpairedLoss)


def test_so_many_more_texts_decide_if_answers_stay_alike():
    loss = CountedLoss.of(12, 8, 400)
    assert loss.below(1.5) < 0.8
    more = loss.missing(1.5, 0.8)
    scale = (400 + more) / 400
    assert CountedLoss.of(round(12 * scale), round(8 * scale), 400 + more).below(1.5) == pytest.approx(0.8, abs=0.05)
    assert CountedLoss.of(12, 2, 400).missing(1.5, 0.8) is None  # more texts would only show that it loses more


def test_evidence_needs_a_limit_and_a_reference():
    right = counted(RNG.random(100) < 0.9)
    assert evidence(Budget(), right, right, None) == {}
    assert evidence(Budget(max_drop=1.0), right, None, None) == {}
    assert evidence(Budget(max_drop=0.0), right, right, None)["max_drop"].probability == 1.0  # the reference itself


def flips_of(rows, changed, kind="classification"):
    """The fact of answers to these rows, of which some have changed."""
    before = np.zeros(len(rows), dtype=int)
    after = before + np.isin(np.arange(len(rows)), changed)
    changes = Changes(KINDS[kind], ("a", "b"), np.asarray(rows), before, after, before, np.zeros(len(rows)))
    texts = ["text"] * (max(rows) + 1)
    return next(fact for fact in changes.facts("validation", "whole", [1] * len(texts), texts) if fact.name == "flips")


@pytest.mark.parametrize(("changed", "n", "limit"), [(3, 100, 3.0), (0, 40, 2.0), (30, 1000, 3.5), (1, 1, 50.0)])
def test_the_share_of_changed_answers_is_that_of_a_beta_distribution(changed, n, limit):
    share = ChangedShare.of(flips_of(range(n), range(changed)))
    sampled = RNG.beta(changed + 0.5, n - changed + 0.5, 200_000)
    assert share.below(limit) == pytest.approx(np.mean(sampled <= limit / 100), abs=0.005)
    assert share.deviation == pytest.approx(100 * sampled.std(), rel=0.02)
    assert (share.n, share.counted) == (n, "texts")


def test_answers_to_words_count_as_far_as_they_are_independent():
    """A hundred texts of ten words: whole texts have changed, or as many words anywhere, or none."""
    rows = np.repeat(np.arange(100), 10)
    together = ChangedShare.of(flips_of(rows, range(30), "tokens"))
    apart = ChangedShare.of(flips_of(rows, range(0, 1000, 33), "tokens"))
    nothing = ChangedShare.of(flips_of(rows, [], "tokens"))
    assert 50 < together.effective < 200 < 500 < apart.effective <= 1000
    assert nothing.effective == pytest.approx(100)
    assert nothing.below(2.0) == pytest.approx(ChangedShare.of(flips_of(range(100), [])).below(2.0))
    assert together.counted == nothing.counted == "answers"
    assert together.below(4.0) < apart.below(4.0)


def test_as_many_more_texts_as_are_said_to_decide_do_so():
    budget = Budget(max_flips=3.0)
    doubted = evidence(budget, None, None, flips_of(range(200), range(5)))["max_flips"]
    assert 0.5 < doubted.probability < 0.8
    assert doubted.counted == "texts"
    enough = 200 + doubted.missing
    decided = evidence(budget, None, None, flips_of(range(enough), range(round(0.025 * enough))))["max_flips"]
    assert decided.probability == pytest.approx(0.8, abs=0.04)
    at_the_limit = evidence(budget, None, None, flips_of(range(100), range(3)))["max_flips"]
    assert at_the_limit.probability < 0.5
    assert at_the_limit.missing is None


def test_changed_answers_without_a_test():
    flips, right = flips_of(range(100), [0]), counted(np.ones(100, dtype=bool))
    assert evidence(Budget(max_flips=0.0), None, None, flips) == {}
    assert evidence(Budget(max_drop=2.0), None, None, flips) == {}
    assert evidence(Budget(max_flips=2.0), None, None, replace(flips, n=None)) == {}
    assert evidence(Budget(max_flips=2.0), right, right, flips) == {"max_flips": Evidence(1.0)}
