"""Long work in chunks: spread over processes, saved to disk as it progresses, resumed after an interruption."""

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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from limbeck.errors import InputError
from limbeck.storage.atomic import replacing

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Job = TypeVar("Job")
Result = TypeVar("Result")


def chunked(count: int, size: int) -> list[range]:
    """Split ``range(count)`` into consecutive ranges of at most ``size``.

    >>> chunked(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class OrderedMap(Protocol):
    """``map`` with results in the order of the jobs, whichever process works on them."""

    def __call__(self, work: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterator[Result]:
        """Yield the result of every job."""
        ...


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 1) -> Iterator[Result]:
    """Yield the results of all jobs, in order.

    Args:
        work: Function of one job; importable by name, as it may run in another process.
        jobs: Read as needed, a few ahead of the results.
        workers: Fresh processes to spread the jobs over; 1 works in this process.

    Raises:
        InputError: A worker process died.
    """
    with worker_pool(workers) as each:
        yield from each(work, jobs)


@contextmanager
def worker_pool(workers: int = 1) -> Iterator[OrderedMap]:
    """Yield a function like :func:`in_order` whose processes stay alive for the whole body."""
    if workers == 1:
        yield map
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # spawn, because torch may hang in a forked process
    pool = ProcessPoolExecutor(workers, mp_context=WorkerContext(), initializer=initialize_worker)

    def each(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        try:
            yield from submitted(pool, work, jobs, 2 * workers)
        except BrokenProcessPool:
            raise InputError(
                f"one of {workers} worker processes ended before its work was done; memory may have run out: use fewer"
            ) from None

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def submitted(pool: Executor, work: Callable[[Job], Result], jobs: Iterable[Job], ahead: int) -> Iterator[Result]:
    """Yield the results of a pool's workers in the order of the jobs.

    Args:
        pool: Threads or processes.
        work: Function of one job.
        jobs: Read as needed.
        ahead: The most jobs that are submitted and whose results are not read yet.
    """
    waiting: deque[Future[Result]] = deque()
    for job in jobs:
        waiting.append(pool.submit(work, job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class WorkerProcess(SpawnProcess):
    """A fresh process that does not import the script that starts it.

    A process of :mod:`multiprocessing` imports the caller's script again, all of it if there is no main guard. Our
    workers run functions of this package only and need nothing from the script. So a script without a main guard, or
    one read from standard input, which cannot be read twice, can start workers too.
    """

    def start(self) -> None:
        """Start the process while ``__main__`` hides which file it came from."""
        with without_main():
            super().start()


class WorkerContext(SpawnContext):
    """A multiprocessing context whose processes are :class:`WorkerProcess`."""

    Process: ClassVar[type[WorkerProcess]] = WorkerProcess


_MAIN_LOCK = threading.Lock()


@contextmanager
def without_main() -> Iterator[None]:
    """Hide ``__spec__`` and ``__file__`` of ``__main__`` for the body: new processes find the script by them."""
    main = sys.modules["__main__"].__dict__
    with _MAIN_LOCK:
        hidden: dict[str, object] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
        main["__spec__"] = None
        try:
            yield
        finally:
            del main["__spec__"]
            main.update(hidden)


def initialize_worker() -> None:
    """Prepare a worker process: ignore Ctrl-C, which the parent handles, and exit when the parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent does: a killed parent cannot stop its workers, which would wait for jobs forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def write_lines(path: Path, values: Iterable[object]) -> None:
    """Write JSON values, one a line; the file appears whole or not at all."""
    with replacing(path) as draft, open(draft, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[Any]:
    """Read the values that :func:`write_lines` wrote; ``Any``, because they come from JSON."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def kept_lines(path: Path, build: Callable[[], Sequence[object]]) -> list[Any]:
    """Read the lines of a file; write it from ``build`` first if it does not exist."""
    if not path.is_file():
        write_lines(path, build())
    return read_lines(path)
