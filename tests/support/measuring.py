"""A toy task with a word tokenizer, and the same model in torch, ragged, and exported."""

from __future__ import annotations

import json

import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.task import Split, Task

WORDS = [f"w{number}" for number in range(40)]


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    vocabulary = {word: index for index, word in enumerate([*special.values(), *WORDS])}
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
    from limbeck.model.checkpoints import open_model, save_model
    from limbeck.model.onnx.onnx_model import to_onnx

    folder = tmp_path / "exported"
    save_model(candidate.model, candidate.tokenizer, folder)
    to_onnx(candidate.model, folder / "onnx" / "model.onnx")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limbeck_runtime": "onnxruntime"}))
    return Candidate(open_model(folder)[0], candidate.tokenizer, candidate.task, folder)


@pytest.fixture(scope="session")
def setting():
    """Float on ONNX Runtime, 32 tokens."""
    from limbeck.core.target import Target
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.model.encoder import Style

    return Setting(style_of(Style()), Target(), "float", 32)


@pytest.fixture(scope="session")
def space():
    """What can be cut out of a MiniLM, a width for every layer."""
    from limbeck.core.shape import Shape
    from limbeck.cost_models.shape_sampling import space_below

    return space_below(Shape.uniform(layers=6, hidden=384, heads=12, ffn=1536))


@pytest.fixture(scope="session")
def pretended():
    """A machine as a function from shape to seconds: almost additive over layers.

    Neurons are multiplied 64 at a time, narrow models use the processor badly, and weights that leave the cache take
    15 % longer: none of it is in the additive model.
    """

    def seconds(shape, tokens=32):
        total, weights = 40e-6 + 30e-9 * shape.hidden, 0
        for index, layer in enumerate(shape.layers):
            width, full = layer.heads * shape.head_dim, index < shape.depth - 1
            used = tokens if full else 1
            badly = 1 + 20 / shape.hidden
            total += 8e-6 + 1e-6 * layer.heads + badly * shape.hidden * width * (3 * tokens + used) / 60e9
            total += 2 * used * shape.hidden * -(-layer.ffn // 64) * 64 / 50e9
            weights += shape.hidden * (4 * width + 2 * layer.ffn)
        return total * (1 + 0.15 / (1 + 2.718 ** ((4e6 - weights) / 5e5)))

    return seconds
