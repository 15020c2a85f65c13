"""Reading a user's text file: a regular file of a bounded size, in UTF-8."""

from __future__ import annotations

import stat
from pathlib import Path

from limbeck.errors import InputError


def regular_file(path: Path) -> Path:
    """Return the path if it is a regular file.

    Args:
        path: The path.

    Raises:
        InputError: There is nothing, or something that is no file: a folder, a pipe or a device, which may have no end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device"}
        raise InputError(f"{path}: is {kinds.get(stat.S_IFMT(mode), 'no regular file')}; give a file")
    return path


def read_text(path: Path, most: int) -> str:
    """Read a file in UTF-8, with or without a byte-order mark.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        InputError: It is no regular file, larger than that, unreadable or not UTF-8.
    """
    size = regular_file(path).stat().st_size
    if size > most:
        raise InputError(f"{path}: has {size:,} bytes, more than the {most:,} that are read")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 (byte {error.start:,})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
