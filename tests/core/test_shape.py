from __future__ import annotations

import json

import pytest

from limbeck.core.shape import LayerShape, Shape, canonical_json

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


def test_words():
    assert str(FULL) == "3x32 heads 4 of 8 ffn 64"
    assert str(Shape(32, 8, ())) == "0x32 heads - of 8 ffn -"
    assert str(FULL.with_layer(0, attention="linear")) == "3x32 heads 4 of 8 ffn 64 linear"


def test_canonical_json_has_one_spelling_and_no_nan():
    assert canonical_json({"b": [1.5], "a": "é"}) == canonical_json({"a": "é", "b": (1.5,)})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
