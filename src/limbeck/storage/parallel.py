"""Long work in chunks: done in other processes, kept on disk as it is done, found again after an interruption."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from limbeck.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")


def chunked(count: int, size: int) -> list[range]:
    """The numbers below ``count`` in chunks.

    >>> chunked(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 1) -> Iterator[Result]:
    """The results of all jobs, in their order; with several workers in fresh processes, a few jobs ahead."""
    with worker_pool(workers) as each:
        yield from each(work, jobs)


@contextmanager
def worker_pool(workers: int = 1) -> Iterator[Callable[[Callable[[Job], Result], Iterable[Job]], Iterator[Result]]]:
    """What does jobs as :func:`in_order` does, again and again, with processes that stay for the whole body."""
    if workers == 1:
        yield map
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # spawn: a forked torch may hang
    pool = ProcessPoolExecutor(workers, mp_context=WorkerContext(), initializer=_initialize_worker)

    def each(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                f"one of {workers} worker processes ended before its work was done; memory may have run out: use fewer"
            ) from None

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


class WorkerProcess(SpawnProcess):
    """A fresh process that does not import the program that starts it.

    A process of :mod:`multiprocessing` runs the caller's script again, without a main guard all of it. Workers do jobs
    of this package alone, so they need nothing of the script; and a script from standard input, which a process cannot
    read again, starts workers as any other.
    """

    def start(self) -> None:
        """Start the process while ``__main__`` does not say which file it came from."""
        with without_main():
            super().start()


class WorkerContext(SpawnContext):
    """A multiprocessing context whose processes are :class:`WorkerProcess`."""

    Process: ClassVar[type[WorkerProcess]] = WorkerProcess  # type: ignore[assignment]


_MAIN_LOCK = threading.Lock()


@contextmanager
def without_main() -> Iterator[None]:
    """Take ``__spec__`` and ``__file__``, by which a new process finds the main module, away from it for a moment."""
    main = sys.modules["__main__"].__dict__
    with _MAIN_LOCK:
        hidden: dict[str, object] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
        main["__spec__"] = None
        try:
            yield
        finally:
            del main["__spec__"]
            main.update(hidden)


def _initialize_worker() -> None:
    """Leave interruptions to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent is gone: one that is killed cannot end its workers, which would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """One JSON value a line; the file appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_lines(path: Path) -> list[Any]:
    """What :func:`write_lines` wrote."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def kept_lines(path: Path, build: Callable[[], Sequence[Any]]) -> list[Any]:
    """The lines of a file, which ``build`` makes unless it is there."""
    if not path.is_file():
        write_lines(path, build())
    return read_lines(path)
