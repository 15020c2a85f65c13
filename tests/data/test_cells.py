"""Cells: lists and numbers written as text, truth values, spellings."""

from __future__ import annotations

import pytest

from limbeck.data.cells import comma_is_ambiguous, normalize_spelling, number_format, parse_bool, parse_list


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[]", []),
        ("['joy', 'it\\'s']", ["joy", "it's"]),
        ('["joy", "é\\u00e9", "a/b"]', ["joy", "éé", "a/b"]),
        ("['Oslo' 'is'\n 'far']", ["Oslo", "is", "far"]),
        ("('a', \"b\",)", ["a", "b"]),
        ("[0. 1.5 -2e-1]", [0.0, 1.5, -0.2]),
        (" [1, 0, 1] ", [1, 0, 1]),
        ("[true, False]", [True, False]),
        ("[laughs] so funny", None),
        ("[laughs]", None),
        ("['open", None),
        ("[[1], [2]]", None),
        ("[1] and [2]", None),
        ("__import__('os')", None),
        ("", None),
    ],
)
def test_lists_in_text(text, value):
    assert parse_list(text) == value


def test_a_long_text_that_only_begins_like_a_list_is_refused_quickly():
    assert parse_list("[" + "1 " * 20_000 + "x") is None
    assert parse_list("['" + "a, " * 20_000) is None


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "-2.5", "3e2"], [1.0, -2.5, 300.0]),
        (["0,5", "12", "-1,25"], [0.5, 12.0, -1.25]),
        (["1,250.5", "3"], [1250.5, 3.0]),
        (["1.250,5", "3,25"], [1250.5, 3.25]),
        (["12.5%", "3 %"], [12.5, 3.0]),
        (["0,5%", "99,9%"], [0.5, 99.9]),
    ],
)
def test_numbers_as_people_write_them(texts, values):
    form = number_format(texts)
    assert [form.read(text) for text in texts] == values
    assert form.read("many") is None


def test_what_is_no_column_of_numbers():
    for texts in (["1", "x"], ["5%", "6"], ["1,2,3"], ["", "1"]):
        assert number_format(texts) is None
    assert comma_is_ambiguous(["1,234", "20"])
    assert not comma_is_ambiguous(["1,234", "1,5"])
    assert not comma_is_ambiguous(["0,500"])


def test_truth_and_spelling():
    assert [parse_bool(cell) for cell in (True, "False", " 1 ", 0.0, "yes", [1])] == [
        True,
        False,
        True,
        False,
        None,
        None,
    ]
    assert normalize_spelling("Cafe\u0301 ") == normalize_spelling("CAF\u00c9")
    assert normalize_spelling("very  good") != normalize_spelling("verygood")
