"""Objects travel between stores as they are, and damaged ones are refused."""

from __future__ import annotations

import shutil

import pytest

from limbeck.core.candidate import Candidate
from limbeck.engine.store.transfer import has, pack, unpack
from limbeck.errors import StoreError

KEY = "0123456789abcdef"


@pytest.fixture
def store(toys, tmp_path):
    filled = toys.store(tmp_path / "here")
    filled.prepare()
    filled.put(KEY, Candidate(toys.ToyModel([1.0, 2.5]), "tokenizer", toys.ToyTask()), {})
    return filled


def test_an_object_arrives_with_its_task(store, toys, tmp_path):
    other = toys.store(tmp_path / "there")
    other.prepare()
    unpack(other, KEY, pack(store, KEY))
    assert other.open(KEY).model == store.open(KEY).model
    assert other.open(KEY).task == store.open(KEY).task
    unpack(other, KEY, pack(store, KEY))  # it is there already


@pytest.mark.parametrize("how", ["cut", "flipped", "nothing"])
def test_a_damaged_object_is_refused(store, toys, tmp_path, how):
    other = toys.store(tmp_path / "there")
    other.prepare()
    data = pack(store, KEY)
    if how == "cut":
        data = data[: len(data) // 3]
    elif how == "flipped":
        offset = data.index(b'"weights"') + 12
        data = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
    else:
        data = b""
    with pytest.raises(StoreError, match=f"object {KEY} arrived damaged"):
        unpack(other, KEY, data)
    assert not other.has(KEY)


def test_another_object_is_refused(store, toys, tmp_path):
    other = toys.store(tmp_path / "there")
    other.prepare()
    with pytest.raises(StoreError, match="arrived damaged"):
        unpack(other, "fedcba9876543210", pack(store, KEY))


def test_a_kept_folder_arrives_whole_or_not_at_all(store, toys, tmp_path):
    store.facts.keep("answers/7", lambda folder: (folder / "values").write_text("forty-two"))
    other = toys.store(tmp_path / "there")
    other.prepare()
    assert not has(other, "kept/answers/7")
    data = pack(store, "kept/answers/7")
    offset = data.index(b"forty-two")
    with pytest.raises(StoreError, match="folder kept/answers/7 arrived damaged"):
        unpack(other, "kept/answers/7", data[:offset] + b"fifty" + data[offset + 5 :])
    assert not has(other, "kept/answers/7")
    unpack(other, "kept/answers/7", data)
    assert has(other, "kept/answers/7")
    assert (other.facts.kept_folder("answers/7") / "values").read_text() == "forty-two"
    with pytest.raises(StoreError, match="has no folder kept/else"):
        pack(store, "kept/else")


def test_a_task_arrives_whole_or_not_at_all(store, toys, tmp_path):
    fingerprint = store.keep_task(toys.ToyTask(("fine", "poor")))
    name, other = f"tasks/{fingerprint}", toys.store(tmp_path / "there")
    other.prepare()
    assert not has(other, name)
    data = pack(store, name)
    offset = data.index(b"fine")
    with pytest.raises(StoreError, match="arrived damaged"):
        unpack(other, name, data[:offset] + b"vain" + data[offset + 4 :])
    assert not has(other, name)
    unpack(other, name, data)
    assert has(other, name)
    assert toys.store(tmp_path / "there").task(fingerprint) == toys.ToyTask(("fine", "poor"))
    shutil.rmtree(store.tasks / fingerprint)
    assert not has(store, name)
    with pytest.raises(StoreError, match=f"has no task {fingerprint}"):
        pack(store, name)
