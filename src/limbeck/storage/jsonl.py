"""Files that grow line by line. Complete lines survive an interrupted writer; an incomplete last line is ignored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a file; an empty list if the file does not exist.

    Args:
        path: The file.

    Raises:
        UnicodeDecodeError: The file is not UTF-8 text.
    """
    return path.read_bytes().decode("utf-8").split("\n")[:-1] if path.is_file() else []


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines to a file and flush them to disk; create the file if needed, drop an incomplete last line first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write("".join(f"{line}\n" for line in lines).encode())
        stream.flush()
        os.fsync(stream.fileno())
