"""Toy steps, and a stored model, for these tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from toy_fixtures import toys  # noqa: F401

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "what", "a", "wonderful", "film", ".", "the", "first", "second", "text"]


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.enable_padding(pad_id=3, pad_token="[PAD]", length=64)  # some hub models come so; the example must not
    return tokenizer


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
    word_tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("config.json", "card.json", "task.json"):
        (folder / name).write_text("{}")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "train.jsonl").write_text("{}\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder
