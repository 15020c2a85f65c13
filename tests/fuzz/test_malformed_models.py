"""Thousands of malformed model folders: a model that answers, or one clear error, soon, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fuzzing import examples, mutated, mutated_bytes
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.predict import answer
from limbeck.errors import InputError
from limbeck.model.checkpoints import (
    open_model,
    peek,
    peek_outputs,
    peek_style,
    save_model,
    write_plain,
)
from limbeck.model.onnx.onnx_model import to_onnx
from limbeck.model.tokenizer_loading import open_tokenizer
from limbeck.teachers.transformers_model import is_known_to_transformers

pytestmark = pytest.mark.fuzz

TASK = toy_task(train=8)
TOKENIZER_SETTINGS = {
    "tokenizer_class": "BertTokenizer",
    "model_max_length": 64,
    "pad_token": "[PAD]",
    "do_lower_case": True,
}
TOKENIZER_SETTINGS |= {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}}, "auto_map": {}}


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_model):
    """A model of ours, the same as a plain BERT, in two shards, and exported."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), toy_tokenizer(TASK)
    model = make_model(labels=3, vocab_size=len(tokenizer))
    save_model(model, tokenizer, folder / "ours")
    write_plain(model, tokenizer, folder / "bert")
    save_model(model, tokenizer, folder / "exported")
    to_onnx(model, folder / "exported" / "onnx" / "model.onnx")
    path = folder / "exported" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limbeck_runtime": "onnxruntime"}))
    return folder


@pytest.fixture
def copies(models, rule):
    """Copies of the models where inputs are written; a test restores what it changes."""
    for folder in models.iterdir():
        shutil.copytree(folder, rule.work / folder.name)
    return models


def configs(folder):
    return [json.loads((folder / name / "config.json").read_text()) for name in ("ours", "bert", "exported")]


def restored(models, name):
    shutil.copyfile(models / name, name)


@examples(900)
@given(data=st.data())
def test_what_is_read_without_weights(rule, copies, data):
    config, name = data.draw(mutated(configs(copies))), data.draw(st.sampled_from(["ours", "bert", "exported"]))
    path = Path(name, "config.json")
    path.write_text(json.dumps(config))
    with rule.check():
        peek(name)
        peek_style(name)
        peek_outputs(name)
    restored(copies, path)


FORMS = [None, True, -1, 1.5, 10**30, "", "word", [], ["word"], [[]], {}, {"word": []}]
READ_BY_NAME = ["architectures", "problem_type", "label2id", "limbeck_head", "sentence_transformers", "auto_map"]


@pytest.mark.parametrize("name", ["ours", "bert", "exported"])
def test_each_key_in_each_form(rule, copies, name):
    path = Path(name, "config.json")
    config = json.loads(path.read_text())
    for key in sorted({*config, *READ_BY_NAME}):
        for form in FORMS:
            path.write_text(json.dumps(config | {key: form}))
            with rule.check():
                peek(name)
                peek_style(name)
                peek_outputs(name)
            with rule.check():
                is_known_to_transformers(name)


@examples(500)
@given(data=st.data())
def test_configurations(rule, copies, data):
    config, name = data.draw(mutated(configs(copies))), data.draw(st.sampled_from(["ours", "bert", "exported"]))
    path = Path(name, "config.json")
    path.write_text(json.dumps(config))
    with rule.check():
        answer(name, ["a text"])
    restored(copies, path)


@examples(300)
@given(data=st.data())
def test_configurations_as_files(rule, copies, data):
    path = Path("bert", "config.json")
    path.write_bytes(data.draw(mutated_bytes([(copies / path).read_bytes()])))
    with rule.check():
        peek("bert")
        open_model("bert")
    restored(copies, path)


@examples(500)
@given(data=st.data())
def test_tokenizers(rule, copies, data):
    path = Path("bert", "tokenizer.json")
    path.write_text(json.dumps(data.draw(mutated([json.loads((copies / path).read_text())]))))
    with rule.check():
        assert open_tokenizer("bert")("one two")["input_ids"] is not None
    restored(copies, path)


@examples(300)
@given(data=st.data())
def test_settings_of_tokenizers(rule, copies, data):
    path = Path("bert", "tokenizer_config.json")
    settings = [json.loads((copies / path).read_text()), TOKENIZER_SETTINGS]
    path.write_text(json.dumps(data.draw(mutated(settings))))
    with rule.check():
        open_tokenizer("bert")("one two")
    restored(copies, path)


def split(raw):
    """The header of a safetensors file as data, and the bytes behind it."""
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


@examples(400)
@given(data=st.data())
def test_headers_of_weights(rule, copies, data):
    path = Path(data.draw(st.sampled_from(["ours", "bert"])), "model.safetensors")
    header, tensors = split((copies / path).read_bytes())
    text = json.dumps(data.draw(mutated([header], 1))).encode()
    length = data.draw(st.sampled_from([len(text)] * 9 + [0, 1, 2**31, 2**63]))
    path.write_bytes(length.to_bytes(8, "little") + text + tensors)
    with rule.check():
        peek_outputs(path.parent)
        answer(path.parent, ["a text"])
    restored(copies, path)


@examples(250)
@given(data=st.data())
def test_weights_as_files(rule, copies, data):
    path = Path("ours", "model.safetensors")
    path.write_bytes(data.draw(mutated_bytes([(copies / path).read_bytes()])))
    with rule.check():
        answer("ours", ["a text"])
    restored(copies, path)


@examples(250)
@given(data=st.data())
def test_indices_of_weights(rule, copies, data):
    weights, index = Path("bert", "model.safetensors"), Path("bert", "model.safetensors.index.json")
    if weights.exists():
        weights.rename(weights.with_name("part.safetensors"))
    header, _ = split((copies / weights).read_bytes())
    table = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(list(header)[-5:], "part.safetensors")}
    index.write_text(json.dumps(data.draw(mutated([table]))))
    with rule.check():
        peek_outputs("bert")
        open_model("bert")


@examples(300)
@given(data=st.data())
def test_graphs(rule, copies, data):
    path = Path("exported", "onnx", "model.onnx")
    path.write_bytes(data.draw(mutated_bytes([(copies / path).read_bytes()])))
    with rule.check():
        answer("exported", ["a text"])
    restored(copies, path)


def test_the_good_ones_are_good(copies):
    for name in ("ours", "bert", "exported"):
        assert answer(name, ["a text"])
    with pytest.raises(InputError):
        open_model("nowhere/at/all")
