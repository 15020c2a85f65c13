"""JSON: written so that every parser accepts it (NaN and infinity become null), and read from any source."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn


def finite(value: object) -> Any:  # of the type that was given, which no signature can say
    """Replace NaN and infinity by None, at any depth of mappings and lists.

    >>> finite({"a": [1.0, float("nan")], "b": float("inf")})
    {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(child) for child in value]
    return value


def json_text(value: object, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Write valid JSON without ASCII escapes, with null for NaN and infinity.

    Args:
        value: JSON values, and scalars of numpy.
        indent: Spaces of each level; one line when not given.
        default: Converts values of other types; they are refused when not given.

    Raises:
        TypeError: There is a value of another type.

    >>> json_text({"loss": float("nan")})
    '{"loss": null}'
    """

    def convert(other: object) -> object:
        item = getattr(other, "item", None)  # numpy's scalars, without importing numpy
        if callable(item) and getattr(other, "ndim", 0) == 0:
            return finite(item())
        return (default or _refuse)(other)

    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=indent, default=convert)


def load_json(text: str | bytes) -> Any:  # of any JSON type, which the caller checks
    """Parse JSON that may come from anywhere; whatever is wrong with it is a ValueError, also its depth.

    Args:
        text: The JSON.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON value")
