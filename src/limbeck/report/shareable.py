"""Remove this machine's paths from results before they are shared; only names remain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from limbeck.core.candidate import Record

ABSOLUTE = re.compile(r"(?<![\w./:<~])~?(?:/[\w.@+~-]+){2,}/?")
"""An absolute path within a text, but not a URL (https://...) or a single word after a slash."""

T = TypeVar("T")


def without_paths(value: T) -> T:
    """Replace every absolute path in plain data by its last part, as a relative path: ``./name``.

    >>> without_paths({"model": "/home/jane/my models/bert", "notes": ["read from /data/a/b.csv, and/or https://x/y"]})
    {'model': './bert', 'notes': ['read from ./b.csv, and/or https://x/y']}
    """
    changed: Any = value
    if isinstance(value, Path):
        changed = Path(_shortened(str(value)))
    elif isinstance(value, str):
        changed = _shortened(value)
    elif isinstance(value, Mapping):
        changed = {key: without_paths(entry) for key, entry in value.items()}
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        changed = type(value)(map(without_paths, value))
    return changed  # type: ignore[no-any-return]


def _shortened(text: str) -> str:
    whole = Path(text)
    if (whole.is_absolute() or text.startswith("~")) and "\n" not in text and whole.name:
        return f"./{whole.name}"
    return ABSOLUTE.sub(lambda match: f"./{Path(match[0]).name}", text)


def shareable(record: Record) -> Record:
    """Return a record without paths."""
    return replace(record, parameters=without_paths(record.parameters), notes=without_paths(record.notes))
