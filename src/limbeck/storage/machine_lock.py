"""Who may use a machine: work shares it, and a measurement has it alone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from limbeck.storage.shared_lock import SharedLock


class Use(NamedTuple):
    """A time in which a process worked or measured on a machine.

    Attributes:
        kind: What it did.
        host: Name of the machine.
        process: Number of the process.
        began: Seconds since the epoch.
        ended: Seconds since the epoch.
    """

    kind: Literal["work", "measure"]
    host: str
    process: int
    began: float
    ended: float


class MachineLock:
    """The lock of this machine in a store, which several machines may share.

    A thread that works may need a measurement, or wait for another lock whose holder does. It rests for that long, or
    both would wait for each other.
    """

    def __init__(self, locks: Path, notify: Callable[[str], None]) -> None:
        """Name the lock by the machine.

        ``used`` may be set to what receives each use when it has ended.

        Args:
            locks: Folder of the store's locks.
            notify: Receives a message before a wait.
        """
        self._host = socket.gethostname()
        host = "".join(letter if letter.isalnum() else "-" for letter in self._host)
        self._lock, self._notify = SharedLock(locks / f"machine-{host}.lock"), notify
        self._held = threading.local()
        self.used: Callable[[Use], None] = lambda use: None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Share the machine with other work; nothing is measured meanwhile."""
        if self._stack is not None:
            yield
            return
        self._take()
        try:
            yield
        finally:
            self._drop()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let others measure while this thread, which may be working, waits or measures itself."""
        if self._stack is None:
            yield
            return
        self._drop()
        try:
            yield
        finally:
            self._take()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the machine alone, for a measurement. Taken last, with no other lock inside."""
        with self.resting(), self._lock.alone(lambda: self._notify("waiting until nothing else works on this machine")):
            began = time.time()
            try:
                yield
            finally:
                self.used(Use("measure", self._host, os.getpid(), began, time.time()))

    @property
    def _stack(self) -> ExitStack | None:
        stack: ExitStack | None = getattr(self._held, "stack", None)
        return stack

    def _take(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._lock.shared(lambda: self._notify("waiting for a measurement on this machine")))
        self._held.stack, self._held.began = stack, time.time()

    def _drop(self) -> None:
        """Release the lock, unless a wait for it after a rest was interrupted."""
        stack, self._held.stack = self._stack, None
        if stack is None:
            return
        self.used(Use("work", self._host, os.getpid(), self._held.began, time.time()))
        stack.close()
