"""Work ahead of the walk: whatever steps of a recipe can be carried out now are given to workers.

A recipe is a graph of (candidate, step): a technique needs only its parent, so chains of them run side by side, through
forks, and past probes, which change no candidate. A choice needs all candidates before it, and so does a combination:
what comes after it is ordered when the walk has passed it. The walk itself stays as it is: it goes through the recipe
in its order and finds in the store what workers have made. So keys, ledger and front do not depend on who made what
when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from limbeck.core.candidate import Record
from limbeck.core.combination import GATHERING
from limbeck.core.step import Probe, Technique
from limbeck.distributed.executor import lane_of
from limbeck.distributed.workers import Needs, Values, Workers
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.reference import measured_with
from limbeck.engine.run_log import RunLog
from limbeck.engine.store.provenance import Provenance
from limbeck.engine.store.stored_form import read_probed
from limbeck.engine.store.transfer import KEPT_PREFIX
from limbeck.engine.target_runs import measured_at
from limbeck.engine.workers.orders import (
    carry_out_order,
    error_of,
    order,
    reason_of,
    receive,
    records_of,
    restore,
    supply,
)
from limbeck.engine.workers.piece_orders import piece_order, work_on
from limbeck.engine.workers.pieces import Pieces, Results
from limbeck.errors import LimbeckError
from limbeck.recipe.parsing import LocatedStep
from limbeck.storage.machine_lock import Use

Steps: TypeAlias = Sequence[LocatedStep]
MayBegin: TypeAlias = Callable[[Steps, str], bool]
"""Tells of a branch and the key of a candidate whether some path through it can succeed."""


SHORT = 0.02
"""Length of a step that trains nothing, beside one that does."""


def length(steps: Steps) -> float:
    """Return how long the longest chain of techniques through some steps is, up to one that waits for all candidates.

    Args:
        steps: The steps.
    """
    total = 0.0
    for placed in steps:
        if placed.branches is not None:
            total += max((length(branch) for branch in placed.branches), default=0.0)
        elif isinstance(placed.step, GATHERING):
            break
        elif isinstance(placed.step, Technique):
            total += 1.0 if placed.step.info.trains else SHORT
    return total


@dataclass(frozen=True)
class _Chain:
    """What comes after a step."""

    rest: Steps
    seed: int
    picks: Sequence[int] | None


@dataclass
class _Ordered:
    """A step that was ordered, the chains that wait for it, and the records it made.

    ``payload`` is the order. A step begins again when the pieces that it wants are there, and repeats its messages:
    ``messages`` are those that came, ``repeated`` how many of them came again.
    """

    step: Technique
    chains: list[_Chain]
    payload: Values = field(default_factory=dict)
    urgency: float = 0.0
    future: Future[Values] = field(default_factory=Future)
    records: Sequence[Record] | None = None
    messages: list[tuple[str, str, str]] = field(default_factory=list)
    repeated: int = 0

    @property
    def lacks(self) -> bool:
        """Whether the order ended because the run itself had lost what the worker needs."""
        ended = self.future.done() and not self.future.cancelled() and self.future.exception() is None
        return ended and "missing" in self.future.result()

    def is_repeated(self, values: Values) -> bool:
        """Return whether the step has sent this message before."""
        if not values.get("message"):
            return False
        message = (values["step"], values["key"], values["message"])
        again = self.repeated < len(self.messages) and self.messages[self.repeated] == message
        if not again:
            self.messages.append(message)
            self.repeated = len(self.messages)
        else:
            self.repeated += 1
        return again


class Ahead:
    """Orders the steps of one run from workers. Used by the walk and by the workers' threads.

    Its locks are held for moments only. Whether a branch may begin can take a measurement, which waits until no worker
    works on this machine, and workers end only while their reports are heard: so that is asked without a lock.
    """

    def __init__(self, builder: CandidateBuilder, workers: Workers, log: RunLog, may_begin: MayBegin) -> None:
        """Order nothing yet.

        Args:
            builder: Names candidates.
            workers: Carry out the orders.
            log: Receives what they report.
            may_begin: Keeps branches that cannot reach their goal from being begun.
        """
        self._builder, self._workers, self._log, self._may_begin = builder, workers, log, may_begin
        self._ordered: dict[str, _Ordered] = {}
        self._prepared: dict[tuple[str, str], Future[Values]] = {}
        self._pieces = Pieces(builder.store, workers, self._report)
        self._lock = threading.Lock()  # of what was ordered, and of the chains that wait for it
        self._hearing = threading.Lock()  # of what workers report
        self._noted: set[str] = set()
        folder = builder.store.folder
        self._token = folder.token()
        workers.at_end.callback(folder.remove_token, self._token)  # work that still runs looks for it

    def schedule(self, steps: Steps, key: str, seed: int, picks: Sequence[int] | None = None) -> None:
        """Order what can be done with a candidate alone; its children follow when they are made.

        Args:
            steps: The steps that it has before it, those after the forks that it is in included.
            key: Key of the candidate.
            seed: Seed of everything random.
            picks: Of a chain of techniques, which child of each is followed; all of them unless given.
        """
        for index, placed in enumerate(steps):
            rest = steps[index + 1 :]
            if placed.branches is not None:
                for branch in placed.branches:
                    if self._may_begin(branch, key):
                        self.schedule([*branch, *rest], key, seed)
                return
            if isinstance(placed.step, GATHERING):
                return
            if isinstance(placed.step, Probe):
                self._prepare(placed, rest, key, seed)
            if isinstance(placed.step, Technique):
                self._order(placed, _Chain(rest, seed, picks), key)
                return

    def finish(self, key: str, step: Technique, seed: int) -> bool:
        """Wait until a step that was ordered has ended.

        Args:
            key: Key of the candidate.
            step: The step.
            seed: Seed of everything random.

        Returns:
            Whether a worker made its children; if not, nothing was ordered, or only this machine can make them.

        Raises:
            LimbeckError: What the step ended with.
        """
        ordered = self._ordered.get(self._builder.child_base(key, step, seed))
        if ordered is None or not ordered.payload:
            return False
        outcome = ordered.future.result()
        if "missing" in outcome and restore(self._builder, outcome["missing"]):
            self._send_again()
            outcome = ordered.future.result()
        if (error := error_of(outcome)) is not None:
            raise error
        if "records" in outcome:
            return True
        self._note(f"{step.info.name} is carried out by the run itself: {reason_of(outcome)}")
        return False

    def _send_again(self) -> None:
        """Order again what was not sent because the store had lost something."""
        with self._lock:
            lacking = [each for each in self._ordered.values() if each.lacks]
            for ordered in lacking:
                ordered.future = Future()
        for ordered in lacking:
            self._submit(ordered, {} if "results" in ordered.payload else None)

    def made_here(self, key: str, step: Technique, seed: int, records: Sequence[Record]) -> None:
        """Order what comes after a step that no worker has made.

        Args:
            key: Key of the candidate.
            step: The step.
            seed: Seed of everything random.
            records: What it made.
        """
        ordered = self._ordered.get(self._builder.child_base(key, step, seed))
        if ordered is not None and ordered.records is None:
            self._go_on(ordered, records)

    def _order(self, placed: LocatedStep, chain: _Chain, key: str) -> None:
        step, builder = placed.step, self._builder
        assert isinstance(step, Technique)
        base = builder.child_base(key, step, chain.seed)
        builder.store.claim(base)  # what a worker has made is claimed by nobody once its order has ended
        with self._lock:
            ordered = self._ordered.get(base)
            begun = ordered is not None  # another branch begins with the same step
            if ordered is None:
                ordered = self._ordered[base] = _Ordered(step, [chain])
            elif ordered.records is None:
                ordered.chains.append(chain)
            records = ordered.records
        if begun:
            self._continue(records or (), chain)
        elif (stored := builder.finished(builder.records[key], step, chain.seed)) is not None:
            self._go_on(ordered, stored)
        else:
            ordered.payload = order(builder, key, placed, chain.seed, self._token)
            ordered.urgency = length([placed, *chain.rest])
            self._submit(ordered, {} if self._workers.count > 1 else None)

    def _submit(self, ordered: _Ordered, results: Results | None, folders: Sequence[str] = ()) -> None:
        """Order a step, with the results of the pieces that it wants; None if it is to do everything itself.

        Args:
            ordered: The step.
            results: The results.
            folders: Names of folders that the pieces have kept.
        """
        payload = ordered.payload
        if results is None:
            payload.pop("results", None)
        else:
            payload |= {"results": {**payload.get("results", {}), **results}, "needed": [*payload["needed"], *folders]}
        with self._hearing:
            ordered.repeated = 0
        sent = self._workers.submit(
            carry_out_order,
            ordered.payload,
            needs=Needs(lane_of(ordered.step)),
            urgency=ordered.urgency,
            report=partial(self._report_of, ordered),
            supply=partial(supply, self._builder.store),
            receive=partial(self._receive, ordered),
        )
        sent.add_done_callback(partial(self._ended, ordered))

    def _ended(self, ordered: _Ordered, sent: Future[Values]) -> None:
        """Take the outcome of an order; a step that wants pieces is ordered again when they are there."""
        if sent.cancelled():
            ordered.future.cancel()
        elif (error := sent.exception()) is not None:
            ordered.future.set_exception(error)
        elif (wanted := sent.result().get("wanted")) is not None:
            folders = [f"{KEPT_PREFIX}{piece['keeps']}" for piece in wanted["pieces"].values() if "keeps" in piece]
            self._pieces.hand_out(
                ordered.payload,
                wanted,
                needs=Needs(lane_of(ordered.step)),
                urgency=ordered.urgency,
                then=partial(self._submit, ordered, folders=folders),
                lost=ordered.future.set_exception,
            )
        else:
            ordered.future.set_result(sent.result())

    def _prepare(self, placed: LocatedStep, rest: Steps, key: str, seed: int) -> None:
        """Let a worker keep what a probe will read of a candidate, for each target that it is not known for."""
        step, builder = placed.step, self._builder
        assert isinstance(step, Probe)
        probed = (placed.path, key)
        if probed in self._prepared:
            return
        targets = [target for target in builder.recipe.settings if self._prepares(step, key, seed, target)]
        if not targets:
            return
        payload = piece_order(order(builder, key, placed, seed, self._token), [{}])
        with self._lock:
            if probed in self._prepared:
                return
            self._prepared[probed] = self._workers.submit(
                work_on,
                payload | {"needed": [key], "targets": targets},
                urgency=length(rest) + SHORT,
                report=self._report,
                supply=partial(supply, builder.store),
                receive=partial(receive, builder.store),
            )

    def _prepares(self, step: Probe, key: str, seed: int, target: str) -> bool:
        """Return whether a probe will read something on a target that a worker can keep for it."""
        builder = measured_at(self._builder, target)
        if not step.prepares(builder.task.task_kind, builder.serving(step).target):
            return False
        name = builder.fact_name(key, step, seed, measured_with(builder, [key], step))
        return builder.store.facts.recall(name, read_probed) is None

    def prepared(self, placed: LocatedStep, keys: Sequence[str]) -> None:
        """Wait until workers have kept what a probe reads of its candidates, as far as they can.

        Args:
            placed: The probe.
            keys: Keys of the candidates.

        Raises:
            ProcessLost: Worker after worker was lost over it.
        """
        with self._lock:
            waiting = [self._prepared[placed.path, key] for key in keys if (placed.path, key) in self._prepared]
        for future in waiting:
            future.result()  # what could not be kept is computed by the probe, which meets the same errors

    def _receive(self, ordered: _Ordered, outcome: Values) -> None:
        """Take over what a worker made, and order what comes after it before the walk learns that it is there."""
        receive(self._builder.store, outcome)
        if "records" not in outcome:
            return
        records = list(records_of(outcome))
        for index, record in enumerate(records):
            self._builder.records.setdefault(record.key, record)
            self._builder.origins[record.key] = Provenance(ordered.payload["seed"], ordered.step, index)
        self._go_on(ordered, records)

    def _go_on(self, ordered: _Ordered, records: Sequence[Record]) -> None:
        """Let the chains that wait for a step go on from what it made."""
        with self._lock:
            ordered.records = records
            chains = list(ordered.chains)
        for chain in chains:
            with suppress(LimbeckError):  # the walk comes to the same place, and reports it
                self._continue(records, chain)

    def _continue(self, records: Sequence[Record], chain: _Chain) -> None:
        """Follow the children of a step that has ended."""
        picks = chain.picks
        followed = records if picks is None else records[picks[0] : picks[0] + 1]
        for record in followed:
            self.schedule(chain.rest, record.key, chain.seed, None if picks is None else picks[1:])

    def _note(self, message: str) -> None:
        with self._hearing:
            if message not in self._noted:
                self._noted.add(message)
                self._log.note(message)

    def _report_of(self, ordered: _Ordered, values: Values) -> None:
        with self._hearing:
            repeated = ordered.is_repeated(values)
        if not repeated:
            self._report(values)

    def _report(self, values: Values) -> None:
        with self._hearing:
            if "use" in values:
                self._log.use(Use(**values["use"]))
            elif "note" in values:
                self._log.emit({"kind": "store", "message": values["note"]})
            else:
                numbers = dict(values["numbers"])
                self._log.step(values["step"], values["key"], values["message"], **numbers)
