"""Checkpoints as they appear on the hub: every family opens from each kind, with the answers of transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import family_models as models
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_tokenizers import unigrams, word_pieces

from limbeck.errors import InputError
from limbeck.model.checkpoints import open_model, peek, peek_outputs
from limbeck.model.family_table import FAMILIES
from limbeck.model.location import model_folder
from limbeck.model.pretrained import load_pretrained

CLASSIFIER = "AutoModelForSequenceClassification"


def rewrite(folder: Path, change) -> None:
    """Write the weights as another tool would: ``change`` gets and returns (name, tensor)."""
    weights = dict(change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def old_norm_names(name, tensor):
    """As TensorFlow's checkpoints of 2018 were converted."""
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name, tensor.clone()


def kinds(family: str):
    """How to write each kind of checkpoint: the class that writes it, its options, and what another tool changes."""
    prefix = f"{FAMILIES[family].prefix}."
    return {
        "old norm names": (CLASSIFIER, {}, old_norm_names),
        "no prefix": (CLASSIFIER, {}, lambda name, tensor: (name.removeprefix(prefix), tensor.clone())),
        "bare encoder": ("AutoModel", {}, None),
        "bare encoder with prefix": ("AutoModel", {}, lambda name, tensor: (prefix + name, tensor.clone())),
        "shards": (CLASSIFIER, {"max_shard_size": "9KB"}, None),
        "bfloat16": (CLASSIFIER, {}, lambda name, tensor: (name, tensor.bfloat16())),
        "float16": (CLASSIFIER, {}, lambda name, tensor: (name, tensor.half())),
        "masked language model": ("AutoModelForMaskedLM", {}, None),
        "pretraining heads": ("AutoModelForPreTraining", {}, None),
        "old export": (  # all at once: old names, no prefix, half precision
            CLASSIFIER, {}, lambda name, tensor: (old_norm_names(name.removeprefix(prefix), tensor.half())),
        ),
    }  # fmt: skip


NEXT_SENTENCE = ("bert", "electra", "ernie", "albert")  # elsewhere that class is the masked language model
ALL = [
    (family, kind)
    for family in FAMILIES
    for kind in kinds(family)
    if kind != "pretraining heads" or family in NEXT_SENTENCE
]
CASES = [
    pytest.param(*case, marks=() if case[0] == "bert" or case[1] == "old export" else pytest.mark.slow) for case in ALL
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_hidden_states_and_logits_are_those_of_transformers(family, kind, tmp_path):
    auto, options, change = kinds(family)[kind]
    models.random_model(f"{family}-one", auto).save_pretrained(tmp_path, **options)
    if change:
        rewrite(tmp_path, change)
    encoder = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    model, outputs = load_pretrained(tmp_path), peek_outputs(tmp_path)
    assert model.fresh_head == (auto != CLASSIFIER) == (not outputs.trained)
    batches = list(models.batches(model.encoder.style.pad_token_id, types=model.encoder.style.token_types > 1))
    bar = 1e-3 if family == "roformer" and kind in ("bfloat16", "float16") else 1e-4  # its positions are rounded, too
    for batch in (batches[0], batches[2]):
        real = batch["attention_mask"].bool()
        with torch.no_grad():
            expected = encoder(**batch).last_hidden_state[real]
            seen = model(**batch, output_hidden_states=True).hidden_states[-1][real]
        torch.testing.assert_close(seen, expected, atol=bar, rtol=0)
    if auto == CLASSIFIER:
        whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(model.run(batch)[0], whole(**batch).logits, atol=bar, rtol=0)


def bert(folder: Path, **settings) -> transformers.PreTrainedModel:
    """A random BERT with a tokenizer beside it."""
    tokenizer = word_pieces()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    config = transformers.BertConfig(**size | {"vocab_size": tokenizer.get_vocab_size()} | settings)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model


def answers_alike(folder: Path, reference) -> None:
    model, tokenizer = open_model(folder)
    batch = dict(tokenizer(["a wonderful film", "not bad"], padding=True, return_tensors="pt"))
    with torch.no_grad():
        torch.testing.assert_close(model.run(batch)[0], reference(**batch).logits, atol=1e-5, rtol=0)


def test_keys_of_other_heads_and_buffers_do_not_disturb(tmp_path):
    reference = bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    others = {
        "bert.embeddings.position_ids": torch.arange(512)[None],
        "cls.seq_relationship.weight": torch.ones(2, 16),
        "discriminator_predictions.dense.bias": torch.ones(16),
        "loss.weight": torch.ones(3),
    }
    save_file(weights | others, tmp_path / "model.safetensors", metadata={"format": "pt"})
    answers_alike(tmp_path, reference)


def test_without_a_pooler_the_head_is_untrained(tmp_path):
    bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    retained = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(retained, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert peek_outputs(tmp_path).missing == ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
    assert load_pretrained(tmp_path).fresh_head


def test_a_head_for_texts_is_none_for_words(tmp_path):
    """Both are called classifier, and have a row for each label."""
    bert(tmp_path)
    for kind, fresh in (("classification", False), ("tokens", True)):
        assert load_pretrained(tmp_path, task_kind=kind, label_names=("LABEL_0", "LABEL_1")).fresh_head == fresh


def test_more_embeddings_than_tokens_are_kept_and_fewer_refused(tmp_path):
    tokens = word_pieces().get_vocab_size()
    answers_alike(tmp_path, bert(tmp_path, vocab_size=tokens + 56))
    bert(tmp_path, vocab_size=tokens - 3)
    with pytest.raises(InputError, match=f"has {tokens} tokens but the model embeds {tokens - 3}"):
        open_model(tmp_path)


@pytest.mark.parametrize("inside", ["", "0_Transformer", "0_Transformer/encoder"])
def test_a_folder_of_sentence_transformers_opens_with_its_encoder(inside, tmp_path):
    bert(tmp_path / inside)
    modules = [
        {"idx": 0, "name": "0", "path": inside, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert peek(tmp_path)["family"] == "bert"
    assert model_folder(str(tmp_path)) == tmp_path / inside
    open_model(tmp_path)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ('[{"path": "../outside"}]', r"names '\.\./outside', outside the folder"),
        ('{"path": "x"}', "should list the parts"),
        ("[]", "should list the parts"),
        ("[{}]", "should list the parts"),
        ("[", "is not JSON"),
        ('[{"path": "gone"}]', "gone is not a model folder"),
    ],
)
def test_a_damaged_list_of_modules_is_one_error(modules, message, tmp_path):
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(InputError, match=message):
        open_model(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_sentencepiece_model_alone_says_what_to_install(tmp_path):
    models.random_model("albert-one", "AutoModel").save_pretrained(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(InputError, match=r"limbeck\[sentencepiece\]"):
        open_model(tmp_path)


def test_a_tokenizer_json_beside_it_is_enough(tmp_path):
    models.random_model("xlm-roberta-one", "AutoModel").save_pretrained(tmp_path)
    pieces = unigrams()
    pieces.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    _, tokenizer = open_model(tmp_path)
    assert tokenizer.get_vocab() == pieces.get_vocab()
