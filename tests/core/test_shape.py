from __future__ import annotations

import json

import pytest

from limbeck.core.shape import LayerShape, Shape, canonical_json, kept_tokens, short_key, token_share
from limbeck.errors import InputError

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


def test_uniform_fills_the_hidden_width():
    assert (FULL.depth, FULL.head_dim) == (3, 8)


def test_order_is_can_be_cut_out_of():
    narrow = FULL.with_layer(0, heads=1).with_layer(2, ffn=0)
    dropped = Shape(32, 8, (LayerShape(4, 64), LayerShape(2, 64)))
    assert narrow <= FULL
    assert dropped <= FULL
    assert not narrow >= FULL
    assert not Shape(64, 8, FULL.layers) <= FULL
    assert not FULL.with_layer(0, attention="linear") <= FULL


def test_dropping_layers_keeps_their_order():
    wide_first = Shape(32, 8, (LayerShape(4, 64), LayerShape(1, 16)))
    assert Shape(32, 8, (LayerShape(1, 16), LayerShape(1, 16))) <= wide_first
    assert not Shape(32, 8, (LayerShape(1, 16), LayerShape(4, 64))) <= wide_first


def test_json_round_trip():
    ragged = FULL.with_layer(1, heads=0, ffn=17, attention="linear")
    assert Shape.from_json(json.loads(json.dumps(ragged.to_json()))) == ragged


def test_a_schedule_of_tokens_is_part_of_the_shape():
    fewer = FULL.with_tokens(1, 2 / 3, 0.5)
    assert fewer.tokens == (1.0, 0.667, 0.5)
    assert Shape.from_json(json.loads(json.dumps(fewer.to_json()))) == fewer
    assert str(fewer) == "3x32 heads 4 of 8 ffn 64 tokens 1,0.667,0.5"
    assert fewer <= FULL
    assert not fewer >= FULL
    assert fewer.with_layer(1, heads=2).tokens == fewer.tokens
    assert "tokens" not in FULL.to_json()
    assert FULL.tokens == ()
    with pytest.raises(InputError, match="no layer is left that chooses by its softmax attention"):
        fewer.converted(["kernel"])
    assert fewer.converted(["softmax"]) == fewer
    assert fewer.converted(["kernel", "softmax", "kernel"]).token_shares == ((1, 1), (1, 0.667), (0.667, 0.667))


def test_layers_pass_on_what_they_can_judge_and_never_more():
    assert FULL.token_shares == ((1, 1),) * 3
    assert FULL.with_tokens(0.5, 0.8, 0.1).token_shares == ((1, 0.5), (0.5, 0.5), (0.5, 0.5))
    assert FULL.with_tokens(0.5, 0.4, 0.4).with_layer(0, heads=0).token_shares == ((1, 1), (1, 0.4), (0.4, 0.4))


@pytest.mark.parametrize("share", [0, -0.5, 1.001, 0.0004, float("nan"), float("inf")])
def test_a_share_of_tokens_has_bounds(share):
    with pytest.raises(InputError, match="above 0 and at most 1, in thousandths, got"):
        token_share(share)


def test_tokens_are_counted_in_whole_numbers():
    """In floating point 0.7 * 10 is more than 7."""
    assert [kept_tokens(0.7, tokens) for tokens in (1, 2, 3, 9, 10, 11)] == [1, 2, 3, 7, 7, 8]
    assert kept_tokens(0.001, 0) == 1


def test_words():
    assert str(FULL) == "3x32 heads 4 of 8 ffn 64"
    assert str(Shape(32, 8, ())) == "0x32 heads - of 8 ffn -"
    assert str(FULL.with_layer(0, attention="linear")) == "3x32 heads 4 of 8 ffn 64 linear"


def test_canonical_json_has_one_spelling_and_no_nan():
    assert canonical_json({"b": [1.5], "a": "é"}) == canonical_json({"a": "é", "b": (1.5,)})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_short_keys_stay_what_they_are_in_every_store():
    value = {"step": "prune", "parameters": {"keep": 0.5, "layers": [1, 2]}, "text": "naïve"}
    assert short_key(value) == short_key(dict(reversed(value.items()))) == "78368ada56f51130"
    assert short_key([]) == "4f53cda18c2baa0c"
