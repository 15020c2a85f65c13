"""From plain data to steps with their places: forks, sweeps, stages and included files are resolved here."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.core.field_groups import fields_of
from limbeck.core.step import REGISTRY, Step, current_name
from limbeck.core.target import Budget, Target
from limbeck.errors import RecipeError, RenamedWarning, nearest
from limbeck.recipe import validation as fields
from limbeck.recipe import yaml as strict_yaml
from limbeck.recipe.validation import Problem

COMBINATORS = ("fork", "each", "stages", "use")


@dataclass(frozen=True)
class Fork:
    """Branches that each start from the same candidates; the results of all of them go on."""

    branches: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class LocatedStep:
    """A step and where it stands in the recipe.

    ``parsed`` is None if the step could not be read, ``cls`` too if no step has its name; a checked recipe has neither.
    """

    path: str
    parsed: Step | None = None
    cls: type[Step] | None = None
    branches: tuple[tuple[LocatedStep, ...], ...] | None = None

    def bare(self) -> Any:
        """Return the step without its location."""
        if self.branches is None:
            return self.parsed
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


def locate(steps: Sequence[Any], path: str = "steps") -> list[LocatedStep]:
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


def read(cls: type, data: Any, base: Path | None) -> tuple[dict[str, Any], list[LocatedStep], list[Problem]]:
    """Return the fields of a recipe (without the steps), its located steps, and the problems of both."""
    reader = _Reader()
    if not isinstance(data, Mapping):
        problem = Problem("recipe", f"should be a mapping with 'model', 'task' and 'steps', got {data!r}")
        return {}, [], [problem]
    values = reader.top(cls, data, base)
    placed = reader.steps(data.get("steps") or [], "steps", base, ())
    return values, placed, reader.problems


class _Reader:
    """Collects problems while it reads."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.registry = registry()

    def wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def top(self, cls: type, data: Mapping[Any, Any], base: Path | None) -> dict[str, Any]:
        """Read everything except the steps."""
        names = [f.name for f in dataclasses.fields(cls)]
        for key in data:
            if key not in names:
                self.wrong(str(key), f"a recipe has no '{key}'; {nearest(key, names)}")
        values: dict[str, Any] = {}
        for key, kind in (("model", str), ("teacher", str), ("name", str), ("seed", int), ("replicas", int)):
            value = data.get(key)
            if value is None and key != "model":
                continue
            if key == "model" and not value:
                self.wrong(key, "is required: a folder or the name of a model")
            elif not isinstance(value, kind) or isinstance(value, bool):
                self.wrong(key, f"should be {'a whole number' if kind is int else 'text'}, got {value!r}")
            else:
                values[key] = _beside(str(value), base) if key in {"model", "teacher"} else value
        if (allowed := data.get("allow_weak_teacher")) is not None:
            if isinstance(allowed, bool):
                values["allow_weak_teacher"] = allowed
            else:
                self.wrong("allow_weak_teacher", f"should be true or false, got {allowed!r}")
        if values.get("replicas", 1) < 1:
            self.wrong("replicas", f"should be at least 1, got {values['replicas']}")
        self._task(data.get("task"), values, base)
        for key, part in (("target", Target), ("budget", Budget)):
            value, problems = fields.read(part, data.get(key), key)
            self.problems += problems + _positive(value, key)
            if value is not None:
                values[key] = value
        if "steps" in data and not isinstance(data["steps"], (list, type(None))):
            self.wrong("steps", f"should be a list, got {data['steps']!r}")
        return values

    def _task(self, task: Any, values: dict[str, Any], base: Path | None) -> None:
        if task is None:
            self.wrong("task", "is required: the name of a task, a folder or a mapping that says where the data lie")
        elif isinstance(task, str):
            values["task"] = _beside(task, base)
        elif isinstance(task, Mapping):
            files = {"path", "train", "validation", "test"}
            values["task"] = {
                key: _beside(item, base) if key in files and isinstance(item, str) else item
                for key, item in task.items()
            }
        else:
            self.wrong("task", f"should be text or a mapping, got {task!r}")

    def steps(self, entries: Any, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        """Read a list of entries; ``chain`` holds the files being included, to detect a cycle.

        Args:
            entries: The entries as they are written.
            path: Where the list stands in the recipe.
            base: Folder that file names are relative to.
            chain: The files being included.
        """
        if not isinstance(entries, (list, tuple)):
            if path != "steps":
                self.wrong(path, f"should be a list of steps, got {entries!r}")
            return []
        return [
            located
            for index, entry in enumerate(entries)
            for located in self._entry(entry, f"{path}[{index}]", base, chain)
        ]

    def _entry(self, entry: Any, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, Mapping) or len(entry) != 1:
            self.wrong(path, f"should be one step, as in '- prune: {{keep: 0.5}}', got {entry!r}")
            return []
        ((name, value),) = entry.items()
        if name == "use":
            return self._use(value, f"{path}.use", base, chain)
        if name == "fork":
            if not isinstance(value, (list, tuple)):
                self.wrong(f"{path}.fork", f"should be a list of lists of steps, got {value!r}")
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
            self.wrong(path, f"no step called '{name}'; {hint}")
            return [LocatedStep(path)]
        cls = self.registry[name]
        step, problems = fields.read(cls, _files_beside(cls, value, base), f"{path}.{name}")
        self.problems += problems
        return [LocatedStep(path, step, cls)]

    def _use(self, value: Any, path: str, base: Path | None, chain: tuple[Path, ...]) -> list[LocatedStep]:
        if not isinstance(value, str):
            self.wrong(path, f"should name a recipe file, got {value!r}")
            return []
        file = ((base or Path()) / Path(value).expanduser()).resolve()
        if file in chain:
            self.wrong(path, f"'{value}' includes itself: {' -> '.join(included.name for included in (*chain, file))}")
            return []
        if not file.is_file():
            beside = [sibling.name for sibling in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
            self.wrong(path, f"no file '{value}'; {nearest(file.name, beside)}")
            return []
        try:
            data = strict_yaml.load(file.read_text(encoding="utf-8"), str(file))
        except RecipeError as error:
            self.wrong(path, str(error))
            return []
        if not isinstance(data, Mapping) or not isinstance(data.get("steps"), list):
            self.wrong(path, f"'{value}' has no list of 'steps'")
            return []
        return self.steps(data["steps"], f"{path}({value})", file.parent, (*chain, file))

    def _each(self, value: Any, path: str, base: Path | None) -> LocatedStep:
        """Read a sweep: one branch for every combination of the values listed."""
        where = f"{path}.each"
        if (swept := self._swept(value, where, base)) is None:
            return LocatedStep(path)
        if not swept.lists:
            self.wrong(where, f"lists no values to try, as in 'each: {{{swept.name}: {{field: [1, 2]}}}}'")
            return LocatedStep(path, cls=swept.cls)
        combinations = itertools.product(*(range(len(values)) for values in swept.lists.values()))
        branches = [
            (self._chosen(swept, dict(zip(swept.lists, chosen, strict=True)), where),) for chosen in combinations
        ]
        return LocatedStep(path, branches=tuple(branches))

    def _stages(self, value: Any, path: str, base: Path | None) -> list[LocatedStep]:
        """Repeat the same steps, each time from the last results; the results of every stage go on.

        Lists of values are read side by side: the first stage has the first of every list.
        """
        if not isinstance(value, (list, tuple)) or not value:
            self.wrong(path, f"should be a list of steps with lists of values, got {value!r}")
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
        placed: list[LocatedStep] = []
        for stage in reversed(range(next(iter(counts.values())))):
            steps = [
                self._chosen(swept, dict.fromkeys(swept.lists, stage), f"{path}[{index}]")
                for index, swept in enumerate(body)
            ]
            placed = [*steps, LocatedStep(path, branches=((), tuple(placed)))] if placed else steps
        return placed

    def _swept(self, value: Any, where: str, base: Path | None) -> _Swept | None:
        """Read one step whose fields may have lists of values; report a problem and return None for anything else."""
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, Mapping) or len(value) != 1:
            self.wrong(where, f"should be one step with lists of values, got {value!r}")
            return None
        ((name, given),) = value.items()
        name = _today(name)
        if name not in self.registry:
            self.wrong(where, f"no step called '{name}'; {nearest(name, self.registry)}")
            return None
        cls = self.registry[name]
        given = _files_beside(cls, given, base) if isinstance(given, Mapping) else {}
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


def _today(name: Any) -> Any:
    """Return today's name of a step, and say so where a recipe has an earlier one."""
    today = current_name(name)
    if today != name:
        message = f"the step '{name}' is called '{today}' now; the old name still works"
        warnings.warn(message, RenamedWarning, stacklevel=2)
    return today


@dataclass(frozen=True)
class _Swept:
    """A step as it is written, and those of its fields that list values to choose from."""

    name: str
    cls: type[Step]
    given: Mapping[str, Any]
    lists: Mapping[str, list[Any]]


def _beside(text: str, base: Path | None) -> str:
    """Resolve a path relative to the recipe's file; a name that is no file there is returned as it is."""
    if base is None or not text or Path(text).expanduser().is_absolute():
        return text
    near = base / Path(text).expanduser()
    return str(near.resolve()) if near.exists() else text


def _files_beside(cls: type[Step], given: Any, base: Path | None) -> Any:
    """Return the fields of a step, with its file names resolved relative to the recipe's file."""
    if not isinstance(given, Mapping):
        return given

    def placed(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [placed(entry) for entry in value]
        return _beside(value, base) if isinstance(value, str) else value

    return {key: placed(value) if key in cls.info.files else value for key, value in given.items()}


def _positive(value: Any, path: str) -> list[Problem]:
    """Sizes, times and counts of a target or budget are more than nothing."""
    numbers: Iterator[tuple[str, Any]] = (
        ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value)) if value else iter(())
    )
    return [
        Problem(f"{path}.{name}", f"should be more than 0, got {number!r}")
        for name, number in numbers
        if isinstance(number, (int, float)) and (number < 0 or (number == 0 and name != "max_drop"))
    ]
