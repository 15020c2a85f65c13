"""Workers that are processes on this machine, each with an equal share of its cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from queue import LifoQueue
from typing import Any

from limbeck.distributed.workers import Log, Needs, Values, WorkFunction
from limbeck.errors import ProcessLost
from limbeck.storage.parallel import WorkerContext, initialize_worker

ATTEMPTS = 4
"""How often a piece of work is begun before it is given up: workers may be killed for reasons of their own, but a piece
of work that is always killed needs more memory than there is."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

_reports: SimpleQueue[Any] | None = None
"""In a worker: where it puts what its work reports."""


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
    """One process, started when it is needed and again after it was killed."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._queue: SimpleQueue[Any] | None = None

    def call(self, work: WorkFunction, payload: Values, report: Log) -> Values:
        if self._pool is None or self._queue is None:
            context = WorkerContext()
            self._queue = context.SimpleQueue()
            arguments = (self._queue, self._threads)
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=arguments)
        with _listening(self._queue, report):
            try:
                future = self._pool.submit(_carry_out, work, payload)
            except OSError as error:
                self.end()
                raise ProcessLost(f"no worker process can be started: {error}") from error
            return future.result()

    def end(self) -> None:
        """Kill the process, if there is one."""
        pool, self._pool, self._queue = self._pool, None, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _listening(queue: SimpleQueue[Any], report: Log) -> Iterator[None]:
    """Pass on what the worker reports while the body waits for its result."""

    def listen() -> None:
        while (values := queue.get()) is not None:
            report(values)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join(timeout=5)  # a killed worker may have left half a message


def _begin(queue: SimpleQueue[Any], threads: int) -> None:
    """Prepare a worker process, before anything that counts cores is imported."""
    global _reports
    os.environ.update(dict.fromkeys(THREADS, str(threads)), TOKENIZERS_PARALLELISM="false")
    _reports = queue
    initialize_worker()


def _carry_out(work: WorkFunction, payload: Values) -> Values:
    queue = _reports
    assert queue is not None  # set by _begin
    return work(payload, queue.put)
