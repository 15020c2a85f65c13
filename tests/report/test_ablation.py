from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import stories

from limbeck.core.kinds import find
from limbeck.core.measurement import Measurement
from limbeck.core.statistics import unpack
from limbeck.report.ablation import gains, quality_change


def gains_by_step(summary):
    return {(gain.key, gain.steps): gain for gain in gains(summary)}


def test_each_step_stands_beside_the_relative_without_it():
    by_step = gains_by_step(stories.run_summary())
    assert by_step["qa", ("quantize",)].without == "xa"
    assert by_step["tx", ("export",)].without == "t"
    both = by_step["qa", ("prune", "distill")]  # nobody measured a pruned model before it was distilled
    assert both.without == "tq"
    assert both.verdict == "faster"
    assert both.speed.value == pytest.approx(3 / 1.3)
    assert both.sentence.startswith("2.31x faster [2.31, 2.31]; accuracy −0.5 points [")


def test_a_single_step_is_preferred_to_a_pair():
    records = stories.records()
    records["dt"] = replace(records["qa"], key="dt", parent="xdt")  # prune left out: distilled only
    records["xdt"] = replace(records["xa"], key="xdt", parent="ddt", facts=())
    records["ddt"] = replace(records["da"], key="ddt", parent="t")
    summary = stories.run_summary(records=records, measured=("tq", "dt", "qa"))
    steps = {steps for key, steps in gains_by_step(summary) if key == "qa"}
    assert ("prune",) in steps
    assert ("prune", "distill") not in steps


def test_no_gain_is_said_in_words():
    records = stories.records()
    records["tq"] = replace(records["tq"], facts=stories.facts(4e-3, 180, 23e6))
    gain = gains_by_step(stories.run_summary(records=records))["tq", ("quantize",)]
    assert gain.verdict == "no measurable gain"
    assert gain.sentence.startswith("no measurable gain: 1.00x [1.00, 1.00]; accuracy 0.0 points")
    records["tq"] = replace(records["tq"], facts=stories.facts(5e-3, 180, 23e6))
    assert gains_by_step(stories.run_summary(records=records))["tq", ("quantize",)].sentence.startswith("slower: 0.80x")


def test_quality_change_is_paired():
    fact, reference = stories.quality(150), stories.quality(160)
    points, low, high = quality_change(fact, reference)
    difference = unpack(fact.detail["correct"], 200).astype(int) - unpack(reference.detail["correct"], 200).astype(int)
    resamples = np.random.default_rng(0).choice(difference, (4000, 200)).mean(1) * 100  # the slow, obvious way
    assert points == pytest.approx(-5.0)
    assert (low, high) == pytest.approx(tuple(np.quantile(resamples, [0.025, 0.975])), abs=0.6)
    apart = quality_change(stories.quality(150, shift=100), reference)  # the same scores, other answers
    assert apart[2] - apart[1] > 2 * (high - low)


def test_other_metrics_have_no_paired_interval():
    fact = stories.quality(150)
    other = replace(fact, detail={"metric": "f1"})
    assert quality_change(other, fact) == (0.0, None, None)
    assert quality_change(None, fact) == (None, None, None)


NAMES = ("O", "B-person", "I-person")


def entities(guesses, truth):
    assessment = find("tokens").assess("entity_f1", NAMES, [np.eye(3)[list(row)] for row in guesses], truth)
    detail = {**assessment.detail, "metric": "entity_f1"}
    return Measurement(
        "quality", *assessment.quality[:1], "1", *assessment.quality[1:], len(truth), "test", detail=detail
    )


def test_entities_are_compared_on_the_same_sentences():
    rng = np.random.default_rng(0)
    truth = [tuple(rng.choice([0, 1], 5)) for _ in range(200)]
    before = [tuple(np.where(rng.random(5) < 0.3, 0, row)) for row in truth]
    after = [row if rng.random() < 0.1 else old for row, old in zip(truth, before, strict=True)]
    fact, reference = entities(after, truth), entities(before, truth)
    points, low, high = quality_change(fact, reference)
    assert points == pytest.approx((fact.value - reference.value) * 100)
    assert 0 < low < points < high
    assert high - low < 70 * (fact.high - fact.low)  # narrower than either alone
    assert quality_change(fact, entities(before[:100], truth[:100]))[1:] == (None, None)
