"""Several recipes that do not need each other, on the same workers: all begin at once, and are told of in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.task import Task
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.engine.result import RunResult
from limbeck.engine.run import checked, run, start
from limbeck.engine.run_log import OnEvent
from limbeck.engine.store.store import Store
from limbeck.recipe.recipe import Recipe


def run_several(
    recipes: Sequence[Recipe],
    folders: Sequence[Path],
    store: Store,
    task: Task,
    on_event: OnEvent | None = None,
    executor: ExecutorConfig | None = None,
) -> Iterator[RunResult]:
    """Carry out recipes on one task, and yield the result of each, in order.

    Without workers, one begins when the one before it has ended. With them all begin at once, so that a worker that is
    free takes what any of them waits for; results and ledgers are the same.

    Args:
        recipes: The recipes.
        folders: Folder of each run.
        store: Where finished work is kept.
        task: The task of all.
        on_event: Receives the events of one run after the other.
        executor: Where candidates are made; one after another in this process unless given.
    """
    executor = executor or ExecutorConfig()
    if executor.executor == "local":
        for recipe, folder in zip(recipes, folders, strict=True):
            yield run(recipe, store, folder, on_event, task=task)
        return
    ready = [checked(recipe, store, folder, task) for recipe, folder in zip(recipes, folders, strict=True)]
    with open_workers(executor, folders[0].parent) as workers:
        begun = []
        for (recipe, loaded), folder in zip(ready, folders, strict=True):
            held = Held(on_event or (lambda event: None))
            own = replace(store)  # the messages of a store go to one run
            begun.append((start(recipe, loaded, own, folder, held, workers=workers), held))
        for started, held in begun:
            held.release()
            yield started.finish()


class Held:
    """Keeps the events of a run until it is its turn to be told of."""

    def __init__(self, on_event: OnEvent) -> None:
        """Keep events back.

        Args:
            on_event: Receives them later.
        """
        self._on_event, self._lock = on_event, threading.RLock()
        self._events: list[dict[str, Any]] | None = []

    def __call__(self, event: dict[str, Any]) -> None:
        """Keep an event, or pass it on."""
        with self._lock:
            if self._events is None:
                self._on_event(event)
            else:
                self._events.append(event)

    def release(self) -> None:
        """Pass on what was kept, and from now on everything at once."""
        with self._lock:
            events, self._events = self._events or [], None
            for event in events:
                self._on_event(event)
