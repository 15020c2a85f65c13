"""The services of a run that a step may use while it works on a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from limbeck.core.candidate import Reference
from limbeck.core.cost import TargetCost
from limbeck.core.kinds import KINDS
from limbeck.core.measurement import machine
from limbeck.core.step import RestrictedContext, RunContext, Step, Teacher
from limbeck.core.target import Budget
from limbeck.distributed import context as processes
from limbeck.engine.costs import measured_alone
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
    compared: Reference | None = None,
) -> RunContext:
    """Return the services that a step declares; it is refused the others.

    Args:
        recipe: Gives target and budget.
        store: Keeps what the step asks to keep.
        step: The step.
        seed: Seed of everything random.
        teacher: The model to imitate.
        log: Receives messages, and numbers by name.
        scratch: Folder for the step's own checkpoints.
        cost: What a shape costs.
        compared: The model that a probe compares the others with.
    """
    context = RunContext(
        seed=seed,
        target=recipe.target,
        budget=recipe.budget,
        teacher=teacher,
        reference=compared,
        memo=measured_alone(store),
        keep=keep_once(store) if together(step) else store.facts.keep,
        log=log,
        scratch=scratch,
        cost=cost,
    )
    return cast(RunContext, RestrictedContext(context, step.info))  # it has the fields that the step declares


def services_in_keys(
    recipe: Recipe, step: Step, *, seed: int, teacher: Callable[[], str | None], kind: str
) -> dict[str, Any]:
    """Return the values of the services that a step declares, as they enter keys.

    Args:
        recipe: Gives target and budget.
        step: The step.
        seed: Seed of everything random.
        teacher: Returns the key of the model to imitate.
        kind: Kind of the task.
    """
    target = asdict(recipe.target)
    values: dict[str, Callable[[], Any]] = {
        "seed": lambda: seed,
        "target": lambda: target,
        "budget": lambda: _budget_in_keys(recipe.budget),
        "teacher": teacher,
        "cost": lambda: {"target": target, "machine": machine(), "teacher": teacher()},
    }
    read = {name: value() for name, value in values.items() if name in step.info.reads}
    if step.info.standardizes and KINDS[kind].numeric:
        read["targets"] = "standardized"  # results from before that are others
    if together(step):
        read["processes"] = processes.count()  # batches are as many times larger
    return read


def _budget_in_keys(budget: Budget) -> dict[str, float | None]:
    """Return the limits; one that was added since keys were stored is left out where it is not set."""
    limits = asdict(budget)
    return limits if budget.max_flips is not None else {name: limits[name] for name in limits if name != "max_flips"}
