"""JSON for machines is valid JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from limbeck.core.finite import finite, json_text


def strictly(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_what_is_no_number_becomes_null(bad):
    assert strictly(json_text({"a": [1.5, (bad, {"b": bad})], "c": bad})) == {
        "a": [1.5, [None, {"b": None}]],
        "c": None,
    }


def test_everything_else_stays():
    value = {"ä": [1, True, None, "NaN", {"x": 2.5}], "n": np.float32(0.5)}
    assert strictly(json_text(value)) == {"ä": [1, True, None, "NaN", {"x": 2.5}], "n": 0.5}
    assert "ä" in json_text(value)
    assert finite((1, 2)) == [1, 2]


def test_a_default_takes_what_json_has_no_word_for():
    assert strictly(json_text({"p": {1}}, default=str)) == {"p": "{1}"}
    with pytest.raises(TypeError, match="set is no JSON value"):
        json_text({1})
