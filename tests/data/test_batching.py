import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from limbeck.core.metrics import IGNORED
from limbeck.data.batching import Encoded, collate, encode, length_batches, predict, request_batches
from limbeck.data.synthetic import toy_task, toy_tokenizer


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_example_appears_once(seed):
    lengths = np.random.default_rng(0).integers(3, 60, 103)
    batches = length_batches(lengths, 8, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(103))
    assert all(len(batch) <= 8 for batch in batches)


def test_batches_depend_on_seed_and_epoch_alone():
    lengths = np.arange(3, 40)
    assert length_batches(lengths, 4, 0, 1) == length_batches(lengths, 4, 0, 1)
    assert length_batches(lengths, 4, 0, 1) != length_batches(lengths, 4, 0, 2)
    assert length_batches(lengths, 4, 0, 1) != length_batches(lengths, 4, 1, 1)


def test_texts_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(3, 60, 1000)

    def padded(batches):
        return sum(len(batch) * max(lengths[batch]) for batch in batches) / lengths.sum()

    shuffled = np.random.default_rng(1).permutation(1000)
    plain = [list(shuffled[at : at + 16]) for at in range(0, 1000, 16)]
    assert padded(length_batches(lengths, 16, seed=0)) < 1.15 < 1.5 < padded(plain)


def test_collate_pads_to_the_longest_of_the_batch():
    encoded = Encoded(
        [[2, 7, 3], [2, 3], [2, 8, 9, 3]], [[0, 0, 0], [0, 0], [0, 1, 1, 1]], [0, 1, 1], 5, "classification"
    )
    batch = collate(encoded, [1, 0])
    assert batch["input_ids"].tolist() == [[2, 3, 5], [2, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["index"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        ("classification", torch.int64, (4,)),
        ("pairs", torch.int64, (4,)),
        ("multilabel", torch.float32, (4, 2)),
        ("regression", torch.float32, (4,)),
    ],
)
def test_labels_of_every_kind(kind, dtype, shape):
    task = toy_task(kind, train=16, validation=8, test=8)
    batch = collate(encode(task, "train", toy_tokenizer(task)), range(4))
    assert batch["labels"].dtype == dtype
    assert tuple(batch["labels"].shape) == shape
    if kind == "pairs":
        assert batch["token_type_ids"].max() == 1


def test_word_labels_go_to_the_first_piece():
    task = toy_task("tokens", train=4, validation=2, test=2)

    class Pieces:
        """Every word is two pieces."""

        pad_token_id, model_max_length, truncation_side = 0, 512, "right"
        model_input_names = ("input_ids", "attention_mask")
        backend_tokenizer = SimpleNamespace(normalizer=None, pre_tokenizer=None)

        def __call__(self, texts, pairs, **options):
            rows = [[1, *(10 for word in text for _ in range(2)), 2] for text in texts]
            self.words = [[None, *(w for w in range(len(text)) for _ in range(2)), None] for text in texts]
            words = self.words

            class Encodings(dict):
                def word_ids(self, index):
                    return words[index]

            return Encodings(input_ids=rows)

    encoded = encode(task, "train", Pieces())
    first = task.split("train").labels[0]
    expected = [IGNORED, *(label for word in first for label in (word, IGNORED)), IGNORED]
    assert list(encoded.labels[0]) == expected


def test_predictions_come_in_the_order_of_the_split(make_model):
    task = toy_task("classification", train=20, validation=8, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=task.num_labels, vocab_size=len(tokenizer))
    encoded = encode(task, "train", tokenizer)
    together = predict(model, encoded, 6)
    one_by_one = np.concatenate([model.predict(collate(encoded, [row])) for row in range(20)])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


class _AtOnce:
    """A predictor that answers only while another thread asks, too, but for the first batch."""

    int8, thread_safe = True, True

    def __init__(self):
        self.calls, self.both = 0, threading.Barrier(2, timeout=30)

    def predict(self, batch):
        self.calls += 1
        if self.calls > 1:
            self.both.wait()
        return batch["input_ids"].sum(axis=1, keepdims=True).numpy()


def test_threads_share_the_batches_of_a_predictor_that_allows_it(monkeypatch):
    task = toy_task("classification", train=21, validation=8, test=8)
    encoded = encode(task, "train", toy_tokenizer(task))
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    model = _AtOnce()
    np.testing.assert_array_equal(predict(model, encoded)[:, 0], [sum(ids) for ids in encoded.input_ids])
    assert model.calls == 21


def test_a_failed_batch_is_reported(monkeypatch):
    task = toy_task("classification", train=20, validation=8, test=8)
    encoded = encode(task, "train", toy_tokenizer(task))
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)

    class Failing(_AtOnce):
        def predict(self, batch):
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        predict(Failing(), encoded)


def test_texts_are_cut_at_max_length():
    from dataclasses import replace

    task = replace(toy_task("classification", train=8, validation=4, test=4), max_length=5)
    encoded = encode(task, "train", toy_tokenizer(task))
    assert encoded.lengths.max() == 5


def test_texts_without_labels_make_batches_without_them():
    plain = Encoded([[2, 5, 3], [2, 3]], None, (), 0, "corpus")
    batch = collate(plain, [1, 0])
    assert batch.keys() == {"input_ids", "attention_mask", "index"}
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 5, 3]]


def test_requests_stay_whole_and_share_a_batch_where_there_is_room():
    requests = [range(0, 3), range(3, 5), range(5, 18), range(18, 24)]
    batches = request_batches(requests, 6, seed=1, epoch=2)
    assert sorted(row for batch in batches for row in batch) == list(range(24))
    assert sorted(map(len, batches)) == [5, 6, 13]
    for request in requests:
        assert sum(set(request) <= set(batch) for batch in batches) == 1
    assert batches == request_batches(requests, 6, seed=1, epoch=2)
    assert batches != request_batches(requests, 6, seed=1, epoch=3)
