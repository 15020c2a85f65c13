"""Small results and kept folders: intact, or made again."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from limbeck.errors import StoreError


@pytest.fixture
def store(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def messages(store):
    messages = []
    store.notify = messages.append
    return messages


def number(value):
    if not isinstance(value, int):
        raise ValueError(f"should be a number, got {value!r}")
    return value


def test_small_results(store, messages):
    facts = store.facts
    assert facts.recall("x", dict) is None
    facts.remember("a/b: c", {"v": 1})
    facts.remember("a/b; c", {"v": 2})
    assert facts.recall("a/b: c", dict) == {"v": 1}
    assert facts.recall("a/b; c", dict) == {"v": 2}
    for value in (1, 2):
        facts.remember(f"children-{value}", value)
    assert list(facts.all("children-", number)) == [1, 2]
    facts.remember("not finite", [float("nan"), 1.5])
    assert facts.recall("not finite", list) == [None, 1.5]
    assert messages == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b"NaN",
        b'"text"',
        b"[1]",
        b'{"name": "n", "sha256": "0", "value": 7}',
        b'{"name": ["n"], "sha256": 1, "value": {}}',
    ],
)
def test_what_is_damaged_or_has_another_form_counts_as_absent(store, messages, content):
    store.facts.remember("n", 7)
    (path,) = (store.root / "memo").iterdir()
    path.write_bytes(content)
    assert store.facts.recall("n", number) is None
    assert "is damaged" in messages[0]
    store.facts.remember("n", 7)
    assert store.facts.recall("n", number) == 7


def test_every_changed_bit_of_a_small_result_is_noticed(store, messages):
    store.facts.remember("n", {"quality": 0.8125, "notes": ["ok"]})
    (path,) = (store.root / "memo").iterdir()
    blob = path.read_bytes()
    for position in range(len(blob)):
        path.write_bytes(blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :])
        value = store.facts.recall("n", lambda value: {"quality": value["quality"], "notes": value["notes"]})
        assert value in (None, {"quality": 0.8125, "notes": ["ok"]}), position


def test_a_result_under_the_name_of_another_is_refused(store, messages):
    store.facts.remember("a", 1)
    store.facts.remember("b", 2)
    store.facts.arrays("a", lambda: {"x": np.ones(1)})
    store.facts.arrays("b", lambda: {"x": np.zeros(1)})
    for suffix in ("json", "npz"):
        shutil.copyfile(store.root / "memo" / f"a.{suffix}", store.root / "memo" / f"b.{suffix}")
    assert store.facts.recall("b", number) is None
    assert store.facts.arrays("b", lambda: {"x": np.zeros(1)})["x"].tolist() == [0]
    assert len(messages) == 2


def test_results_of_earlier_versions_are_read(store, messages):
    (store.root / "memo" / "n.json").write_text("7")
    np.savez(store.root / "memo" / "a.npz", x=np.ones(2))
    assert store.facts.recall("n", number) == 7
    assert store.facts.arrays("a", dict)["x"].tolist() == [1, 1]
    folder = store.facts.keep("old", lambda folder: (folder / "a").write_text("outputs"))
    (store.root / "memo" / "digests-old.json").unlink()
    (store.root / "memo" / "sizes-old.json").write_text(json.dumps({"a": 7}))
    assert store.facts.keep("old", lambda folder: None) == folder
    assert (folder / "a").read_text() == "outputs"
    assert messages == []


def test_arrays_are_computed_once(store, messages):
    calls = []

    def build():
        calls.append(1)
        return {"logits": np.arange(3.0), "names": np.array(["a", "bc"]), "n": 3}

    for _ in range(2):
        arrays = store.facts.arrays("teacher/logits", build)
        assert set(arrays) == {"logits", "names", "n"}
        assert arrays["logits"].tolist() == [0, 1, 2]
        assert int(arrays["n"]) == 3
    assert len(calls) == 1
    (path,) = (store.root / "memo").glob("*.npz")
    path.write_bytes(b"damaged")
    assert store.facts.arrays("teacher/logits", build)["names"].tolist() == ["a", "bc"]
    assert len(calls) == 2
    with pytest.raises(TypeError, match="odd would have to be pickled"):
        store.facts.arrays("objects", lambda: {"odd": np.array([{}, None])})


@pytest.mark.parametrize("damaged", ["torn", "OUTPUTS"])
def test_a_folder_is_kept_whole_or_made_again(store, messages, damaged):
    calls = []

    def build(folder):
        calls.append(1)
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("outputs")

    for _ in range(2):
        assert (store.facts.keep("teacher/outputs", build) / "inner" / "a.txt").read_text() == "outputs"
    assert len(calls) == 1
    (store.facts.keep("teacher/outputs", build) / "inner" / "a.txt").write_text(damaged)
    assert (store.facts.keep("teacher/outputs", build) / "inner" / "a.txt").read_text() == "outputs"
    assert len(calls) == 2
    assert "damaged" in messages[-1]
    with pytest.raises(ZeroDivisionError):
        store.facts.keep("broken", lambda folder: 1 / 0)
    assert len(list((store.root / "kept").iterdir())) == 1


def test_a_full_disk(store, monkeypatch):
    store.facts.remember("name", 1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full"):
        store.facts.remember("name", 2)
    with pytest.raises(StoreError, match="is full"):
        store.facts.arrays("arrays", lambda: {"a": np.ones(2)})
    assert store.facts.recall("name", number) == 1
