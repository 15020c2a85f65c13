"""Options of a source: names and types."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.data.config import Options
from limbeck.errors import InputError


def test_plain_yaml_values_are_understood():
    options = Options.parse({"path": Path("x"), "text": 0, "label_names": ["no", 1], "limit": {"train": 5}})
    assert (options.path, options.text, options.label_names, options.limit) == ("x", 0, ("no", 1), {"train": 5})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lable": "x"}, "no option 'lable'; did you mean 'label'"),
        ({"on_empty": "ignore"}, "data option 'on_empty': .*'error', 'drop' or 'keep', got 'ignore'"),
        ({"max_length": "long"}, "data option 'max_length'"),
        ({"max_length": 1}, "at least 2 and at most 100,000, got 1"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(InputError, match=message):
        Options.parse(given)


def test_a_text_may_be_long_but_not_a_path():
    long = "word " * 1000
    assert Options.parse({"texts": [long, "short"]}).texts == (long, "short")
    for given in ({"texts": "x" * 1001}, {"path": "x" * 1001}, {"label_names": ["no", "x" * 1001]}):
        with pytest.raises(InputError, match="has more than 1,000 characters"):
            Options.parse(given)
