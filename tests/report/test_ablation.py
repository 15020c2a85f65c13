from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.core.statistics import bootstrap, pack_counts, unpack
from limbeck.report.ablation import gains, quality_change


def gains_by_step(summary):
    return {(gain.key, gain.steps): gain for gain in gains(summary)}


def test_each_step_stands_beside_the_relative_without_it():
    by_step = gains_by_step(stories.tell())
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
    summary = stories.tell(records=records, measured=("tq", "dt", "qa"))
    steps = {steps for key, steps in gains_by_step(summary) if key == "qa"}
    assert ("prune",) in steps
    assert ("prune", "distill") not in steps


def test_no_gain_is_said_in_words():
    records = stories.records()
    records["tq"] = replace(records["tq"], facts=stories.facts(4e-3, 180, 23e6))
    gain = gains_by_step(stories.tell(records=records))["tq", ("quantize",)]
    assert gain.verdict == "no measurable gain"
    assert gain.sentence.startswith("no measurable gain: 1.00x [1.00, 1.00]; accuracy 0.0 points")
    records["tq"] = replace(records["tq"], facts=stories.facts(5e-3, 180, 23e6))
    assert gains_by_step(stories.tell(records=records))["tq", ("quantize",)].sentence.startswith("slower: 0.80x")


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


def entities(counts):
    correct, predicted, present = np.sum(counts, axis=0)
    detail = {"metric": "entity_f1", "entities": pack_counts(counts)}
    return Measurement("quality", 2 * correct / (predicted + present), "1", n=len(counts), split="test", detail=detail)


def test_entities_are_compared_on_the_same_sentences():
    rng = np.random.default_rng(0)
    present = rng.integers(0, 4, 200)
    before = np.stack([rng.binomial(present, 0.5), present, present], 1)
    after = before + np.stack([rng.random(200) < 0.05, np.zeros(200), np.zeros(200)], 1).astype(int)
    after[:, 0] = np.minimum(after[:, 0], present)
    points, low, high = quality_change(entities(after), entities(before))
    assert points == pytest.approx((entities(after).value - entities(before).value) * 100)
    assert 0 < low < points < high
    alone = bootstrap(lambda rows: 200 * after[rows, 0].sum() / after[rows, 1:].sum(), 200)
    assert high - low < (alone.high - alone.low) / 2
    assert quality_change(entities(after), entities(before[:100]))[1:] == (None, None)
