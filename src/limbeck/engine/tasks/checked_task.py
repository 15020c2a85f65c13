"""Load the task of a recipe and check both, before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limbeck.core.task import Task
from limbeck.engine.given_teacher import ANSWERS_ONLY
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.task_adaptation import adapt_task, fit_length
from limbeck.errors import RecipeError
from limbeck.recipe.checks import absent_splits, check_lengths, unsuited_fields, unsuited_limits
from limbeck.recipe.recipe import Recipe, check, listing, placed_steps

if TYPE_CHECKING:
    from limbeck.teachers.function import TeacherFunction


def checked_task(
    recipe: Recipe, store: Store, task: Task | None = None, teacher: TeacherFunction | None = None
) -> Task:
    """Load and check the task of a recipe; one error lists every problem of both.

    Args:
        recipe: The recipe.
        store: Where the answers to texts without labels are kept.
        task: The task, if it is in memory.
        teacher: The teacher, if it is a function.
    """
    from limbeck.engine.tasks.answered_texts import load_run_task

    title = f"recipe {recipe.name}".strip()
    if problems := check(recipe, has_task=task is not None, function=None if teacher is None else ANSWERS_ONLY):
        raise RecipeError(listing(title, problems))
    steps = placed_steps(recipe)

    def check_steps(task: Task) -> None:
        named, _ = adapt_task(recipe, task, store, dry=True)  # fields may have the model's names of the labels
        limits = unsuited_limits(vars(recipe), task.task_kind)
        if problems := absent_splits(steps, task) + unsuited_fields(steps, named) + limits:
            raise RecipeError(listing(title, problems))

    if task is None:
        task = load_run_task(recipe.task, recipe.model, recipe.teacher, store, check_steps)
    check_steps(task)
    task = fit_length(task, recipe.model)
    for setting in recipe.settings.values():
        check_lengths(recipe.model, recipe.teacher, task, steps, setting.target.seq_len)
    return task
