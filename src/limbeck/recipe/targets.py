"""Several targets of one recipe: how they are written and named, and the limits of each.

targets:
  server: {threads: 8, runtime: openvino}
  laptop: {threads: 1, budget: {latency_ms: 5}}   # replaces the recipe's limit; the others hold here, too
budget: {latency_ms: 2, max_drop: 1}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from limbeck.core.target import Budget, Limits, Target
from limbeck.errors import nearest, shown
from limbeck.recipe import validation as fields
from limbeck.recipe.validation import Problem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""Names of targets, which become names of folders and files."""

MAX_TARGETS = 50
"""Most targets of a recipe."""


class Setting(NamedTuple):
    """A target and the limits that hold there."""

    target: Target
    budget: Budget


@dataclass
class Named:
    """The section ``targets`` of a recipe: targets, and the limits that each has of its own."""

    targets: dict[str, Target] = field(default_factory=dict)
    budgets: dict[str, Limits] = field(default_factory=dict)


def settings(values: Mapping[str, Any]) -> dict[str, Setting]:  # the fields of a recipe, each of a type of its own
    """Return the targets of a recipe by name, with their limits; a single one has no name ('').

    Args:
        values: Fields of the recipe by name; those that could not be read are missing.
    """
    budget, named = values.get("budget", Budget()), values.get("targets")
    if not named:
        return {"": Setting(values.get("target", Target()), budget)}
    own = values.get("budgets", {})
    return {name: Setting(target, own.get(name, Limits()).over(budget)) for name, target in named.items()}


def path_of(name: str) -> str:
    """Return where a target stands in a recipe.

    >>> path_of("laptop"), path_of("")
    ('targets.laptop', 'target')
    """
    return f"targets.{name}" if name else "target"


def budget_path(name: str, values: Mapping[str, Any], limit: str) -> str:
    """Return where a limit of a target stands in a recipe.

    Args:
        name: The target; '' for a single one.
        values: Fields of the recipe by name.
        limit: Name of the limit.
    """
    own = values.get("budgets", {}).get(name)
    return f"targets.{name}.budget.{limit}" if own is not None and limit in own.given else f"budget.{limit}"


def read_settings(data: Mapping[Any, Any]) -> tuple[dict[str, Any], list[Problem]]:  # fields of a recipe
    """Return what a recipe says of its targets and their limits, as its fields, and what is wrong with it.

    Args:
        data: The recipe as written, with ``target`` or ``targets``, and ``budget``.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, part in (("target", Target), ("budget", Budget)):
        value, wrong = fields.read(part, data.get(key), key)
        problems += wrong
        if value is not None:
            values[key] = value
    if data.get("targets") is None:
        return values, problems
    named, wrong = _read_targets(data["targets"])
    problems += wrong
    if data.get("target") is not None:
        problems.append(Problem("targets", "are in place of 'target'; give one of the two"))
    elif named.targets:
        values |= {"target": next(iter(named.targets.values())), **vars(named)}
    return values, problems


def _read_targets(data: object) -> tuple[Named, list[Problem]]:
    """Read the section ``targets``: a mapping from names to fields of a target and, with them, a ``budget``."""
    named = Named()
    if not isinstance(data, Mapping) or not data:
        example = "as in 'targets: {server: {threads: 8}, laptop: {threads: 1}}'"
        return named, [Problem("targets", f"should map names to targets, {example}, got {shown(data)}")]
    if len(data) > MAX_TARGETS:
        return named, [Problem("targets", f"are {len(data):,}; at most {MAX_TARGETS} are possible")]
    problems: list[Problem] = []
    folders: dict[str, str] = {}
    for name, given in data.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            form = "letters, digits, '-' and '_', at most 40, that begins with a letter or digit"
            problems.append(Problem("targets", f"a name of a target should be of {form}, got {shown(name)}"))
            continue
        if (other := folders.setdefault(name.lower(), name)) != name:
            reason = f"differs from '{other}' in case alone, and both name folders"
            problems.append(Problem(path_of(name), reason))
        problems += _read_one(named, name, given)
    return named, problems


def _read_one(named: Named, name: str, given: object) -> list[Problem]:
    """Read one target into ``named``; return its problems."""
    own = given.get("budget") if isinstance(given, Mapping) else None
    if isinstance(given, Mapping):
        given = {key: value for key, value in given.items() if key != "budget"}
    target, problems = fields.read(Target, given, path_of(name))
    limits, wrong = fields.read(Limits, own, f"{path_of(name)}.budget")
    if target is not None:
        named.targets[name] = target
    if limits is not None and limits.given:
        named.budgets[name] = limits
    return [*problems, *wrong]


def unknown_target(name: str, names: Mapping[str, Any]) -> str:
    """Return the message for a target that a step names and the recipe lacks.

    Args:
        name: The name.
        names: The recipe's targets by name; '' for a single one.
    """
    if "" in names:
        return f"the recipe has one target, without a name; leave out {shown(name)}, or give 'targets'"
    return f"the recipe has no target called {shown(name)}; {nearest(name, names)}"
