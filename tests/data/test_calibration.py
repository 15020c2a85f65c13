import random
from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.judged_texts import Document, Query
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode
from limbeck.data.calibration import chosen_batches, first_batches, held_out_batches, random_batches, spaced_texts
from limbeck.data.synthetic import toy_task, toy_tokenizer

TASK = toy_task("classification", train=40, validation=20, test=16)
TOKENIZER = toy_tokenizer(TASK)


def test_random_batches_hold_a_seeded_sample_the_shortest_first():
    batches = random_batches(TASK, TOKENIZER, 20, seed=3)
    rows = [row for batch in batches for row in batch["index"].tolist()]
    assert sorted(rows) == sorted(random.Random(3).sample(range(40), 20))
    lengths = [length for batch in batches for length in batch["attention_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths)
    assert [len(batch["index"]) for batch in batches] == [16, 4]
    assert rows != [row for batch in random_batches(TASK, TOKENIZER, 20, seed=4) for row in batch["index"].tolist()]
    assert sum(len(batch["index"]) for batch in random_batches(TASK, TOKENIZER, 99, seed=3)) == 40


@pytest.mark.parametrize(("train", "count", "sizes"), [(40, 20, (20, 13)), (40, 99, (27, 13)), (200, 8, (8, 30))])
def test_texts_that_are_held_out_are_in_no_sample(train, count, sizes):
    task = toy_task("classification", train=train, validation=16, test=16)
    parts = held_out_batches(task, TOKENIZER, count, 3, 30)
    rows = [[row for batch in part for row in batch["index"].tolist()] for part in parts]
    assert tuple(map(len, rows)) == sizes
    assert len({*rows[0], *rows[1]}) == sum(sizes)
    assert rows[0] == [row for batch in held_out_batches(task, TOKENIZER, count, 3, 30)[0] for row in batch["index"]]
    for part in parts:
        lengths = [length for batch in part for length in batch["attention_mask"].sum(1).tolist()]
        assert lengths == sorted(lengths)


def test_spaced_texts_are_single_and_from_all_over_the_split():
    texts = spaced_texts(TASK, TOKENIZER, {"input_ids", "attention_mask", "other"}, 4)
    for batch, row in zip(texts, (0, 13, 26, 39), strict=True):
        assert batch["input_ids"][0].tolist() == TOKENIZER(TASK.split("train").texts[row])["input_ids"]
        assert batch["attention_mask"].all()
        assert not batch["other"].any()


def test_first_batches_keep_the_order_of_the_split():
    batches, texts = first_batches(TASK, "validation", TOKENIZER, 19)
    assert [batch["index"].tolist() for batch in batches] == [[*range(8)], [*range(8, 16)], [*range(16, 19)]]
    assert list(texts) == list(TASK.split("validation").texts[:19])
    ids = encode(TASK, "validation", TOKENIZER).input_ids
    for batch in batches:
        for row, index in enumerate(batch["index"].tolist()):
            real = np.asarray(batch["attention_mask"][row], dtype=bool)
            assert batch["input_ids"][row][real].tolist() == list(ids[index])


def test_first_batches_of_a_search_are_a_few_of_its_texts():
    labels = (*map(Document, range(10)), *(Query(((number, 1.0),)) for number in range(10)))
    split = Split(TASK.split("validation").texts, labels)
    search = Task("s", "embedding", {"validation": split}, (), "ndcg_at_10")
    batches, texts = first_batches(search, "validation", TOKENIZER, 3)
    assert [len(batch["index"]) for batch in batches] == [len(texts)] == [3]


def test_chosen_batches_are_the_same_for_the_seed_the_longest_first():
    task = toy_task(train=60)
    tokenizer = toy_tokenizer(task)
    batches, again = (chosen_batches(task, tokenizer, 20, seed=3, batch_size=8) for _ in range(2))
    assert [len(batch["index"]) for batch in batches] == [8, 8, 4]
    assert [batch["index"].tolist() for batch in batches] == [batch["index"].tolist() for batch in again]
    lengths = [int(batch["attention_mask"].sum(1).max()) for batch in batches]
    assert lengths == sorted(lengths, reverse=True)
    other = chosen_batches(task, tokenizer, 20, seed=4, batch_size=8)
    assert {i for batch in batches for i in batch["index"].tolist()} != {i for b in other for i in b["index"].tolist()}


def test_scores_of_pairs_that_are_all_the_same_are_left_out():
    alike = toy_task("embedding", train=8)
    same = replace(alike.split("train"), labels=(1.0,) * 8)
    equal, tokenizer = replace(alike, splits={**alike.splits, "train": same}), toy_tokenizer(alike)
    for batches in (random_batches, chosen_batches):
        (batch,) = batches(equal, tokenizer, 8, 0)
        (scored,) = batches(alike, tokenizer, 8, 0)
        assert batch["labels"].shape == (8, 0)
        assert scored["labels"].shape == (8,)
        assert batch["input_ids"].equal(scored["input_ids"])
