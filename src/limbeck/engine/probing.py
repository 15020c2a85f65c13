"""Measure candidates: only what is missing, together if facts must be comparable, alone on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

from limbeck.core.candidate import Reference
from limbeck.core.field_groups import parameters
from limbeck.core.measurement import Measurement, merge
from limbeck.core.step import Probe
from limbeck.distributed.executor import Executor, Work, lane_of, run_alone
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.reference import measured_with, reference
from limbeck.engine.run_log import RunLog
from limbeck.engine.store.stored_form import read_probed
from limbeck.errors import ProcessLost, ServiceError, StoreError
from limbeck.recipe.parsing import LocatedStep

Facts = dict[str, list[Measurement]]
"""Measurements by key."""
Remember = Callable[[Facts], None]
"""Stores the facts of candidates for other runs."""


class Prober:
    """Carries out the probes of a run; ``history`` has each with the keys that it measured."""

    def __init__(self, builder: CandidateBuilder, log: RunLog, executor: Executor) -> None:
        """Start with an empty history.

        Args:
            builder: Has the records, and opens candidates.
            log: Records facts.
            executor: Carries out the measurements.
        """
        self.builder, self.log, self.executor = builder, log, executor
        self.store, self.records = builder.store, builder.records
        self.history: list[tuple[LocatedStep, set[str]]] = []

    def probe(self, front: list[str], placed: LocatedStep, seed: int) -> list[str]:
        """Measure what is missing; a candidate that cannot be measured leaves the front.

        A group that could not be measured together keeps what was measured one by one, as long as it stays the same
        group; candidates that failed are tried again. Other facts are stored candidate by candidate, so an
        interrupted run measures only the others.

        Args:
            front: Keys of the candidates.
            placed: The probe.
            seed: Seed of everything random.

        Returns:
            The keys that were measured.
        """
        if not front:
            return front
        step = placed.step
        first = measured_with(self.builder, front, step)
        whole = reference(self.builder, front) if step.info.judges else None
        group = list(dict.fromkeys([*first, *front]))
        for key in first:
            self.log.write(self.records[key])
        names = {key: self.builder.fact_name(key, step, seed, first) for key in group}
        before = len(self.log.failed)
        with self.store.lock(names[group[-1]]):
            recall = self.store.facts.recall
            stored = {key: recall(name, read_probed) for key, name in names.items()}
            assert isinstance(step, Probe)
            newer = step.newer_facts(self.builder.serving(step).budget)
            remembered: dict[str, Any] = {key: facts if _has(facts, newer) else None for key, facts in stored.items()}
            sessions = _sessions(remembered)
            if step.info.group and len({*sessions.values()}) > 1 and sessions != recall(_apart(names), dict):
                remembered = dict.fromkeys(group)  # facts of different sessions cannot be compared
            missing = [key for key in group if remembered[key] is None]
            if missing:
                todo = list(dict.fromkeys([*first, *missing]))
                start, done = time.perf_counter(), set[str]()

                def remember(measured: Facts) -> None:
                    done.update(measured)
                    seconds = (time.perf_counter() - start) / max(1, len(done))
                    description = {"probe": step.info.name, "parameters": parameters(step), "seconds": seconds}
                    for key, facts in measured.items():
                        remembered[key] = {**description, "facts": [fact.to_json() for fact in facts]}
                        self.store.facts.remember(names[key], remembered[key])

                remember(self._measure(todo, first, whole, placed, seed, remember))
                if step.info.group and len({*(sessions := _sessions(remembered)).values()}) > 1:
                    self.store.facts.remember(_apart(names), sessions)
        for key in group:
            self._add_facts(key, step.info.name, remembered[key]["facts"] if remembered[key] else [])
        self.history.append((placed, set(group)))
        lost = {failure.key for failure in self.log.failed[before:]}
        return [key for key in front if key not in lost]

    def _measure(
        self,
        todo: Sequence[str],
        first: Sequence[str],
        whole: str | None,
        placed: LocatedStep,
        seed: int,
        remember: Remember,
    ) -> Facts:
        """Measure all together; if that fails, those that are missing one by one, to find the one that fails.

        Args:
            todo: Keys of the candidates, those of ``first`` before the others.
            first: Keys of the models that are measured beside them.
            whole: Key of the model that answers are compared with.
            placed: The probe.
            seed: Seed of everything random.
            remember: Stores what has been measured before the others are.
        """
        rest = [key for key in todo if key not in first]
        lane = lane_of(placed.step)
        measured: Facts = {}

        def note(facts: Facts) -> None:
            measured.update(facts)
            remember(facts)

        measure = partial(self._measure_once, whole=whole, placed=placed, seed=seed, remember=note)
        if len(rest) > 1:
            try:
                return run_alone(self.executor, Work(lane, partial(measure, todo)))
            except (StoreError, ProcessLost, ServiceError):
                raise
            except Exception as error:
                self.log.note(f"{placed.name} failed on {len(todo)} candidates together ({error}); one by one now")
        groups = [[*first, key] for key in rest if key not in measured] or [list(first)]
        for finished in self.executor.run([Work(lane, partial(measure, group)) for group in groups]):
            with self.log.isolate_failure(placed.path, placed.name, groups[finished.index][-1]):
                note(finished.result())
        return measured

    def _measure_once(
        self, todo: Sequence[str], whole: str | None, placed: LocatedStep, seed: int, remember: Remember
    ) -> Facts:
        step = placed.step
        assert isinstance(step, Probe)
        compared = Reference(whole, todo.index(whole)) if whole is not None and whole in todo else None
        context = self.builder.context(todo[-1], step, seed, self.log.of(step.info.name, todo[-1]), compared=compared)
        measured: Facts = {key: [] for key in todo}
        candidates = [self.builder.open(key) for key in todo]
        machine, url = self.store.machine, self.builder.serving(step).target.url
        elsewhere = step.info.at_target and url is not None
        with machine.alone() if step.info.machine_bound and not elsewhere else machine.working():
            last = 0
            for number, fact in step.measure(candidates, context):  # times must not share the cores
                if number != last and not step.info.group:
                    remember({todo[last]: measured[todo[last]]})
                last = number
                measured[todo[number]].append(fact)
        return measured

    def _add_facts(self, key: str, probe: str, facts: list[dict[str, Any]]) -> None:
        if facts:
            where = {"target": self.builder.target} if self.builder.target else {}
            self.log.ledger.append("facts", key=key, probe=probe, facts=facts, **where)
            old = self.records[key]
            fresh = [Measurement.from_json(fact) for fact in facts]
            self.records[key] = replace(old, facts=merge(old.facts, fresh))
            self.log.emit({"kind": "facts", "key": key, "step": probe, "facts": facts, **where})


def _apart(names: Mapping[str, str]) -> str:
    """Return the name under which a group keeps the session of each candidate, if they could not share one.

    Args:
        names: Names of the facts of each candidate, by key.
    """
    return f"sessions-{'-'.join(sorted(names.values()))}"


def _sessions(remembered: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str | None]:
    """Return in which call the facts of each record were measured."""
    return {key: _session(facts) for key, facts in remembered.items()}


def _has(remembered: Mapping[str, Any] | None, names: AbstractSet[str]) -> bool:
    """Return whether the facts of a record include these."""
    return remembered is not None and names <= {fact["name"] for fact in remembered["facts"]}


def _session(remembered: Mapping[str, Any] | None) -> str | None:
    """Return in which call the facts of a record were measured: '' if the probe does not say, None without facts."""
    if remembered is None:
        return None
    sessions = (fact.get("detail", {}).get("session") for fact in remembered["facts"])
    return next(filter(None, sessions), "")
