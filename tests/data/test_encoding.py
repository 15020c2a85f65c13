"""How text becomes ids: measured and served alike, for tokenizers of every family."""

from __future__ import annotations

import json

import pytest
import small_tokenizers as small
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from limbeck.data.encoding import TextEncoding, first_pieces

SETTINGS = [
    {},
    {"truncation_side": "left"},
    {"model_input_names": ["input_ids", "attention_mask"]},
    {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
    {"split_special_tokens": True},
    {"model_max_length": None},
    {"add_prefix_space": True},
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    def open_(family, settings):
        folder = tmp_path_factory.mktemp(family)
        small.write_tokenizer(folder, family, **settings)
        return AutoTokenizer.from_pretrained(folder)

    return open_


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", small.FAMILIES)
def test_tokenizers_alone_give_the_ids_that_were_measured(family, settings, opened):
    tokenizer = opened(family, settings)
    before = tokenizer.backend_tokenizer.to_str()
    for kind in ("single", "pair", "words"):
        words = kind == "words"
        encoding = TextEncoding(**json.loads(json.dumps(TextEncoding.of(tokenizer, 32, words=words).to_json())))
        texts = [text.split() for text in small.ODD] + [["New York", "\u200b", "", "a"]] if words else small.ODD
        pairs = small.ODD[::-1] if kind == "pair" else None
        measured = encoding.encode(tokenizer, texts, pairs)
        alone = Tokenizer.from_str(encoding.bake(tokenizer.backend_tokenizer.to_str()))
        alone.encode_special_tokens = encoding.split_special_tokens
        rows = zip(texts, pairs, strict=True) if pairs else ((text,) for text in texts)
        served = [alone.encode(*row, is_pretokenized=words) for row in rows]
        assert [encoding.ids for encoding in served] == measured["input_ids"]
        types = measured.get("token_type_ids") or [[0] * len(ids) for ids in measured["input_ids"]]
        assert [encoding.type_ids for encoding in served] == types
        assert [encoding.word_ids for encoding in served] == [measured.word_ids(row) for row in range(len(texts))]
        assert max(map(len, measured["input_ids"])) == 32
    if not settings:
        after, state = json.loads(tokenizer.backend_tokenizer.to_str()), json.loads(before)
        assert {**after, "truncation": None} == {**state, "truncation": None}  # nothing else is left behind


@pytest.mark.parametrize(("own", "requested", "limit"), [(16, 32, 16), (64, 32, 32), (None, 32, 32)])
def test_cut_at_the_smaller_length(own, requested, limit, opened):
    assert TextEncoding.of(opened("bert", {"model_max_length": own}), requested).max_length == limit


def test_words_begin_as_in_running_text(opened):
    tokenizer = opened("roberta", {})
    (words,) = TextEncoding.of(tokenizer, 32, words=True).encode(tokenizer, [["I", "live", "in", "Oslo"]])["input_ids"]
    assert words == tokenizer(" I live in Oslo")["input_ids"]


def test_one_position_a_word():
    assert first_pieces([None, 1, 1, 0, None], 3) == [3, 1, None]  # cut from the left, or shuffled: by word
    assert first_pieces([], 2) == [None, None]
