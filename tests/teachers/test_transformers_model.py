import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit

from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.data.tokenizer_training import SPECIAL_TOKENS, with_special_tokens
from limbeck.errors import InputError
from limbeck.teachers.transformers_model import TransformersTeacher, is_known_to_transformers, match_outputs

SIZES = {
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "funnel": {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]},
    "llama": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64,
    },
    "bert": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
    "longformer": {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
        "attention_window": 4, "max_position_embeddings": 14,
    },
}  # fmt: skip


def letters_tokenizer(task):
    """A tokenizer whose tokens are letters, so that a word has several."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = (*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters))
    tokenizer = Tokenizer(WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return with_special_tokens(tokenizer, task.max_length)


def save(folder, model_type, task, names=None, head=True):
    """A random model of an architecture that limbeck does not open, with a tokenizer of its own."""
    words = task.task_kind.per_token
    tokenizer = letters_tokenizer(task) if words else toy_tokenizer(task)
    if model_type == "bart":
        tokenizer.add_special_tokens({"eos_token": tokenizer.sep_token})
    if model_type == "xlnet":
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    names = names or task.label_names
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.sep_token_id, "bos_token_id": 1}
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        **(special if model_type != "gpt2" else {"pad_token_id": tokenizer.pad_token_id}),
        **SIZES[model_type],
    )
    torch.manual_seed(0)
    auto = getattr(transformers, task.task_kind.auto_class) if head else transformers.AutoModel
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize("model_type", ["xlnet", "bart", "gpt2", "funnel", "llama"])
def test_its_logits_are_those_of_transformers_text_by_text(task, tmp_path, model_type):
    """Whatever the side of the padding, and in the order of the task's labels."""
    turned = (task.label_names[1], task.label_names[2], task.label_names[0])
    model, tokenizer = save(tmp_path, model_type, task, turned)
    answers = TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")
    for row, text in list(enumerate(task.split("train").texts))[:12]:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()
        wanted = dict(zip(turned, logits, strict=True))
        np.testing.assert_allclose(answers[row], [wanted[name] for name in task.label_names], atol=1e-4)


def rewrite(folder, tokenizer=(), **config):
    """Change the files of a model, and the attributes of its tokenizer."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    saved = transformers.AutoTokenizer.from_pretrained(folder)
    for name, value in dict(tokenizer).items():
        setattr(saved, name, value)
    saved.save_pretrained(folder)


@pytest.mark.parametrize(
    ("model_type", "tokenizer", "config"),
    [
        ("gpt2", {"padding_side": "left"}, {}),  # whose positions would count the padding
        ("llama", {}, {"pad_token_id": 5}),  # which would take a padding token for the last of the text
        ("llama", {"pad_token": "[SEP]"}, {"pad_token_id": None}),  # which ends every text
        ("gpt2", {"pad_token": None, "eos_token": None}, {"pad_token_id": None}),
        ("llama", {"pad_token": None}, {"pad_token_id": -1}),
    ],
)
def test_whatever_padding_is_configured_changes_no_answer(task, tmp_path, model_type, tokenizer, config):
    save(tmp_path, model_type, task)
    rewrite(tmp_path, tokenizer, **config)
    answers = TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len({len(reader(text)["input_ids"]) for text in task.split("train").texts}) > 2
    for row, text in enumerate(task.split("train").texts):
        with torch.no_grad():
            wanted = model(**reader(text, return_tensors="pt")).logits[0].numpy()
        np.testing.assert_allclose(answers[row], wanted, atol=1e-4)


def test_a_text_without_tokens_prefers_no_label(task, tmp_path):
    save(tmp_path, "gpt2", task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save_pretrained(tmp_path)
    texts = replace(task, splits={"train": Split(("", *task.split("train").texts[:2]), (0, 1, 2))})
    answers = TransformersTeacher(str(tmp_path), texts, "x").answer(texts, "train")
    assert not answers[0].any()
    assert answers[1:].all()


def test_tokens_that_the_model_has_no_embedding_of_are_one_clear_error(task, tmp_path):
    model, tokenizer = save(tmp_path, "xlnet", task)
    model.resize_token_embeddings(len(tokenizer) - 3)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"and the model has embeddings of {len(tokenizer) - 3}; save the tokenizer"):
        TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")


def test_positions_that_begin_behind_the_padding_token_leave_fewer_for_a_text(task, tmp_path):
    _, tokenizer = save(tmp_path, "longformer", task)
    long = replace(task, splits={"train": Split((" ".join(task.split("train").texts),), (0,))}, max_length=64)
    teacher = TransformersTeacher(str(tmp_path), long, "x")
    assert teacher.answer(long, "train").shape == (1, 3)
    assert len(teacher._encode(long, "train")["input_ids"][0]) == 14 - tokenizer.pad_token_id - 1


def test_what_the_code_of_a_model_raises_is_one_clear_error(task, tmp_path, monkeypatch):
    save(tmp_path, "xlnet", task)

    def failing(*arguments, **options):
        raise TypeError("an unexpected argument")

    monkeypatch.setattr(transformers.XLNetForSequenceClassification, "forward", failing)
    with pytest.raises(InputError, match=r"fails on the texts: TypeError.'an unexpected argument'"):
        TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")


def add_weights(folder, **tensors):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | tensors, folder / "model.safetensors", {"format": "pt"})


def test_weights_of_layers_that_transformers_leaves_out_are_refused(task, tmp_path):
    """Such as the relative positions of older BERTs: the model would answer as if it had absolute ones."""
    save(tmp_path, "bert", task)
    harmless = {
        "bert.embeddings.position_ids": torch.arange(5),
        "cls.predictions.bias": torch.zeros(5),
        "bert.pooler.other.weight": torch.zeros(5),
        "other_head.layers.7.weight": torch.zeros(5),
    }
    add_weights(tmp_path, **harmless)
    TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")
    rewrite(tmp_path, position_embedding_type="relative_key")
    with pytest.raises(InputError, match="its position_embedding_type is 'relative_key', which transformers"):
        TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    add_weights(tmp_path, **{name: torch.zeros(127, 8)})
    with pytest.raises(InputError, match=f"transformers .* does not use {name}"):
        TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")


def test_pairs_are_read_together(task, tmp_path):
    model, tokenizer = save(tmp_path, "xlnet", task)
    texts = task.split("train").texts
    pairs = Task("p", "classification", {"train": Split(texts[:4], (0,) * 4, texts[4:8])}, task.label_names, "accuracy")
    answers = TransformersTeacher(str(tmp_path), pairs, "x").answer(pairs, "train")
    with torch.no_grad():
        logits = model(**tokenizer(texts[1], texts[5], return_tensors="pt")).logits[0].numpy()
    np.testing.assert_allclose(answers[1], logits, atol=1e-4)


def test_what_does_not_answer_the_task_is_refused_by_its_configuration(task, tmp_path):
    save(tmp_path / "other", "xlnet", task, ("red", "green", "blue"))
    save(tmp_path / "bare", "xlnet", task, head=False)
    for folder, message in (("other", "its labels are red, green, blue"), ("bare", "it is a XLNetModel")):
        with pytest.raises(InputError, match=message):
            match_outputs(str(tmp_path / folder), task)
    words = Task("w", "tokens", {"train": Split((("a",),), ((0,),))}, ("O", "B"), "token_f1")
    with pytest.raises(InputError, match="XLNetForSequenceClassification"):
        match_outputs(str(tmp_path / "other"), words)
    assert is_known_to_transformers(tmp_path / "bare")


def test_an_untrained_head_is_refused(task, tmp_path):
    save(tmp_path, "xlnet", task, head=False)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.architectures = ["XLNetForSequenceClassification"]
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is not trained"):
        TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")


@pytest.mark.parametrize("model_type", ["xlnet", "gpt2", "funnel"])
def test_words_have_the_logits_of_their_first_piece_and_words_cut_off_have_none(tmp_path, model_type):
    """Whatever the side of the padding, and in the order of the task's labels."""
    task = toy_task("tokens", train=10, validation=4, test=4)
    turned = ("place", "O", "person")
    model, tokenizer = save(tmp_path, model_type, task, turned)
    answers = TransformersTeacher(str(tmp_path), task, "x").answer(task, "train")
    unseen = 0
    for text, rows in zip(task.split("train").texts, answers, strict=True):
        encoded = tokenizer(list(text), is_split_into_words=True, truncation=True, max_length=32, return_tensors="pt")
        with torch.no_grad():
            logits = model(**encoded).logits[0].numpy()
        owners = encoded.word_ids(0)
        assert len(rows) == len(text)
        for word, row in enumerate(rows):
            if word in owners:
                wanted = dict(zip(turned, logits[owners.index(word)], strict=True))
                np.testing.assert_allclose(row, [wanted[name] for name in task.label_names], atol=1e-4)
            else:
                unseen += 1
                assert np.isnan(row).all()
    assert unseen > 0
