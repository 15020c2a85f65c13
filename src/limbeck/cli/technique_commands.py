"""Commands of single techniques, made from their dataclasses: a new technique has its command without a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from limbeck.cli._app import STEPS, Json, Store, Track, app, print_json, watching
from limbeck.cli.task_options import TaskOptions, TaskSettings
from limbeck.core.step import Step, fields_of


def _technique(name: str, cls: type[Step]) -> Callable[..., int]:
    """A command that applies one technique to a model folder."""
    kind = options_of(cls)
    data_kind = TaskSettings if "max_length" in kind.__dataclass_fields__ else TaskOptions  # type: ignore[attr-defined]

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
        data: Any = data_kind(),  # noqa: B008 frozen
        options: Any = kind(),  # noqa: B008 frozen
    ) -> int:
        from limbeck.engine.outputs import nothing_lost
        from limbeck.engine.run import run as work
        from limbeck.model.checkpoints import save_model
        from limbeck.recipe.recipe import parse
        from limbeck.report.artefact import check_out, keep_foreign
        from limbeck.storage.destination import whole_folder

        check_out(out)
        plain: dict[str, Any] = {"model": model, "task": data.of(task), "teacher": teacher, "seed": seed}
        plain |= {"target": {"threads": threads, "batch": batch}, "steps": [{name: options.given}]}
        recipe = parse(plain, name=name)
        with watching(json, track) as show:
            result = work(recipe, store, None, show)
        if result.failed or not result.front:
            if json:
                print_json({"failed": [failure.error for failure in result.failed]})
            return 1
        made = result.open(result.front[0])
        shape = str(made.model.shape)
        told = {"key": result.front[0], "folder": str(out), "shape": shape}
        with nothing_lost(result, result.front[0]), whole_folder(out) as draft:
            save_model(made.model, made.tokenizer, draft)
            if made.task.fingerprint != result.task.fingerprint:
                made.task.to_folder(draft / "task")
                told["task"] = str(out / "task")
            keep_foreign(out, draft)
        if json:
            print_json(told)
            return 0
        print(f"{out}: {shape}")
        if "task" in told:
            rows = ", ".join(f"{len(split):,} {split_name}" for split_name, split in made.task.splits.items())
            print(f"{told['task']}: the task that came out ({rows}); give it to --task")
        return 0

    command.__name__ = name
    command.__doc__ = f"""{(cls.__doc__ or name).split("Attributes:")[0].strip()}

    Parameters
    ----------
    model
        A Hugging Face folder or hub name, or a folder that limbeck wrote.
    task
        A named task, a file or folder with texts and labels, or a task file (YAML).
    out
        New folder for the result.
    teacher
        Fine-tuned model to imitate, where the technique has one.
    threads
        Threads that will serve (for techniques that measure).
    batch
        Texts in a call (for techniques that measure).
    seed
        Decides everything random.
    """
    command.__annotations__["data"] = Annotated[data_kind, Parameter(name="*")]
    command.__annotations__["options"] = Annotated[kind, Parameter(name="*")]
    return command


def _remembering(kind: type, **given: Any) -> Any:
    """A new instance that knows which fields it was given."""
    made: Any = object.__new__(kind)
    object.__setattr__(made, "given", given)
    return made


def _preset_help(presets: Mapping[str, Mapping[str, Any]]) -> str:
    def shown(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

    meanings = [
        f"{name} ({', '.join(f'{key} {shown(value)}' for key, value in given.items())})"
        for name, given in presets.items()
    ]
    return f"Several fields under one name; those given beside it win: {'; '.join(meanings)}."


def options_of(cls: type[Step]) -> type:
    """The fields of a step for the command line: with their short names, and their types as the class wrote them.

    A dataclass of its own, since a step may inherit fields from a module whose names its own does not know. An
    instance has in ``given`` what was typed: a preset fills the fields that were not.
    """
    helps = field_helps(cls)
    hints = get_type_hints(cls)  # bounds are left to the check of the recipe, which words them better
    made: list[Any] = []
    for one in fields_of(cls):
        short = [alias for alias, full in cls.info.aliases.items() if full == one.name]
        names = [f"--{name.replace('_', '-')}" for name in (one.name, *short)]
        told = Parameter(name=names, help=helps.get(one.name), consume_multiple=True, negative_iterable=())
        default = field() if one.default is MISSING else field(default=one.default)
        made.append((one.name, Annotated[hints[one.name], told], default))
    if presets := cls.info.presets:
        told = Parameter(help=_preset_help(presets))
        made.append(("preset", Annotated[Literal[tuple(presets)] | None, told], field(default=None)))
    inside = {"__module__": __name__, "__new__": _remembering}
    return make_dataclass(f"{cls.__name__}Options", made, frozen=True, namespace=inside)


def field_helps(cls: type) -> dict[str, str]:
    """What the ``Attributes:`` sections of a step and its bases say of each field."""
    from docstring_parser.google import parse

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        for one in parse(base.__doc__ or "").params:
            found[one.arg_name] = " ".join((one.description or "").split())
    return found


@cache
def add_techniques() -> None:
    """Give every technique of the registry its command."""
    import limbeck.techniques  # noqa: F401 registers them
    from limbeck.core.step import REGISTRY, Technique

    for name, cls in REGISTRY.items():
        if issubclass(cls, Technique):
            app.command(_technique(name, cls), name=name, group=STEPS)
            if cls.info.formerly:
                app.command(_technique(name, cls), name=cls.info.formerly, show=False)
