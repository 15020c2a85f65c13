"""The store keeps whole objects or none, and says what is wrong with the disk."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from limbeck.core.candidate import Candidate
from limbeck.engine.store import Store, default_root, fingerprint
from limbeck.errors import StoreError


@pytest.fixture
def store(toys, tmp_path):
    made = toys.store(tmp_path / "store")
    made.prepare()
    return made


def candidate(toys, *weights):
    return Candidate(toys.ToyModel(list(weights)), "tokenizer", toys.ToyTask())


def test_put_and_open(store, toys):
    store.put("abc", candidate(toys, 1.0), {"seed": 3})
    opened = store.open("abc")
    assert opened.model == toys.ToyModel([1.0])
    assert opened.task == toys.ToyTask()
    assert opened.folder == store.objects / "abc"
    assert store.card("abc")["seed"] == 3
    assert store.has("abc")
    assert not store.has("abd")
    again = toys.store(store.root)
    assert again.open("abc").task == toys.ToyTask()


def test_the_weights_on_the_way_are_kept_with_the_object(store, toys, tmp_path):
    paths = tuple(tmp_path / f"epoch_{number:03}.safetensors" for number in range(2))
    for number, path in enumerate(paths):
        path.write_text(str(number))
    store.put("a", replace(candidate(toys, 1.0), epoch_checkpoints=paths), {})
    for path in paths:
        path.unlink()
    opened = store.open("a").epoch_checkpoints
    assert [path.read_text() for path in opened] == ["0", "1"]
    assert all(store.objects / "a" in path.parents for path in opened)
    opened[0].unlink()
    assert not store.has("a")  # damaged: it is put aside, and made again


def test_equal_tasks_are_kept_once(store, toys):
    store.put("a", candidate(toys, 1.0), {})
    store.put("b", candidate(toys, 2.0), {})
    assert [path.name for path in store.tasks.iterdir()] == [toys.ToyTask().fingerprint]


def test_the_history_of_a_task_is_read_without_its_rows(store, toys):
    store.put("a", candidate(toys, 1.0), {})
    assert store.task_history("a") == []
    head = store.tasks / toys.ToyTask().fingerprint / "task.json"
    head.write_text(json.dumps({"history": [{"title": "More"}]}))
    assert store.task_history("a") == [{"title": "More"}]
    head.write_text("{")
    assert store.task_history("a") == store.task_history("nothing") == []


def test_an_interrupted_write_leaves_nothing(store, toys, monkeypatch):
    def stop(model, tokenizer, folder):
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        store.put("abc", candidate(toys, 1.0), {})
    assert list(store.objects.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left (os error 28)")]
)
def test_a_full_disk(store, toys, monkeypatch, error):
    def full(model, tokenizer, folder):
        raise error

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(StoreError, match=r"is full; free some space .* what is finished is kept"):
        store.put("abc", candidate(toys, 1.0), {})
    assert list(store.objects.iterdir()) == []


def test_a_full_disk_while_remembering(store, monkeypatch):
    store.remember("name", 1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full"):
        store.remember("name", 2)
    with pytest.raises(StoreError, match="is full"):
        store.memo("arrays", lambda: {"a": np.ones(2)})
    assert store.recall("name") == 1


def test_a_store_that_cannot_be_written(toys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write in the store .*LIMBECK_STORE"):
        toys.store(tmp_path / "file").prepare()

    def refuse(self, *args, **more):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StoreError, match="Read-only file system"):
        toys.store(tmp_path / "store").prepare()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json has 1 bytes instead of"),
        (lambda folder: (folder / "card.json").write_text("{"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").write_text("[]"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").unlink(), "card.json cannot be read"),
    ],
)
def test_a_damaged_object_is_put_aside(store, toys, harm, said):
    heard = []
    store.notify = heard.append
    store.put("abc", candidate(toys, 1.0), {})
    harm(store.objects / "abc")
    with pytest.raises(StoreError, match=r"object abc in .* is damaged"):
        store.open("abc")
    assert not store.has("abc")
    assert said in heard[0]
    assert len(list((store.root / "quarantine").iterdir())) == 1
    store.put("abc", candidate(toys, 1.0), {})
    assert store.has("abc")


def test_small_results(store):
    assert store.recall("x") is None
    store.remember("a/b: c", {"v": 1})
    store.remember("a/b; c", {"v": 2})
    assert store.recall("a/b: c") == {"v": 1}
    assert store.recall("a/b; c") == {"v": 2}
    store.remember("children-1", [1])
    store.remember("children-2", [2])
    assert list(store.memories("children-")) == [[1], [2]]
    heard = []
    store.notify = heard.append
    (store.root / "memo" / "children-1.json").write_text("{")
    assert store.recall("children-1") is None
    assert "damaged" in heard[0]


def test_arrays_are_computed_once(store):
    calls = []

    def build():
        calls.append(1)
        return {"logits": np.arange(3.0), "names": np.array(["a", "bc"]), "n": 3}

    for _ in range(2):
        found = store.memo("teacher/logits", build)
        assert found["logits"].tolist() == [0, 1, 2]
        assert int(found["n"]) == 3
    assert len(calls) == 1
    (path,) = (store.root / "memo").glob("*.npz")
    path.write_bytes(b"damaged")
    assert store.memo("teacher/logits", build)["names"].tolist() == ["a", "bc"]
    assert len(calls) == 2
    with pytest.raises(TypeError, match="odd would have to be pickled"):
        store.memo("objects", lambda: {"odd": np.array([{}, None])})


def test_a_folder_is_kept_whole_or_made_again(store):
    calls, heard = [], []
    store.notify = heard.append

    def build(folder):
        calls.append(1)
        (folder / "a.txt").write_text("outputs")

    for _ in range(2):
        assert (store.keep("teacher/outputs", build) / "a.txt").read_text() == "outputs"
    assert len(calls) == 1
    (store.keep("teacher/outputs", build) / "a.txt").write_text("torn")
    assert (store.keep("teacher/outputs", build) / "a.txt").read_text() == "outputs"
    assert len(calls) == 2
    assert "damaged" in heard[-1]
    with pytest.raises(ZeroDivisionError):
        store.keep("broken", lambda folder: 1 / 0)
    assert len(list((store.root / "kept").iterdir())) == 1
    store.gc(())
    assert not list((store.root / "kept").iterdir())


def test_gc_keeps_memo_and_what_is_wanted(store, toys):
    for key in ("aa", "bb", "bb-1"):
        store.put(key, candidate(toys, 1.0), {})
    other = Candidate(toys.ToyModel([1.0]), "t", toys.ToyTask(("x",)))
    store.put("cc", other, {})
    store.remember("children-aa", [1])
    store.scratch("aa")
    (store.objects / ".dd.1234").mkdir()
    removed, freed = store.gc(keep={"aa"})
    assert removed == 3
    assert freed > 0
    assert [path.name for path in store.objects.iterdir()] == ["aa"]
    assert [path.name for path in store.tasks.iterdir()] == [toys.ToyTask().fingerprint]
    assert store.recall("children-aa") == [1]
    assert Store(store.root / "absent").gc(()) == (0, 0)


def test_gc_leaves_what_another_run_is_making(store, toys):
    (store.objects / ".dd.1234").mkdir()
    with toys.store(store.root).lock("dd"):
        store.gc(())
    assert (store.objects / ".dd.1234").is_dir()


def test_a_lock_waits_and_says_so(store, toys):
    heard, order = [], []
    other = toys.store(store.root)
    other.notify = heard.append

    def second():
        with other.lock("k"):
            order.append("second")

    with store.lock("k"):
        thread = threading.Thread(target=second)
        thread.start()
        while not heard:
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert heard == ["waiting for another run that is making k"]


def test_scratch_stays_until_done(store):
    folder = store.scratch("k")
    (folder / "state").write_text("1")
    assert (store.scratch("k") / "state").exists()
    store.done("k")
    assert not folder.exists()


def test_fingerprint_follows_the_content(store, toys, tmp_path):
    first = toys.model_folder(tmp_path / "a")
    same = toys.model_folder(tmp_path / "b")
    other = toys.model_folder(tmp_path / "c", [5.0])
    big = tmp_path / "a" / "model.safetensors"
    assert fingerprint(first, store) == fingerprint(same, store) != fingerprint(other, store)
    big.write_bytes(b"0" * (2 << 20))
    before = fingerprint(first, store)
    assert fingerprint(first, store) == before
    big.write_bytes(b"1" * (2 << 20))
    os.utime(big, ns=(1, 1))
    assert fingerprint(first, store) != before
    assert fingerprint("some/hub-name", store) == "name:some/hub-name"


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("LIMBECK_STORE")
    assert default_root().name == "limbeck"


def test_the_card_lists_the_files(store, toys):
    store.put("abc", candidate(toys, 1.0), {})
    card = json.loads((store.objects / "abc" / "card.json").read_text())
    assert card["files"] == {"config.json": (store.objects / "abc" / "config.json").stat().st_size}
    assert store.bytes_of("abc") > 0
    assert store.bytes_of("absent") is None


def test_fingerprint_follows_the_external_data_of_an_onnx_file(store, toys, tmp_path):
    folder = Path(toys.model_folder(tmp_path / "a"))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    seen = set()
    for content in (b"weights", b"other weights"):
        (folder / "onnx" / "model.onnx_data").write_bytes(content)
        seen.add(fingerprint(folder, store))
    assert len(seen) == 2
