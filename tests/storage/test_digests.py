import hashlib
import os
import time

import pytest

from limbeck.storage import digests
from limbeck.storage.digests import DigestMismatch, copy_checked, damage, file_digest, folder_digests


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


def test_a_file_is_read_once_while_nobody_writes_to_it(tmp_path, monkeypatch):
    path, reads = tmp_path / "weights", []
    digest = write(path, b"weights")
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: reads.append(1) or real(*args))
    now = time.time_ns()
    assert [file_digest(path), file_digest(path)] == [digest, digest]
    assert len(reads) == 2  # it is so new that a write might not change its times
    monkeypatch.setattr(time, "time_ns", lambda: now + 10 * digests.RESOLUTION_NS)
    assert [file_digest(path), file_digest(path)] == [digest, digest]
    assert len(reads) == 3
    path.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved", ns=(1, 1))
    assert file_digest(tmp_path / "moved") == digest
    changed = write(tmp_path / "moved", b"WEIGHTS")
    os.utime(tmp_path / "moved", ns=(1, 1))
    assert file_digest(tmp_path / "moved") == changed


def test_a_copy_has_the_recorded_content(tmp_path):
    digest = write(tmp_path / "a", b"weights")
    copy_checked(tmp_path / "a", tmp_path / "b", digest)
    assert (tmp_path / "b").read_bytes() == b"weights"
    with pytest.raises(DigestMismatch, match="a has other content than was written"):
        copy_checked(tmp_path / "a", tmp_path / "b", "0" * 64)
