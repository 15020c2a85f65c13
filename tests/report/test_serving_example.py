"""The example code of an artefact runs in its folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
import stories

from limbeck.core.kinds import KINDS
from limbeck.core.target import Target
from limbeck.model.onnx.onnx_model import open_session
from limbeck.report.artefact import describe, write_artefact
from limbeck.report.model_folder import graph_inputs
from limbeck.report.serving_example import artefact_example, example

BLOCKED = "import sys\nfor name in ('torch', 'transformers', 'limbeck'):\n    sys.modules[name] = None\n"


def code(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)


def execute(text: str, folder: Path) -> str:
    command = [sys.executable, "-c", BLOCKED + text]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_card_example_runs_with_onnxruntime_and_tokenizers_alone(exported, tmp_path):
    out = write_artefact(stories.run_summary(), "qa", exported, tmp_path / "new" / "out")
    text = code((out / "README.md").read_text())
    assert len(text.strip().splitlines()) <= 18
    answer = execute(text + "print(len(text.ids))\n", out).split()
    assert answer[0] in ("negative", "positive")
    assert answer[1] == "7"  # five words in two marks: nothing padded
    assert execute(text.replace("film.", "film " * 100) + "print(len(text.ids))", out).split()[1] == "16"


def test_a_model_measured_in_openvino_is_handed_over_with_openvino(exported, tmp_path):
    summary = replace(stories.run_summary(), target=Target(runtime="openvino"))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["runtime"] == "openvino"
    card = (out / "README.md").read_text()
    assert "pip install openvino tokenizers" in card
    assert "the times below are OpenVINO's" in card
    assert "openvino.compile_model" in code(card)
    pytest.importorskip("openvino")
    assert execute(code(card), out).strip() in ("negative", "positive")


def test_a_model_measured_on_a_gpu_is_handed_over_with_its_provider(exported, tmp_path):
    summary = replace(stories.run_summary(), target=Target(device="cuda"))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["runtime"] == "onnxruntime"
    card = (out / "README.md").read_text()
    assert "pip install onnxruntime-gpu tokenizers" in card
    assert 'providers=["CUDAExecutionProvider", "CPUExecutionProvider"]' in code(card)


def test_an_onnx_file_is_handed_over_with_onnxruntime_where_the_target_says_torch(exported, tmp_path):
    summary = replace(stories.run_summary(), target=Target(runtime="torch"))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["runtime"] == "onnxruntime"
    assert "pip install onnxruntime tokenizers" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "pair", "answer"),
    [("multilabel", False, list), ("regression", False, float), ("classification", True, str)],
)
def test_example_of_every_kind_runs(exported, tmp_path, kind, pair, answer):
    splits = {"train": SimpleNamespace(pairs=("x",) if pair else None)}
    summary = stories.run_summary(task=stories.task(kind=kind, splits=splits))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    printed = execute(artefact_example(summary, exported=True), out).strip()
    assert isinstance(printed if answer is str else json.loads(printed.replace("'", '"')), answer)
    if pair:
        assert printed in summary.task.label_names
        assert execute(artefact_example(summary, exported=True) + "print(max(text.type_ids))", out).split()[-1] == "1"


class Opened(BaseException):
    """Ends what opens a session."""


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu"])
def test_examples_open_the_session_as_it_is_timed(runtime, exported, tmp_path, monkeypatch):
    settings = []

    def session(path, options, providers):
        spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
        settings.append((options.intra_op_num_threads, spinning))
        raise Opened

    monkeypatch.chdir(write_artefact(stories.run_summary(), "qa", exported, tmp_path / "out"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(Opened):
        open_session("onnx/model.onnx", threads=3)
    with pytest.raises(Opened):
        exec(example("classification", runtime=runtime, threads=3), {})
    assert settings == [(3, "0")] * 2


def test_examples_fit_the_card():
    for kind in (*KINDS, "score"):
        for runtime in ("onnxruntime", "openvino", "torch"):
            text = example(kind, runtime=runtime)
            assert len(text.strip().splitlines()) <= (27 if kind == "rerank" else 18)
            compile(text, kind, "exec")
    for runtime in ("onnxruntime", "openvino", "torch"):
        text = example("tokens", runtime=runtime, labels=("O", "B-PER", "I-PER"))
        assert len(text.strip().splitlines()) <= 45
        compile(text, runtime, "exec")


def test_tags_that_transformers_cannot_join_are_printed_by_word():
    bio, bioes = (example("tokens", runtime="torch", labels=("O", "B-A", "I-A", *more)) for more in ((), ("S-A",)))
    assert "pipeline(" in bio
    assert "pipeline(" not in bioes
    assert "labels[" in bioes
    assert "entities" in example("tokens", labels=("O", "B-A", "I-A", "S-A"))


def test_torch_artefact_uses_transformers(tmp_path, exported):
    folder = tmp_path / "torch"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes((exported / name).read_bytes())
    (folder / "encoder.py").write_text("# code of a stranger\n")
    out = write_artefact(stories.run_summary(chosen=("t",)), "t", folder, tmp_path / "out")
    assert not (out / "encoder.py").exists()
    text = code((out / "README.md").read_text())
    assert "trust_remote_code=True" in text
    assert "max_length=16" in text
    assert describe(stories.run_summary(), "t", folder)["onnx_file"] is None


def test_an_artefact_whose_weights_lie_beside_the_graph_runs(exported, tmp_path, monkeypatch, make_model):
    from limbeck.model.onnx.onnx_model import to_onnx

    monkeypatch.setattr("limbeck.model.external.LIMIT", 10_000)
    folder = tmp_path / "stored"
    shutil.copytree(exported, folder)
    to_onnx(make_model(), folder / "onnx" / "model.onnx")
    out = write_artefact(stories.run_summary(), "qa", folder, tmp_path / "out")
    assert execute(code((out / "README.md").read_text()), out).strip() in ("negative", "positive")
    description = json.loads((out / "limbeck.json").read_text())
    assert "onnx/model.onnx_data" in description["files"]
    (folder / "onnx" / "model.onnx_data").rename(tmp_path / "elsewhere")
    assert graph_inputs(folder / "onnx" / "model.onnx") == description["inputs"]  # no weights are read
    write_artefact(stories.run_summary(), "qa", exported, out)  # a small model replaces it
    assert [path.name for path in (out / "onnx").iterdir()] == ["model.onnx"]


def test_the_example_of_a_reranker_answers_as_one_by_one(exported, tmp_path):
    splits = {"train": SimpleNamespace(pairs=("x",))}
    summary = stories.run_summary(task=stories.task(kind="rerank", splits=splits, label_names=()))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["request"] == {"batch": 1, "pad_id": 3, "candidates": None}
    text = code((out / "README.md").read_text())
    assert len(text.strip().splitlines()) <= 27
    text = text.replace('"Heat transfer in a pipe."', '"a", "a long film " * 9, "the film of a film"')
    printed = {size: execute(text.replace('metadata["request"]["batch"]', size), out) for size in ("1", "2", "9")}
    scores = {size: [float(line.split()[0]) for line in lines.splitlines()] for size, lines in printed.items()}
    assert len(scores["1"]) == 4
    assert scores["1"] == sorted(scores["1"], reverse=True)
    for other in ("2", "9"):
        assert scores[other] == pytest.approx(scores["1"], abs=1e-5)
