"""Which cores a timed process runs on: as many as it has threads, whole and of the fastest kind.

A process that the system moves from core to core begins each time with empty caches, and two of its threads may come to
share one physical core. Pinning costs nothing, since the machine is the measurement's alone: the system moves other
programs away from a busy core. So there is no option for it. It is left out where it has no sense: where the system
cannot pin (macOS, Windows), where all cores are needed anyway, and for GPUs, whose drivers have threads of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def available_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cores_for(threads: int, topology: Path = TOPOLOGY) -> tuple[int, ...]:
    """Return the cores to pin a process to; empty where it is not pinned.

    One logical core of each physical one comes first, the fastest kind before others, and the highest number first,
    since systems handle most interrupts on core 0.

    Args:
        threads: Threads of the process.
        topology: Folder in which the system describes its cores; where it does not, they count as alike.
    """
    cores = available_cores()
    if threads >= len(cores) or not hasattr(os, "sched_setaffinity"):
        return ()
    physical = {core: _read(topology / f"cpu{core}/topology/thread_siblings_list") or str(core) for core in cores}
    rank = {core: sum(physical[other] == physical[core] for other in cores if other < core) for core in cores}
    best = sorted(cores, key=lambda core: (rank[core], -_speed(topology / f"cpu{core}"), -core))
    return tuple(sorted(best[:threads]))


def _speed(core: Path) -> int:
    """Return how fast a core is beside the others of its machine; 0 where the system does not say."""
    figures = (_read(core / name) for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"))
    return next((int(figure) for figure in figures if figure.isdigit()), 0)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
