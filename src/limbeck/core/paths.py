"""Paths as users write them: expand the home directory, and treat malformed paths as absent."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` replaced; it stays where there is no such home directory, as in some containers."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def exists(path: Path) -> bool:
    """Return whether there is something at the path; a path that no file can have (too long, a zero byte) has not."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_path(source: str) -> bool:
    """Tell whether this can only be a path: a hub name is 'name' or 'owner/name', and no local folder is the owner."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        return True
    return "/" in source and Path(source).parent.is_dir()


def default_root() -> Path:
    """Return where finished work is kept: ``LIMBECK_STORE``, else a folder in the user's cache."""
    return Path(os.environ.get("LIMBECK_STORE") or cache_folder() / "limbeck")


def cache_folder() -> Path:
    """Return the user's folder for caches; without a home directory, a folder of this user among temporary files."""
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:  # others could have put anything there
        return Path(tempfile.mkdtemp(prefix="cache-"))
    return folder


def fill_temporary(name: str, build: Callable[[Path], None]) -> Path:
    """Return a temporary folder that ``build`` has filled: what ``RunContext.keep`` does without a store."""
    folder = Path(tempfile.mkdtemp(prefix="limbeck-"))
    build(folder)
    return folder
