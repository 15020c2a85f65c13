import errno
import hashlib

import pytest

from limbeck.storage.digests import DigestMismatch, copy_checked, damage, folder_digests


def write(path, blob):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


def test_a_folder_is_known_by_the_content_of_its_files(tmp_path):
    expected = {"a": write(tmp_path / "a", b"first"), "inner/b": write(tmp_path / "inner" / "b", b"second")}
    assert folder_digests(tmp_path) == expected
    assert damage(tmp_path, expected) is None
    write(tmp_path / "extra", b"no matter")
    assert damage(tmp_path, expected) is None
    write(tmp_path / "inner" / "b", b"SECOND")
    assert "inner/b has other content" in damage(tmp_path, expected)
    (tmp_path / "a").unlink()
    assert damage(tmp_path, expected) == "a is missing"
    write(tmp_path.parent / "outside", b"x")
    assert damage(tmp_path, {"../outside": "x"}) == "../outside is missing"


def test_a_copy_has_the_recorded_content(tmp_path):
    digest = write(tmp_path / "a", b"weights")
    copy_checked(tmp_path / "a", tmp_path / "b", digest)
    assert (tmp_path / "b").read_bytes() == b"weights"
    with pytest.raises(DigestMismatch, match="a has other content than was written"):
        copy_checked(tmp_path / "a", tmp_path / "b", "0" * 64)


def test_a_file_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch):
    expected = {"a": write(tmp_path / "a", b"weights")}
    (tmp_path / "b").mkdir()
    assert damage(tmp_path, {**expected, "b": "x"}) == "b is missing"

    def refuse(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("limbeck.storage.digests.file_digest", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        damage(tmp_path, expected)
