"""Work ahead of the walk: whatever steps of a recipe can be carried out now are given to workers.

A recipe is a graph of (candidate, step): a technique needs only its parent, so chains of them run side by side, through
forks, and past probes, which change no candidate. A choice needs all candidates before it, so what comes after it is
ordered when the walk has passed it. The walk itself stays as it is: it goes through the recipe in its order and finds
in the store what workers have made. So keys, ledger and front do not depend on who made what when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from limbeck.core.candidate import Record
from limbeck.core.step import Choice, Technique
from limbeck.distributed.executor import lane_of
from limbeck.distributed.workers import Needs, Values, Workers
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.orders import carry_out, error_of, order, receive, records_of, supply
from limbeck.engine.provenance import Provenance
from limbeck.engine.run_log import RunLog
from limbeck.errors import LimbeckError
from limbeck.recipe.parsing import LocatedStep
from limbeck.storage.machine_lock import Use

Steps: TypeAlias = Sequence[LocatedStep]
MayBegin: TypeAlias = Callable[[Steps, str], bool]
"""Tells of a branch and the key of a candidate whether some path through it can succeed."""


SHORT = 0.02
"""Length of a step that trains nothing, beside one that does."""


def length(steps: Steps) -> float:
    """Return how long the longest chain of techniques through some steps is, up to the next choice.

    Args:
        steps: The steps.
    """
    total = 0.0
    for placed in steps:
        if placed.branches is not None:
            total += max((length(branch) for branch in placed.branches), default=0.0)
        elif isinstance(placed.step, Choice):
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
    """A step that was ordered, the chains that wait for it, and the records it made."""

    step: Technique
    chains: list[_Chain]
    future: Future[Values] | None = None
    records: list[Record] | None = None


class Ahead:
    """Orders the steps of one run from workers. Used by the walk and by the workers' threads."""

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
        self._lock = threading.RLock()
        self._token = builder.store.folder.token()

    def follow(self, steps: Steps, key: str, seed: int, picks: Sequence[int] | None = None) -> None:
        """Order what can be done with a candidate before the next choice; its children follow when they are made.

        Args:
            steps: The steps that it has before it, those after the forks that it is in included.
            key: Key of the candidate.
            seed: Seed of everything random.
            picks: Of a chain of techniques, which child of each is followed; all of them unless given.
        """
        with self._lock:
            for index, placed in enumerate(steps):
                rest = steps[index + 1 :]
                if placed.branches is not None:
                    for branch in placed.branches:
                        if self._may_begin(branch, key):
                            self.follow([*branch, *rest], key, seed)
                    return
                if isinstance(placed.step, Choice):
                    return
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
        with self._lock:
            ordered = self._ordered.get(self._builder.child_base(key, step, seed))
        if ordered is None or ordered.future is None:
            return False
        outcome = ordered.future.result()
        if (error := error_of(outcome)) is not None:
            raise error
        return "elsewhere" not in outcome

    def _order(self, placed: LocatedStep, chain: _Chain, key: str) -> None:
        step = placed.step
        assert isinstance(step, Technique)
        base = self._builder.child_base(key, step, chain.seed)
        if (ordered := self._ordered.get(base)) is not None:  # another branch begins with the same step
            if ordered.records is None:
                ordered.chains.append(chain)
            else:
                self._continue(ordered.records, chain)
            return
        if (stored := self._builder.finished(self._builder.records[key], step, chain.seed)) is not None:
            self._continue(stored, chain)
            return
        ordered = self._ordered[base] = _Ordered(step, [chain])
        ordered.future = self._workers.submit(
            carry_out,
            order(self._builder, key, placed, chain.seed, self._token),
            needs=Needs(lane_of(step)),
            urgency=length([placed, *chain.rest]),
            report=self._report,
            supply=partial(supply, self._builder.store),
            receive=partial(self._receive, ordered),
        )

    def _receive(self, ordered: _Ordered, outcome: Values) -> None:
        """Take over what a worker made, and order what comes after it before the walk learns that it is there."""
        receive(self._builder.store, outcome)
        with self._lock:
            ordered.records = list(records_of(outcome))
            for chain in ordered.chains:
                for index, record in enumerate(ordered.records):
                    self._builder.records.setdefault(record.key, record)
                    self._builder.origins[record.key] = Provenance(chain.seed, ordered.step, index)
                with suppress(LimbeckError):  # the walk comes to the same place, and reports it
                    self._continue(ordered.records, chain)

    def _continue(self, records: Sequence[Record], chain: _Chain) -> None:
        """Follow the children of a step that has ended."""
        picks = chain.picks
        followed = records if picks is None else records[picks[0] : picks[0] + 1]
        for record in followed:
            self.follow(chain.rest, record.key, chain.seed, None if picks is None else picks[1:])

    def _report(self, values: Values) -> None:
        with self._lock:
            if "use" in values:
                self._log.use(Use(**values["use"]))
            elif "note" in values:
                self._log.emit({"kind": "store", "message": values["note"]})
            else:
                numbers = dict(values["numbers"])
                self._log.step(values["step"], values["key"], values["message"], **numbers)
