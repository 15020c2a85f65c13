"""Fitted thresholds against a search through every threshold there is."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.candidate import Record
from limbeck.core.decision import (
    Decision,
    Detection,
    decision_of,
    detection_detail,
    fit_threshold,
    is_number,
    rates,
)
from limbeck.core.measurement import Measurement
from limbeck.core.statistics import wilson

GOALS = ("same-recall", "same-precision", "same-alarm-rate", "best-f1")


def detection(seed, rows=60, digits=2, sign=1, bias=0.0):
    """Rounded scores, of which some are equal, that say something about the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.3
    scores = np.round(np.clip(0.35 * truth + rng.random(rows) * 0.6 + bias, 0, 1), digits)
    return Detection(scores if sign > 0 else -scores, truth, scores >= 0.5, sign)


def every_way(each):
    """Figures of every division of the texts by a threshold."""
    limits = [*np.unique(each.scores), np.inf]
    return [(each.scores >= limit, rates(each.scores >= limit, each.truth)) for limit in limits]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("digits", [1, 2, 8])
def test_no_threshold_meets_a_goal_better(seed, digits):
    small, original = detection(seed, digits=digits, bias=-0.1), detection(seed, digits=8)
    before, ways = rates(original.usual, original.truth), every_way(small)
    answers = {goal: small.fitted(fit_threshold(goal, small, original)[0]) for goal in GOALS}
    rates_by_goal = {goal: rates(answers[goal], small.truth) for goal in GOALS}
    enough = [rate["alarm_rate"] for _, rate in ways if rate["recall"] >= before["recall"] - 1e-12]
    assert rates_by_goal["same-recall"]["recall"] >= before["recall"] - 1e-12
    assert rates_by_goal["same-recall"]["alarm_rate"] == min(enough)
    precise = [r["recall"] for _, r in ways if r["precision"] is not None and r["precision"] >= before["precision"]]
    if precise:
        assert rates_by_goal["same-precision"]["precision"] >= before["precision"] - 1e-12
        assert rates_by_goal["same-precision"]["recall"] == max(precise)
    nearest = min(abs(rate["alarm_rate"] - before["alarm_rate"]) for _, rate in ways)
    assert abs(rates_by_goal["same-alarm-rate"]["alarm_rate"] - before["alarm_rate"]) == pytest.approx(nearest)
    assert rates_by_goal["best-f1"]["f1"] == max(rate["f1"] for _, rate in ways)


def test_a_threshold_lies_half_way_between_scores_and_keeps_equal_ones_together():
    each = Detection(np.array([0.9, 0.6, 0.6, 0.2]), np.array([True, True, False, False]), np.array([True] * 4))
    threshold, note = fit_threshold("same-recall", each, each)
    assert (threshold, note) == (pytest.approx(0.4), "")
    assert each.fitted(threshold).tolist() == [True, True, True, False]


def test_a_score_of_the_others_may_not_exceed_its_threshold():
    up, down = detection(3), detection(3, sign=-1)
    assert down.sign * down.scores == pytest.approx(up.scores)
    original = detection(3)
    low = Detection(-original.scores, original.truth, original.scores <= 0.3, -1)  # alarms of low probabilities
    threshold, _ = fit_threshold("same-alarm-rate", low, low)
    assert 0 < threshold < 1
    assert (low.fitted(threshold) == (original.scores <= threshold)).all()
    assert low.fitted(threshold).sum() == low.usual.sum()


def test_what_cannot_be_met_is_noted():
    scores, truth = np.array([0.9, 0.8, 0.1]), np.array([False, True, False])
    silent = Detection(scores, truth, np.zeros(3, bool))
    threshold, note = fit_threshold("same-precision", silent, silent)
    assert "the original gives no alarm" in note
    assert not silent.fitted(threshold).any()
    perfect = Detection(np.array([0.1, 0.9, 0.1]), truth, np.array([False, True, False]))
    worse = Detection(scores, truth, scores > 0.5)
    threshold, note = fit_threshold("same-precision", worse, perfect)
    assert note == "no threshold reaches precision 1.000; this one has 0.500"
    assert worse.fitted(threshold).tolist() == [True, True, False]
    absent = Detection(scores, np.zeros(3, bool), scores > 0.85)
    for goal in GOALS:
        threshold, note = fit_threshold(goal, absent, absent)
        assert "no text has this label" in note
        assert absent.fitted(threshold).tolist() == [True, False, False]
        eager = Detection(scores, np.zeros(3, bool), np.ones(3, bool))  # it alone alarms on all three
        threshold, _ = fit_threshold(goal, eager, absent)
        assert eager.fitted(threshold).tolist() == [True, False, False]


def test_figures_are_those_of_the_positive_label_or_of_all():
    labels = {"a": detection(1), "b": detection(2)}
    (recall, low, high), detail = detection_detail(labels, {"a": 0.4, "b": 0.4}, "a")
    hits, positives = int((labels["a"].fitted(0.4) & labels["a"].truth).sum()), int(labels["a"].truth.sum())
    assert (recall, low, high) == (hits / positives, *wilson(hits, positives)[1:])
    assert detail["by_label"]["b"]["usual"] == rates(labels["b"].usual, labels["b"].truth)
    (together, low, _), detail = detection_detail(labels, {"a": 0.4}, None)  # b has no threshold
    assert low is None
    both = np.concatenate([labels["a"].fitted(0.4), labels["b"].usual])
    assert detail["fitted"] == rates(both, np.concatenate([labels["a"].truth, labels["b"].truth]))
    assert together == detail["fitted"]["recall"]


def test_what_a_record_serves_with():
    threshold = {"temperature": 1.5, "thresholds": {"a": 0.3}, "positive_score": "max-softmax"}
    facts = (
        Measurement("temperature", 2.0, "1", split="validation"),
        Measurement("threshold", 0.3, "1", split="validation", detail=threshold),
    )
    record = Record("k", None, "model", {}, None, frozenset(), facts)
    assert decision_of(record) == Decision(1.5, {"a": 0.3}, "max-softmax")  # the temperature that it was fitted with
    assert decision_of(Record("k", None, "model", {}, None, frozenset(), facts[:1])) == Decision(2.0)
    assert decision_of(Record("k", None, "model", {}, None, frozenset())) is None


def test_numbers_are_told_from_names():
    assert [is_number(text) for text in ("4", "-0.5", "1e3", "nan", "inf", "oos", "")] == [True] * 3 + [False] * 4
