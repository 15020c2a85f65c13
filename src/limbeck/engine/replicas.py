"""Make the chosen candidates again with other seeds, and measure what does not depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import product, takewhile
from typing import Protocol

from limbeck.core.candidate import Record, lineage
from limbeck.core.combination import Combination
from limbeck.core.step import Technique
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.probing import Prober
from limbeck.engine.run_log import RunLog
from limbeck.engine.workers.ahead import Ahead
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import placed_steps


class Make(Protocol):
    """Applies a step."""

    def __call__(self, parent: Record, step: Technique, seed: int, /) -> tuple[list[Record], bool]:
        """Return the records that a step makes of a record, and whether they were stored before.

        Args:
            parent: The record.
            step: The step.
            seed: Seed of everything random.
        """
        ...


class Replicas:
    """Makes the replicas of one run."""

    def __init__(
        self, builder: CandidateBuilder, log: RunLog, prober: Prober, make: Make, ahead: Ahead | None = None
    ) -> None:
        """Keep the parts of the run.

        Args:
            builder: Knows how the chosen candidates were made.
            log: Records the replicas, and failures.
            prober: Has measured the chosen candidates.
            make: Applies a step.
            ahead: Orders steps from workers.
        """
        self._builder, self._log, self._prober, self._make, self._ahead = builder, log, prober, make, ahead
        self._recipe = builder.recipe

    def make(self, chosen: Sequence[str]) -> dict[str, dict[int, str]]:
        """Return the keys of the replicas of each chosen candidate, by seed; those that fail are missing.

        Args:
            chosen: Keys of the chosen candidates.
        """
        replicas: dict[str, dict[int, str]] = {}
        seeds = [self._recipe.seed + number for number in range(1, self._recipe.replicas)]
        if self._ahead is not None:
            for key, seed in product(chosen, seeds):
                with suppress(Exception):  # whatever it is, making the replica below meets it again and reports it
                    self._order(self._ahead, key, seed)
        for key, seed in product(chosen, seeds):
            self._log.emit({"kind": "replica_start", "key": key, "seed": seed, "total": len(seeds)})
            with self._log.isolate_failure("replicas", "replica", key):
                replica = self._replay(key, seed)
                replicas.setdefault(key, {})[seed] = replica
                self._log.ledger.append("note", message="replica", replica_of=key, key=replica, seed=seed)
                for placed in [probe for probe, keys in self._prober.history if key in keys]:
                    if not placed.step.info.machine_bound:
                        self._prober.probe([replica], placed, seed)
        return replicas

    def _origins(self, key: str) -> list[tuple[Technique, int]]:
        """Return the steps that made a candidate, and which of their children each time."""
        origins = [self._builder.origins[record.key] for record in lineage(self._builder.records, key)[1:]]
        return [(origin.step, origin.index) for origin in origins if origin.step is not None]  # only a root has none

    def _order(self, ahead: Ahead, key: str, seed: int) -> None:
        """Let workers begin a replica."""
        origins = self._origins(key)
        placed = {located.step: located for located in leaves(placed_steps(self._recipe))}
        root = self._builder.root(self._recipe.model, seed)
        ordered = list(takewhile(lambda origin: origin[0] in placed, origins))  # up to a combination
        ahead.schedule([placed[step] for step, _ in ordered], root.key, seed, [index for _, index in ordered])

    def _replay(self, key: str, seed: int) -> str:
        """Return the key of the candidate made like ``key``, with another seed."""
        current = self._builder.root(self._recipe.model, seed)
        self._log.write(current)
        for step, index in self._origins(key):
            if isinstance(step, Combination):
                step = step.with_partner(self._replay(step.partner, seed))
            children, _ = self._make(current, step, seed)
            current = children[index]
            self._log.write(current)
        return current.key
