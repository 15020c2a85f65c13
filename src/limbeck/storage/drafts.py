"""Drafts: files and folders in the making, beside what they become. Those of killed processes are found and removed.

The process that fills a draft holds a lock on it, which the operating system releases when the process ends, however
it ends. So a draft whose lock is free is a leftover. Where a file system has no locks, leftovers stay.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from limbeck.storage.disk import disk_full, has_space

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>draft|earlier)", re.DOTALL)
_TEMPORARY = "limbeck-work-"


@contextmanager
def draft_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``final``, to be filled and renamed to it; if it is not, it is removed."""

    def create() -> Path:
        path = draft_path(final)
        path.mkdir(parents=True)
        return path

    with _owned(create) as draft:
        yield draft


@contextmanager
def draft_file(final: Path) -> Iterator[Path]:
    """Yield an empty file beside ``final``, to be written and renamed to it; if it is not, it is removed."""

    def create() -> Path:
        path = draft_path(final)
        path.touch(exist_ok=False)
        return path

    with _owned(create) as draft:
        yield draft


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder among the system's temporary ones, and remove it; first remove those that killed processes left.

    Unlike those of :class:`tempfile.TemporaryDirectory`, they do not pile up where processes are killed.
    """
    _remove_temporary(tempfile.gettempdir())
    with _owned(_create_temporary) as folder:
        try:
            yield folder
        except Exception as error:
            if disk_full(error) and not has_space(folder):  # once the folder is gone, nothing shows which disk it was
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
            raise


def keep_in(folder: Path) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return the service ``keep`` of a run without a store: it fills new folders in ``folder``."""

    def keep(name: str, build: Callable[[Path], None]) -> Path:
        inner = Path(tempfile.mkdtemp(dir=folder, prefix="kept-"))
        build(inner)
        return inner

    return keep


def process_folder() -> Path:
    """Return a new temporary folder that stays until this process ends; first remove those that killed ones left."""
    _remove_temporary(tempfile.gettempdir())
    folder, _ = _claim(_create_temporary)  # the lock goes with the process
    atexit.register(_remove_own, folder, os.getpid())
    return folder


def draft_path(final: Path, kind: str = "draft") -> Path:
    """Return a new name beside ``final`` that :func:`remove_leftovers` recognizes."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.{kind}")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the drafts in a folder whose processes are gone; put back what was moved aside and not replaced.

    Args:
        folder: Where the drafts lie; it need not exist.
        name: Only drafts of this name.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is None or name not in (None, match["name"]):
                continue
            with locked(path) as free:
                final = folder / match["name"]
                if free and match["kind"] == "earlier" and not os.path.lexists(final):
                    path.rename(final)
                elif free:
                    _remove(path)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to lock a file or folder for the body, and yield whether that worked: nobody else holds it."""
    handle: int | None = None
    with suppress(OSError):
        handle = _lock(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _owned(create: Callable[[], Path]) -> Iterator[Path]:
    """Yield what ``create`` made, locked, and remove it after the body unless it was renamed."""
    path, handle = _claim(create)
    try:
        yield path
    finally:
        _remove(path)
        if handle is not None:
            os.close(handle)


def _claim(create: Callable[[], Path]) -> tuple[Path, int | None]:
    """Create and lock; again where another process took it for a leftover before it was locked."""
    while True:
        path, handle = create(), None
        try:
            handle = _lock(path)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:  # a file system without locks
            return path, None
        if path.exists():
            return path, handle
        os.close(handle)


def _lock(path: Path) -> int:
    """Return the handle of a file or folder after locking it."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _create_temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix=_TEMPORARY))


def _remove_own(folder: Path, process: int) -> None:
    """Remove a folder at the end of the process that it belongs to, not at that of one forked from it."""
    if os.getpid() == process:
        _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@lru_cache
def _remove_temporary(folder: str) -> None:
    """Remove this user's temporary folders whose processes are gone; once per process, as that is when it starts."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            ours = re.fullmatch(_TEMPORARY + r"[a-z0-9_]{8}", entry.name) is not None
            if ours and entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                with locked(Path(entry.path)) as free:
                    if free:
                        _remove(Path(entry.path))
