"""Run the engine on process 0, and let the other processes help with the steps that all processes must run.

Process 0 is the engine: it alone has the store, the ledger, probes, choices, the report and the console. The others
wait, without disturbing measurements, until it asks them to carry out the same step from the same stored candidate, or
to end (see ``engine/workers/helping.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from limbeck.core.step import Teacher, Technique, discard
from limbeck.distributed import context as processes
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.services import services
from limbeck.engine.store.store import Store
from limbeck.errors import LimbeckError, ProcessLost
from limbeck.recipe.recipe import parse


def run_with_workers(work: Callable[[], int]) -> int:
    """Do ``work`` on process 0 while all others help; return its exit status on all of them.

    Args:
        work: Work of process 0; returns the exit status.

    Raises:
        ProcessLost: One of the processes has died.
    """
    processes.join()
    return _run_worker() if processes.rank() else _run_main(work)


def _run_main(work: Callable[[], int]) -> int:
    try:
        status = work()
    except ProcessLost:
        raise
    except BaseException:
        _end(1)
        raise
    _end(status)
    return status


def _end(status: int) -> None:
    with suppress(ProcessLost):  # a process lost at the end was no longer needed
        processes.all_gather(do="end", status=status)
        processes.leave()


def _run_worker() -> int:
    while True:
        order = processes.all_gather()[0]
        match order.get("do"):
            case "help":
                _help(order)
            case "end":
                processes.leave()
                return int(order["status"])
            case _:
                raise LimbeckError("process 0 trains alone; a step that calls 'fit' must say every_process = True")


def _help(order: Mapping[str, Any]) -> None:
    try:
        with processes.synchronized():
            store = Store(Path(order["store"]))
            task = store.task(store.card(order["arguments"]["parent"]).task)
            apply_step(CandidateBuilder(parse(order["recipe"]), task, store), **order["arguments"])
    except ProcessLost:
        raise
    except Exception:  # process 0 sees the failure, and reports it
        return


def apply_step(builder: CandidateBuilder, parent: str, seed: int, base: str, teacher: str | None) -> None:
    """Carry out the only step of a builder's recipe beside process 0, and discard the results.

    Args:
        builder: Opens the candidate and the teacher.
        parent: Key of the candidate to work on.
        seed: Seed of everything random.
        base: Key of the first child, which names the scratch folder.
        teacher: Key of the teacher, if the step has one.
    """
    (step,) = builder.recipe.steps
    assert isinstance(step, Technique)  # process 0 sent it
    candidate = builder.store.open(parent)
    given = None if teacher is None or builder.store.has(teacher) else teacher
    builder.find_given = lambda: given  # the recipe's teacher may be where process 0 alone sees it
    cost = builder.make_cost(candidate, step, parent, teacher) if "cost" in step.info.reads else None
    context = services(
        builder.serving(step),
        builder.store,
        step,
        seed=seed,
        teacher=Teacher(teacher, lambda: builder.open(teacher)) if teacher else None,
        log=discard,
        scratch=builder.store.scratch(base),
        cost=cost,
    )
    for _ in step.apply(candidate, context):
        pass
