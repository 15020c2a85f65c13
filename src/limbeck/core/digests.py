"""SHA-256 digests of files, which decide whether two files are the same: never their paths, sizes or times.

A digest is computed once per process as long as the file's inode, size and times stay the same. That is safe within a
process: any write through the file system sets the time of change (ctime), which no program can choose, and a file that
changed within the resolution of that clock before it was read is read again. It would not be safe in an
on-disk cache, which must also detect a disk that returns bytes other than those written.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from limbeck.core.paths import exists, user_path

RESOLUTION_NS = 2_000_000_000
"""The coarsest resolution of a file system's clock, in nanoseconds."""

_Signature = tuple[int, int, int, int, int]
_DIGESTS: dict[_Signature, str] = {}


def files_of(folder: Path) -> list[Path]:
    """Return all files below a folder, in order; a file is its own only one."""
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_file())


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    before = _signature(path)
    if before in _DIGESTS:
        return _DIGESTS[before]
    started = time.time_ns()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if _signature(path) == before and max(before[-2:]) + RESOLUTION_NS < started:
        _DIGESTS[before] = digest
    return digest


def short_digest(path: Path) -> str:
    """Return the part of a file's digest that enters cache keys."""
    return file_digest(path)[:16]


def _signature(path: Path) -> _Signature:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content(value: Any) -> Any:  # a JSON value
    """Replace the files and folders that ``value`` names by digests; other names stand for themselves."""
    if isinstance(value, list):
        return [content(entry) for entry in value]
    path = user_path(value) if isinstance(value, str) else None
    if path is None or not exists(path):
        return value
    if path.is_dir():
        return [[file.relative_to(path).as_posix(), short_digest(file)] for file in files_of(path)]
    return short_digest(path) if path.is_file() else value
