"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.storage.drafts import draft_file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft to write; when the body succeeds the draft replaces ``path`` in one step.

    If the body fails, the draft is removed and ``path`` is left as it was.
    """
    with draft_file(path) as draft:
        yield draft
        os.replace(draft, path)


def sync(path: Path) -> None:
    """Push a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
