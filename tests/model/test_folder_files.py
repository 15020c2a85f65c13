"""Hostile and damaged model folders: nothing is executed or fetched, nothing outside is read, one error says what."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from limbeck.core.shape import Shape
from limbeck.errors import InputError, LimbeckError
from limbeck.model import folder_files
from limbeck.model.checkpoints import open_model, peek, peek_outputs, save_model
from limbeck.model.folder_files import read_object
from limbeck.model.onnx.onnx_model import to_onnx
from limbeck.model.tokenizer_loading import open_tokenizer

STRANGER = "open({marker!r}, 'w').close()\nclass Evil:\n    pass\n"


def words_tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="module")
def pristine(make_model, tmp_path_factory):
    """One folder of ours, one exported, and one plain BERT with a short vocabulary."""
    root = tmp_path_factory.mktemp("folders")
    model, tokenizer = make_model(Shape.uniform(2, 32, 4, 48)), words_tokenizer()
    save_model(model, tokenizer, root / "ours")
    save_model(model, tokenizer, root / "exported")
    to_onnx(model, root / "exported" / "onnx" / "model.onnx")
    edit(root / "exported" / "config.json", limbeck_runtime="onnxruntime", limbeck_onnx_file="onnx/model.onnx")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(vocab_size=60, max_position_embeddings=40, **sizes)
    BertForSequenceClassification(config).save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    return root


@pytest.fixture
def folder(request, pristine, tmp_path):
    """A copy to be spoiled; of ``ours`` unless the test names another."""
    return shutil.copytree(pristine / getattr(request, "param", "ours"), tmp_path / "model")


def edit(path, **entries):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | entries))


@pytest.fixture
def no_code(folder, monkeypatch, tmp_path):
    """A stranger's code in the folder; fails if it runs, if somebody is asked to run it, or if anything is fetched."""
    marker = tmp_path / "executed"
    for name in ("evil.py", "encoder.py", "attention.py"):
        (folder / name).write_text(STRANGER.format(marker=str(marker)))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a host was looked up"))
    yield
    assert not marker.exists()


def refusal(folder):
    """The error of opening a folder; empty if it opens, without its code."""
    try:
        _, tokenizer = open_model(folder)
    except InputError as error:
        return str(error)
    assert tokenizer("one two")["input_ids"]
    assert "auto_map" not in tokenizer.init_kwargs
    return ""


MAPS = [
    {"AutoTokenizer": ["evil.Evil", None]},
    {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"},
    ["evil.Evil", None],
    {"AutoTokenizer": ["someone/else--evil.Evil", None]},
]


@pytest.mark.parametrize("folder", ["ours", "bert", "exported"], indirect=True)
@pytest.mark.parametrize("settings", [{}, {"tokenizer_class": "Evil"}], ids=["class", "unknown class"])
def test_code_named_by_a_folder_is_neither_run_nor_offered(folder, no_code, settings):
    for auto_map in MAPS:
        edit(folder / "tokenizer_config.json", auto_map=auto_map, **settings)
        edit(
            folder / "config.json",
            auto_map={name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")},
        )
        if outcome := refusal(folder):
            assert "auto_map" in outcome


@pytest.mark.parametrize("folder", ["ours", "exported"], indirect=True)
def test_code_in_what_is_saved_is_the_package_s(folder, no_code, pristine, tmp_path):
    edit(folder / "config.json", auto_map={"AutoModel": "evil.Evil"}, custom_pipelines={"x": {"impl": "evil.Evil"}})
    model, tokenizer = open_model(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "encoder.py").symlink_to(folder / "evil.py")
    save_model(model, tokenizer, copy)
    for path in copy.glob("*.py"):
        assert path.read_bytes() == (pristine / "ours" / path.name).read_bytes()
    assert "evil" not in (copy / "config.json").read_text() + (copy / "tokenizer_config.json").read_text()
    assert "class Evil" in (folder / "evil.py").read_text()  # not written through the link


@pytest.mark.parametrize("folder", ["ours", "bert", "exported"], indirect=True)
@pytest.mark.parametrize("name", ["someone/kernel", "https://x.y/z", "someone/kernel:main", {"": "a/b"}], ids=str)
def test_a_kernel_by_name_is_refused(folder, no_code, name):
    edit(folder / "config.json", attn_implementation=name)
    for opens in (open_model, peek, open_tokenizer):
        with pytest.raises(InputError, match="attn_implementation"):
            opens(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../outside.safetensors", "/etc/passwd", "a\0.safetensors", 5])
@pytest.mark.parametrize("folder", ["bert"], indirect=True)
def test_an_index_names_safetensors_in_the_folder(folder, name):
    shutil.move(folder / "model.safetensors", folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"bert.embeddings.word_embeddings.weight": name}}))
    for opens in (open_model, peek_outputs):
        with pytest.raises(InputError, match=r"names .*; (expected|only files)"):
            opens(folder)
    for content in ("{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "absent.safetensors"}}'):
        index.write_text(content)
        with pytest.raises(InputError, match=r"index\.json"):
            open_model(folder)


@pytest.mark.parametrize("folder", ["exported"], indirect=True)
@pytest.mark.parametrize("name", ["../model.onnx", "{outside}", "config.json", "onnx/../../model.onnx", 7, "link.onnx"])
def test_an_onnx_file_lies_in_the_folder(folder, name):
    outside = shutil.copy(folder / "onnx" / "model.onnx", folder.parent / "model.onnx")
    (folder / "link.onnx").symlink_to(outside)
    edit(folder / "config.json", limbeck_onnx_file=name.format(outside=outside) if isinstance(name, str) else name)
    with pytest.raises(InputError, match=r"model\.onnx|config\.json"):
        open_model(folder)


@pytest.mark.parametrize("folder", ["exported"], indirect=True)
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "tokenizer.json", "vocab.txt", "onnx/model.onnx", "onnx/model.onnx_data", "config.json"],
)
def test_a_link_out_of_the_folder_is_refused(folder, name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(InputError, match=rf"{name} is a link to .*secret, outside"):
        open_model(folder)


def test_links_inside_and_those_of_the_hub_s_cache_are_followed(folder, tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.move(path, blobs / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    (tmp_path / "shortcut").symlink_to(snapshot)
    assert open_model(tmp_path / "shortcut")[0].shape.depth == 2


SPOILED = {
    "deep": ("config.json", "[" * 100_000 + "]" * 100_000),
    "deep enough to parse": ("config.json", '{"a": ' * 200 + "1" + "}" * 200),
    "no JSON": ("config.json", "{"),
    "Latin-1": ("config.json", '{"model_type": "b\xe9rt"}'.encode("latin-1")),
    "half a pair": ("config.json", '{"model_type": "\\ud800"}'),
    "NaN": ("config.json", '{"model_type": "bert", "hidden_size": NaN}'),
    "long number": ("config.json", '{"hidden_size": 1' + "0" * 5000 + "}"),
    "list": ("config.json", "[]"),
    "empty tokenizer": ("tokenizer.json", "{}"),
    "list as tokenizer": ("tokenizer.json", "[]"),
    "tokenizer of zeros": ("tokenizer.json", bytes(100)),
    "tokenizer of another kind": ("tokenizer.json", '{"version": "1.0", "added_tokens": [5], "model": {"type": "X"}}'),
    "settings no object": ("tokenizer_config.json", "5"),
    "settings cut off": ("tokenizer_config.json", '{"a'),
    "settings deep": ("tokenizer_config.json", "[" * 100_000),
    "auto_map a number": ("tokenizer_config.json", '{"auto_map": 5, "tokenizer_class": 7}'),
    "length a word": ("tokenizer_config.json", '{"model_max_length": "x"}'),
    "files outside": ("tokenizer_config.json", '{"fast_tokenizer_files": ["../tokenizer.1.0.json"]}'),
    "header too long": ("model.safetensors", struct.pack("<Q", 2**62)),
    "header no JSON": ("model.safetensors", struct.pack("<Q", 8) + b"notjson!"),
    "header a list": ("model.safetensors", struct.pack("<Q", 8) + b"[1,2,3] "),
    "no weights": ("model.safetensors", b""),
}


@pytest.mark.parametrize("folder", ["ours", "bert"], indirect=True)
@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_file_is_one_clear_error(folder, case):
    name, content = SPOILED[case]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LimbeckError) as caught:
        open_model(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_files, "LARGEST_JSON", 10)
    (tmp_path / "config.json").write_text('{"a": "bcdefghijk"}')
    with pytest.raises(InputError, match="19 bytes"):
        read_object(tmp_path / "config.json")


@pytest.mark.parametrize("folder", ["ours", "bert"], indirect=True)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(folder, bad):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("1.down.bias") or name.endswith("1.output.dense.bias"))
    weights[name][3] = bad
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"'{name}' has 1 (NaN|infinite) of 32"):
        open_model(folder)


@pytest.mark.parametrize("folder", ["bert"], indirect=True)
def test_advice_for_pickled_weights_works(folder, tmp_path, capfd):
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle") as caught:
        open_model(folder)
    statement = str(caught.value).partition('python -c "')[2].partition('"')[0]
    exec(statement, {})
    assert torch.equal(open_model(folder)[0].classifier.weight, weights["classifier.weight"])


def test_saved_settings_have_no_paths_of_this_machine(folder, tmp_path):
    edit(folder / "tokenizer_config.json", special_tokens_map_file="/root/.cache/x.json", tokenizer_file="/a/b.json")
    save_model(*open_model(folder), tmp_path / "copy")
    for path in (tmp_path / "copy").glob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert "/root/" not in path.read_text()
