"""limbeck.json of an artefact is read by its form, and what is wrong with it is named."""

from __future__ import annotations

import json

import pytest

from limbeck.data.encoding import TextEncoding
from limbeck.engine.description import Description, Request, read_description
from limbeck.errors import InputError

ENCODING = {"max_length": 24, "truncation_side": "left", "token_type_ids": False, "words": False}


def described(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "limbeck.json").write_text(text)
    return read_description(folder)


def test_entries_of_other_programs_are_left_alone(tmp_path):
    assert read_description(tmp_path) is None
    entries = {"format": 1, "labels": 5, "max_length": 32, "pair": True, "encoding": {**ENCODING, "later": 7}}
    expected = TextEncoding(24, "left", token_type_ids=False)
    assert described(tmp_path, entries) == Description(32, pair=True, encoding=expected)
    assert described(tmp_path, {"max_length": 32}) == Description(32)
    request = {"batch": 8, "pad_id": 0, "candidates": 50, "later": 1}
    assert described(tmp_path, {"max_length": 32, "request": request}).request == Request(8, 0, 50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "'max_length' is required"),
        ({"pair": "no"}, "'max_length' is required; 'pair' should be true or false, got 'no'"),
        ({"max_length": "64"}, "'max_length' should be a whole number, got '64'"),
        ({"max_length": 0}, "'max_length' should be .*got 0"),
        ({"max_length": 10**30}, "'max_length' should be a number between"),
        ({"max_length": 64, "encoding": []}, r"'encoding' .*got \[\]"),
        ({"max_length": 64, "encoding": {}}, "'encoding.*max_length' is required"),
        ({"max_length": 64, "encoding": {**ENCODING, "max_length": -1}}, "'encoding.max_length' should be"),
        ({"max_length": 64, "encoding": {**ENCODING, "words": 1}}, "'encoding.words' should be true or false"),
        (
            {"max_length": 64, "encoding": {"max_length": 9, "truncation_side": "up"}},
            "encoding.truncation_side' cannot",
        ),
        ({"max_length": 64, "request": {"batch": 0, "pad_id": 0}}, "'request.batch' should be"),
        ({"max_length": 64, "request": {"batch": 4}}, "'request.*pad_id' is required"),
        ([1], "should hold a JSON object, found list"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        described(tmp_path, content)
    assert str(tmp_path / "limbeck.json") in str(caught.value)
    assert "\n" not in str(caught.value)
