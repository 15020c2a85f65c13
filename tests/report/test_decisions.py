"""Fitted thresholds and temperatures in the table, on the page, in the card, in CSV, JSON and limbeck.json."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import stories

from limbeck.core.decision import Decision
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import Measurement
from limbeck.report.artefact import write_artefact
from limbeck.report.decisions import decision_lines, decision_rows, goal_words, thresholds_words
from limbeck.report.html import report_html
from limbeck.report.model_card import figures
from limbeck.report.report import front_csv, front_table, to_json
from limbeck.report.serving_example import SESSIONS, artefact_example, example
from limbeck.report.table import rows

from .test_serving_example import code, execute

THRESHOLDS = {"positive": 0.125}


def facts(recall, threshold=True, temperature=True, thresholds=THRESHOLDS):
    usual = {"recall": 0.5, "precision": 0.75, "alarm_rate": 0.2, "f1": 0.6}
    fitted = usual | {"recall": recall, "precision": None}
    detail = {"goal": "same-recall", "positive": "positive", "positive_score": "probability", "temperature": 2.0}
    detail |= {"thresholds": thresholds, "notes": ["positive: a note"]}
    figures = {"positive": "positive", "usual": usual, "fitted": fitted, "by_label": {"positive": {"n": 30}}}
    figures["others"] = {"usual": 0.9, "fitted": 0.875}
    measurements = []
    if temperature:
        measurements.append(
            Measurement("temperature", 2.0, "1", n=200, split="validation", detail={"notes": ["a reason"]})
        )
    if threshold:
        measurements.append(Measurement("threshold", 0.125, "1", n=200, split="validation", detail=detail))
    for split in ("validation", "test"):
        measurements.append(Measurement("detection", recall, "1", 0.25, 0.95, 200, split=split, detail=figures))
        error = {"before": 0.25, "bins": 15}
        measurements += [Measurement("calibration_error", 0.125, "1", n=200, split=split, detail=error)] * temperature
    return measurements


def test_the_goal_names_a_threshold_of_the_original():
    *others, threshold = [fact for fact in facts(0.7) if fact.name in ("temperature", "threshold")]
    own = replace(threshold, detail={**threshold.detail, "original_threshold": 0.9})
    summary = stories.run_summary(records=stories.with_facts(stories.records(), "qa", *others, own))
    assert "same recall as that of the original with its threshold of 0.9." in goal_words(summary)


def summary_of(**options):
    records = stories.with_facts(stories.records(), "qa", *facts(0.7, **options))
    return stories.run_summary(records=stories.with_facts(records, "t", *facts(0.6, **options)))


def test_every_output_has_figures_before_and_after():
    summary = summary_of()
    row = decision_rows(summary)[0]
    assert (row.name, row.split, row.recall) == ("teacher (PyTorch)", "validation", ("50.0 %", "60.0 %"))
    assert (row.precision, row.others) == (("75.0 %", "–"), ("90.0 %", "87.5 %"))
    assert (row.thresholds, row.temperature) == ("positive: 0.125", "2")
    assert row.calibration_error == ("0.2500", "0.1250")
    assert [(entry.name, entry.split) for entry in decision_rows(summary)[2:]] == [
        (name, split) for name in [decision_rows(summary)[2].name] for split in ("validation", "test")
    ]
    chosen = decision_lines(summary)[1]
    assert "threshold positive: 0.125, recall 70.0 % (usual rule 50.0 %)" in chosen
    assert "accuracy on the others 87.5 % (usual rule 90.0 %)" in chosen
    assert "temperature 2, calibration error 0.1250 (before 0.2500)" in chosen
    assert chosen in front_table(summary).caption
    page = report_html(summary)
    assert "Decision thresholds and calibration" in page
    assert goal_words(summary).startswith(
        "Thresholds of positive are fitted on validation for the same recall as that of"
    )
    for words in ("positive: a note.", "in 15 bins of equal width", "A reason."):
        assert words in goal_words(summary)
    line = {line["key"]: line for line in csv.DictReader(io.StringIO(front_csv(summary)))}
    assert (line["qa"]["recall_test"], line["qa"]["recall_usual_test"]) == ("0.7", "0.5")
    assert line["qa"]["calibration_error_before_validation"] == "0.25"
    assert line["xa"]["recall_test"] == ""
    assert to_json(summary)["decisions"]["qa"]["threshold"]["validation"]["detail"]["thresholds"] == THRESHOLDS


def test_the_card_shows_the_original_by_its_usual_rule():
    summary = summary_of()
    row, reference = (next(entry for entry in rows(summary) if entry.key == key) for key in ("qa", "t"))
    lines = {line.label: line for line in figures(summary, row, reference)}
    recall = lines["recall of positive with threshold, test"]
    assert (recall.value, recall.original) == ("70.0 % (usual rule 50.0 %)", "50.0 %")
    others = lines["accuracy on the others, test"]
    assert (others.value, others.original) == ("87.5 % (usual rule 90.0 %)", "90.0 %")
    assert recall.interval == "[25.0 %, 95.0 %]"
    assert (recall.n, others.n) == ("30", "170")  # each is a share of its own texts
    assert lines["calibration error (15 bins), test"].value == "0.1250 (0.2500 without temperature)"


def test_a_positive_class_without_a_threshold_has_one_figure():
    summary = summary_of(threshold=False, temperature=False)
    assert decision_lines(summary)[0].startswith("teacher (PyTorch), test: positive, recall 60.0 %, precision")
    row = next(entry for entry in rows(summary) if entry.key == "qa")
    assert {line.label: line.value for line in figures(summary, row, None)}["recall of positive, test"] == "70.0 %"
    assert thresholds_words(summary.records["qa"]) == "–"


def test_runs_without_the_probe_say_nothing():
    summary = stories.run_summary()
    assert (decision_rows(summary), decision_lines(summary), goal_words(summary)) == ([], [], "")
    assert "Decision thresholds" not in report_html(summary)
    assert "decisions" not in to_json(summary)
    assert "recall_test" not in front_csv(summary)


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_the_artefact_stores_what_its_example_decides_by(exported, tmp_path, threshold):
    summary = summary_of(thresholds={"positive": threshold})
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    decision = json.loads((out / "limbeck.json").read_text())["decision"]
    assert decision == {"temperature": 2.0, "thresholds": {"positive": threshold}, "positive_score": "probability"}
    answer, score = execute(code((out / "README.md").read_text()), out).split()
    assert answer == ("negative" if threshold else "positive")
    assert 0 < float(score) < 1
    plain = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "plain")
    assert json.loads((plain / "limbeck.json").read_text())["decision"] is None


@pytest.mark.parametrize(
    ("kind", "thresholds"), [("multilabel", {"negative": 0.0, "positive": 1.1}), ("regression", {"-100": -200.0})]
)
def test_examples_of_other_kinds_decide_too(exported, tmp_path, kind, thresholds):
    summary = replace(summary_of(thresholds=thresholds), task=stories.task(kind=kind))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    printed = execute(artefact_example(summary, exported=True, key="qa"), out).strip()
    if kind == "multilabel":
        assert list(json.loads(printed.replace("'", '"'))) == ["negative"]
    else:
        assert printed.split()[1] == "-100.0"


def test_examples_fit_the_card():
    for kind in KINDS:
        for score in ("probability", "max-softmax"):
            for thresholds in ({}, THRESHOLDS):
                for runtime in (*SESSIONS, "torch"):
                    text = example(kind, runtime=runtime, decision=Decision(2.0, thresholds, score))
                    assert len(text.strip().splitlines()) <= (27 if kind == "rerank" else 22)
                    compile(text, kind, "exec")
