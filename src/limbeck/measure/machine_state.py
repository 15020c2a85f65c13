"""What else a machine did while models were timed: its load, its clock, and the cores that other programs used.

The process that times looks before and after. What it did not use itself, others did: programs of this machine, and, on
a virtual one, other machines on the same processor.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

DISTURBING_SHARE = 0.1
"""Share of the needed cores from which others are said to have disturbed a measurement."""
SLOWED = 0.9
"""Share of its clock below which a processor is said to have slowed down."""
SHORTEST = 1.0
"""Seconds below which a session says nothing: systems count time in hundredths of a second."""


@dataclass(frozen=True)
class MachineState:
    """A look at the machine.

    Attributes:
        moment: Seconds since any fixed moment.
        own: Processor time of this process, in seconds.
        busy: Seconds that each core has worked.
        load: Processes that run or wait, over a minute; NaN where the system does not say.
        clock_mhz: Mean clock of the cores that this process may use; NaN where the system does not say.
    """

    moment: float
    own: float
    busy: tuple[float, ...]
    load: float
    clock_mhz: float

    @classmethod
    def now(cls) -> Self:
        """Look at the machine."""
        cores = available_cores()
        return cls(
            time.perf_counter(),
            time.process_time(),
            busy_seconds(),
            os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan,
            _clock(cores),
        )


@dataclass(frozen=True)
class Conditions:
    """What a machine was like while models were timed.

    Attributes:
        load: Processes that run or wait, over a minute, before and after; those of the session count.
        clock_mhz: Clock of the session's cores, before and after; NaN where the system does not say.
        others: Cores that other programs kept busy, on average, of all that the machine has.
        taken: Share of the cores that the session needed which others used.
        seconds: How long it took.
        cores: The cores that the session was pinned to; empty where it was not.
    """

    load: tuple[float, float]
    clock_mhz: tuple[float, float] = (math.nan, math.nan)
    others: float = math.nan
    taken: float = math.nan
    seconds: float = math.nan
    cores: tuple[int, ...] = ()

    @classmethod
    def between(
        cls, before: MachineState, after: MachineState, threads: int, available: Sequence[int], *, pinned: bool
    ) -> Self:
        """Compare two looks at the machine.

        Args:
            before: The first.
            after: The second.
            threads: Threads that were timed.
            available: The cores that the process may use.
            pinned: Whether those are the ones that it was pinned to.
        """
        seconds, own = after.moment - before.moment, after.own - before.own
        busy = [end - begin for begin, end in zip(before.busy, after.busy, strict=False)]
        inside = sum(busy[core] for core in available if core < len(busy))
        others = max(0.0, inside - own) / seconds
        needed = min(threads, len(available))
        return cls(
            load=(before.load, after.load),
            clock_mhz=(before.clock_mhz, after.clock_mhz),
            others=max(0.0, sum(busy) - own) / seconds,
            taken=min(1.0, max(0.0, others + needed - len(available)) / needed),
            seconds=seconds,
            cores=tuple(available) if pinned else (),
        )

    def warning(self, threads: int, where: str = "the machine") -> str | None:
        """Say that the machine was busy, or slowed down; None if neither can be told.

        Args:
            threads: Threads that were timed.
            where: The machine in words.
        """
        if not self.seconds >= SHORTEST:
            return None
        before, after = self.clock_mhz
        if self.taken > DISTURBING_SHARE:
            cores = "core" if threads == 1 else f"{threads} cores"
            loads = " before and ".join(f"{load:.1f}" for load in self.load)
            return (
                f"{where} was busy: other programs used {self.taken:.0%} of the {cores} that the target needs while "
                f"models were timed (load {loads} after); measure again when it is idle"
            )
        if after < SLOWED * before:
            return f"{where} slowed down while models were timed, from {before:,.0f} to {after:,.0f} MHz"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without what is not known."""
        plain: dict[str, Any] = {}
        for name in ("load", "clock_mhz"):
            if not any(map(math.isnan, pair := getattr(self, name))):
                plain[name] = [round(value, 2) for value in pair]
        for name in ("others", "taken", "seconds"):
            if not math.isnan(value := getattr(self, name)):
                plain[name] = round(value, 4)
        return plain | ({"cores": list(self.cores)} if self.cores else {})

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read plain data; what is missing is not known.

        Args:
            plain: What :meth:`to_json` returned, perhaps elsewhere.

        Raises:
            ValueError: It is something else.
            TypeError: It is something else.
        """
        unknown = (math.nan, math.nan)
        load, clock = (tuple(map(float, plain.get(name, unknown))) for name in ("load", "clock_mhz"))
        if len(load) != 2 or len(clock) != 2:
            raise ValueError(f"load and clock_mhz should be pairs, got {len(load)} and {len(clock)} numbers")
        others, taken, seconds = (float(plain.get(name, math.nan)) for name in ("others", "taken", "seconds"))
        if any(map(math.isinf, (*load, *clock, others, taken, seconds))):
            raise ValueError("its figures should be finite")
        cores = tuple(map(int, plain.get("cores", ())))
        return cls((load[0], load[1]), (clock[0], clock[1]), others, taken, seconds, cores)


def available_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def busy_seconds() -> tuple[float, ...]:
    """Return how long each core has worked, or another machine had it."""
    import psutil

    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of ``user``
    rows = (times._asdict() for times in psutil.cpu_times(percpu=True))
    return tuple(sum(seconds for name, seconds in times.items() if name not in idle) for times in rows)


def _clock(cores: Sequence[int]) -> float:
    """Return the mean clock of some cores in MHz; NaN where the system does not say."""
    import psutil

    try:
        clocks = [each.current for each in psutil.cpu_freq(percpu=True) or ()]
    except (AttributeError, OSError, NotImplementedError, RuntimeError):  # whatever a system has instead of clocks
        return math.nan
    own = [clocks[core] for core in cores if core < len(clocks)] or clocks
    return sum(own) / len(own) if own and all(own) else math.nan
