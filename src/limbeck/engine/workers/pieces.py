"""Pieces that steps of a run wait for: each is carried out once, whichever steps want it.

Nothing waits here: whoever wants pieces is called back when their results are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from limbeck.core.pieces import Piece, Result
from limbeck.distributed.workers import Log, Needs, Values, Workers
from limbeck.engine.store.store import Store
from limbeck.engine.store.transfer import KEPT_PREFIX
from limbeck.engine.workers.orders import receive, supply
from limbeck.engine.workers.piece_orders import piece_order, work_on

Results: TypeAlias = dict[str, Result]
JOBS = 2
"""Jobs for each worker: one that ends early may take a further one, and each has to open the candidate."""


@dataclass(eq=False)
class _Handed:
    """A piece that was handed out; ``ended`` without a result if no worker could carry it out."""

    ended: bool = False
    result: Result | None = None


@dataclass(eq=False)
class _Wait:
    """A step that waits for pieces, by their names."""

    pieces: Mapping[str, _Handed]
    then: Callable[[Results | None], None]
    lost: Callable[[BaseException], None]

    @property
    def over(self) -> bool:
        return all(piece.ended for piece in self.pieces.values())

    def go_on(self) -> None:
        results = {name: piece.result for name, piece in self.pieces.items() if piece.result is not None}
        self.then(results if len(results) == len(self.pieces) else None)


@dataclass(eq=False)
class Pieces:
    """Hands pieces to the workers of a run. Used by several threads.

    Attributes:
        store: The run's store.
        workers: Carry them out.
        report: Receives messages.
    """

    store: Store
    workers: Workers
    report: Log
    _handed: dict[str, _Handed] = field(default_factory=dict)
    _waits: list[_Wait] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hand_out(
        self,
        order: Values,
        wanted: Mapping[str, Any],
        *,
        needs: Needs,
        urgency: float,
        then: Callable[[Results | None], None],
        lost: Callable[[BaseException], None],
    ) -> None:
        """Have the pieces that a step wants carried out.

        Args:
            order: The order of the step.
            wanted: What it ended with: ``pieces`` by name, and ``shared``, what they all read.
            needs: What the step needs of a machine.
            urgency: Its urgency.
            then: Called with the results by name; with None if workers cannot carry out all of them.
            lost: Called with the error in place of that where worker after worker was lost over a piece.
        """
        fresh: dict[str, Piece] = {}
        with self._lock:
            awaited: dict[str, _Handed] = {}
            for name, piece in wanted["pieces"].items():
                key = f"{KEPT_PREFIX}{piece['keeps']}" if "keeps" in piece else f"{order['base']}/{name}"
                if key not in self._handed:
                    self._handed[key], fresh[key] = _Handed(), piece
                awaited[name] = self._handed[key]
            self._waits.append(_Wait(awaited, then, lost))
        keys = list(fresh)
        jobs = min(len(keys), JOBS * self.workers.count)
        for number in range(jobs):  # of the same size, give or take one
            chosen = keys[number * len(keys) // jobs : (number + 1) * len(keys) // jobs]
            job = self.workers.submit(
                work_on,
                piece_order(order, [fresh[key] for key in chosen], wanted["shared"]),
                needs=needs,
                urgency=urgency,
                report=self.report,
                supply=partial(supply, self.store),
                receive=partial(receive, self.store),
            )
            job.add_done_callback(partial(self._take, chosen))
        self._finish_waits()

    def _take(self, keys: Sequence[str], job: Future[Values]) -> None:
        """Take the results of a job, and tell the steps that have all they wait for."""
        error = None if job.cancelled() else job.exception()
        with self._lock:
            pieces = [self._handed[key] for key in keys]
            if error is not None:
                concerned = [wait for wait in self._waits if any(each in wait.pieces.values() for each in pieces)]
                self._waits = [wait for wait in self._waits if wait not in concerned]
                for key in keys:
                    del self._handed[key]
        if error is not None:
            for wait in concerned:
                wait.lost(error)
            return
        results = {} if job.cancelled() else job.result()
        with self._lock:
            for piece, result in zip(pieces, results.get("results", [None] * len(pieces)), strict=True):
                piece.ended, piece.result = True, result
        self._finish_waits()

    def _finish_waits(self) -> None:
        with self._lock:
            over = [wait for wait in self._waits if wait.over]
            self._waits = [wait for wait in self._waits if not wait.over]
        for wait in over:
            wait.go_on()
