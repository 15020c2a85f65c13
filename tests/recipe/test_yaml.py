"""Recipes are plain YAML."""

from __future__ import annotations

import pytest

from limbeck.errors import RecipeError
from limbeck.recipe import yaml as strict_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2.5E-3", 2.5e-3),
        (".5", 0.5),
        ("-1", -1),
        ("3", 3),
        ("no", "no"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    loaded = strict_yaml.load(text)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x", "line 1, column 4: anchors and aliases"),
        ("b: *x", "line 1, column 4: anchors and aliases"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' appears twice"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: [1", "line 1, column 6"),
    ],
)
def test_everything_else_is_refused_with_its_line(text, said):
    with pytest.raises(RecipeError, match="file") as error:
        strict_yaml.load(text, "file")
    assert said in str(error.value)


def test_a_dump_loads_again_even_with_shared_parts():
    shared = [1, 2.5e-7]
    data = {"a": shared, "b": shared, "c": {"no": "1e-4", "d": None}}
    assert strict_yaml.load(strict_yaml.dump(data)) == data
