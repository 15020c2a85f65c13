"""Answers of saved models, for every kind of task."""

from __future__ import annotations

import pytest

from limbeck.data.batches import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.answers import answer
from limbeck.errors import InputError
from limbeck.model.files import save_model
from limbeck.model.heads import set_labels


@pytest.fixture
def saved(tmp_path, make_model):
    def save(kind):
        task = toy_task(kind, train=24, validation=8, test=8)
        tokenizer = toy_tokenizer(task)
        model = make_model(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer))
        set_labels(model, task.label_names, task.kind, seed=0)
        save_model(model, tokenizer, tmp_path / kind)
        return tmp_path / kind, task, predict(model, encode(task, "test", tokenizer))

    return save


@pytest.mark.parametrize("kind", ["classification", "pairs"])
def test_classes(saved, kind):
    folder, task, logits = saved(kind)
    split = task.split("test")
    found = answer(folder, split.texts, split.pairs)
    assert [row["answer"] for row in found] == [task.label_names[row.argmax()] for row in logits]
    assert all(sum(row["scores"].values()) == pytest.approx(1) for row in found)


def test_several_labels(saved):
    folder, task, logits = saved("multilabel")
    found = answer(folder, task.split("test").texts)
    names = [", ".join(name for name, one in zip(task.label_names, row, strict=True) if one > 0) for row in logits]
    assert [row["answer"] for row in found] == names


def test_numbers(saved):
    folder, task, logits = saved("regression")
    assert [row["answer"] for row in answer(folder, task.split("test").texts)] == pytest.approx(logits[:, 0].tolist())


def test_a_label_for_every_word(saved):
    folder, task, _ = saved("tokens")
    texts = [" ".join(words) for words in task.split("test").texts]
    found = answer(folder, texts)
    assert [len(row["labels"]) for row in found] == [len(text.split()) for text in texts]
    assert {label for row in found for label in row["labels"]} <= set(task.label_names)


def test_as_many_second_texts_as_texts(saved):
    folder, _, _ = saved("pairs")
    with pytest.raises(InputError, match="2 texts but 1 second texts"):
        answer(folder, ["a", "b"], ["c"])
    assert answer(folder, []) == []
