"""Folders for results: refused before work starts, written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from limbeck.errors import InputError, LimbeckError
from limbeck.storage import destination
from limbeck.storage.destination import check_destination, check_outside, whole_folder, writing
from limbeck.storage.drafts import draft_path


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    check_destination(tmp_path / "new" / "inner")
    check_destination(tmp_path, within=True)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_and_holds_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--to .*is a file"):
        check_destination(tmp_path / "file", "--to")
    with pytest.raises(InputError, match="file is a file; name another"):
        check_destination(tmp_path / "file" / "inner" / "deep")


def test_a_disk_that_takes_nothing_is_refused(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"the disk is full .*MB are free"):
        check_destination(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        check_destination(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_mount_point_cannot_be_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    check_destination(tmp_path, within=True)
    with pytest.raises(InputError, match="name a folder inside it"):
        check_destination(tmp_path)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_folder_appears_whole(tmp_path, earlier):
    out = tmp_path / "deep" / "out"
    if earlier:
        out.mkdir(parents=True)
        (out / "old").write_text("old")
    with whole_folder(out) as draft:
        (draft / "new").write_text("new")
        assert not (out / "new").exists()
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_failure_leaves_what_was_there(tmp_path, error):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")

    def fill():
        with whole_folder(out) as draft:
            (draft / "model.safetensors").write_text("half")
            raise error

    with pytest.raises(LimbeckError, match=r"--out .*could not be written: the disk is full"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_the_earlier_folder_comes_back_when_the_last_step_fails(tmp_path, monkeypatch):
    out, replace = tmp_path / "out", os.replace
    out.mkdir()
    (out / "old").write_text("old")

    def fails(source, target):
        if Path(target) == out and not str(source).endswith(".earlier"):
            raise OSError(errno.EBUSY, "busy")
        replace(source, target)

    monkeypatch.setattr(destination.os, "replace", fails)
    with pytest.raises(LimbeckError, match="busy"), whole_folder(out) as draft:
        (draft / "new").write_text("new")
    assert (out / "old").read_text() == "old"


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), writing(Path("x")):
        raise ZeroDivisionError


def test_what_killed_processes_left_is_removed_before_work_starts(tmp_path):
    for name in ("out", "limbeck-probe"):
        draft_path(tmp_path / name).mkdir()
    other = draft_path(tmp_path / "other")
    other.mkdir()
    check_destination(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(("name", "reason"), [("a\0b", "null"), ("y" * 300, "too long"), ("z/" * 3000, "too long")])
def test_what_can_be_no_path_is_refused_in_few_words(tmp_path, name, reason):
    for check in (check_destination, lambda path: check_outside(path, [tmp_path])):
        with pytest.raises(InputError, match=f"--out .* can be no folder: .*{reason}") as caught:
            check(tmp_path / name)
        assert len(str(caught.value)) < 300
