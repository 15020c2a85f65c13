"""A toy task with a word tokenizer, and the same model in torch, ragged, and exported."""

from __future__ import annotations

import json

import pytest

from limbeck.core.candidate import Candidate
from limbeck.data.task import Split, Task

WORDS = [f"w{number}" for number in range(40)]


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    vocabulary = {word: place for place, word in enumerate([*special.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )


@pytest.fixture(scope="session")
def task():
    """Forty texts of 1 to 40 words in every split."""
    texts = tuple(" ".join(WORDS[: 1 + (7 * row) % 40]) for row in range(40))
    split = Split(texts, tuple(row % 2 for row in range(40)))
    splits = {name: split for name in ("train", "validation", "test")}
    return Task("toy", "classification", splits, ("no", "yes"), "accuracy", max_length=32)


@pytest.fixture
def candidate(make_model, tokenizer, task):
    return Candidate(make_model(), tokenizer, task)


@pytest.fixture
def exported(candidate, tmp_path):
    from limbeck.model.files import open_model, save_model
    from limbeck.model.onnx import to_onnx

    folder = tmp_path / "exported"
    save_model(candidate.model, candidate.tokenizer, folder)
    to_onnx(candidate.model, folder / "onnx" / "model.onnx")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limbeck_runtime": "onnxruntime"}))
    return Candidate(open_model(folder)[0], candidate.tokenizer, candidate.task, folder)
