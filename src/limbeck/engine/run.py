"""Carry out a recipe: check it, load its task, let workers begin, and follow its steps (``walk.py``).

Finished work is found by its key, so resuming means running again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from limbeck.core.paths import user_path
from limbeck.core.task import Task
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.distributed.executor import Executor, InProcess
from limbeck.distributed.workers import Workers
from limbeck.engine.costs import CostFactory
from limbeck.engine.given_teacher import SCORES, prepare_teacher
from limbeck.engine.progress import listening
from limbeck.engine.result import Failure, RunResult, read_result
from limbeck.engine.run_log import OnEvent
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.engine.tasks.stored_task import keep_task
from limbeck.engine.tasks.task_adaptation import adapt_task
from limbeck.engine.walk import Walk
from limbeck.measure.service.client import check_service
from limbeck.recipe.recipe import Recipe
from limbeck.storage.destination import check_destination, check_outside

if TYPE_CHECKING:
    from limbeck.teachers.function import FunctionTeacher, TeacherFunction

__all__ = ["Failure", "OnEvent", "RunResult", "read_result", "run"]


def run(
    recipe: Recipe,
    store: Store | str | Path | None = None,
    folder: str | Path | None = None,
    on_event: OnEvent | None = None,
    *,
    task: Task | None = None,
    cost: CostFactory | None = None,
    progress: bool | None = None,
    teacher: TeacherFunction | None = None,
    executor: ExecutorConfig | None = None,
) -> RunResult:
    """Carry out a recipe, or resume it where an earlier run stopped.

    Args:
        recipe: What to do; checked first, and every problem is reported at once.
        store: Where finished work is kept; a folder, or None for the user's own.
        folder: Where the ledger and the resolved recipe go; ``runs/<name>`` unless given.
        on_event: Called with a dictionary (``kind`` and more) at every start, end, log line and failure.
        task: A task in memory instead of ``recipe.task``. It is kept in the run's folder, and the recipe that is
            written there refers to it.
        cost: Builds ``context.cost`` from (candidate, target, memo); the techniques' own unless given.
        progress: Whether to show progress [default: on a terminal and in a notebook, unless ``on_event`` is given].
        teacher: A function from texts to scores instead of ``recipe.teacher``. Its answers are kept in the run's
            folder, and the recipe that is written there refers to them.
        executor: Where candidates are made; one after another in this process unless given.
    """
    began, run_folder = monotonic(), user_path(folder) if folder else default_folder(recipe.name)
    if teacher is not None:
        recipe = replace(recipe, teacher=str(run_folder / SCORES))
    executor = executor or ExecutorConfig()
    executor.check(limited=recipe.max_minutes is not None)
    store = Store.of(store)
    with listening(on_event, progress) as listener:
        store.notify = lambda message: listener({"kind": "note", "message": message})
        recipe, loaded = checked(recipe, store, run_folder, task, teacher)
        with open_workers(executor, run_folder) as workers:
            begun = start(
                recipe, loaded, store, run_folder, listener, cost, teacher=teacher, workers=workers, began=began
            )
            return begun.finish()


def checked(
    recipe: Recipe, store: Store, folder: Path, task: Task | None = None, teacher: TeacherFunction | None = None
) -> tuple[Recipe, Task]:
    """Return a recipe whose task can be found in the folder of the run, and the task; refuse what cannot work.

    Args:
        recipe: The recipe.
        store: Where finished work is kept.
        folder: Folder of the run.
        task: See :func:`run`.
        teacher: See :func:`run`.
    """
    loaded = checked_task(recipe, store, task, teacher)
    for setting in recipe.settings.values():
        check_service(setting.target)
    check_outside(folder, (recipe.model, recipe.teacher), "--folder")
    if task is not None:
        check_destination(folder, "--folder", within=True)
        recipe = replace(recipe, task=str(keep_task(task, folder)))
    return recipe, loaded


def start(
    recipe: Recipe,
    task: Task,
    store: Store | str | Path | None,
    folder: Path,
    on_event: OnEvent,
    cost: CostFactory | None = None,
    executor: Executor | None = None,
    teacher: TeacherFunction | FunctionTeacher | None = None,
    workers: Workers | None = None,
    began: float | None = None,
) -> Walk:
    """Begin a recipe whose task is loaded and checked already, and return the run.

    Args:
        recipe: The recipe.
        task: What ``recipe.task`` names.
        store: Where finished work is kept.
        folder: Where the ledger and the resolved recipe go.
        on_event: Receives each event as a dictionary.
        cost: See :func:`run`.
        executor: Carries out the work of a step on all candidates; in this process unless given.
        teacher: See :func:`run`.
        workers: Make candidates elsewhere, ahead of the walk.
        began: When the command began, by ``time.monotonic``, for a limit of time; now unless given.
    """
    check_destination(folder, "--folder", within=True)
    store = Store.of(store)
    store.prepare()
    task, notes = adapt_task(recipe, task, store)
    messages = list(notes)
    function = prepare_teacher(recipe.teacher, task, teacher, folder, messages.append)
    started = Walk(recipe, task, store, folder, on_event, cost, executor or InProcess(), began)
    started.builder.given.function = function
    if workers is not None:
        if function is None and cost is None:
            started.work_ahead(workers)
        else:
            messages.append("a function cannot be sent to workers: everything is made in this process")
    started.begin(messages)
    return started


def default_folder(name: str) -> Path:
    """Return the default folder of a run."""
    return Path("runs") / (name or "run")
