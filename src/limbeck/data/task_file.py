"""Read the options of a task from task files (YAML) and from settings on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.data.config import Options
from limbeck.errors import InputError, nearest

SUFFIXES = (".yaml", ".yml")
FILES = ("path", "train", "validation", "test")
"""Options that may name files."""


def read_task_file(path: Path) -> dict[str, Any]:
    """Read the options in a task file; relative paths in it are resolved against its folder.

    Args:
        path: The YAML file.

    Raises:
        InputError: The file is not a mapping of task options.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such task file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: a task file is YAML in UTF-8, and this is not UTF-8") from None
    options = _parse(text, str(path))
    if not isinstance(options, dict):
        raise InputError(
            f"{path}: a task file is a mapping of options such as 'path: reviews.csv' and 'label: stars', got "
            f"{str(options)[:60]!r}"
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
            raise InputError(f"{option} {pair!r} is no setting; write {option} key=value, such as {option} label=stars")
        name, _, part = key.partition(".")
        names = Options.__dataclass_fields__
        if name not in names:
            raise InputError(f"{option} {pair}: there is no option '{name}'; {nearest(name, names)}")
        parsed = _parse(value, f"{option} {key}") if value.lstrip()[:1] in ("[", "{", '"', "'") else _none(value)
        if part:
            inside = options.setdefault(name, {})
            if not isinstance(inside, dict):
                raise InputError(f"{option} {pair}: {name} is {inside!r}, which has no part '{part}'")
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
    path = base / Path(value).expanduser()
    return str(path) if path.exists() or "/" in value or Path(value).suffix else value


def _none(value: str | None) -> str | None:
    return None if value in ("null", "~") else value


def _parse(text: str, where: str) -> Any:  # a YAML value
    """Parse YAML with scalars left as text: options are converted by their types later, so ``no`` stays a word."""
    try:
        return _plain(yaml.compose(text, yaml.SafeLoader), where)
    except yaml.YAMLError as error:
        marked = error if isinstance(error, yaml.MarkedYAMLError) else yaml.MarkedYAMLError()
        mark = marked.problem_mark
        position = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError(f"{position}: {marked.problem or 'not valid YAML'}") from None


def _plain(node: yaml.Node | None, where: str, depth: int = 0) -> Any:  # a YAML value
    """Convert a YAML node to dictionaries, lists and texts."""
    if depth > 10:
        raise InputError(f"{where}: nested more than 10 deep, or by an alias into itself")
    if node is None:
        return ""
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _none(node.value or None)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(element, where, depth + 1) for element in node.value]
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        name = str(_plain(key, where, depth + 1))
        if name in mapping:
            raise InputError(f"{where}, line {key.start_mark.line + 1}: the option '{name}' appears twice")
        mapping[name] = _plain(value, where, depth + 1)
    return mapping
