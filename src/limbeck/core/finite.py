"""JSON that every reader accepts: NaN and infinity become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, however deep in mappings and lists.

    >>> finite({"a": [1.0, float("nan")], "b": float("inf")})
    {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def json_text(value: Any, **options: Any) -> str:
    """Write valid JSON in UTF-8, with null for NaN and infinity; ``options`` are those of ``json.dumps``.

    >>> json_text({"loss": float("nan")})
    '{"loss": null}'
    """

    def plain(other: Any) -> Any:
        item = getattr(other, "item", None)  # a number of numpy
        return finite(item()) if callable(item) and getattr(other, "ndim", 0) == 0 else default(other)

    default = options.pop("default", _refuse)
    return json.dumps(finite(value), **{"ensure_ascii": False, **options}, allow_nan=False, default=plain)


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON value")
