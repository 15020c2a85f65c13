"""Commands of single techniques, generated from their dataclasses: a new technique gets its command automatically."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, make_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast, get_type_hints

from cyclopts import Parameter

from limbeck.cli._app import Json, Store, Track, event_listener, print_json
from limbeck.cli.machines import ExecutorOptions, Machines
from limbeck.cli.task_options import TaskOptions, TaskSettings
from limbeck.core.field_groups import fields_of
from limbeck.core.step import Step

if TYPE_CHECKING:
    from limbeck.distributed.config import ExecutorConfig
    from limbeck.engine.result import RunResult


OF_RECIPES = frozenset({"target"})
"""Fields that name something of a recipe which a single command does not have."""


class _Options(Protocol):
    """Interface of the classes that :func:`options_of` makes for techniques."""

    given: Mapping[str, object]


def _command_of(name: str, technique: type[Step]) -> Callable[..., int]:
    """Create the command that applies one technique to a model folder."""
    options_type = options_of(technique)
    own_length = any(field.name == "max_length" for field in fields(options_type))
    data_type = TaskSettings if own_length else TaskOptions
    own_workers = any(field.name == "workers" for field in fields(options_type))
    machines_type = ExecutorOptions if own_workers else Machines

    def command(
        *,
        model: str,
        task: str,
        out: Path,
        teacher: str | None = None,
        threads: int = 1,
        batch: int = 1,
        seed: int = 0,
        store: Store = None,
        track: Track = None,
        json: Json = False,
        data: TaskSettings = data_type(),  # noqa: B008 frozen
        machines: ExecutorOptions | Machines = machines_type(),  # noqa: B008 frozen
        options: _Options = options_type(),  # noqa: B008 frozen
    ) -> int:
        plain: dict[str, Any] = {"model": model, "task": data.of(task), "teacher": teacher, "seed": seed}
        plain |= {"target": {"threads": threads, "batch": batch}, "steps": [{name: options.given}]}
        workers = cast("int | None", options.given.get("workers"))
        executor = machines.config(workers) if isinstance(machines, ExecutorOptions) else machines.config()
        return _run_recipe(name, plain, out, store, track, json, executor)

    command.__name__ = name
    command.__doc__ = f"""{(technique.__doc__ or name).split("Attributes:")[0].strip()}

    Args:
        model: A Hugging Face folder or hub name, or a folder that limbeck wrote.
        task: A named task, a file or folder with texts and labels, or a task file (YAML).
        out: New folder for the result.
        teacher: Teacher, if the technique uses one: a fine-tuned model, or a file of scores.
        threads: Threads used for serving (for techniques that measure).
        batch: Texts in a call (for techniques that measure).
        seed: Seed of everything random.
        machines: Where the step is carried out; the result is the same everywhere.
    """
    command.__annotations__["data"] = Annotated[data_type, Parameter(name="*")]
    command.__annotations__["machines"] = Annotated[machines_type, Parameter(name="*")]
    command.__annotations__["options"] = Annotated[options_type, Parameter(name="*")]
    return command


def _run_recipe(
    name: str,
    plain: Mapping[str, Any],
    out: Path,
    store: Path | None,
    track: str | None,
    json: bool,
    executor: ExecutorConfig,
) -> int:
    """Run a recipe of one step and write its result to ``out``; returns the exit status.

    Several results are written to numbered folders in it, the best first.
    """
    from limbeck.engine.outputs import SHAPES, check_destinations, nothing_lost
    from limbeck.engine.run import run as run_recipe
    from limbeck.recipe.recipe import parse
    from limbeck.report.artefact import keep_foreign
    from limbeck.report.evaluated_shapes import shapes_csv
    from limbeck.storage.destination import whole_folder

    recipe = parse(plain, name=name)
    check_destinations(out, inputs=(recipe.model, recipe.teacher))
    with event_listener(json, track) as show:
        result = run_recipe(recipe, store, None, show, executor=executor)
    if result.failed or not result.front:
        if json:
            print_json({"failed": [failure.error for failure in result.failed]})
        return 1
    with nothing_lost(result, *result.front), whole_folder(out) as draft:
        names = [""] if len(result.front) == 1 else [str(number) for number in range(1, len(result.front) + 1)]
        outcomes = [
            _write_candidate(result, key, draft / name, out / name)
            for key, name in zip(result.front, names, strict=True)
        ]
        if shapes := shapes_csv(result.records.values()):
            (draft / SHAPES).write_text(shapes, encoding="utf-8")
        keep_foreign(out, draft)
    if json:
        print_json(outcomes[0] if len(outcomes) == 1 else {"folder": str(out), "candidates": outcomes})
        return 0
    for outcome in outcomes:
        print(f"{outcome['folder']}: {outcome['shape']}")
        if "kept" in outcome:
            print(f"{outcome['folder']}: models in separate folders: {outcome['kept']}")
        if "task" in outcome:
            print(f"{outcome['task']}: the resulting task ({outcome['rows']}); give it to --task")
    if shapes:
        print(f"{out / SHAPES}: every shape that was evaluated, with its score and cost")
    return 0


def _write_candidate(result: RunResult, key: str, draft: Path, folder: Path) -> dict[str, str]:
    """Write a model, the weights kept during its training, and its task if that changed.

    Args:
        result: The run.
        key: The candidate.
        draft: Folder to write to.
        folder: Where it will appear.

    Returns:
        Its description: key, folder, shape, what was kept, and the task with its rows if that changed.
    """
    from limbeck.model.checkpoints import save_model
    from limbeck.model.kept_weights import write_kept_weights

    candidate = result.open(key)
    draft.mkdir(exist_ok=True)
    save_model(candidate.model, candidate.tokenizer, draft)
    outcome = {"key": key, "folder": str(folder), "shape": str(candidate.model.shape)}
    if folders := write_kept_weights(candidate.model, candidate.tokenizer, candidate.epoch_checkpoints, draft):
        outcome["kept"] = ", ".join(folders)
    assert result.task is not None  # only a result that was read from a ledger has none
    if candidate.task.fingerprint != result.task.fingerprint:
        candidate.task.to_folder(draft / "task")
        outcome["task"] = str(folder / "task")
        outcome["rows"] = ", ".join(f"{len(split):,} {name}" for name, split in candidate.task.splits.items())
    return outcome


def _new_with_given(cls: type, **given: object) -> object:
    """Create an instance that records which fields it was given."""
    instance: object = object.__new__(cls)
    object.__setattr__(instance, "given", given)
    return instance


def _preset_help(presets: Mapping[str, Mapping[str, Any]]) -> str:
    def formatted(value: object) -> str:
        return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

    meanings = [
        f"{name} ({', '.join(f'{key} {formatted(value)}' for key, value in preset.items())})"
        for name, preset in presets.items()
    ]
    return f"Several fields under one name; fields given explicitly win: {'; '.join(meanings)}."


def options_of(technique: type[Step]) -> type:
    """Create the dataclass of a technique's flat fields for the command line, with their short names and types.

    An instance's ``given`` has the options that were typed: a preset fills only the others.
    """
    helps = field_helps(technique)
    options: list[tuple[str, Any, Any]] = []
    for step_field in fields_of(technique):
        name = step_field.name
        if name in OF_RECIPES:
            continue
        aliases = [alias for alias, target in technique.info.aliases.items() if target == name]
        flags = [f"--{flag.replace('_', '-')}" for flag in (name, *aliases)]
        parameter = Parameter(name=flags, help=helps.get(name), consume_multiple=True, negative_iterable=())
        default = field() if step_field.default is MISSING else field(default=step_field.default)
        hint = get_type_hints(step_field.owner)[name]  # without bounds: the check of the recipe has better messages
        options.append((name, Annotated[hint, parameter], default))
    if presets := technique.info.presets:
        parameter = Parameter(help=_preset_help(presets))
        options.append(("preset", Annotated[Literal[tuple(presets)] | None, parameter], field(default=None)))
    namespace = {"__module__": __name__, "__new__": _new_with_given}
    return make_dataclass(f"{technique.__name__}Options", options, frozen=True, namespace=namespace)


def field_helps(cls: type) -> dict[str, str]:
    """Read the help of each flat field from the ``Attributes:`` section of the class that declares it."""
    from docstring_parser.google import parse

    owned = {owner: parse(owner.__doc__ or "").params for owner in {field.owner for field in fields_of(cls)}}
    helps = {(owner, entry.arg_name): entry.description or "" for owner, entries in owned.items() for entry in entries}
    return {
        field.name: " ".join(helps[field.owner, field.name].split())
        for field in fields_of(cls)
        if (field.owner, field.name) in helps
    }


@cache
def __getattr__(name: str) -> Callable[..., int]:
    """Create the command of a technique as ``command_NAME``, when it is called."""
    import limbeck.techniques  # noqa: F401 registers them
    from limbeck.core.step import REGISTRY

    step = REGISTRY.get(name.removeprefix("command_"))
    if step is None or not name.startswith("command_"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return _command_of(step.info.name, step)
