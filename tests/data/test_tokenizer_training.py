from dataclasses import replace

from limbeck.core.task import texts_of
from limbeck.data.batching import encode
from limbeck.data.synthetic import toy_task
from limbeck.data.tokenizer_training import SPECIAL_TOKENS, word_pieces


def test_training_texts_are_made_of_known_pieces():
    task = toy_task(train=64)
    tokenizer = word_pieces(task)
    assert tokenizer.get_vocab() == word_pieces(task).get_vocab()
    assert [tokenizer.get_vocab()[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    for text in texts_of(task.split("train")):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1], 1 in ids) == (2, 3, False)
        assert tokenizer.decode(ids[1:-1]) == text


def test_no_more_pieces_than_asked_for():
    assert len(word_pieces(toy_task(train=64), 40)) == 40


def test_pairs_and_words_too():
    pairs, words = toy_task("pairs", train=16), toy_task("tokens", train=16)
    assert encode(pairs, "train", word_pieces(pairs)).labels[:2] == list(pairs.split("train").labels[:2])
    assert len(encode(words, "validation", word_pieces(words))) == 128
    tokenizer = word_pieces(pairs)
    assert 1 in tokenizer("a", "b")["token_type_ids"]


def test_texts_to_judge_on_are_not_read():
    task = toy_task(train=8)
    unseen = replace(task, splits={**task.splits, "test": task.split("test").take([0])})
    assert word_pieces(task).get_vocab() == word_pieces(unseen).get_vocab()
