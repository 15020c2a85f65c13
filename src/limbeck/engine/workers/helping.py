"""One step in several processes: process 0 leads, the others carry out the same step (``engine/workers/worker.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from limbeck.core.step import Step, Technique
from limbeck.distributed import context as processes
from limbeck.engine.store.store import Store
from limbeck.recipe.recipe import Recipe, to_data


def runs_on_all_processes(step: Step) -> bool:
    """Return whether several processes run, and all of them this step."""
    return processes.count() > 1 and step.info.every_process


@contextmanager
def applied_by_all(
    recipe: Recipe, store: Store, step: Technique, *, parent: str, seed: int, base: str, teacher: str | None
) -> Iterator[None]:
    """Let the other processes, if any, carry out the same step while the body runs.

    Args:
        recipe: The recipe that contains the step.
        store: Where they find the candidate and the teacher.
        step: The step.
        parent: Key of the candidate to work on.
        seed: Seed of everything random.
        base: Key of the first child, which names the scratch folder.
        teacher: Key of the teacher, if the step has one; it is in the store.
    """
    if not runs_on_all_processes(step):
        yield
        return
    alone = to_data(replace(recipe, steps=(step,)), full=True)
    arguments = {"parent": parent, "seed": seed, "base": base, "teacher": teacher}
    processes.all_gather(do="help", store=str(store.root), recipe=alone, arguments=arguments)
    with processes.synchronized():
        yield


def keep_once(store: Store) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return what keeps a folder in the store that process 0 fills while the others wait for it."""
    return lambda name, build: Path(processes.broadcast_from_main(lambda: str(store.facts.keep(name, build))))
