"""Recorded SHA-256 digests: whether stored files are intact, at opening and at copying."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from limbeck.core.digests import file_digest, files_of
from limbeck.errors import LimbeckError
from limbeck.storage.machine_errors import MISSING


class DigestMismatch(LimbeckError):
    """A file does not have the content that was recorded for it."""


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, by its name relative to the folder."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files_of(folder)}


def damage(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return what is wrong with the recorded files of a folder; None if they are intact. Other files do not matter.

    Args:
        folder: The folder.
        digests: SHA-256 of each file, by its name relative to the folder.

    Raises:
        OSError: A file is there and cannot be read now; it may be intact.
    """
    for name, digest in digests.items():
        path = folder / name
        if ".." in path.parts:
            return f"{name} is missing"
        try:
            seen = file_digest(path)
        except MISSING:
            return f"{name} is missing"
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
