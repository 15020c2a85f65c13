"""Texts per second in sorted batches."""

from __future__ import annotations

import numpy as np
import pytest
import stories

from limbeck.core.measurement import Measurement
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import Probe, RunContext
from limbeck.core.target import Target
from limbeck.errors import MissingExtra
from limbeck.measure import throughput
from limbeck.measure.throughput import Throughput, facts
from limbeck.measure.timed_session import TimedModels
from limbeck.report.html import report_html
from limbeck.report.model_card import Figure, figures
from limbeck.report.report import front_rows, front_table
from limbeck.report.table import rows


def context(**target):
    return RestrictedContext(RunContext(target=Target(**target)), Throughput.info)


@pytest.mark.usefixtures("in_process")
def test_candidates_are_timed_in_one_session(candidate, exported):
    facts = list(Throughput.of(samples=10, batch=4, rounds=2).measure([candidate, exported], context()))
    assert [(index, fact.name) for index, fact in facts] == [(0, "throughput"), (1, "throughput")]
    assert len({fact.detail["session"] for _, fact in facts}) == 1
    for _, fact in facts:
        assert 0 < fact.low <= fact.value <= fact.high
        assert (fact.unit, fact.n, fact.target) == ("1/s", 20, str(Target(batch=4)))
        assert len(fact.detail["rounds"]) == 2


def test_the_rate_is_that_of_whole_rounds():
    seconds = np.array([[[0.1, 0.3], [0.2, 0.2], [0.1, 0.1]], [[1.0, 1.0]] * 3])
    answer = {"seconds": seconds, "words": ["a", "b"], "machine": "x"}
    first, second = (fact for _, fact in facts(TimedModels(answer, ["onnxruntime", "torch"], Target(batch=8)), 16))
    assert (first.value, second.value) == (pytest.approx(40), pytest.approx(8))
    assert first.high == pytest.approx(80)


def test_a_missing_runtime_is_refused_before_any_work(candidate, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(throughput, "sample_rows", lambda *_, **__: pytest.fail("worked"))
    with pytest.raises(MissingExtra):
        list(Throughput().measure([candidate], context(runtime="openvino")))


def test_a_measuring_service_takes_batches_up_to_a_size():
    there, others = Target(url="http://board:1"), []
    assert Throughput.of(batch=4096).target_problems(there, others) == {}
    assert Throughput.of(batch=5000).target_problems(Target(), others) == {}
    problem = Throughput.of(batch=5000).target_problems(there, others)["batch"]
    assert problem == "the measuring service of the target takes at most 4,096 texts, got 5,000"


def test_nothing_to_measure():
    assert list(Throughput().measure([], context())) == []
    assert isinstance(Throughput(), Probe)


def test_table_page_card_and_json_have_it():
    fact = Measurement("throughput", 1234.5, "1/s", 1200.0, 1300.0, n=1280, target="cpu, batch 32")
    summary = stories.run_summary(records=stories.with_facts(stories.records(), "qa", fact))
    assert "texts/s" in [column.header for column in front_table(summary).columns]
    assert "1,234" in report_html(summary)
    (chosen,) = (row for row in rows(summary) if row.key == "qa")
    label = "texts per second, sorted by length (cpu, batch 32)"
    assert Figure(label, "1,234/s", "[1,200, 1,300]", "1280") in figures(summary, chosen, None)
    (row,) = (row for row in front_rows(summary) if row["key"] == "qa")
    assert row["throughput_texts_per_s"] == 1234.5
    assert "texts/s" not in [column.header for column in front_table(stories.run_summary()).columns]
