"""How long a graph of work takes on so many workers: by simulation, as the workers of a run take it.

A worker that is free takes what the longest chain of work waits for. What is measured and chosen is done by the run
itself, one thing after another, and a measurement has the machine alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        seconds: How long it takes.
        after: Numbers of those that have to end before it; all smaller than its own.
        own: Whether the run does it itself, rather than a worker.
    """

    seconds: float
    after: tuple[int, ...] = ()
    own: bool = False


def remaining(graph: Sequence[Work]) -> list[float]:
    """Return the seconds from the beginning of each piece to the end of the longest chain through it.

    Args:
        graph: All work.
    """
    longest = [work.seconds for work in graph]
    waiting = [0.0] * len(graph)
    for number in range(len(graph) - 1, -1, -1):
        longest[number] = graph[number].seconds + waiting[number]
        for before in graph[number].after:
            waiting[before] = max(waiting[before], longest[number])
    return longest


def critical_path(graph: Sequence[Work]) -> float:
    """Return the seconds of the longest chain, which no number of workers can shorten.

    >>> critical_path([Work(1), Work(2, (0,)), Work(3, (0,))])
    4.0
    """
    return max(remaining(graph), default=0.0)


def makespan(graph: Sequence[Work], workers: int) -> float:
    """Return the seconds that all of it takes.

    Args:
        graph: All work.
        workers: Workers beside the run itself.

    >>> makespan([Work(1), Work(2, (0,)), Work(3, (0,))], workers=1)
    6.0
    """
    urgency = remaining(graph)
    blocked = [len(set(work.after)) for work in graph]
    followers: list[list[int]] = [[] for _ in graph]
    for number, work in enumerate(graph):
        for before in set(work.after):
            followers[before].append(number)
    ready: list[tuple[float, int]] = []
    own: list[int] = []  # in the recipe's order
    free, busy, now = workers, False, 0.0
    running: list[tuple[float, int]] = []

    def begin(number: int) -> None:
        if graph[number].own:
            heapq.heappush(own, number)
        else:
            heapq.heappush(ready, (-urgency[number], number))

    for number, count in enumerate(blocked):
        if not count:
            begin(number)
    while ready or own or running:
        if own and not busy:
            number = heapq.heappop(own)
            busy = True
            heapq.heappush(running, (now + graph[number].seconds, number))
            continue
        if ready and free:
            _, number = heapq.heappop(ready)
            free -= 1
            heapq.heappush(running, (now + graph[number].seconds, number))
            continue
        now, number = heapq.heappop(running)
        busy, free = (False, free) if graph[number].own else (busy, free + 1)
        for follower in followers[number]:
            blocked[follower] -= 1
            if not blocked[follower]:
                begin(follower)
    return float(now)
