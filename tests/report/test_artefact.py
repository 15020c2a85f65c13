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
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from limbeck.core.measurement import Measurement
from limbeck.core.outputs import ANSWER_CODE
from limbeck.core.target import Target
from limbeck.errors import InputError, LimbeckError
from limbeck.report import artefact
from limbeck.report.artefact import (
    artefact_example,
    card,
    cell,
    check_out,
    describe,
    example,
    graph_inputs,
    write_artefact,
)
from limbeck.report.report import report_html

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "what", "a", "wonderful", "film", ".", "the", "first", "second", "text"]
BLOCKED = "import sys\nfor name in ('torch', 'transformers', 'limbeck'):\n    sys.modules[name] = None\n"


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    made.enable_padding(pad_id=3, pad_token="[PAD]", length=64)  # some hub models come so; the example must not
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A real, tiny model as the store keeps it: a Hugging Face folder with ONNX inside, and the store's own files."""
    from limbeck.core.shape import Shape
    from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import to_onnx

    folder = tmp_path_factory.mktemp("stored")
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    config = LimbeckConfig(
        vocab_size=60,
        hidden_size=shape.hidden,
        head_dim=shape.head_dim,
        layer_heads=[layer.heads for layer in shape.layers],
        layer_ffn=[layer.ffn for layer in shape.layers],
        max_positions=64,
        num_labels=2,
        problem_type="single_label_classification",
    )
    (folder / "onnx").mkdir()
    to_onnx(LimbeckForSequenceClassification(config).eval(), folder / "onnx" / "model.onnx")
    tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("config.json", "card.json", "task.json"):
        (folder / name).write_text("{}")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "train.jsonl").write_text("{}\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def code(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)


def execute(text: str, folder: Path) -> str:
    command = [sys.executable, "-c", BLOCKED + text]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_card_example_runs_with_onnxruntime_and_tokenizers_alone(exported, tmp_path):
    out = write_artefact(stories.tell(), "qa", exported, tmp_path / "new" / "out")
    text = code((out / "README.md").read_text())
    assert len(text.strip().splitlines()) <= 15
    answer = execute(text + "print(len(text.ids))\n", out).split()
    assert answer[0] in ("negative", "positive")
    assert answer[1] == "7"  # five words in two marks: nothing padded
    assert execute(text.replace("film.", "film " * 100) + "print(len(text.ids))", out).split()[1] == "16"


def test_a_model_measured_in_openvino_is_handed_over_with_openvino(exported, tmp_path):
    summary = replace(stories.tell(), target=Target(runtime="openvino"))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["runtime"] == "openvino"
    card = (out / "README.md").read_text()
    assert "pip install openvino tokenizers" in card
    assert "the times below are OpenVINO's" in card
    assert "openvino.compile_model" in code(card)
    pytest.importorskip("openvino")
    assert execute(code(card), out).strip() in ("negative", "positive")


def test_an_onnx_file_is_handed_over_with_onnxruntime_where_the_target_says_torch(exported, tmp_path):
    summary = replace(stories.tell(), target=Target(runtime="torch"))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    assert json.loads((out / "limbeck.json").read_text())["runtime"] == "onnxruntime"
    assert "pip install onnxruntime tokenizers" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "pair", "answer"),
    [("multilabel", False, list), ("regression", False, float), ("classification", True, str)],
)
def test_example_of_every_kind_runs(exported, tmp_path, kind, pair, answer):
    splits = {"train": SimpleNamespace(pairs=("x",) if pair else None)}
    summary = stories.tell(task=stories.task(kind=kind, splits=splits))
    out = write_artefact(summary, "qa", exported, tmp_path / "out")
    printed = execute(artefact_example(summary, out), out).strip()
    assert isinstance(printed if answer is str else json.loads(printed.replace("'", '"')), answer)
    if pair:
        assert printed in summary.task.label_names
        assert execute(artefact_example(summary, out) + "print(max(text.type_ids))", out).split()[-1] == "1"


def test_examples_fit_the_card():
    for kind in ANSWER_CODE:
        for runtime in ("onnxruntime", "openvino", "torch"):
            text = example(kind, runtime=runtime)
            assert len(text.strip().splitlines()) <= 15
            compile(text, kind, "exec")


def test_folder_has_the_model_and_nothing_of_the_store(exported, tmp_path):
    out = write_artefact(stories.tell(), "qa", exported, tmp_path / "out")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    wanted = ["README.md", "config.json", "limbeck.json", "model.safetensors", "onnx/model.onnx"]
    assert files == [*wanted, "tokenizer.json", "tokenizer_config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no draft is left


def test_card_and_page_warn_of_processors_that_answer_differently(exported, tmp_path):
    detail = {"pairs": 9, "differ": 2, "largest": 1.0}
    fact = Measurement("portability", 0.96, "1", n=50, split="validation", detail=detail)
    summary = stories.tell(records=stories.with_facts(stories.records(), "qa", fact))
    warning = "processors without VNNI answer 2 of 50 validation texts differently"
    limits = (write_artefact(summary, "qa", exported, tmp_path / "out") / "README.md").read_text().split("## Limits")[1]
    assert warning in limits
    assert warning in report_html(summary)
    assert "VNNI" not in card(stories.tell(), "qa", exported)


def test_description_says_what_a_server_needs(exported, tmp_path):
    out = write_artefact(stories.tell(), "qa", exported, tmp_path / "out")
    about = json.loads((out / "limbeck.json").read_text())
    graph = onnxruntime.InferenceSession(str(out / about["onnx_file"]), providers=["CPUExecutionProvider"])
    assert about["inputs"] == [value.name for value in graph.get_inputs()]
    assert about["max_length"] == 16
    assert about["labels"] == ["negative", "positive"]
    assert about["problem_type"] == "single_label_classification"
    assert about["lineage"] == ["root", "t", "pa", "da", "xa", "qa"]
    assert about["machine"]["processor"] == "Toy CPU"
    assert about["recipe"].startswith("model: hub/tiny-bert")
    names = [fact["name"] for fact in about["metrics"]]
    assert {"quality", "latency_p50", "size"} <= set(names)
    assert not any("rounds" in fact.get("detail", {}) for fact in about["metrics"])


def test_card_has_front_matter_figures_and_machine(exported, tmp_path):
    text = (write_artefact(stories.tell(), "qa", exported, tmp_path / "out") / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "hub/tiny-bert"
    assert head["pipeline_tag"] == "text-classification"
    assert {"limbeck", "onnx", "int8"} <= set(head["tags"])
    assert "| latency p50 | 1.30 ms | [1.29, 1.31] | 150 | 8.00 ms |" in text
    assert "| accuracy, validation | 88.5 % | [84.5, 92.5] | 200 | 90.0 % |" in text
    for words in ("Toy CPU", "1 thread, batch 1", "distill (epochs 4)", "Seeds: 0, 1", "3 empty texts"):
        assert words in text


def test_local_models_are_no_base_on_the_hub(exported, tmp_path):
    made = stories.records()
    made["root"] = stories.replace(made["root"], parameters={"source": str(tmp_path / "mine")})
    text = artefact.card(stories.tell(records=made), "qa", exported)
    assert "base_model" not in text
    assert str(tmp_path) not in text
    assert "from mine:" in text


def test_labels_cannot_break_out_of_the_card(exported):
    summary = stories.tell(task=stories.task(name="a|b\n# <script>", label_names=("x\n```\n<b>", "y")))
    text = artefact.card(summary, "qa", exported)
    assert "<script>" not in text
    assert "<b>" not in text
    assert text.count("```") == 2
    assert cell("a|b") == "a\\|b"


def test_torch_artefact_uses_transformers(tmp_path, exported):
    folder = tmp_path / "torch"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes((exported / name).read_bytes())
    (folder / "encoder.py").write_text("# the model\n")
    out = write_artefact(stories.tell(chosen=("t",)), "t", folder, tmp_path / "out")
    assert (out / "encoder.py").is_file()
    text = code((out / "README.md").read_text())
    assert "trust_remote_code=True" in text
    assert "max_length=16" in text
    assert describe(stories.tell(), "t", folder)["onnx_file"] is None


def test_an_earlier_artefact_is_replaced_and_guests_stay(exported, tmp_path):
    out = write_artefact(stories.tell(), "qa", exported, tmp_path / "out")
    (out / "report.html").write_text("a report")
    (out / "onnx" / "notes.txt").write_text("mine")
    (out / "README.md").write_text("changed")
    write_artefact(stories.tell(), "qa", exported, out)
    assert (out / "report.html").read_text() == "a report"
    assert (out / "onnx" / "notes.txt").read_text() == "mine"
    assert (out / "README.md").read_text().startswith("---")
    (out / "limbeck.json").write_text("{broken")
    write_artefact(stories.tell(), "qa", exported, out)
    assert json.loads((out / "limbeck.json").read_text())["key"] == "qa"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_foreign_folders_are_left_alone(exported, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"not empty.*chapter\.tex.*thesis-artefact"):
        write_artefact(stories.tell(), "qa", exported, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="is a file"):
        check_out(tmp_path / "thesis" / "chapter.tex")
    with pytest.raises(InputError, match="own folder"):
        write_artefact(stories.tell(), "qa", exported, exported / "out")
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty")


def test_incomplete_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        write_artefact(stories.tell(), "qa", tmp_path, tmp_path / "out")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"no weights.*model\.safetensors"):
        write_artefact(stories.tell(), "qa", tmp_path, tmp_path.parent / "other")


def test_a_failure_leaves_the_earlier_artefact(exported, tmp_path, monkeypatch):
    out = write_artefact(stories.tell(), "qa", exported, tmp_path / "out")
    before = (out / "limbeck.json").read_text()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(artefact, "card", fail)
    with pytest.raises(LimbeckError, match="could not be written: disk full"):
        write_artefact(stories.tell(), "qa", exported, out)
    assert (out / "limbeck.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_artefact_whose_weights_lie_beside_the_graph_runs(exported, tmp_path, monkeypatch, make_model):
    from limbeck.model.onnx.onnx_model import to_onnx

    monkeypatch.setattr("limbeck.model.external.LIMIT", 10_000)
    folder = tmp_path / "stored"
    shutil.copytree(exported, folder)
    to_onnx(make_model(), folder / "onnx" / "model.onnx")
    out = write_artefact(stories.tell(), "qa", folder, tmp_path / "out")
    assert execute(code((out / "README.md").read_text()), out).strip() in ("negative", "positive")
    about = json.loads((out / "limbeck.json").read_text())
    assert "onnx/model.onnx_data" in about["files"]
    (folder / "onnx" / "model.onnx_data").rename(tmp_path / "elsewhere")
    assert graph_inputs(folder / "onnx" / "model.onnx") == about["inputs"]  # no weights are read
    write_artefact(stories.tell(), "qa", exported, out)  # a small model replaces it
    assert [path.name for path in (out / "onnx").iterdir()] == ["model.onnx"]
