"""Workers that carry out functions elsewhere: in processes on this machine, on a Ray cluster, as jobs of Slurm.

A piece of work is a function of this package and a payload of plain data; the result is plain data, too. So nothing of
the caller's state travels, and a lost worker's piece can be given to another one. A backend has one way to carry out
one piece; :class:`Workers` keeps as many of them busy as there are workers, the most urgent work first.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import PriorityQueue
from typing import Any, Literal, Protocol, TypeAlias

Lane: TypeAlias = Literal["train", "cpu", "measure"]
Values: TypeAlias = dict[str, Any]
"""Plain data: what JSON can hold."""
Log: TypeAlias = Callable[[Values], None]
"""Receives what a piece of work reports while it runs."""


class WorkFunction(Protocol):
    """A function of this package, importable by name in another process."""

    def __call__(self, payload: Values, report: Log, /) -> Values:
        """Carry out a piece of work.

        Args:
            payload: What to do.
            report: Receives what is worth telling meanwhile.
        """
        ...


@dataclass(frozen=True)
class Needs:
    """What a piece of work needs from the machine that carries it out.

    Attributes:
        lane: What it may share the machine with.
        bytes: Memory; 0 if unknown.
    """

    lane: Lane = "cpu"
    bytes: int = 0


def collected(work: WorkFunction, payload: Values) -> tuple[Values, list[Values]]:
    """Carry out a piece of work where nobody listens meanwhile; return its result and what it reported."""
    reports: list[Values] = []
    return work(payload, reports.append), reports


class Backend(Protocol):
    """One way to carry out work elsewhere; called from several threads at once."""

    def call(self, work: WorkFunction, payload: Values, needs: Needs, report: Log) -> Values:
        """Carry out a piece of work and return its result; where a worker is lost, another one begins again.

        Args:
            work: The function.
            payload: Its argument.
            needs: What the work needs.
            report: Receives what it reports.

        Raises:
            ProcessLost: Worker after worker was lost over this piece.
        """
        ...

    def close(self) -> None:
        """Stop what still runs and give the workers back."""
        ...


@dataclass(order=True)
class _Item:
    urgency: float
    number: int
    future: Future[Values] = field(compare=False)
    carry_out: Callable[[], Values] = field(compare=False)


class Workers:
    """Keeps the workers of a backend busy."""

    def __init__(self, backend: Backend, count: int) -> None:
        """Start without work.

        Args:
            backend: Carries out each piece.
            count: How many pieces may run at once.
        """
        self.count = count
        self.at_end = ExitStack()  # what is to be done when nothing runs any more
        self._backend = backend
        self._queue: PriorityQueue[_Item] = PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        work: WorkFunction,
        payload: Mapping[str, Any],
        *,
        needs: Needs = Needs(),
        urgency: float = 0.0,
        report: Log = lambda values: None,
        supply: Callable[[Sequence[str]], Values | None] = lambda missing: None,
        receive: Callable[[Values], None] = lambda result: None,
    ) -> Future[Values]:
        """Have a piece of work carried out as soon as a worker is free.

        Args:
            work: The function.
            payload: Its argument.
            needs: What the work needs.
            urgency: What is greater goes first: seconds of the longest chain of work that waits for this piece.
            report: Receives what the work reports, in another thread.
            supply: Returns what to add to the payload where a worker answers that it is ``missing`` something. The
                worker that gets it may be another one, so it is asked for all that was missing so far. With None the
                answer is the result.
            receive: Takes over the result before it is there for others.
        """
        future: Future[Values] = Future()

        def carry_out() -> Values:
            result = self._backend.call(work, dict(payload), needs, report)
            sent: dict[str, None] = {}  # names, in the order in which they were asked for
            while (missing := result.get("missing")) and not sent.keys() >= set(missing):
                sent |= dict.fromkeys(missing)
                if (added := supply(list(sent))) is None:
                    break
                result = self._backend.call(work, {**payload, **added}, needs, report)
            receive(result)
            return result

        self._queue.put(_Item(-urgency, next(self._numbers), future, carry_out))
        return future

    def close(self) -> None:
        """Cancel what has not begun, stop what runs, and give the workers back."""
        self._closed = True
        for _ in self._threads:  # wake every thread that waits for work
            self._queue.put(_Item(float("inf"), next(self._numbers), Future(), dict))
        self._backend.close()
        for thread in self._threads:
            thread.join(timeout=10)
        self.at_end.close()

    def _serve(self) -> None:
        while not self._closed:
            item = self._queue.get()
            if self._closed or not item.future.set_running_or_notify_cancel():
                item.future.cancel()
                continue
            try:
                value = item.carry_out()
            except BaseException as error:  # whatever it is, who asked for the work learns of it
                item.future.set_exception(error)
            else:
                item.future.set_result(value)
