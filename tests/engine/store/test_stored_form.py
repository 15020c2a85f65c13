"""What is read has its form, or is refused with ValueError."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

from limbeck.core.candidate import Record
from limbeck.core.finite import json_text
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.core.statistics import pack_numbers
from limbeck.engine.store.ledger import record_to_json
from limbeck.engine.store.stored_form import check_event, read_fact, read_probed, read_record, read_records

FACT = Measurement("quality", 0.5, "1", 0.4, 0.6, 200, "cpu", "test", {"metric": "f1", "list": [1, None]})
RECORD = Record("abc", None, "model", {"a": 1}, Shape.uniform(2, 8, 2, 16), frozenset({"torch"}), (FACT,), 1.5, ("n",))
PROBED = {"probe": "quality", "parameters": {"split": "test"}, "seconds": 2, "facts": [FACT.to_json()]}
VALUES = (None, True, 7, -1.5, "text", [], [7], {}, {"a": 7}, "x" * 100)


def stored(value):
    return json.loads(json_text(value))


def test_what_was_written_is_read():
    record = stored(record_to_json(RECORD))
    assert read_record(record) == RECORD
    child = {**record, "key": "abc-1"}
    assert [each.key for each in read_records([record, child])] == ["abc", "abc-1"]
    assert read_fact(stored(FACT.to_json())) == FACT
    assert read_probed(PROBED) == PROBED
    unknown = read_fact(stored(Measurement("quality", float("nan"), "1", float("inf")).to_json()))
    assert unknown.value != unknown.value
    assert unknown.low is None


def paths(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*path, key))


def changed(value, path, new):
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (read_record, stored(record_to_json(RECORD))),
        (read_records, [stored(record_to_json(RECORD))]),
        (read_fact, stored(FACT.to_json())),
        (read_probed, stored(PROBED)),
        (check_event, {"event": "record", "run": "r", "record": stored(record_to_json(RECORD))}),
        (check_event, {"event": "facts", "run": "r", "key": "abc", "facts": [stored(FACT.to_json())]}),
    ],
)
def test_any_other_form_is_read_or_refused(read, value):
    """Every value in it, replaced by values of other kinds, and removed."""
    read(value)
    for path in paths(value):
        for new in VALUES:
            try:
                read(changed(value, path, new))
            except ValueError:
                continue
        if path and isinstance(path[-1], str):
            parent = changed(value, path, None)
            inner = parent
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
            try:
                read(parent)
            except ValueError:
                continue


@pytest.mark.parametrize(
    "change",
    [
        {"key": "../x"},
        {"traits": ["golden"]},
        {"shape": {"hidden": 8}},
        {"shape": {"hidden": 8.5, "head_dim": 4, "heads": [2], "ffn": [16], "attention": ["softmax"]}},
        {"facts": [{"name": "quality", "value": 1, "unit": "pound"}]},
        {"facts": [{"name": "quality", "value": 1, "unit": "1", "color": "red"}]},
        {"duration": "long"},
    ],
)
def test_values_that_mean_nothing_are_refused(change):
    with pytest.raises(ValueError, match=r"."):
        read_record({**stored(record_to_json(RECORD)), **change})


@pytest.mark.parametrize("packed", [7, "x", "====", pack_numbers([1.0, -1.0]), pack_numbers([float("nan")])])
def test_times_on_resamples_are_times(packed):
    fact = Measurement("latency_mean", 1.0, "s", detail={"resampled": pack_numbers([1.0, 2.0])})
    assert read_fact(stored(fact.to_json())) == fact
    with pytest.raises(ValueError, match="'resampled' should be times, packed"):
        read_fact(stored(replace(fact, detail={"resampled": packed}).to_json()))


def test_siblings_are_numbered_and_have_one_parent():
    first = stored(record_to_json(RECORD))
    for second in ({**first, "key": "abd-1"}, {**first, "key": "abc-2"}, {**first, "key": "abc-1", "parent": "abc"}):
        with pytest.raises(ValueError, match="siblings"):
            read_records([first, second])
    with pytest.raises(ValueError, match="should be a list"):
        read_records([])
