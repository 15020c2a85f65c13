from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.early_exits import EarlyExits
from limbeck.core.judged_texts import Document, Query
from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.core.task import Split, Task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.samples import (
    has_long_texts,
    lengths_of,
    sample_rows,
    sorted_batches,
    text_decides,
    token_batches,
    token_lists,
    typical_batch,
    typical_length,
)
from limbeck.model.early_exits import add_exits, set_rule
from limbeck.model.onnx.cascade import write_cascade
from limbeck.model.onnx.onnx_model import FLOAT_FILE, OnnxModel, to_onnx


def test_the_sample_has_the_lengths_of_the_split(task):
    rows = sample_rows(task, "test", 10)
    lengths = sorted(len(text) for text in task.split("test").texts)
    sampled = sorted(len(task.split("test").texts[row]) for row in rows)
    assert rows == sample_rows(task, "test", 10) != sorted(rows)
    for index, length in enumerate(sampled):
        assert lengths[4 * index] <= length <= lengths[4 * index + 3]
    assert sorted(sample_rows(task, "test", 99)) == list(range(40))


def test_both_texts_of_a_pair_are_read_at_once_unless_each_gets_a_vector(task):
    texts, pairs = ("one two three",) * 4, ("four five",) * 4
    pair_task = replace(task, splits={"test": Split(texts, (0,) * 4, pairs)})
    assert set(lengths_of(pair_task)) == {8}
    vectors = Task("vectors", "embedding", {"test": Split(texts, (0.5, 1.0, 0.0, 0.2), pairs)}, (), "spearman")
    assert sorted(lengths_of(vectors)) == [4] * 4 + [5] * 4


def test_a_fixed_length_is_met_exactly(candidate, task, tokenizer):
    lists = token_lists(task, "test", range(5), tokenizer, seq_len=20)
    assert {len(ids) for ids in lists} == {20}
    with pytest.raises(InputError, match="at most 64 tokens, got 65"):
        token_lists(task, "test", [0], tokenizer, seq_len=65)
    (batch, rest) = token_batches(candidate, "test", range(5), Target(batch=4, seq_len=9))
    assert np.shape(batch["input_ids"]) == (4, 9)
    assert np.shape(rest["token_type_ids"]) == (1, 9)


def exiting(make_model, tokenizer):
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    model = make_model(shape, labels=2, vocab_size=len(tokenizer))
    add_exits(model, EarlyExits((1,)))
    return model


@pytest.mark.parametrize("batches", [token_batches, sorted_batches])
def test_texts_that_nobody_sends_do_not_time_models_that_read_what_they_say(
    candidate, make_model, tokenizer, tmp_path, batches
):
    model = exiting(make_model, tokenizer)
    assert not text_decides(model)
    assert batches(replace(candidate, model=model), "test", range(3), Target(seq_len=9))
    set_rule(model, EarlyExits((1,), "confidence", 0.9))
    graphs = []
    for name in ("small", "large"):
        to_onnx(make_model(model.shape, labels=2, vocab_size=len(tokenizer)), tmp_path / name / FLOAT_FILE)
        graphs.append(OnnxModel(tmp_path / name, FLOAT_FILE, {**model.config.to_dict(), "early_exits": None}))
    assert not text_decides(graphs[0])
    both = write_cascade(*graphs, tmp_path / "both", threshold=0.9)
    for each in (model, both):
        assert text_decides(each)
        assert batches(replace(candidate, model=each), "test", range(3), Target())
        reason = "a model with early exits, or a cascade, answers a text by what it says, and 'seq_len: 9' repeats"
        with pytest.raises(InputError, match=f"target: {reason}"):
            batches(replace(candidate, model=each), "test", range(3), Target(seq_len=9))


def test_batches_are_padded_to_their_longest(candidate, tokenizer):
    (batch,) = token_batches(candidate, "test", [0, 3], Target(batch=2))
    assert np.sum(batch["attention_mask"], axis=1).tolist() == [3, 24]
    assert batch["input_ids"][0][3:] == [tokenizer.pad_token_id] * 21


def test_sorted_batches_hold_the_same_texts_with_less_padding(candidate):
    rows, target = range(40), Target(batch=8)
    ordered, plain = (make(candidate, "test", rows, target) for make in (sorted_batches, token_batches))
    widths = [np.shape(batch["input_ids"])[1] for batch in ordered]
    assert widths == sorted(widths, reverse=True)
    assert sum(np.sum(batch["attention_mask"]) for batch in ordered) == sum(
        np.sum(batch["attention_mask"]) for batch in plain
    )
    assert sum(np.size(batch["input_ids"]) for batch in ordered) < sum(np.size(batch["input_ids"]) for batch in plain)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_typical_length_is_that_of_the_batches_that_are_timed(batch):
    task = toy_task(train=120)
    train = task.split("train")
    texts = [" ".join([text] * (1 + index % 3)) for index, text in enumerate(train.texts)]
    task = replace(task, splits={**task.splits, "train": replace(train, texts=texts)})
    candidate = Candidate(None, toy_tokenizer(task), task)
    rows = sample_rows(task, "train", 200)
    timed = token_batches(candidate, "train", rows, Target(batch=batch))
    assert typical_length(candidate, batch) == int(np.median([len(inputs["input_ids"][0]) for inputs in timed]))
    assert typical_length(candidate, 8) > typical_length(candidate)
    lengths = typical_batch(candidate, batch)
    assert len(lengths) == batch
    assert max(lengths) == lengths[0] == typical_length(candidate, batch)
    assert batch == 1 or min(lengths) < max(lengths)


def test_a_typical_batch_is_full_of_texts_where_the_task_has_too_few(candidate):
    lengths = typical_batch(candidate, 1000)
    assert lengths == (typical_length(candidate, 1000),) * 1000


def test_half_of_the_texts_decide_whether_they_are_long(task, tokenizer, monkeypatch):
    lengths = sorted(map(len, token_lists(task, "train", range(len(task.split("train"))), tokenizer)))
    for tokens, long in ((lengths[0], True), (lengths[len(lengths) // 2 - 1], True), (lengths[-1] + 1, False)):
        monkeypatch.setattr("limbeck.model.onnx.graph.LONG_TEXT", tokens)
        assert has_long_texts(task, tokenizer) is long
    held_out = replace(task, splits={"test": task.split("validation")})
    assert has_long_texts(held_out, tokenizer) is False


def test_queries_and_documents_of_a_search_are_sampled_apart(task):
    texts = tuple("word " * (row + 1) for row in range(8))
    labels = (*map(Document, range(6)), Query(((0, 1.0),)), Query(((3, 1.0),)))
    search = replace(task, kind="embedding", splits={"test": Split(texts, labels)}, label_names=(), metric="ndcg_at_10")
    assert sorted(sample_rows(search, "test", 9, part=Query)) == [6, 7]
    assert sorted(sample_rows(search, "test", 9, part=Document)) == list(range(6))
    assert len(sample_rows(task, "test", 9, part=Query)) == 9
