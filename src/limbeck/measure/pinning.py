"""Which cores a timed process runs on: as many as it has threads, whole and of the fastest kind.

A process that the system moves from core to core begins each time with empty caches, and two of its threads may come to
share one physical core. Pinning costs nothing, since the machine is the measurement's alone, and the system moves other
programs away from a busy core. So there is no option for it. It is left out where it has no sense: where the system
cannot pin (macOS, Windows), where all cores are needed anyway, and for GPUs, whose drivers have threads of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from limbeck.measure.machine_state import available_cores, busy_seconds

TOPOLOGY = Path("/sys/devices/system/cpu")
LOOK = 0.1
"""Seconds for which cores are watched before one is chosen."""


def cores_for(
    threads: int, topology: Path = TOPOLOGY, busy: Callable[[], Sequence[float]] = busy_seconds
) -> tuple[int, ...]:
    """Return the cores to pin a process to; empty where it is not pinned.

    One logical core of each physical one comes first, the fastest kind before others, and of those that are alike the
    idlest, as another measurement may be pinned, too; else the highest number, since systems handle most interrupts on
    core 0.

    Args:
        threads: Threads of the process.
        topology: Folder in which the system describes its cores; where it does not, they count as alike.
        busy: Returns how long each core has worked.
    """
    cores = available_cores()
    if threads >= len(cores) or not hasattr(os, "sched_setaffinity"):
        return ()
    physical = {core: _read(topology / f"cpu{core}/topology/thread_siblings_list") or str(core) for core in cores}
    rank = {core: sum(physical[other] == physical[core] for other in cores if other < core) for core in cores}
    before = busy()
    time.sleep(LOOK)
    worked = dict(enumerate(round(end - begin, 2) for begin, end in zip(before, busy(), strict=False)))

    def order(core: int) -> tuple[int, int, float, int]:
        return rank[core], -_speed(topology / f"cpu{core}"), worked.get(core, 0.0), -core

    return tuple(sorted(sorted(cores, key=order)[:threads]))


def _speed(core: Path) -> int:
    """Return how fast a core is beside the others of its machine; 0 where the system does not say."""
    figures = (_read(core / name) for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"))
    return next((int(figure) for figure in figures if figure.isdigit()), 0)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
