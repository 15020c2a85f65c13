"""Files that grow line by line: what was written stays when the writer is interrupted, half a line does not count."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """The lines that end; none where there is no file. Raises UnicodeDecodeError for what is not text."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1] if path.is_file() else []


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file, which is made if there is none; half a line at its end goes. On the disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write("".join(f"{line}\n" for line in lines).encode())
        stream.flush()
        os.fsync(stream.fileno())
