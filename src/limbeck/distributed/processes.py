"""Workers that are processes on this machine, each with an equal share of its cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from queue import LifoQueue

from limbeck.distributed.workers import Log, Needs, Values, WorkFunction
from limbeck.errors import ProcessLost
from limbeck.storage.parallel import WorkerContext, initialize_worker

ATTEMPTS = 4
"""How often a piece of work is begun before it is given up: workers may be killed for reasons of their own, but a piece
of work that is always killed needs more memory than there is."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

_report: Log | None = None
"""In a worker: sends what its work reports."""


class Processes:
    """A backend of worker processes."""

    def __init__(self, count: int, threads: int | None = None) -> None:
        """Start no process yet; each starts with its first work.

        Args:
            count: How many.
            threads: Threads of each; an equal share of the cores unless given.
        """
        self._slots: LifoQueue[_Worker] = LifoQueue()
        self._closed = False
        share = threads or max(1, len(os.sched_getaffinity(0)) // count)
        self._workers = [_Worker(share) for _ in range(count)]
        for worker in self._workers:
            self._slots.put(worker)

    def call(self, work: WorkFunction, payload: Values, needs: Needs, report: Log) -> Values:
        """Carry out a piece of work in a free process; where that is killed, a new one begins again.

        Args:
            work: The function.
            payload: Its argument.
            needs: What the work needs; the processes share one machine, so it changes nothing.
            report: Receives what it reports.

        Raises:
            ProcessLost: Process after process was killed over this work, or none could be started.
        """
        worker = self._slots.get()
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return worker.call(work, payload, report)
                except (BrokenProcessPool, CancelledError):
                    worker.end()
                    if self._closed:
                        raise ProcessLost("the workers were stopped") from None
                    report({"note": f"a worker process was killed ({attempt} of {ATTEMPTS} attempts)"})
            raise ProcessLost(f"{ATTEMPTS} worker processes were killed over the same step; is there enough memory?")
        finally:
            self._slots.put(worker)

    def close(self) -> None:
        """Kill the processes."""
        self._closed = True
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, started when it is needed and again after it was killed.

    It reports through a pipe of its own, which has no lock: a process that is killed would not release one.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._pipe: tuple[Connection, Connection] | None = None

    def call(self, work: WorkFunction, payload: Values, report: Log) -> Values:
        if self._pool is None or self._pipe is None:
            self._pipe = Pipe(duplex=False)
            arguments = (self._pipe[1], self._threads)
            self._pool = ProcessPoolExecutor(1, mp_context=WorkerContext(), initializer=_begin, initargs=arguments)
        pool, (reports, sender) = self._pool, self._pipe
        with _listening(reports, report):
            try:
                future = pool.submit(_carry_out, work, payload)  # starts the process, unless it has begun
            except OSError as error:
                self.end()
                raise ProcessLost(f"no worker process can be started: {error}") from error
            finally:
                sender.close()  # the process alone has it now, so the pipe ends when the process does
            return future.result()

    def end(self) -> None:
        """Kill the process, if there is one."""
        pool, self._pool, self._pipe = self._pool, None, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _listening(reports: Connection, report: Log) -> Iterator[None]:
    """Pass on what the worker reports while the body waits for its result; what goes wrong with that is raised then."""
    over, end = Pipe(duplex=False)
    failed: list[Exception] = []

    def listen() -> None:
        with over:
            while reports in wait([reports, over]):  # what was sent before the end comes first
                try:
                    values = reports.recv()
                except (EOFError, OSError):  # the worker was killed, perhaps within a message
                    return
                try:
                    report(values)
                except Exception as error:  # a full disk, say; the worker, which waits to be heard, goes on
                    failed.append(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    patience: float | None = None
    try:
        yield
    except (BrokenProcessPool, CancelledError):
        patience = 5  # whatever the worker has started may still have the pipe, with half a message in it
        raise
    finally:
        end.close()
        thread.join(patience)
    if failed:
        raise failed[0]


def _begin(reports: Connection, threads: int) -> None:
    """Prepare a worker process, before anything that counts cores is imported."""
    global _report
    os.environ.update(dict.fromkeys(THREADS, str(threads)), TOKENIZERS_PARALLELISM="false")
    lock = threading.Lock()

    def send(values: Values) -> None:
        with lock:  # of this process alone: threads of the work may report
            reports.send(values)

    _report = send
    initialize_worker()


def _carry_out(work: WorkFunction, payload: Values) -> Values:
    report = _report
    assert report is not None  # set by _begin
    return work(payload, report)
