"""File names in a recipe are relative to the recipe's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.paths import exists, user_path

if TYPE_CHECKING:
    from limbeck.core.step import Step


def resolve_path(text: str, base: Path | None) -> str:
    """Resolve a path relative to the recipe's file; a name that is not a file there is returned unchanged."""
    if base is None or not text or user_path(text).is_absolute():
        return text
    near = base / user_path(text)
    return str(near.resolve()) if exists(near) else text


def resolve_files(cls: type[Step], given: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Return the fields of a step, with its file names resolved relative to the recipe's file."""

    def placed(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [placed(entry) for entry in value]
        return resolve_path(value, base) if isinstance(value, str) else value

    return {key: placed(value) if key in cls.info.files else value for key, value in given.items()}
