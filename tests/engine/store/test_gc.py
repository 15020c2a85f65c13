"""What gc removes, and what stays."""

from __future__ import annotations

import subprocess

import pytest

from limbeck.core.candidate import Candidate
from limbeck.engine.store.gc import Collected, collect
from limbeck.engine.store.store import Store
from limbeck.errors import StoreError


@pytest.fixture
def store(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    store.prepare()
    return store


def put(store, toys, *keys, rows=("good", "bad")):
    for key in keys:
        store.put(key, Candidate(toys.ToyModel([1.0]), "tokenizer", toys.ToyTask(rows)), {})


def names(folder):
    return sorted(path.name for path in folder.glob("*"))


def test_it_keeps_memo_and_what_is_wanted(store, toys):
    put(store, toys, "aa", "bb", "bb-1")
    put(store, toys, "cc", rows=("x",))
    store.facts.remember("children-aa", [1])
    store.facts.keep("outputs", lambda folder: (folder / "a").write_text("a"))
    store.scratch("aa")
    store.quarantine("bb-1", "damaged")
    (store.objects / ".dd.01234567.draft").mkdir()
    collected = collect(store, {"aa"})
    assert (collected.models, collected.in_use) == (2, 0)
    assert collected.bytes > 0
    assert names(store.objects) == ["aa"]
    assert names(store.tasks) == [toys.ToyTask().fingerprint]
    for folder in ("work", "kept", "quarantine", "trash"):
        assert names(store.root / folder) == []
    assert store.facts.recall("children-aa", list) == [1]
    assert toys.store(store.root).open("aa").model == toys.ToyModel([1.0])


def test_it_leaves_the_progress_of_a_run_that_will_go_on(store, toys):
    put(store, toys, "aa", "bb")
    (store.scratch("cc") / "checkpoint").write_text("x")
    store.facts.keep("outputs", lambda folder: (folder / "a").write_text("a"))
    store.quarantine("bb", "damaged")
    store.folder.release()
    collect(store, {"aa"}, unfinished=True)
    assert names(store.work / "cc") == ["checkpoint"]
    assert names(store.root / "kept") == ["outputs"]
    assert names(store.root / "quarantine") == []
    collect(store, {"aa"})
    assert names(store.work) == names(store.root / "kept") == []


def test_it_leaves_what_a_running_process_uses(store, toys):
    """Objects and tasks that it made or looked for, kept folders, checkpoints; all goes once it is gone."""
    put(store, toys, "aa", "bb", rows=("x",))
    runner = toys.store(store.root)
    assert runner.has("aa")
    put(runner, toys, "cc")
    runner.scratch("dd")
    runner.facts.keep("outputs", lambda folder: (folder / "a").write_text("a"))
    store.folder.release()
    assert collect(toys.store(store.root)).in_use == 2
    assert names(store.objects) == ["aa", "cc"]
    assert len(names(store.tasks)) == 2
    assert names(store.root / "work") == ["dd"]
    assert names(store.root / "kept") == ["outputs"]
    runner.release("cc")
    collect(toys.store(store.root))
    assert names(store.objects) == ["cc"]
    assert toys.store(store.root).open("cc").model == toys.ToyModel([1.0])
    del runner
    collect(store)
    assert names(store.objects) == names(store.tasks) == []


def test_it_leaves_what_a_running_process_has_ordered(store, toys):
    """Another process makes the children of a step, and its own claims end before anybody opens them."""
    driver = toys.store(store.root)
    driver.claim("aa")
    put(toys.store(store.root), toys, "aa", "aa-1", "aab", "bb")
    assert collect(toys.store(store.root)).in_use == 2
    assert names(store.objects) == ["aa", "aa-1"]
    assert toys.store(store.root).open("aa-1").model == toys.ToyModel([1.0])
    driver.release("aa")
    collect(store)
    assert names(store.objects) == ["aa"]


def test_only_a_store_is_cleaned(tmp_path):
    assert collect(Store(tmp_path / "absent")) == Collected()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    before = sorted(tmp_path.rglob("*"))
    for folder in (tmp_path, tmp_path / ".git"):
        with pytest.raises(StoreError, match="is not a limbeck store"):
            collect(Store(folder))
    assert sorted(tmp_path.rglob("*")) == before
