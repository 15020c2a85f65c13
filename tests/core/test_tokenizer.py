"""A tokenizer as its model needs it."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.core.tokenizer import (
    fit,
    largest_length,
    note_settings,
    space_words,
    spaced,
    with_spaces,
    without_segments,
)

SPLIT = pre_tokenizers.Split(" ?[a-z]+| ?[^ a-z]+", "isolated")


def bytewise(pre_tokenizer, post_processor=None):
    """A tokenizer whose pieces are single bytes, a space among them."""
    vocabulary = {letter: index for index, letter in enumerate("Ġ'abcdefghijklmnopqrstuvwxyz.")}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizer
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def wrapped(backend, **settings):
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def tokens(tokenizer, words):
    return tokenizer.backend_tokenizer.encode(words, is_pretokenized=True).tokens


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Sequence([SPLIT, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
    ],
)
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC(), normalizers.Sequence([normalizers.NFC()])])
def test_one_space_before_each_word_and_none_inside(pre_tokenizer, normalizer, tmp_path):
    backend = bytewise(pre_tokenizer)
    if normalizer is not None:
        backend.normalizer = normalizer
    tokenizer = wrapped(backend)
    before = tokens(tokenizer, ["don't", "go."])
    adapted = spaced(tokenizer)
    assert "".join(tokens(adapted, ["don't", "go."])) == "Ġdon'tĠgo."
    assert tokens(tokenizer, ["don't", "go."]) == before  # a copy was changed
    assert spaced(adapted) is adapted
    adapted.save_pretrained(tmp_path)
    assert spaced(again := PreTrainedTokenizerFast.from_pretrained(tmp_path)) is again
    space_words(tokenizer)
    assert tokens(tokenizer, ["go"]) == tokens(adapted, ["go"])


def test_metaspace_puts_its_space_before_every_word():
    state = {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}
    assert with_spaces(state)["pre_tokenizer"]["prepend_scheme"] == "always"
    assert with_spaces({"pre_tokenizer": None})["pre_tokenizer"] is None
    pieces = {"pre_tokenizer": {"type": "BertPreTokenizer"}}
    assert with_spaces(pieces) == pieces


@pytest.mark.parametrize(
    "post_processor",
    [
        None,
        processors.ByteLevel(),
        processors.BertProcessing(("a", 2), ("b", 3)),
        processors.RobertaProcessing(("a", 2), ("b", 3)),
        processors.TemplateProcessing(single="b $A a", pair="b $A a $B:1 a:1", special_tokens=[("a", 2), ("b", 3)]),
        processors.Sequence([processors.ByteLevel()]),
        processors.Sequence(
            [processors.ByteLevel(), processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])]
        ),
    ],
    ids=repr,
)
def test_no_segment_ids_in_pairs(post_processor):
    backend = bytewise(pre_tokenizers.ByteLevel(add_prefix_space=False), post_processor)
    state = json.loads(backend.to_str())
    flat = Tokenizer.from_str(json.dumps({**state, "post_processor": without_segments(state["post_processor"])}))
    for pair in (("it is",), ("it is", "what")):
        given, wanted = flat.encode(*pair), backend.encode(*pair)
        assert given.ids == wanted.ids
        assert given.offsets == wanted.offsets
        assert set(given.type_ids) == {0}


@pytest.mark.parametrize(("own", "limit"), [(512, 512), (10**30, None), (0, None), (None, None)])
def test_largest_length(own, limit):
    tokenizer = wrapped(bytewise(pre_tokenizers.ByteLevel()))
    tokenizer.model_max_length = own
    assert largest_length(tokenizer) == limit


@pytest.mark.parametrize(("own", "positions", "limit"), [(10**30, 64, 64), (512, 64, 64), (32, 64, 32)])
def test_the_limit_is_the_smaller_of_model_and_tokenizer(own, positions, limit):
    tokenizer = wrapped(bytewise(pre_tokenizers.ByteLevel()), model_max_length=own)
    fit(tokenizer, positions=positions, token_types=2, words=False)
    assert tokenizer.model_max_length == limit


@pytest.mark.parametrize(("token_types", "named"), [(0, False), (1, False), (2, True)])
def test_segment_ids_are_given_to_models_that_know_several(token_types, named):
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = wrapped(bytewise(pre_tokenizers.ByteLevel()), model_input_names=names)
    fit(tokenizer, positions=64, token_types=token_types, words=False)
    assert ("token_type_ids" in tokenizer.model_input_names) is named


def test_words_are_spaced_for_models_that_label_them():
    tokenizer = wrapped(bytewise(pre_tokenizers.ByteLevel(add_prefix_space=False)))
    fit(tokenizer, positions=64, token_types=2, words=True)
    assert tokens(tokenizer, ["go"]) == ["Ġ", "g", "o"]


def test_settings_that_were_changed_are_saved(tmp_path):
    tokenizer = wrapped(bytewise(pre_tokenizers.ByteLevel()))
    tokenizer.truncation_side, tokenizer.split_special_tokens = "left", True
    tokenizer.model_input_names = ["input_ids"]
    note_settings(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (again.truncation_side, again.split_special_tokens) == ("left", True)
    assert again.model_input_names == ["input_ids"]
