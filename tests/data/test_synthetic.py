"""Toy tasks: deterministic, and small models really learn them."""

from __future__ import annotations

import pytest

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError

KINDS = ["classification", "pairs", "multilabel", "regression", "tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_task(kind):
    assert toy_task(kind) == toy_task(kind)
    assert toy_task(kind, seed=1) != toy_task(kind)
    assert {name: len(split) for name, split in toy_task(kind, train=30).splits.items()} == {
        "train": 30,
        "validation": 128,
        "test": 128,
    }


def test_unknown_toy():
    with pytest.raises(InputError, match="did you mean 'pairs'"):
        toy_task("pair")


def test_tokenizer_frames_texts_as_bert_does(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = toy_tokenizer(toy_task("pairs"))
    encoded = tokenizer("very sunny", "unheard-of film")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == [
        "[CLS]",
        "very",
        "sunny",
        "[SEP]",
        "[UNK]",
        "film",
        "[SEP]",
    ]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.pad_token_id == 0
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("very sunny", "unheard-of film") == encoded


def test_tokenizer_knows_every_word_of_a_token_task():
    task = toy_task("tokens", train=10)
    tokenizer = toy_tokenizer(task)
    encoded = tokenizer([list(words) for words in task.split("test").texts], is_split_into_words=True)
    assert all(tokenizer.unk_token_id not in ids for ids in encoded["input_ids"])
    assert encoded.word_ids(0)[1:-1] == list(range(len(task.split("test").texts[0])))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_model_learns_it(kind):
    import torch

    from limbeck.data.batching import collate, encode, length_batches
    from limbeck.model import encoder

    task = toy_task(kind)
    tokenizer = toy_tokenizer(task)
    torch.manual_seed(0)
    config = encoder.LimbeckConfig(
        hidden_size=32,
        head_dim=8,
        layer_heads=[4, 4],
        layer_ffn=[64, 64],
        vocab_size=len(tokenizer),
        max_positions=32,
        num_labels=task.num_labels,
        problem_type=task.problem_type,
    )
    token = kind == "tokens"
    model = (encoder.LimbeckForTokenClassification if token else encoder.LimbeckForSequenceClassification)(config)
    train, held_out = encode(task, "train", tokenizer), encode(task, "test", tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(5):
        for rows in length_batches(train.lengths, 16, seed=0, epoch=epoch):
            batch = collate(train, rows)
            model.loss(model.run(batch)[0], batch["labels"]).backward()
            optimizer.step()
            optimizer.zero_grad()
    batch = collate(held_out, range(len(held_out)))
    assert task.score(model.predict(batch), batch["labels"].numpy()) > 0.9
