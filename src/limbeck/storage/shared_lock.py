"""A lock that many may share or one may have alone, between processes; whoever waits to be alone is let in next.

The operating system releases it when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class SharedLock:
    """A lock on a file, which is made when it is first needed."""

    def __init__(self, path: Path) -> None:
        """Name the lock.

        Args:
            path: File of the lock. Beside it stands one for those that wait, so that no new sharer passes one that
                waits to be alone.
        """
        self._room, self._door = path, path.with_name(f"{path.stem}-door{path.suffix}")

    @contextmanager
    def shared(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock together with others.

        Args:
            waiting: Called before a wait.
        """
        with _locked(self._door, fcntl.LOCK_EX, waiting):
            room = _open(self._room, fcntl.LOCK_SH, waiting)
        try:
            yield
        finally:
            os.close(room)

    @contextmanager
    def alone(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock alone, once those that share it have released it.

        Args:
            waiting: Called before a wait.
        """
        with _locked(self._door, fcntl.LOCK_EX, waiting), _locked(self._room, fcntl.LOCK_EX, waiting):
            yield


@contextmanager
def _locked(path: Path, mode: int, waiting: Callable[[], None]) -> Iterator[None]:
    descriptor = _open(path, mode, waiting)
    try:
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, mode: int, waiting: Callable[[], None]) -> int:
    """Open and lock a file; closing the descriptor releases the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
