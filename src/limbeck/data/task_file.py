"""Read the options of a task from task files (YAML) and from settings on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.paths import exists, user_path
from limbeck.data.config import Options
from limbeck.errors import InputError, nearest, shown
from limbeck.storage import yaml_text

SUFFIXES = (".yaml", ".yml")
FILES = ("path", "texts", "train", "validation", "test", "first_stage", "judge")
"""Options that may name files."""


def read_task_file(path: Path) -> dict[str, Any]:
    """Read the options in a task file; relative paths in it are resolved against its folder.

    Args:
        path: The YAML file.

    Raises:
        InputError: The file is not a mapping of task options.
    """
    if not exists(path):
        raise InputError(f"{path}: there is no such task file")
    options = yaml_text.load_file(path, "task file", typed=False)
    if not isinstance(options, dict):
        raise InputError(
            f"{path}: a task file is a mapping of options such as 'path: reviews.csv' and 'label: stars', got "
            f"{shown(options)}"
        )
    if "steps" in options:
        raise InputError(f"{path}: this is a recipe, not a task file; run it with 'limbeck run {path}'")
    if "dataset" in options:  # then train, validation and test are names of splits
        return options
    return {
        key: _resolve(value, path.parent) if key in FILES and isinstance(value, str) else value
        for key, value in options.items()
    }


def settings(pairs: Iterable[str], option: str = "--task-set") -> dict[str, Any]:
    """Parse settings such as ``label=stars``, ``limit.train=100`` or ``label=[price, quality]`` into options.

    Args:
        pairs: The settings.
        option: The command-line option they were given with, for messages.

    >>> settings(["label=[price, quality]", "limit.train=100"])
    {'label': ['price', 'quality'], 'limit': {'train': '100'}}
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"{option} {shown(pair)} is not a setting; write key=value, such as {option} label=stars")
        name, _, part = key.partition(".")
        names = Options.__dataclass_fields__
        if name not in names:
            raise InputError(f"{option} {pair}: there is no option '{name}'; {nearest(name, names)}")
        is_yaml = value.lstrip()[:1] in ("[", "{", '"', "'")
        parsed = yaml_text.load(value, f"{option} {key}", typed=False) if is_yaml else _none(value)
        if part:
            inside = options.setdefault(name, {})
            if not isinstance(inside, dict):
                raise InputError(f"{option} {pair}: {name} is {shown(inside)}, which has no part '{part}'")
            inside[part] = parsed
        else:
            options[name] = parsed
    return options


def with_settings(task: str | Mapping[str, Any], changes: Mapping[str, Any]) -> str | dict[str, Any]:
    """Change options of a task given by name or by options; without changes it stays as it is."""
    if not changes:
        return task if isinstance(task, str) else dict(task)
    return {**({"path": task} if isinstance(task, str) else task), **changes}


def _resolve(value: str, base: Path) -> str:
    """Resolve a path against ``base`` if it exists there or can only be a path; else return it unchanged."""
    path = base / user_path(value)
    return str(path) if exists(path) or "/" in value or Path(value).suffix else value


def _none(value: str | None) -> str | None:
    return None if value in ("null", "~") else value
