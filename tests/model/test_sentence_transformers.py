from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from limbeck.core.sentence_embedding import POOLINGS, Dense, SentenceEmbedding
from limbeck.errors import InputError, UnsupportedModel
from limbeck.model.sentence_transformers import LEGACY, MODULES, SETTINGS, read_dense, read_embedding, write_modules

WEIGHTS = {"dense.0.weight": torch.randn(6, 4), "dense.0.bias": torch.randn(6), "dense.1.weight": torch.randn(3, 6)}


def write(root, embedding, dense=WEIGHTS):
    write_modules(root, embedding, 4, dense)
    return root


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dense", [(), (Dense(6, True, "tanh"), Dense(3, False))])
def test_what_is_written_reads_back(tmp_path, pooling, dense):
    given = SentenceEmbedding(pooling, dense, bool(dense), {"query": "q: ", "document": ""}, "query", 64, True)
    assert read_embedding(write(tmp_path, given)) == given
    weights = read_dense(tmp_path)
    assert weights.keys() == (WEIGHTS.keys() if dense else set())
    assert all(weights[name].equal(WEIGHTS[name]) for name in weights)


def test_newer_pooling_files_name_their_mode(tmp_path):
    write(tmp_path, SentenceEmbedding("max"))
    for mode in ("cls", ["cls"]):
        (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 4, "pooling_mode": mode}))
        assert read_embedding(tmp_path).pooling == "cls"


def test_other_folders_make_no_vectors(tmp_path):
    assert read_embedding(tmp_path) is None
    (tmp_path / MODULES).write_text(json.dumps([{"type": "sentence_transformers.models.Transformer", "path": ""}]))
    assert read_embedding(tmp_path) is None


def test_other_parts_and_orders_are_refused(tmp_path):
    write(tmp_path, SentenceEmbedding(dense=(Dense(6),)))
    rows = json.loads((tmp_path / MODULES).read_text())
    for parts in (rows[:2] + rows[3:] + rows[2:3], [*rows, {"type": "x.LSTM", "path": ""}]):
        (tmp_path / MODULES).write_text(json.dumps(parts))
        with pytest.raises(UnsupportedModel, match="supported are"):
            read_embedding(tmp_path)


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "joins 2 poolings"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling 'weightedmean'"),
        ("1_Pooling/config.json", {"include_prompt": False}, "prompt"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanhh"}, "Tanh"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "activation"),
        ("2_Dense/config.json", {"use_residual": True}, "residual"),
        ("2_Dense/config.json", {"out_features": "many"}, "out_features"),
        ("config_sentence_transformers.json", {"default_prompt_name": "querry"}, "query"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
    ],
)
def test_each_unsupported_setting_is_one_error(tmp_path, file, fields, words):
    write(tmp_path, SentenceEmbedding(dense=(Dense(6),), prompts={"query": "q: "}))
    edit(tmp_path / file, **fields)
    with pytest.raises(InputError, match=words):
        read_embedding(tmp_path)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", [None, "cosine", "dot", "euclidean", "manhattan", 3])
def test_vectors_are_compared_by_their_cosine_alone(tmp_path, name, normalize):
    """A model that was trained for dot products ranks by the lengths of its vectors, too."""
    given = SentenceEmbedding(normalize=normalize)
    edit(write(tmp_path, given) / SETTINGS, similarity_fn_name=name)
    if name in (None, "cosine") or (name == "dot" and normalize):
        assert read_embedding(tmp_path) == given
        return
    with pytest.raises(UnsupportedModel) as raised:
        read_embedding(tmp_path)
    for words in (str(tmp_path / SETTINGS), f"similarity_fn_name {name!r}", "'cosine', and 'dot' where"):
        assert words in str(raised.value)


def test_parts_lie_in_the_folder(tmp_path):
    write(tmp_path, SentenceEmbedding())
    rows = json.loads((tmp_path / MODULES).read_text())
    rows[1]["path"] = "../1_Pooling"
    (tmp_path / MODULES).write_text(json.dumps(rows))
    with pytest.raises(InputError, match="outside the folder"):
        read_embedding(tmp_path)


def test_a_dense_layer_with_nan_is_named(tmp_path):
    broken = {**WEIGHTS, "dense.0.bias": torch.tensor([1.0, float("nan"), 0.0, 0.0, 0.0, 0.0])}
    write(tmp_path, SentenceEmbedding(dense=(Dense(6),)), broken)
    with pytest.raises(InputError, match=r"2_Dense/model\.safetensors: 'linear\.bias' has 1 NaN of 6 numbers"):
        read_dense(tmp_path)


def test_dense_weights_are_whole_safetensors(tmp_path):
    write(tmp_path, SentenceEmbedding(dense=(Dense(6),)))
    path = tmp_path / "2_Dense/model.safetensors"
    save_file({"linear.weight": torch.zeros(5, 4)}, path)
    with pytest.raises(InputError, match="width 6"):
        read_dense(tmp_path)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="safetensors"):
        read_dense(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        read_dense(tmp_path)


def test_every_mode_has_a_legacy_key():
    assert set(POOLINGS) <= set(LEGACY.values())
