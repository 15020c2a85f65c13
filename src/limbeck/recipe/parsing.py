"""Turn plain data into located steps, resolving forks, sweeps, stages and included files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.core.field_groups import fields_of, parameters
from limbeck.core.paths import exists, user_path
from limbeck.core.step import REGISTRY, Step, current_name
from limbeck.data.task_file import FILES
from limbeck.errors import InputError, RenamedWarning, nearest, shown
from limbeck.recipe import validation as fields
from limbeck.recipe.limits import (
    MAX_CANDIDATES,
    MAX_STAGES,
    MAX_STEPS,
    NUMBERS,
    TooManySteps,
    candidate_count,
    name_problem,
    number_problem,
    source_problem,
)
from limbeck.recipe.relative_paths import resolve_files, resolve_path
from limbeck.recipe.targets import read_settings
from limbeck.recipe.validation import Problem
from limbeck.storage import yaml_text

COMBINATORS = ("fork", "each", "stages", "use")


@dataclass(frozen=True)
class Fork:
    """Branches that each start from the same candidates; the results of all branches continue."""

    branches: tuple[Steps, ...]


Steps = tuple[Step | Fork, ...]
"""The steps and forks of a recipe, in order."""


@dataclass(frozen=True)
class LocatedStep:
    """A step and its location in the recipe.

    ``parsed`` is None if the step could not be read, ``cls`` too if no step has its name; a checked recipe has neither.
    """

    path: str
    parsed: Step | None = None
    cls: type[Step] | None = None
    branches: tuple[tuple[LocatedStep, ...], ...] | None = None

    def bare(self) -> Step | Fork:
        """Return the step of a checked recipe without its location."""
        if self.branches is None:
            return self.step
        return Fork(tuple(tuple(located.bare() for located in branch) for branch in self.branches))

    @property
    def step(self) -> Step:
        """The step of a checked recipe."""
        assert self.parsed is not None, self.path
        return self.parsed

    @property
    def name(self) -> str:
        """The step's name; 'fork' for a fork."""
        if self.branches is not None:
            return "fork"
        return self.cls.info.name if self.cls is not None else "?"


def registry() -> dict[str, type[Step]]:
    """Return all steps; importing the techniques registers them."""
    import_module("limbeck.techniques")
    return REGISTRY


def locate(steps: Sequence[Step | Fork], path: str = "steps") -> list[LocatedStep]:
    """Return steps with their paths."""
    placed = []
    for index, step in enumerate(steps):
        where = f"{path}[{index}]"
        if isinstance(step, Fork):
            branches = tuple(tuple(locate(branch, f"{where}.fork[{n}]")) for n, branch in enumerate(step.branches))
            placed.append(LocatedStep(where, branches=branches))
        else:
            placed.append(LocatedStep(where, step, type(step)))
    return placed


def leaves(placed: Sequence[LocatedStep]) -> Iterator[LocatedStep]:
    """Yield every step, including those in branches."""
    for located in placed:
        if located.branches is None:
            yield located
        else:
            yield from (inner for branch in located.branches for inner in leaves(branch))


def read(
    cls: type, data: object, base: Path | None, steps: Steps | None = None
) -> tuple[dict[str, Any], list[LocatedStep], list[Problem]]:
    """Return the fields of a recipe (without the steps), its located steps, and the problems of both.

    Args:
        cls: The class of recipes.
        data: The recipe as plain data.
        base: Folder that file names are relative to.
        steps: Steps and forks that are already objects; they are checked unchanged.
    """
    reader = _Reader()
    if not isinstance(data, Mapping):
        problem = Problem("recipe", f"should be a mapping with 'model', 'task' and 'steps', got {shown(data)}")
        return {}, [], [problem]
    values = reader.top(cls, data, base)
    try:
        if steps is None:
            placed = reader.steps(data.get("steps") or [], "steps", base, ())
        else:
            placed = [reader.checked(located) for located in locate(steps)]
    except TooManySteps as error:
        return values, [], [*reader.problems, error.problem]
    if (count := candidate_count(placed)) > MAX_CANDIDATES:
        reader.wrong("steps", f"forks and sweeps make {count:,} candidates; at most {MAX_CANDIDATES:,} are possible")
        return values, [], reader.problems
    return values, placed, reader.problems


class _Reader:
    """Collects problems while it reads."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.registry = registry()
        self.count = 0
        self.files: dict[Path, Any] = {}

    def counted(self, path: str, steps: int = 1) -> None:
        """Count steps towards the limit."""
        self.count += steps
        if self.count > MAX_STEPS:
            raise TooManySteps(path)

    def wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def top(self, cls: type, data: Mapping[Any, Any], base: Path | None) -> dict[str, Any]:
        """Read everything except the steps."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "budgets"]  # they stand with their targets
        for key in data:
            if key not in names:
                self.wrong(str(key)[:100], f"a recipe has no {shown(key)}; {nearest(key, names)}")
        values: dict[str, Any] = {}
        for key in ("model", "teacher", "name"):
            if (text := data.get(key)) is None and key != "model":
                continue
            if problem := name_problem(text) if key == "name" else source_problem(text):
                self.wrong(key, problem)
            else:
                values[key] = str(text) if key == "name" else resolve_path(str(text), base)
        for key in NUMBERS:
            if (number := data.get(key)) is None:
                continue
            if problem := number_problem(key, number):
                self.wrong(key, problem)
            else:
                values[key] = number
        if (allowed := data.get("allow_weak_teacher")) is not None:
            if isinstance(allowed, bool):
                values["allow_weak_teacher"] = allowed
            else:
                self.wrong("allow_weak_teacher", f"should be true or false, got {shown(allowed)}")
        self._task(data.get("task"), values, base)
        settings, problems = read_settings(data)
        values |= settings
        self.problems += problems
        if "steps" in data and not isinstance(data["steps"], (list, type(None))):
            self.wrong("steps", f"should be a list, got {shown(data['steps'])}")
        return values

    def _task(self, task: object, values: dict[str, Any], base: Path | None) -> None:
        if task is None:
            self.wrong("task", "is required: the name of a task, a folder or a mapping that says where the data is")
        elif isinstance(task, str):
            values["task"] = resolve_path(task, base)
        elif isinstance(task, Mapping):
            values["task"] = {
                key: resolve_path(item, base) if key in FILES and isinstance(item, str) else item
                for key, item in task.items()
            }
        else:
            self.wrong("task", f"should be text or a mapping, got {shown(task)}")

    def steps(self, entries: object, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        """Read a list of entries; ``chain`` holds the files being included, to detect a cycle.

        Args:
            entries: The entries as written.
            path: Location of the list in the recipe.
            base: Folder that file names are relative to.
            chain: The files being included.
        """
        if not isinstance(entries, (list, tuple)):
            if path != "steps":
                self.wrong(path, f"should be a list of steps, got {shown(entries)}")
            return []
        return [
            located
            for index, entry in enumerate(entries)
            for located in self._entry(entry, f"{path}[{index}]", base, chain)
        ]

    def checked(self, located: LocatedStep) -> LocatedStep:
        """Check the fields of a step that is already an object; drop it from its location if it has problems."""
        if located.branches is not None:
            return replace(
                located, branches=tuple(tuple(self.checked(inner) for inner in branch) for branch in located.branches)
            )
        step = located.parsed
        if not isinstance(step, Step):
            self.wrong(located.path, f"should be a step or a Fork, got {shown(step)}")
            return LocatedStep(located.path)
        _, problems = fields.read(type(step), parameters(step), f"{located.path}.{located.name}")
        self.problems += problems
        return replace(located, parsed=None) if problems else located

    def _entry(self, entry: object, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        self.counted(path)
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, Mapping) or len(entry) != 1:
            self.wrong(path, f"should be one step, as in '- prune: {{keep: 0.5}}', got {shown(entry)}")
            return []
        ((name, value),) = entry.items()
        if name == "use":
            return self._use(value, f"{path}.use", base, chain)
        if name == "fork":
            if not isinstance(value, (list, tuple)):
                self.wrong(f"{path}.fork", f"should be a list of lists of steps, got {shown(value)}")
                return []
            branches = [tuple(self.steps(branch, f"{path}.fork[{n}]", base, chain)) for n, branch in enumerate(value)]
            return [LocatedStep(path, branches=tuple(branches))]
        if name == "each":
            return [self._each(value, path, base)]
        if name == "stages":
            return self._stages(value, f"{path}.stages", base)
        name = _today(name)
        if name not in self.registry:
            hint = nearest(name, [*self.registry, *COMBINATORS])
            self.wrong(path, f"no step called {shown(name)}; {hint}")
            return [LocatedStep(path)]
        cls = self.registry[name]
        if isinstance(value, Mapping):
            value = resolve_files(cls, value, base)
        step, problems = fields.read(cls, value, f"{path}.{name}")
        self.problems += problems
        return [LocatedStep(path, step, cls)]

    def _use(self, value: object, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        if not isinstance(value, str):
            self.wrong(path, f"should name a recipe file, got {shown(value)}")
            return []
        file = (base or Path()) / user_path(value)
        with contextlib.suppress(OSError, ValueError):  # an impossible file name is reported below
            file = file.resolve()
        if file in chain:
            self.wrong(path, f"'{value}' includes itself: {' -> '.join(included.name for included in (*chain, file))}")
            return []
        if not exists(file):
            beside = [sibling.name for sibling in file.parent.glob("*.y*ml")] if exists(file.parent) else []
            self.wrong(path, f"no file {shown(value)}; {nearest(file.name, beside)}")
            return []
        try:
            data = self.files[file] = self.files[file] if file in self.files else yaml_text.load_file(file)
        except InputError as error:
            self.wrong(path, str(error))
            return []
        if not isinstance(data, Mapping) or not isinstance(data.get("steps"), list):
            self.wrong(path, f"'{value}' has no list of 'steps'")
            return []
        return self.steps(data["steps"], f"{path}({value})", file.parent, (*chain, file))

    def _each(self, value: object, path: str, base: Path | None) -> LocatedStep:
        """Read a sweep: one branch for every combination of the values listed."""
        where = f"{path}.each"
        if (swept := self._swept(value, where, base)) is None:
            return LocatedStep(path)
        if not swept.lists:
            self.wrong(where, f"lists no values to try, as in 'each: {{{swept.name}: {{field: [1, 2]}}}}'")
            return LocatedStep(path, cls=swept.cls)
        self.counted(where, math.prod(map(len, swept.lists.values())))
        combinations = itertools.product(*(range(len(values)) for values in swept.lists.values()))
        branches = [
            (self._chosen(swept, dict(zip(swept.lists, chosen, strict=True)), where),) for chosen in combinations
        ]
        return LocatedStep(path, branches=tuple(branches))

    def _stages(self, value: object, path: str, base: Path | None) -> list[LocatedStep]:
        """Repeat the same steps, each time from the last results; the results of every stage continue.

        Lists of values are read in parallel: the first stage has the first of every list.
        """
        if not isinstance(value, (list, tuple)) or not value:
            self.wrong(path, f"should be a list of steps with lists of values, got {shown(value)}")
            return []
        entries = [self._swept(entry, f"{path}[{index}]", base) for index, entry in enumerate(value)]
        body = [swept for swept in entries if swept is not None]
        counts = {f"{swept.name}.{key}": len(given) for swept in body for key, given in swept.lists.items()}
        if len(body) < len(entries):
            return [LocatedStep(path)]
        if len(set(counts.values())) != 1:
            lengths = ", ".join(f"{name} has {count}" for name, count in counts.items())
            example = "as in 'stages: [{prune: {speedup: [2, 3]}}, distill]'"
            self.wrong(
                path, f"lists should be equally long: {lengths}" if lengths else f"lists one value a stage, {example}"
            )
            return [LocatedStep(path)]
        if (stages := next(iter(counts.values()))) > MAX_STAGES:
            self.wrong(path, f"lists {stages:,} stages; at most {MAX_STAGES} are possible")
            return [LocatedStep(path)]
        self.counted(path, len(body) * stages)
        placed: list[LocatedStep] = []
        for stage in reversed(range(stages)):
            steps = [
                self._chosen(swept, dict.fromkeys(swept.lists, stage), f"{path}[{index}]")
                for index, swept in enumerate(body)
            ]
            placed = [*steps, LocatedStep(path, branches=((), tuple(placed)))] if placed else steps
        return placed

    def _swept(self, value: object, where: str, base: Path | None) -> _Swept | None:
        """Read one step whose fields may have lists of values; report a problem and return None for anything else."""
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, Mapping) or len(value) != 1:
            self.wrong(where, f"should be one step with lists of values, got {shown(value)}")
            return None
        ((name, given),) = value.items()
        name = _today(name)
        if name not in self.registry:
            self.wrong(where, f"no step called {shown(name)}; {nearest(name, self.registry)}")
            return None
        cls = self.registry[name]
        given = resolve_files(cls, given, base) if isinstance(given, Mapping) else {}
        own = {f.name for f in fields_of(cls)}
        lists = {
            key: values
            for key, values in given.items()
            if isinstance(values, list) and values and not (key in own and fields.accepts(cls, key, values))
        }
        return _Swept(name, cls, given, lists)

    def _chosen(self, swept: _Swept, indices: Mapping[str, int], where: str) -> LocatedStep:
        """Return the step with one value from every list."""
        chosen = dict(swept.given) | {key: swept.lists[key][index] for key, index in indices.items()}
        step, problems = fields.read(swept.cls, chosen, f"{where}.{swept.name}")
        position = {f"{where}.{swept.name}.{key}": index for key, index in indices.items()}
        for problem in problems:
            suffix = f"[{position[problem.path]}]" if problem.path in position else ""
            self.wrong(problem.path + suffix, problem.message)
        return LocatedStep(where, step, swept.cls)


def _today(name: str) -> str:
    """Return the current name of a step, with a notice if the recipe has an earlier one."""
    today = current_name(name)
    if today != name:
        message = f"the step '{name}' is called '{today}' now; the old name still works"
        warnings.warn(message, RenamedWarning, stacklevel=2)
    return today


@dataclass(frozen=True)
class _Swept:
    """A step as written, and its fields that list values to choose from."""

    name: str
    cls: type[Step]
    given: Mapping[str, Any]
    lists: Mapping[str, list[Any]]
