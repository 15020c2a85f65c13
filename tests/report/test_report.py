"""Headline, terminal table, CSV and JSON of a run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import stories
from rich.console import Console

from limbeck.core.measurement import Measurement
from limbeck.core.target import Budget
from limbeck.report.report import front_csv, front_rows, front_table, headline, slim, to_json
from limbeck.report.table import rows


def test_headline_is_honest():
    summary = stories.run_summary()
    assert headline(summary) == (
        "6.2x faster than PyTorch at 1.5 points less accuracy, within the noise (p50 1.30 ms instead of 8.00 ms)"
    )
    assert headline(replace(summary, chosen=("tx",), budget=Budget())).startswith(
        "2.0x faster than PyTorch at the same accuracy"
    )
    tight = replace(summary, chosen=(), budget=Budget(latency_ms=0.1))
    assert headline(tight).startswith("No candidate meets the budget. The nearest is pruned 4.0x")
    unchosen = replace(summary, chosen=(), chooses=False)
    count, on_front = len(rows(unchosen)), sum(row.on_front for row in rows(unchosen))
    start = f"The recipe chooses nothing: {count} candidates measured, {on_front} on the front"
    assert headline(replace(unchosen, budget=Budget())).startswith(f"{start}. To get a model to serve")
    none = replace(unchosen, budget=Budget(latency_ms=0.1))
    assert headline(none).startswith(f"{start}, 0 within the budget.")
    assert headline(replace(summary, measured=(), chosen=())) == "Nothing was measured: 1 step failed"
    alone = replace(summary, measured=[summary.teacher], chosen=(), failed=())
    assert headline(alone) == "The teacher alone was measured"
    assert headline(replace(summary, teacher=None, reference=None)).startswith("Chosen: ")


def test_headline_names_no_gain_and_a_loss():
    for seconds, start in (
        (8e-3, "Not measurably faster than PyTorch: 1.00x [1.00, 1.00]"),
        (9e-3, "Slower than PyTorch: 0.89x"),
    ):
        records = stories.records()
        records["tx"] = replace(records["tx"], facts=stories.facts(seconds, 180, 1e6))
        assert headline(stories.run_summary(records=records, chosen=("tx",), budget=Budget())).startswith(start)


def test_table_marks_the_chosen_and_gives_reasons():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(front_table(stories.run_summary()))
    text = console.export_text()
    line = next(line for line in text.splitlines() if "★" in line and "INT8" in line)
    assert "pruned 2.0x · distilled · INT8" in line
    assert "6.15x" in line
    assert "latency 8.00 ms > 2 ms" in text


def test_csv_reads_back():
    lines = list(csv.DictReader(io.StringIO(front_csv(stories.run_summary()))))
    assert [line["key"] for line in lines] == ["t", "tx", "tq", "xa", "qa", "xb", "qb"]
    assert float(lines[4]["latency_p50_ms"]) == pytest.approx(1.3)
    assert float(lines[4]["accuracy_test"]) == pytest.approx(0.875)
    assert lines[4]["chosen"] == "True"


def test_json_is_plain():
    data = json.loads(json.dumps(to_json(stories.run_summary()), allow_nan=False))
    assert data["chosen"] == ["qa"]
    assert data["lineage"]["qa"] == ["root", "t", "pa", "da", "xa", "qa"]
    assert {gain["verdict"] for gain in data["gains"]} == {"faster"}
    assert data["failed"] == [{"step": "quantize", "key": "xb", "error": "ValueError: no text"}]


def test_slim_drops_what_only_arithmetic_needs():
    fact = stories.quality(150)
    assert slim(fact)["detail"] == {"metric": "accuracy"}
    assert "detail" not in slim(Measurement("size", 1.0, "B"))


def test_a_teacher_that_gives_answers_alone_is_scored_and_the_own_whole_model_is_the_reference():
    summary = stories.tell_of_scores()
    assert headline(summary).startswith("6.2x faster than PyTorch at 1.5 points less accuracy")
    flat = {row["key"]: row for row in front_rows(summary)}
    assert [key for key, row in flat.items() if row["reference"]] == ["t"]
    assert [key for key, row in flat.items() if row["teacher"]] == ["f"]
    assert flat["f"]["speedup"] is None
    assert flat["qa"]["speedup"] == pytest.approx(8 / 1.3)
    assert flat["qa"]["speedup_over_int8"] == pytest.approx(3 / 1.3)
    assert flat["qa"]["drop_points"] == pytest.approx(1.5)
    names = {key: row["name"] for key, row in flat.items()}
    assert names["t"] == "fine-tuned (PyTorch)"
    assert names["tq"] == "fine-tuned · INT8"
    assert names["f"] == "teacher llm.jsonl"
    assert names["qa"] == "pruned 2.0x · distilled · INT8"
    caption = str(front_table(summary).caption)
    assert "Speed-ups and losses are over fine-tuned (PyTorch): the teacher only gives answers" in caption
    assert (to_json(summary)["teacher"], to_json(summary)["reference"]) == ("f", "t")
    assert "Speed-ups and losses" not in str(front_table(stories.run_summary()).caption)


def test_figures_are_over_a_teacher_of_another_checkpoint():
    summary = stories.tell_of_another_teacher()
    assert headline(replace(summary, budget=Budget())).startswith(
        "61.5x faster than its teacher big in PyTorch at 6.5 points less accuracy"
    )
    flat = {row["key"]: row for row in front_rows(summary)}
    assert flat["t"]["speedup"] == pytest.approx(10)
    assert flat["qa"]["drop_points"] == pytest.approx(6.5)
    assert "quality 6.50 points below the reference > 3" in flat["qa"]["problems"]
    assert "Speed-ups and losses are over teacher big (PyTorch)" in str(front_table(summary).caption)
