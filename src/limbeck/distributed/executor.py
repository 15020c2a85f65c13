"""Carry out pieces of work that do not need each other: the seam between the walk over a recipe and the machines.

An executor gets the work of one step, an item for each candidate, and yields each result as soon as it is there, in any
order. Every item names its lane, so that an executor can tell what may run side by side:

    train    needs an accelerator, or all cores
    cpu      needs a core
    measure  needs the machine for itself: nothing else runs meanwhile

``InProcess`` does one after the other in this process, so it needs to know nothing of lanes. Items of other runs on the
same machine are kept out of a measurement by the store's lock, whatever the executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from limbeck.core.step import Probe, Step
from limbeck.distributed.workers import Lane

T = TypeVar("T")


@dataclass(frozen=True)
class Work(Generic[T]):
    """A piece of work: ``function`` takes nothing and returns its result."""

    lane: Lane
    function: Callable[[], T]


@dataclass(frozen=True)
class Finished(Generic[T]):
    """A piece of work that ended: its index among the items, how long it took, and its value or its error."""

    index: int
    seconds: float
    value: T | None = None
    error: Exception | None = None

    def result(self) -> T:
        """Return the value, or raise the error that the work ended with."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


class Executor(Protocol):
    """Carries out independent work."""

    def run(self, items: Sequence[Work[T]]) -> Iterator[Finished[T]]:
        """Yield each item's end, in the order in which they end; an error of one does not stop the others.

        A caller that stops iterating wants no more of the work.
        """
        ...


class InProcess:
    """Carries out one item after the other, each when its result is asked for."""

    def run(self, items: Sequence[Work[T]]) -> Iterator[Finished[T]]:
        """Yield the end of each item, in their order."""
        for index, item in enumerate(items):
            start = time.perf_counter()
            value: T | None = None
            failure: Exception | None = None
            try:
                value = item.function()
            except Exception as error:  # whatever it is, it concerns this item: ``result`` raises it
                failure = error
            yield Finished(index, time.perf_counter() - start, value, failure)


def run_alone(executor: Executor, item: Work[T]) -> T:
    """Carry out a single item and return its result."""
    (finished,) = executor.run([item])
    return finished.result()


def lane_of(step: Step) -> Lane:
    """Return the lane of a step's work, which follows from what the step declares."""
    if isinstance(step, Probe):
        return "measure" if step.info.machine_bound else "cpu"
    return "train" if step.info.trains or step.info.every_process else "cpu"
