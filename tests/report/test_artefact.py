"""The artefact's folder: its files, its description, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import stories

from limbeck.errors import InputError, LimbeckError
from limbeck.report import artefact
from limbeck.report.artefact import check_out, keep_foreign, write_artefact


def test_folder_has_the_model_and_nothing_of_the_store(exported, tmp_path):
    out = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    wanted = ["README.md", "config.json", "limbeck.json", "model.safetensors", "onnx/model.onnx"]
    assert files == [*wanted, "tokenizer.json", "tokenizer_config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no draft is left


def test_description_says_what_a_server_needs(exported, tmp_path):
    out = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out")
    description = json.loads((out / "limbeck.json").read_text())
    graph = onnxruntime.InferenceSession(str(out / description["onnx_file"]), providers=["CPUExecutionProvider"])
    assert description["inputs"] == [value.name for value in graph.get_inputs()]
    assert description["max_length"] == 16
    assert description["labels"] == ["negative", "positive"]
    assert description["problem_type"] == "single_label_classification"
    assert description["lineage"] == ["root", "t", "pa", "da", "xa", "qa"]
    assert description["machine"]["processor"] == "Toy CPU"
    assert description["recipe"].startswith("model: hub/tiny-bert")
    names = [fact["name"] for fact in description["metrics"]]
    assert {"quality", "latency_p50", "size"} <= set(names)
    assert not any("rounds" in fact.get("detail", {}) for fact in description["metrics"])


def test_an_earlier_artefact_is_replaced_and_guests_stay(exported, tmp_path):
    out = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out")
    (out / "report.html").write_text("a report")
    (out / "onnx" / "notes.txt").write_text("mine")
    (out / "README.md").write_text("changed")
    write_artefact(stories.run_summary(), "qa", exported, out)
    assert (out / "report.html").read_text() == "a report"
    assert (out / "onnx" / "notes.txt").read_text() == "mine"
    assert (out / "README.md").read_text().startswith("---")
    (out / "limbeck.json").write_text("{broken")
    write_artefact(stories.run_summary(), "qa", exported, out)
    assert json.loads((out / "limbeck.json").read_text())["key"] == "qa"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_foreign_folders_are_left_alone(exported, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"neither empty.*chapter\.tex.*thesis-artefact"):
        write_artefact(stories.run_summary(), "qa", exported, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="is a file"):
        check_out(tmp_path / "thesis" / "chapter.tex")
    with pytest.raises(InputError, match="own folder"):
        write_artefact(stories.run_summary(), "qa", exported, exported / "out")
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty")


def test_the_home_directory_is_where_its_tilde_says(exported, tmp_path, monkeypatch):
    """A shell leaves it as it is in '--out=~/folder', and what is checked has to be what is replaced."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(exported)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="neither empty"):
        check_out(Path("~/thesis"))
    with pytest.raises(InputError, match="neither empty"):
        write_artefact(stories.run_summary(), "qa", exported, Path("~/thesis"))
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    out = write_artefact(stories.run_summary(), "qa", exported, Path("~/out"))
    assert out == tmp_path / "out"
    (out / "report.html").write_text("a report")
    (draft := tmp_path / "draft").mkdir()
    keep_foreign(Path("~/out"), draft)
    assert [path.name for path in draft.iterdir()] == ["report.html"]
    assert not Path("~").exists()


def test_a_failure_leaves_the_earlier_artefact(exported, tmp_path, monkeypatch):
    out = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out")
    before = (out / "limbeck.json").read_text()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(artefact, "card", fail)
    with pytest.raises(LimbeckError, match="could not be written: disk full"):
        write_artefact(stories.run_summary(), "qa", exported, out)
    assert (out / "limbeck.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
