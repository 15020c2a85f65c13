"""The YAML that users write: the core schema of YAML 1.2, nothing that refers, and a position in every error."""

from __future__ import annotations

import math

import pytest

from limbeck.errors import InputError, RecipeError
from limbeck.storage import yaml_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2.5E-3", 2.5e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1", -1),
        ("3", 3),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("-.inf", -math.inf),
        ("no", "no"),
        ("0x_", "0x_"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("true", True),
        ("TRUE", True),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("", None),
        ("'3'", "3"),
        ("{a: [1, x], 2: y}", {"a": [1, "x"], "2": "y"}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    loaded = yaml_text.load(text)
    assert loaded == value
    assert type(loaded) is type(value)


def test_untyped_scalars_stay_text_except_null():
    assert yaml_text.load("{a: 1e3, b: true, c: ~, d: 'null'}", typed=False) == {
        "a": "1e3",
        "b": "true",
        "c": None,
        "d": "null",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "line 1, column 4: anchors and aliases ('x')"),
        ("b: *x", "line 1, column 4: anchors and aliases ('x')"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' appears twice"),
        ("a: !!python/object:os.system {}", "line 1, column 4: tags"),
        ("a: !!int x", "line 1, column 4: tags"),
        ("? [a]\n: 1", "line 1, column 3: a key should be text"),
        ("a: [1", "line 1, column 6"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
        ("- " * 5000, "line 1, column 101: nested more than 50 levels deep"),
        ("a: " + "9" * 400, "line 1, column 4: a number of 400 digits"),
        ('a: "\\UFFFFFFFF"', "file: "),
        ('a: "\\ud800"', "file: "),
        ("a: \x07", "file: unacceptable character #x0007"),
    ],
)
def test_everything_else_is_refused_with_its_position(text, message):
    with pytest.raises(RecipeError) as error:
        yaml_text.load(text, "file", error=RecipeError)
    assert str(error.value).startswith("file")
    assert message in str(error.value)


@pytest.mark.parametrize("unit", ["[", "{", "? ", "[{", ",:", "a:\n", "%\n"])
def test_repetition_ends_in_one_short_error(unit):
    with pytest.raises(InputError) as error:
        yaml_text.load(unit * (10_000 // len(unit)))
    assert len(str(error.value)) < 200


def test_a_text_that_is_too_long_is_not_parsed():
    with pytest.raises(InputError, match="has 100,001 characters; at most 100,000"):
        yaml_text.load("[" * (yaml_text.MAX_CHARACTERS + 1))


def test_files_name_what_they_are(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("name: café".encode("latin-1"))
    with pytest.raises(InputError, match=r"r\.yaml: is not UTF-8 \(byte 9\) \(a task file is YAML in UTF-8\)"):
        yaml_text.load_file(path, "task file")
    path.write_bytes(b"\xef\xbb\xbfname: x")
    assert yaml_text.load_file(path) == {"name": "x"}


@pytest.mark.parametrize(
    "data",
    [
        {"a": [1, 2.5e-7], "c": {"no": "1e-4", "d": None, "e": True, "t": "true", "n": "null", "o": "0o7"}},
        {"numbers": [1e300, 0.0001, -3, math.inf]},
        {"texts": ["", " a ", "a: b", "#x", "a\nb", "ä😀", "=", "<<", ".5", "~", "?", "- a", "'", '"']},
        {"steps": [{"fork": [[{"a": {}}], []]}], "1": "x" * 300, "dates": ["2024-01-01", "1:30", "1_000", "0x_"]},
        "1e-4",
        [],
    ],
)
def test_a_dump_loads_again(data):
    assert yaml_text.load(yaml_text.dump(data)) == data


def test_shared_parts_are_written_twice():
    shared = [1, 2]
    assert "&" not in yaml_text.dump({"a": shared, "b": shared})
