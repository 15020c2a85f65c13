from __future__ import annotations

import pytest

from limbeck.core.sentence_embedding import Dense, SentenceEmbedding, embedding_in
from limbeck.errors import InputError


def test_json_reads_back_equal():
    given = SentenceEmbedding("max", (Dense(8, False, "tanh"), Dense(4)), False, {"query": "q: "}, "query", 64, True)
    assert SentenceEmbedding.from_json(given.to_json()) == given
    assert embedding_in({"sentence_embedding": given.to_json()}) == given
    assert embedding_in({}) is None


def test_the_last_dense_layer_gives_the_width():
    assert SentenceEmbedding().width(32) == 32
    assert SentenceEmbedding(dense=(Dense(8), Dense(4))).width(32) == 4


def test_the_default_prompt_is_the_one_of_its_name():
    assert SentenceEmbedding(prompts={"query": "q: "}).prompt == ""
    assert SentenceEmbedding(prompts={"query": "q: "}, default_prompt="query").prompt == "q: "


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pooling": "means"}, "mean"),
        ({"dense": (Dense(3, True, "gelou"),)}, "gelu"),
        ({"prompts": {"query": ""}, "default_prompt": "querry"}, "query"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest(fields, words):
    with pytest.raises(InputError, match=words):
        SentenceEmbedding(**fields)


@pytest.mark.parametrize("damage", [3, {}, {"pooling": "mean", "dense": [1]}])
def test_a_damaged_entry_is_one_error(damage):
    with pytest.raises(InputError, match="sentence_embedding"):
        SentenceEmbedding.from_json(damage)
