import hashlib
import os
import time

from limbeck.core import digests
from limbeck.core.digests import content, file_digest


def write(path, blob):
    path.write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


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


def test_a_file_of_a_step_counts_by_its_content_alone(tmp_path):
    """Also where size and time stay, as in a file that was copied with its times."""
    path = tmp_path / "profile.jsonl"
    first = write(path, b"first")
    os.utime(path, ns=(1, 1))
    assert content([str(path), "a name"]) == [first[:16], "a name"]
    second = write(path, b"other")
    os.utime(path, ns=(1, 1))
    assert content(str(path)) == second[:16]
    assert content(str(tmp_path)) == [["profile.jsonl", second[:16]]]
