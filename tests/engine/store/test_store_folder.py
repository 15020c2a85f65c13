"""Whose folder it is, who holds what in it, and what the disk says."""

from __future__ import annotations

import errno
import gc
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from limbeck.engine.store.store import Store
from limbeck.engine.store.store_folder import MARK, StoreFolder
from limbeck.errors import StoreError


@pytest.fixture
def store(toys, tmp_path):
    store = toys.store(tmp_path / "store")
    store.prepare()
    return store


def test_a_store_is_marked(store):
    assert json.loads((store.root / MARK).read_text()) == {"limbeck store": 1}
    store.folder.check_store()


def test_a_store_from_before_stores_were_marked_is_known_by_its_layout(store):
    (store.objects / "0123456789abcdef-2").mkdir()
    (store.root / MARK).unlink()
    StoreFolder(store.root).check_store()
    assert (store.root / MARK).is_file()


@pytest.mark.parametrize("content", ["objects/pack/x", "objects/0a/b", "tasks/todo.txt", "memo/thoughts.txt"])
def test_a_folder_of_somebody_else_is_neither_used_nor_cleaned(tmp_path, content):
    for name in ("objects", "tasks", "memo", "locks"):
        (tmp_path / name).mkdir()
    path = tmp_path / content
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    for refuse in (StoreFolder(tmp_path).check_store, StoreFolder(tmp_path).prepare):
        with pytest.raises(StoreError, match="is not a limbeck store"):
            refuse()
    assert path.read_text() == "precious"
    assert not (tmp_path / MARK).exists()


def test_a_repository_is_no_store(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="no folder 'tasks'; nothing was removed"):
        StoreFolder(tmp_path / ".git").check_store()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write in the store .*LIMBECK_STORE"):
        Store(tmp_path / "file").prepare()

    def refuse(self, *args, **more):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(StoreError, match="Read-only file system"):
        Store(tmp_path / "store").prepare()


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


CLAIM = """
import sys
from pathlib import Path
from limbeck.engine.store.store_folder import StoreFolder
folder = StoreFolder(Path(sys.argv[1]))
folder.claim(folder.root / "objects" / "aa")
print("claimed", flush=True)
sys.stdin.read()
"""


def claims(folder):
    with folder.lock("claims"):
        return folder.claims_of_others()


def test_claims_of_living_processes_count(store):
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIM, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "claimed\n"
    store.folder.claim(store.objects / "bb")
    assert claims(store.folder) == {"objects/aa"}
    assert claims(StoreFolder(store.root)) == {"objects/aa", "objects/bb"}
    child.kill()
    child.communicate()
    assert claims(store.folder) == set()


def test_claims_are_given_up(store):
    other = StoreFolder(store.root)
    store.folder.claim(store.objects / "aa", store.objects / "bb")
    store.folder.release(store.objects / "bb", store.objects / "cc")
    assert claims(other) == {"objects/bb"}
    store.folder.claim(store.objects / "aa")
    assert claims(other) == {"objects/aa", "objects/bb"}
    store.folder.claim(store.objects / "dd*")  # all children of a step
    store.folder.release(store.objects / "dd-1", store.objects / "dde")
    assert claims(other) == {"objects/dd-1"}


def test_claims_end_with_the_store_in_memory(toys, tmp_path):
    store = toys.store(tmp_path)
    store.prepare()
    store.folder.claim(store.objects / "aa")
    other = StoreFolder(store.root)
    assert claims(other) == {"objects/aa"}
    del store
    assert claims(other) == set()


def test_a_store_that_is_only_read_is_not_made(tmp_path):
    folder = StoreFolder(tmp_path / "absent")
    folder.claim(folder.root / "objects" / "aa")
    assert not folder.root.exists()


def test_leftovers_of_killed_processes_are_removed(store):
    drafts = [store.objects / ".aa.01234567.draft", store.tasks / ".bb.01234567.draft", store.root / "trash" / "cc"]
    for path in drafts:
        path.mkdir(parents=True)
        (path / "weights").write_text("half")
    (store.root / "memo" / ".n.json.01234567.draft").write_text("{")
    store.prepare()
    assert not [path for path in drafts if path.exists()]
    assert not list((store.root / "memo").iterdir())


def test_a_token_stays_while_its_process_lives(tmp_path):
    folder = StoreFolder(tmp_path)
    folder.prepare()
    name = folder.token()
    StoreFolder(tmp_path).prepare()
    assert (tmp_path / "locks" / name).is_file()
    folder.remove_token(name)
    assert not (tmp_path / "locks" / name).exists()
    lost = StoreFolder(tmp_path)
    name = lost.token()
    del lost
    gc.collect()  # as when a process is killed: nobody holds its lock
    StoreFolder(tmp_path).prepare()
    assert not (tmp_path / "locks" / name).exists()
