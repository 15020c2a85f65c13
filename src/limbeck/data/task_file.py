"""Task files and settings on a command line: the options of a task, written as YAML."""

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
    """The options in a task file; paths of files are relative to the file.

    Raises:
        InputError: The file is no mapping of options of a task.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such task file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: a task file is YAML in UTF-8, and this is not UTF-8") from None
    found = _parse(text, str(path))
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: a task file is a mapping of options such as 'path: reviews.csv' and 'label: stars', got "
            f"{str(found)[:60]!r}"
        )
    if "steps" in found:
        raise InputError(f"{path}: this is a recipe, not a task file; run it with 'limbeck run {path}'")
    named = "dataset" not in found
    return {
        key: _beside(value, path.parent) if named and key in FILES and isinstance(value, str) else value
        for key, value in found.items()
    }


def settings(pairs: Iterable[str], option: str = "--task-set") -> dict[str, Any]:
    """Options from words such as ``label=stars``, ``limit.train=100`` or ``label=[price, quality]``.

    >>> settings(["label=[price, quality]", "limit.train=100"])
    {'label': ['price', 'quality'], 'limit': {'train': '100'}}
    """
    found: dict[str, Any] = {}
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
            inside = found.setdefault(name, {})
            if not isinstance(inside, dict):
                raise InputError(f"{option} {pair}: {name} is {inside!r}, which has no part '{part}'")
            inside[part] = parsed
        else:
            found[name] = parsed
    return found


def with_settings(task: str | Mapping[str, Any], changes: Mapping[str, Any]) -> str | dict[str, Any]:
    """What names a task, with some of its options changed; without changes it stays as it is."""
    if not changes:
        return task if isinstance(task, str) else dict(task)
    return {**({"path": task} if isinstance(task, str) else task), **changes}


def _beside(value: str, base: Path) -> str:
    """A path beside the file, where there is such a file or folder or it can only be a path; else as it stands."""
    path = base / Path(value).expanduser()
    return str(path) if path.exists() or "/" in value or Path(value).suffix else value


def _none(value: Any) -> Any:
    return None if value in ("null", "~") else value


def _parse(text: str, where: str) -> Any:
    """YAML whose scalars stay text: options are checked and converted by their types, so ``no`` is a word."""
    try:
        return _plain(yaml.compose(text, yaml.SafeLoader), where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError(f"{place}: {getattr(error, 'problem', None) or 'not valid YAML'}") from None


def _plain(node: Any, where: str, depth: int = 0) -> Any:
    if depth > 10:
        raise InputError(f"{where}: nested more than 10 deep, or by an alias into itself")
    if node is None:
        return ""
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _none(node.value or None)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, where, depth + 1) for item in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(_plain(key, where, depth + 1))
        if name in found:
            raise InputError(f"{where}, line {key.start_mark.line + 1}: the option '{name}' appears twice")
        found[name] = _plain(value, where, depth + 1)
    return found
