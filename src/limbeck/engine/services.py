"""The services of a run that a step may use while it works on a record."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, cast

from limbeck.core.candidate import Reference, Stored
from limbeck.core.cost import TargetCost
from limbeck.core.measurement import machine
from limbeck.core.pieces import Spread
from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext, Step, Teacher
from limbeck.core.task import Task
from limbeck.distributed import context as processes
from limbeck.engine.costs import measured_alone
from limbeck.engine.store.store import Store
from limbeck.engine.workers.helping import keep_once, runs_on_all_processes
from limbeck.measure.service.client import machine_at
from limbeck.recipe.recipe import Recipe

LIMITS_IN_KEYS = ("latency_ms", "size_mb", "max_drop")
"""Parts of the budget that may decide what a step makes; the others decide only what is chosen."""


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
    partner: Stored | None = None,
    spread: Spread | None = None,
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
        partner: The other candidate of a combination; its key is a field of the step, so it enters keys with those.
        spread: Has pieces of the step carried out elsewhere.
    """
    context = RunContext(
        seed=seed,
        target=recipe.target,
        budget=recipe.budget,
        teacher=teacher,
        partner=partner,
        reference=compared,
        memo=store.facts.arrays if step.info.machine_bound else measured_alone(store),  # those run alone already
        keep=keep_once(store) if runs_on_all_processes(step) else store.facts.keep,
        log=log,
        scratch=scratch,
        cost=cost,
        spread=spread,
    )
    return cast(RunContext, RestrictedContext(context, step.info))  # it has the fields that the step declares


def services_in_keys(
    recipe: Recipe,
    step: Step,
    *,
    seed: int,
    teacher: Callable[[], str | None],
    task: Task,
    traits: AbstractSet[str] = frozenset(),
) -> dict[str, Any]:
    """Return the values of the services that a step declares, as they enter keys.

    Args:
        recipe: Gives target and budget.
        step: The step.
        seed: Seed of everything random.
        teacher: Returns the key of the model to imitate.
        task: The task of the run.
        traits: Traits of the candidate that the step gets.
    """
    target = recipe.target.identity()
    values: dict[str, Callable[[], Any]] = {
        "seed": lambda: seed,
        "target": lambda: target,
        "budget": lambda: {name: asdict(recipe.budget)[name] for name in LIMITS_IN_KEYS},
        "teacher": teacher,
        "cost": lambda: {"target": target, "machine": machine(), "teacher": teacher()} | _graphs_of(task),
    }
    given = {name: value() for name, value in values.items() if name in step.info.reads}
    read = {**step.decisive_services(given, task, recipe.target), **step.marks(traits)}
    if step.info.standardizes and task.task_kind.numeric:
        read["targets"] = "standardized"  # results from before that are others
    if runs_on_all_processes(step):
        read["processes"] = processes.count()  # batches are as many times larger
    return read


def _graphs_of(task: Task) -> dict[str, Any]:
    """Return what tells latencies of graphs with attention for long texts from those of before there were such graphs.

    Words and marks are counted, which hold a token or more each, so some tasks with shorter texts have a new key, too.
    """
    from limbeck.measure.samples import lengths_of
    from limbeck.model.onnx.graph import LONG_TEXT

    return {"long_texts": True} if median(lengths_of(task, LONG_TEXT)) >= LONG_TEXT / 2 else {}


def machine_in_keys(recipe: Recipe, step: Step) -> dict[str, Any]:
    """Return the machine for which alone the facts of a probe hold, as it enters keys; empty where they hold for any.

    A measuring service times the exports of torch models, so its facts are kept apart from those measured here.
    """
    if not step.info.machine_bound:
        return {}
    url = recipe.target.url if step.info.at_target else None
    return {"machine": machine()} if url is None else {"machine": machine_at(url), "service": True}
