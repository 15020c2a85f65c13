"""SHA-256 digests of files: what decides whether two files are the same, and whether a stored one is intact.

A digest is computed once per process as long as the file's inode, size and times stay the same. That is safe within a
process: any write through the file system sets the time of change (ctime), which no program can choose, and a file that
changed within the resolution of that clock before it was read is read again. It would not be safe in a cache on the
disk, which must also notice a disk that returns other bytes than were written.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from limbeck.errors import LimbeckError

RESOLUTION_NS = 2_000_000_000
"""The coarsest resolution of a file system's clock, in nanoseconds."""

_Signature = tuple[int, int, int, int, int]
_DIGESTS: dict[_Signature, str] = {}


class DigestMismatch(LimbeckError):
    """A file does not have the content that was recorded for it."""


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


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, by its name relative to the folder."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files_of(folder)}


def damage(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return what is wrong with the recorded files of a folder; None if they are intact. Other files do not matter.

    Args:
        folder: The folder.
        digests: SHA-256 of each file, by its name relative to the folder.
    """
    for name, digest in digests.items():
        path = folder / name
        if ".." in path.parts or not path.is_file():
            return f"{name} is missing"
        try:
            seen = file_digest(path)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if seen != digest:
            return f"{name} has other content than was written (SHA-256 {seen[:12]} instead of {digest[:12]})"
    return None


def copy_checked(source: Path, destination: Path, digest: str) -> None:
    """Copy a file, and see that the copy has the recorded content.

    Args:
        source: The file.
        destination: Path of the copy.
        digest: SHA-256 that the content must have.

    Raises:
        DigestMismatch: The content is another.
    """
    shutil.copyfile(source, destination)
    with destination.open("rb") as stream:
        seen = hashlib.file_digest(stream, "sha256").hexdigest()
    if seen != digest:
        raise DigestMismatch(f"{source} has other content than was written (SHA-256 {seen[:12]}, not {digest[:12]})")


def _signature(path: Path) -> _Signature:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
