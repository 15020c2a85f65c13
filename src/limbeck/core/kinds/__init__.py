"""The kinds of task, one file each. A file is loaded when its kind is looked up, so the names cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, TypeAlias

from limbeck.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind

NAMES = tuple(module.name for module in iter_modules(__path__))

if TYPE_CHECKING:
    Kind: TypeAlias = str
else:
    Kind = Literal[NAMES]  # the choices of options and commands


@cache
def _load(name: str) -> TaskKind:
    kind: TaskKind = import_module(f"{__name__}.{name}").KIND
    return kind


class _Kinds(Mapping[str, "TaskKind"]):
    """The kinds by name; each file defines its ``KIND``."""

    def __getitem__(self, name: str) -> TaskKind:
        if name not in NAMES:
            raise KeyError(name)
        return _load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


KINDS: Mapping[str, TaskKind] = _Kinds()


def find(name: str) -> TaskKind:
    """Return the kind of this name.

    Args:
        name: Name of a kind.

    Raises:
        InputError: There is none; names the nearest.

    >>> find("tokens").per_token
    True
    """
    if name not in KINDS:
        raise InputError(f"there is no kind of task {shown(name)}; {nearest(str(name), NAMES)}")
    return KINDS[name]
