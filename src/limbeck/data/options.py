"""What a user can say about data: the options of a source, checked by name and by type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from limbeck.data.metrics import Kind
from limbeck.errors import InputError, nearest

Column = str | int | None


@dataclass(frozen=True)
class Options:
    """Where rows are and how to read them; everything but the place has a default or is found out.

    Give one of: ``path`` (a named task, a folder or a file), files for ``train``, ``validation`` and ``test``, or
    ``dataset`` with an optional ``config`` (then train, validation and test name its splits).
    """

    path: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    dataset: str | None = None
    config: str | None = None
    name: str | None = None
    kind: Kind | None = None
    #: columns by name, or by number from 0
    text: Column = None
    pair: Column = None
    label: Column = None
    #: the order of the labels; labels that are numbers from 0 in the data index into it
    label_names: tuple[str | int | float, ...] | None = None
    #: parts the labels of one row (multilabel) where they are one string
    label_separator: str | None = None
    metric: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    #: error: refuse rows without text; drop: leave them out and count them; keep: an empty text is a text
    on_empty: Literal["error", "drop", "keep"] = "error"
    max_length: int = 128
    limit: Mapping[str, int] = field(default_factory=dict)
    #: chooses rows for ``limit`` and for a validation part carved out of train
    seed: int = 0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Check names and types of options that a person wrote."""
        from pydantic import TypeAdapter, ValidationError

        names = [each.name for each in fields(cls)]
        for name in given:
            if name not in names:
                raise InputError(f"data: there is no option '{name}'; {nearest(name, names)}")
        plain = {name: str(value) if hasattr(value, "__fspath__") else value for name, value in given.items()}
        try:
            options = TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            place = str(first["loc"][0])
            raise InputError(f"data option '{place}': {first['msg']}, got {first['input']!r}") from None
        if options.max_length < 2:
            raise InputError(f"data option 'max_length': should be at least 2, got {options.max_length}")
        return options
