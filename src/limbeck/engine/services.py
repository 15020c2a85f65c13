"""The services of a run that a step may use while it works on a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from limbeck.core.cost import TargetCost
from limbeck.core.step import RestrictedContext, RunContext, Step, Teacher
from limbeck.engine.helping import keep_once, together
from limbeck.engine.store import Store
from limbeck.recipe.recipe import Recipe


def services(
    recipe: Recipe,
    store: Store,
    step: Step,
    *,
    seed: int,
    teacher: Teacher | None,
    log: Callable[..., None],
    scratch: Path | None = None,
    cost: TargetCost | None = None,
) -> RunContext:
    """Return the services that a step declares; it is refused the others.

    Args:
        recipe: Gives target and budget.
        store: Keeps what the step asks to keep.
        step: The step.
        seed: Decides everything random.
        teacher: The model to imitate.
        log: Receives messages, and numbers by name.
        scratch: Folder for the step's own checkpoints.
        cost: What a shape costs.
    """
    context = RunContext(
        seed=seed,
        target=recipe.target,
        budget=recipe.budget,
        teacher=teacher,
        keep=keep_once(store) if together(step) else store.facts.keep,
        log=log,
        scratch=scratch,
        cost=cost,
    )
    return cast(RunContext, RestrictedContext(context, step.info))  # it has the fields that the step declares
