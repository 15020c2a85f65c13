"""The model card of an artefact."""

from __future__ import annotations

import stories
import yaml

from limbeck.core.measurement import Measurement
from limbeck.report.artefact import write_artefact
from limbeck.report.html import report_html
from limbeck.report.model_card import card, cell


def test_card_and_page_warn_of_processors_that_answer_differently(exported, tmp_path):
    detail = {"pairs": 9, "differ": 2, "largest": 1.0}
    fact = Measurement("portability", 0.96, "1", n=50, split="validation", detail=detail)
    summary = stories.run_summary(records=stories.with_facts(stories.records(), "qa", fact))
    warning = "processors without VNNI answer 2 of 50 validation texts differently"
    limits = (write_artefact(summary, "qa", exported, tmp_path / "out") / "README.md").read_text().split("## Limits")[1]
    assert warning in limits
    assert warning in report_html(summary)
    assert "VNNI" not in card(stories.run_summary(), "qa", exported)


def test_card_has_front_matter_figures_and_machine(exported, tmp_path):
    text = (write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out") / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "hub/tiny-bert"
    assert head["pipeline_tag"] == "text-classification"
    assert {"limbeck", "onnx", "int8"} <= set(head["tags"])
    assert "| latency p50 | 1.30 ms | [1.29, 1.31] | 150 | 8.00 ms |" in text
    assert "| accuracy, validation | 88.5 % | [84.5, 92.5] | 200 | 90.0 % |" in text
    for words in ("Toy CPU", "1 thread, batch 1", "distill (epochs 4)", "Seeds: 0, 1", "3 empty texts"):
        assert words in text


def test_local_models_are_no_base_on_the_hub(exported, tmp_path):
    records = stories.records()
    records["root"] = stories.replace(records["root"], parameters={"source": str(tmp_path / "mine")})
    text = card(stories.run_summary(records=records), "qa", exported)
    assert "base_model" not in text
    assert str(tmp_path) not in text
    assert "from mine:" in text


def test_labels_cannot_break_out_of_the_card(exported):
    summary = stories.run_summary(task=stories.task(name="a|b\n# <script>", label_names=("x\n```\n<b>", "y")))
    text = card(summary, "qa", exported)
    assert "<script>" not in text
    assert "<b>" not in text
    assert text.count("```") == 2
    assert cell("a|b") == "a\\|b"


def test_the_card_compares_with_the_own_whole_model_where_the_teacher_gives_answers_alone(exported):
    text = card(stories.tell_of_scores(), "qa", exported)
    assert "| n | fine-tuned (PyTorch) |" in text
    assert "| latency p50 | 1.30 ms | [1.29, 1.31] | 150 | 8.00 ms |" in text
    assert "| speed-up over PyTorch | 6.15x" in text
    assert "Taught by llm.jsonl, which only gives answers (accuracy: validation 95.0 %" in text
    assert "/data" not in text


def test_the_card_compares_with_a_teacher_of_another_checkpoint(exported):
    text = card(stories.tell_of_another_teacher(), "qa", exported)
    assert "| n | teacher big (PyTorch) |" in text
    assert "| latency p50 | 1.30 ms | [1.29, 1.31] | 150 | 80.0 ms |" in text
    assert "| speed-up over its teacher big in PyTorch | 61.54x" in text
    assert "Taught by hub/big (accuracy: validation 95.0 %" in text
