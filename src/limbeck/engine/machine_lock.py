"""Who may use a machine: work shares it, and a measurement has it alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from limbeck.storage.shared_lock import SharedLock


class MachineLock:
    """The lock of this machine in a store, which several machines may share.

    A thread that works may need a measurement, or wait for another lock whose holder does. It rests for that long, or
    both would wait for each other.
    """

    def __init__(self, locks: Path, notify: Callable[[str], None]) -> None:
        """Name the lock by the machine.

        Args:
            locks: Folder of the store's locks.
            notify: Receives a message before a wait.
        """
        host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())
        self._lock, self._notify = SharedLock(locks / f"machine-{host}.lock"), notify
        self._held = threading.local()

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
            yield

    @property
    def _stack(self) -> ExitStack | None:
        stack: ExitStack | None = getattr(self._held, "stack", None)
        return stack

    def _take(self) -> None:
        stack = ExitStack()
        stack.enter_context(self._lock.shared(lambda: self._notify("waiting for a measurement on this machine")))
        self._held.stack = stack

    def _drop(self) -> None:
        stack, self._held.stack = self._held.stack, None
        stack.close()
