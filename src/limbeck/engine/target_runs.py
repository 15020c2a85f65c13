"""The targets of a run: each has its own measurements, its own candidates that are left, and its own choice.

A recipe with one target has one of them, without a name. With several, candidates are made once, and probes and choices
are carried out for each target as if it were the only one: with the same keys, and the same stored facts.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from limbeck.core.step import Technique
from limbeck.distributed.executor import Executor
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.probing import Prober
from limbeck.engine.reference import reference
from limbeck.engine.result import End
from limbeck.engine.run_log import RunLog
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Recipe, placed_steps

T = TypeVar("T")
Fronts: TypeAlias = dict[str, list[str]]
"""Keys of the candidates that are left, by target."""


@dataclass
class TargetRun:
    """One target of a run: a builder whose records have the facts of this target, its prober, and what was chosen."""

    builder: CandidateBuilder
    prober: Prober
    chosen: list[str] = field(default_factory=list)


def target_runs(builder: CandidateBuilder, log: RunLog, executor: Executor) -> dict[str, TargetRun]:
    """Return the targets of a run by name; a single one has no name ('').

    Args:
        builder: Makes the candidates.
        log: Records facts.
        executor: Carries out the measurements.
    """
    builders = {name: measured_at(builder, name) for name in builder.recipe.settings}
    return {name: TargetRun(each, Prober(each, log, executor)) for name, each in builders.items()}


def measured_at(builder: CandidateBuilder, target: str) -> CandidateBuilder:
    """Return a builder of the same candidates, whose facts and choices are those of one of several targets.

    Args:
        builder: Makes the candidates.
        target: Name of the target; '' for a single one, whose builder it is already.
    """
    if not target:
        return builder
    other = copy(builder)
    other.target, other.records = target, ChainMap({}, builder.records)
    return other


def union(fronts: Mapping[str, Iterable[T]]) -> list[T]:
    """Return what there is on any target, such as the candidates that are left, each once."""
    return list(dict.fromkeys(key for front in fronts.values() for key in front))


def join_branches(ends: Iterable[Fronts], names: Iterable[str]) -> Fronts:
    """Return what is left after the branches of a fork, or beside what a combination makes.

    Args:
        ends: What is left after each branch.
        names: The targets.
    """
    branches = list(ends)
    return {name: list(dict.fromkeys(key for end in branches for key in end[name])) for name in names}


def ends_of(targets: Mapping[str, TargetRun], fronts: Fronts, root: str) -> dict[str, End]:
    """Return what a run ends with on each target.

    Args:
        targets: The targets.
        fronts: What is left on each.
        root: Key of the recipe's model.
    """
    return {
        name: End(fronts[name], each.chosen, reference(each.builder, [*each.chosen, *fronts[name]] or [root]))
        for name, each in targets.items()
    }


def fronts_for(fronts: Fronts, step: Technique, recipe: Recipe) -> tuple[Fronts, list[str]]:
    """Return the candidates that a technique is applied to, by target, and what a user should know of it.

    A technique with a goal is for that target, and its results are tried on all. Others may be for some targets alone,
    such as an export with operators of one runtime: what they make is not measured on the others.

    Args:
        fronts: The candidates.
        step: The technique.
        recipe: The recipe; one with a single target was checked before.
    """
    settings, goal = recipe.settings, step.goal_target()
    if len(settings) == 1:
        return fronts, []
    if goal is not None:
        names = list(settings)
        first = "" if goal else f", the first of {len(names)}; 'target: {names[1]}' in the step names another"
        return fronts, [f"the goal is a latency on the target '{goal or names[0]}'{first}"]
    others = [located.step for located in leaves(placed_steps(recipe))]
    problems = {name: step.target_problems(setting.target, others) for name, setting in settings.items()}
    notes = [
        f"is not for the target '{name}': " + "; ".join(f"{key} {reason}".strip() for key, reason in reasons.items())
        for name, reasons in problems.items()
        if reasons and fronts[name]
    ]
    return {name: [] if problems[name] else keys for name, keys in fronts.items()}, notes
