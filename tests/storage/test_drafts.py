"""What a killed process leaves is removed; what a living one is writing stays."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from limbeck.storage import drafts
from limbeck.storage.drafts import (
    draft_file,
    draft_folder,
    draft_path,
    keep_in,
    locked,
    process_folder,
    remove_leftovers,
    temporary_folder,
)

WRITER = """
import sys
from pathlib import Path
from limbeck.storage.drafts import draft_file, draft_folder, temporary_folder
out = Path(sys.argv[1])
with draft_folder(out / "model") as folder, draft_file(out / "front.csv") as file, temporary_folder() as work:
    (folder / "weights").write_text("half")
    (work / "weights").write_text("half")
    print(work, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of its drafts, and its temporary folder."""
    tmp_path.joinpath("tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_drafts_stay_while_their_process_lives_and_go_after_it(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = names(tmp_path)
    assert len(before) == 3
    for kill in (False, True):
        if kill:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        remove_leftovers(tmp_path)
        drafts._remove_temporary.cache_clear()
        with temporary_folder() as folder:
            assert len(names(tmp_path / "tmp")) == (1 if kill else 2)
        assert not folder.exists()
        assert names(tmp_path) == (["tmp"] if kill else before)


def test_drafts_of_one_name_alone(tmp_path):
    for name in ("a", "ab", "*"):
        draft_path(tmp_path / name).mkdir()
    remove_leftovers(tmp_path, "a")
    remove_leftovers(tmp_path, "*")
    assert [path.split(".")[1] for path in names(tmp_path)] == ["ab"]
    remove_leftovers(tmp_path / "absent")


def test_files_of_others_stay(tmp_path):
    for name in (".gitignore", ".a.draft", "a.01234567.draft", ".a.0123456x.draft", ".a.01234567.draft.txt"):
        (tmp_path / name).write_text("precious")
    before = names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == before


@pytest.mark.parametrize("replaced", [True, False])
def test_what_was_moved_aside_comes_back_unless_it_was_replaced(tmp_path, replaced):
    aside = draft_path(tmp_path / "out", "earlier")
    aside.mkdir()
    (aside / "old").write_text("old")
    if replaced:
        (tmp_path / "out").mkdir()
    with locked(aside):
        remove_leftovers(tmp_path)
    assert aside.exists()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ([] if replaced else ["old"])


def test_a_draft_becomes_what_it_is_renamed_to(tmp_path):
    with draft_folder(tmp_path / "deep" / "a") as draft:
        assert list(draft.iterdir()) == []
        draft.rename(tmp_path / "deep" / "a")
    with draft_file(tmp_path / "b") as draft:
        draft.write_text("b")
        draft.rename(tmp_path / "b")
    with draft_folder(tmp_path / "c"), draft_file(tmp_path / "d"):
        pass
    assert names(tmp_path) == ["b", "deep"]
    assert names(tmp_path / "deep") == ["a"]


def test_a_draft_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, taken = drafts._lock, []

    def lock(path):
        if not taken:
            taken.append(path)
            path.rmdir()
        return real(path)

    monkeypatch.setattr(drafts, "_lock", lock)
    with draft_folder(tmp_path / "a") as draft:
        assert draft.is_dir()
        assert draft != taken[0]


def test_without_locks_drafts_work_and_leftovers_stay(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    leftover = draft_path(tmp_path / "a")
    leftover.mkdir()
    monkeypatch.setattr(drafts.fcntl, "flock", refuse)
    with draft_folder(tmp_path / "b") as draft:
        draft.rename(tmp_path / "b")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [leftover.name, "b"]


def test_a_full_temporary_disk_is_named(monkeypatch):
    monkeypatch.setattr(drafts, "has_space", lambda folder: False)
    with pytest.raises(OSError, match="No space left") as caught, temporary_folder() as folder:
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert caught.value.filename == str(folder)
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), temporary_folder():
        raise ZeroDivisionError


HOLDER = """
import os, sys
from limbeck.storage.drafts import process_folder
folder = process_folder()
(folder / "model").write_text("weights")
if not (child := os.fork()):
    sys.exit()
os.waitpid(child, 0)
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_the_folder_of_a_process_goes_with_it(tmp_path, monkeypatch, killed):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, text=True, **pipes)
    folder = tmp_path / os.path.basename(holder.stdout.readline().strip())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    drafts._remove_temporary.cache_clear()
    own = process_folder()
    assert names(folder) == ["model"]
    if killed:
        holder.kill()
    holder.communicate()
    assert folder.exists() == killed
    drafts._remove_temporary.cache_clear()
    with temporary_folder() as other:
        assert names(tmp_path) == sorted([own.name, other.name])


def test_a_kept_folder_is_filled(tmp_path):
    keep = keep_in(tmp_path)
    folders = [keep("../a" * 100, lambda folder: (folder / "array").write_text("1")) for _ in range(2)]
    assert [names(folder) for folder in folders] == [["array"]] * 2
    assert {folder.parent for folder in folders} == {tmp_path}
