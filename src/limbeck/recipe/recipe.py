"""Recipes: what to make, from which model, for which target; written in YAML or Python.

model: bert-base-uncased
task: sst2
target: {threads: 1}
steps:
  - finetune: {epochs: 3}
  - meta_pseudo_labels: {preset: teacher-finetune, epochs: 1}   # fields under one name; fields beside it win
  - use: warm-up.yaml                           # splice the steps of another recipe
  - each: {prune: {keep: [0.3, 0.5]}}           # a sweep: one branch per value
  - stages: [{prune: {keep: [0.5, 0.3]}}, distill]   # repeated; the results of every stage continue
  - fork: [[{export: {}}], []]                  # branches, each from the same candidates
  - quality: {}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from limbeck.core.field_groups import fields_of, parameters, values_of
from limbeck.core.model import AnswersOnly
from limbeck.core.paths import exists, user_path
from limbeck.core.step import Step, current_name, registered
from limbeck.core.target import Budget, Limits, Target
from limbeck.errors import RecipeError, nearest, shown
from limbeck.recipe import parsing
from limbeck.recipe.checks import meaning
from limbeck.recipe.parsing import Fork, LocatedStep, Steps
from limbeck.recipe.targets import Setting, settings, unknown_target
from limbeck.recipe.validation import Problem
from limbeck.storage import yaml_text

__all__ = ["Fork", "Problem", "Recipe", "check", "dump", "load_recipe", "parse", "shipped", "to_data"]


@dataclass(frozen=True)
class Recipe:
    """A model, a task, and the steps between them and a measured front.

    ``steps`` are instances of step classes, and :class:`Fork`; recipes compose as tuples do:
    ``Recipe(model, task, steps=(*warm_up.steps, Prune.of(keep=0.5)))``. ``teacher`` is a model of any architecture, or
    a file of scores (by default the first fine-tuned candidate); ``replicas``
    repeats the chosen candidate with other seeds.
    A recipe that ends in a choice stops before it compresses a teacher that was not shown to be better than the best
    constant answer, unless ``allow_weak_teacher``.
    ``max_minutes`` limit a run: trainings in branches that would end later, or whose result could not be chosen, are
    left out (``engine/prospects.py``).
    ``targets`` are several in place of ``target``, which is then the first of them: one training, and figures and a
    choice for each. ``budgets`` has limits of single targets, which replace those of ``budget`` there; a
    :class:`Budget` among them stands for those of its limits that are not at their default.
    """

    model: str
    task: str | Mapping[str, Any]
    steps: Steps = ()
    target: Target = field(default_factory=Target)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    teacher: str | None = None
    replicas: int = 1
    name: str = ""
    allow_weak_teacher: bool = False
    max_minutes: float | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    budgets: Mapping[str, Limits | Budget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {name: Limits.of(own) if isinstance(own, Budget) else own for name, own in self.budgets.items()}
        object.__setattr__(self, "budgets", given)
        if unknown := [name for name in self.budgets if name not in self.targets]:
            raise RecipeError(f"budgets: {unknown_target(unknown[0], self.settings)}")
        if self.targets:
            first = next(iter(self.targets.values()))
            if self.target not in (Target(), first):
                raise RecipeError("targets: are in place of target; give one of the two")
            object.__setattr__(self, "target", first)

    def __str__(self) -> str:
        return dump(self)

    @property
    def settings(self) -> dict[str, Setting]:
        """The targets by name, with the limits that hold there; a single one has no name ('')."""
        return settings(vars(self))

    def at(self, name: str = "") -> Recipe:
        """Return this recipe for one of its targets alone; '' for the first.

        Args:
            name: Name of the target.

        Raises:
            RecipeError: There is none of that name.
        """
        if not self.targets:
            return self
        if name and name not in self.targets:
            raise RecipeError(unknown_target(name, self.settings))
        setting = self.settings[name or next(iter(self.targets))]
        return replace(self, target=setting.target, budget=setting.budget, targets={}, budgets={})

    def with_(self, *settings: str) -> Recipe:
        """Return this recipe with fields replaced: ``recipe.with_("steps.2.prune.keep=0.4", "seed=1")``.

        Steps count from 0 as ``str(recipe)`` shows them, that is, after ``use`` and ``each`` are resolved.
        """
        data = to_data(self, full=True)
        for setting in settings:
            _assign(data, setting)
        return parse(data, name=self.name)


def parse(data: object, *, base: Path | None = None, name: str = "") -> Recipe:
    """Build a recipe from plain data with paths relative to ``base``; one error lists every problem.

    Args:
        data: The recipe as a mapping.
        base: Folder that file names are relative to.
        name: Name of the recipe unless it has its own.
    """
    values, placed, problems = parsing.read(Recipe, data, base)
    if problems:
        title = f"recipe {name}".strip()
        unique = _unique([*problems, *meaning(values, placed)])
        raise RecipeError(listing(title, unique))
    return Recipe(**{"name": name, **values, "steps": tuple(located.bare() for located in placed)})


def check(
    source: Recipe | Mapping[str, Any] | str | Path,
    base: Path | None = None,
    *,
    has_task: bool = False,
    function: AnswersOnly | None = None,
) -> list[Problem]:
    """List every problem of a recipe; loads no weights or data.

    Args:
        source: A Recipe, plain data, a file or a shipped name.
        base: Folder that file names in plain data are relative to.
        has_task: Whether the task is in memory: then what the recipe says of it is not looked up.
        function: The teacher, if it is a function in memory, for which the same holds.
    """
    steps: Steps | None = None
    if isinstance(source, Recipe):  # checked as it is
        data: object = to_data(replace(source, steps=()), full=True)
        steps = source.steps
    elif isinstance(source, (str, Path)):
        try:
            path = _find(source)
            data, base = yaml_text.load_file(path, error=RecipeError), path.parent
        except RecipeError as error:
            return [Problem("recipe", str(error))]
    else:
        data = source
    values, placed, problems = parsing.read(Recipe, data, base, steps)
    if has_task:
        values.pop("task", None)
        problems = [problem for problem in problems if problem.path != "task"]
    return _unique([*problems, *meaning(values, placed, function)])


def listing(title: str, problems: list[Problem]) -> str:
    """Return the problems of a recipe as the text of one error."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{title} has {count}:\n" + "\n".join(f"  {problem}" for problem in problems)


def to_data(recipe: Recipe, *, full: bool = False) -> dict[str, Any]:
    """Plain data of a recipe; ``full`` includes the defaults, so that later versions read the same recipe."""
    data: dict[str, Any] = {"name": recipe.name} if recipe.name or full else {}
    data |= {"model": recipe.model, "task": _plain(recipe.task)}
    for key in ("teacher", "target", "budget", "seed", "replicas", "allow_weak_teacher", "max_minutes"):
        value = getattr(recipe, key)
        if key == "target" and recipe.targets:
            data["targets"] = {name: _target_data(recipe, name, full) for name in recipe.targets}
            continue
        if isinstance(value, (Target, Budget)):
            entries = _fields(value, full)
            if entries:
                data[key] = entries
        elif full or value != Recipe.__dataclass_fields__[key].default:
            data[key] = value
    data["steps"] = [_step_data(step, full) for step in recipe.steps]
    return data


def dump(recipe: Recipe, *, full: bool = False) -> str:
    """Return the recipe as YAML; ``parse`` reads it back as an equal recipe."""
    return yaml_text.dump(to_data(recipe, full=full))


def load_recipe(source: str | Path) -> Recipe:
    """Load a recipe from a file, or one that limbeck ships, by name."""
    path = _find(source)
    data = yaml_text.load_file(path, error=RecipeError)
    return parse(data, base=path.parent, name=path.stem)


def shipped() -> dict[str, Path]:
    """Return the recipes that limbeck ships: name -> file."""
    folder = Path(str(resources.files("limbeck"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(source: str | Path) -> Path:
    path = user_path(source)
    if exists(path) and not path.is_dir():
        return path
    ours = shipped()
    if str(source) in ours:
        return ours[str(source)]
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        beside = [neighbor.name for neighbor in path.parent.glob("*.y*ml")] if exists(path.parent) else []
        raise RecipeError(f"no recipe file {shown(str(source))}; {nearest(path.name, beside)}")
    raise RecipeError(f"no recipe called {shown(str(source))} and no such file; {nearest(source, ours)}")


def _target_data(recipe: Recipe, name: str, full: bool) -> dict[str, Any]:
    """Return one of several targets as plain data, with the limits of its own."""
    own = _fields(recipe.budgets.get(name, Limits()), full)
    return _fields(recipe.targets[name], full) | ({"budget": own} if own else {})


def _step_data(step: Step | Fork, full: bool) -> dict[str, Any]:
    if isinstance(step, Fork):
        return {"fork": [[_step_data(inner, full) for inner in branch] for branch in step.branches]}
    return {step.info.name: _fields(step, full)}


def _fields(value: Step | Target | Budget | Limits, full: bool) -> dict[str, Any]:
    """Return the fields of a dataclass as plain data; without the defaults unless ``full``."""
    plain = parameters(value)
    if full:
        return plain
    given = values_of(value)
    return {f.name: plain[f.name] for f in fields_of(type(value)) if given[f.name] != f.default}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _assign(data: dict[str, Any], setting: str) -> None:
    """Apply one ``path=value`` to plain data; every part of the path must exist."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"'{setting}' is not a setting; write path=value, such as steps.2.prune.keep=0.4")
    parts = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
    inside: Any = data
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth]) or "the recipe"
        key: Any = part
        if isinstance(inside, list):
            if not part.isdigit() or int(part) >= len(inside):
                last = len(inside) - 1
                raise RecipeError(f"--set {path}: {where} has entries 0 to {last}, not '{part}'")
            key = int(part)
        elif not isinstance(inside, dict):
            raise RecipeError(f"--set {path}: {where} is {shown(inside)}, which has no field '{part}'")
        elif part not in inside and parts[0] != "task":
            key = part = _aliases(parts[depth - 1]).get(part, current_name(part))
        if isinstance(inside, dict) and part not in inside and parts[0] != "task":
            raise RecipeError(f"--set {path}: {where} has no '{part}'; {nearest(part, inside)}")
        if depth == len(parts) - 1:
            inside[key] = yaml_text.load(text, f"--set {path}", error=RecipeError)
        else:
            inside = inside.setdefault(key, {}) if isinstance(inside, dict) else inside[key]


def _aliases(step: str) -> Mapping[str, str]:
    """Shorter names of a step's fields."""
    parsing.registry()
    cls = registered(step)
    return cls.info.aliases if cls is not None else {}


def _unique(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def placed_steps(recipe: Recipe) -> list[LocatedStep]:
    """Return the steps of a recipe with their paths, such as ``steps[2].fork[0][1]``."""
    return parsing.locate(recipe.steps)


def chooses(recipe: Recipe) -> bool:
    """Return whether a recipe has a step that chooses the model to deliver."""
    return any(located.step.info.final for located in parsing.leaves(placed_steps(recipe)))
