import numpy as np

from limbeck.augmentation import preparation
from limbeck.augmentation.pipeline import rows_of
from limbeck.augmentation.transforms import NGram, Substitute, split_words
from limbeck.augmentation.word_vectors import WordVectors
from limbeck.data.synthetic import toy_task

TASK = toy_task("classification", train=12, validation=4, test=4)


def test_without_a_tagger_rows_and_rule_stay():
    rule = NGram(0.1, 0.2, 0.3, 3, "mask", "[MASK]")
    transform, annotate = preparation.tagged(rule, TASK, None)
    rows = rows_of(TASK.split("train"))
    assert transform is rule
    assert annotate(rows) == rows


def test_words_are_tagged_and_collected_by_tag(monkeypatch):
    monkeypatch.setattr(
        preparation, "tag_rows", lambda tagger, texts, chunk, workers: [[str(len(w)) for w in text] for text in texts]
    )
    rule = NGram(0.1, 0.2, 0.3, 3, "mask", "[MASK]")
    transform, annotate = preparation.tagged(rule, TASK, "lengths")
    rows = rows_of(TASK.split("train"))
    for row, annotated in zip(rows, annotate(rows), strict=True):
        assert annotated.notes == ([str(len(word)) for word in split_words(row.text)[0]],)
    assert all(len(word) == int(tag) for tag, bag in transform.bags.items() for word in bag.words)


def test_every_word_gets_its_nearest_others():
    requested = []

    def vectors(words):
        requested.extend(words)
        return WordVectors(list(words), np.eye(len(words), 8, dtype=np.float32) + 0.1)

    transform, annotate = preparation.substitution(TASK, vectors, None, top_k=2, replace_probability=0.5)
    assert transform == Substitute(0.5)
    assert requested == sorted(set(requested))
    for row in annotate(rows_of(TASK.split("train"))):
        words = split_words(row.text)[0]
        assert len(row.notes[0]) == len(words)
