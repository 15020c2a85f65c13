"""The ledger only grows, survives a crash, and gives records back."""

from __future__ import annotations

import errno
import json
import os
import re

import pytest

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.engine.store.ledger import Ledger, descends, record_to_json
from limbeck.engine.store.stored_form import read_record
from limbeck.errors import InputError, StoreError

ROOT = Record("aaa", None, "model", {"source": "x"}, Shape.uniform(1, 4, 1, 8), frozenset({"torch"}))
CHILD = Record("bbb", "aaa", "prune", {"keep": 0.5}, None, frozenset({"torch"}), (), 1.5, ("cut",))


def filled(path):
    ledger = Ledger(path / "ledger.jsonl")
    ledger.append("run", recipe={}, environment={}, store="store")
    ledger.append("record", record=record_to_json(ROOT))
    ledger.append("record", record=record_to_json(CHILD))
    ledger.append("facts", key="bbb", probe="quality", facts=[Measurement("quality", 0.5, "1").to_json()])
    return ledger


def test_records_come_back_with_their_facts(tmp_path):
    ledger = filled(tmp_path)
    ledger.append("facts", key="bbb", probe="quality", facts=[Measurement("quality", 0.7, "1").to_json()])
    ledger.append("record", record=record_to_json(CHILD))
    records = Ledger(tmp_path).records()
    assert records["aaa"] == ROOT
    assert records["bbb"].fact("quality").value == 0.7
    assert len(records["bbb"].facts) == 1
    assert [record.key for record in ledger.ancestors("bb")] == ["aaa", "bbb"]
    with pytest.raises(InputError, match="no record has the key 'c'"):
        ledger.ancestors("c")
    first, last = "aaa", "bbb"
    assert (descends(records, last, first), descends(records, first, first)) == (True, True)
    assert not descends(records, first, last)
    assert not descends(records, first, None)


def test_json_of_a_record():
    record = Record("k", None, "s", facts=(Measurement("quality", 0.5, "1", detail={"metric": "f1"}),))
    for each in (ROOT, CHILD, record):
        assert read_record(record_to_json(each)) == each


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_skipped_and_reported(tmp_path, cut):
    ledger = filled(tmp_path)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:-cut])
    again = Ledger(ledger.path)
    assert len(again.read()) == (4 if cut == 1 else 3)
    assert again.torn == ([] if cut == 1 else [4])
    again.append("note", message="after")
    assert again.read()[-1]["message"] == "after"
    assert again.torn == ([] if cut == 1 else [4])
    assert set(again.records()) == {"aaa", "bbb"}


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"7",
        b'"record"',
        b'{"event": "record"}',
        b'{"event": "record", "run": "r", "record": {"key": "ccc"}}',
        b'{"event": "record", "run": "r", "record": []}',
        b'{"event": "facts", "run": "r", "key": "bbb", "facts": {"name": "quality"}}',
        b'{"event": "facts", "run": "r", "key": "bbb", "facts": [{"name": "quality", "value": "0.5", "unit": "1"}]}',
        b'{"event": "facts", "run": "r", "key": "bbb", "facts": [{"name": "quality", "value": 0.5, "unit": "pound"}]}',
        b'{"event": "failed", "run": "r", "failure": {"path": "steps[0]"}}',
        b'{"event": "finished", "run": "r", "front": "bbb", "chosen": [], "teacher": null}',
        b'{"event": "applause", "run": "r"}',
        b'{"event": "run", "run": 7, "recipe": {}, "environment": {}, "store": "store"}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_line_of_another_form_is_skipped_and_reported(tmp_path, line):
    ledger = filled(tmp_path)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(line + b"\n" + content)
    again = Ledger(ledger.path)
    assert again.read() == ledger_events(content)
    assert again.torn == [1]
    assert set(again.records()) == {"aaa", "bbb"}
    assert [event["event"] for event in again.last()] == ["run", "record", "record", "facts"]


def ledger_events(content):
    return [json.loads(line) for line in content.splitlines()]


def test_the_newest_run_alone(tmp_path):
    filled(tmp_path)
    second = Ledger(tmp_path / "ledger.jsonl")
    second.append("run", recipe={}, environment={}, store="store")
    second.append("record", record=record_to_json(ROOT))
    assert [event["event"] for event in second.last()] == ["run", "record"]
    assert set(second.records(second.last())) == {"aaa"}
    with pytest.raises(InputError, match="describes no run"):
        Ledger(tmp_path / "absent.jsonl").last()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    ledger = filled(tmp_path)
    real = os.write

    def short(handle, data):
        return real(handle, data[:5])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(StoreError, match="the disk is full"):
        ledger.append("note", message="lost")
    monkeypatch.setattr(os, "write", real)
    ledger.append("note", message="kept")
    assert ledger.read()[-1]["message"] == "kept"

    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"cannot be written: .*Permission denied"):
        ledger.append("note")


def test_lines_that_cannot_be_read_are_counted_and_numbered(tmp_path):
    ledger = filled(tmp_path)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(b"x\n" * 30 + content + b"[]\n")
    again = Ledger(ledger.path)
    again.read()
    assert re.match(r"31 lines of .* cannot be read \(1, 2, .*20, …\)", again.unreadable())
    assert re.match(r"1 line of .* cannot be read \(35\)", again.unreadable(newest=True))
    with pytest.raises(InputError, match=r"no record has the key 'c' in .*; 31 lines of"):
        again.ancestors("c")
    ledger.path.write_bytes(content[:20])
    with pytest.raises(InputError, match=r"describes no run \(1 line of .* cannot be read"):
        Ledger(ledger.path).last()
