"""Fill a plain frozen dataclass from a mapping, and describe in plain words what does not fit.

pydantic does the parsing; this module turns its findings into
problems with a path, an interval, and the nearest valid choice.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypeVar, get_args

import annotated_types
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from limbeck.core.field_groups import build, fields_of
from limbeck.core.step import Step, StepInfo, problems_of
from limbeck.errors import InputError, LimbeckError, nearest, shown, without_middle

T = TypeVar("T")
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
}

LARGEST = 10**9
"""The largest absolute number that any field accepts; fields may have narrower bounds."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where, and what.

    >>> print(Problem("steps[1].prune.keep", "should be in (0, 1], got 1.5"))
    steps[1].prune.keep: should be in (0, 1], got 1.5
    """

    path: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_middle(self.message, 600))

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def read(cls: type[T], data: object, path: str) -> tuple[T | None, list[Problem]]:
    """Return an instance of ``cls`` (None when something is wrong) and every problem of ``data``.

    ``preset: name`` stands for the fields that the step's ``info.presets`` lists under that name; fields beside it win.
    """
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        return None, [Problem(path, f"should be a mapping of fields, got {shown(data)}")]
    names = [f.name for f in fields_of(cls)]
    info = cls.info if issubclass(cls, Step) else StepInfo("")
    aliases, presets = info.aliases, info.presets
    twice = [f"'{key}' and '{aliases[key]}'" for key in data if key in aliases and aliases[key] in data]
    if twice:
        return None, [Problem(path, f"{' and '.join(twice)} are the same field; give one")]
    data = {aliases.get(key, key): value for key, value in data.items()}
    if presets and "preset" in data:
        chosen = data.pop("preset")
        if not isinstance(chosen, str) or chosen not in presets:
            return None, [Problem(f"{path}.preset", f"no preset called {shown(chosen)}; {nearest(chosen, presets)}")]
        data = {aliases.get(key, key): value for key, value in presets[chosen].items()} | data
    problems = [
        Problem(f"{path}.{str(key)[:100]}", f"no field called {shown(key)}; {nearest(key, names)}")
        for key in data
        if key not in names
    ]
    fields = {key: _plain(value) for key, value in data.items() if key in names}
    if too_large := list(_too_large(fields, path)):
        return None, problems + too_large
    try:
        values = _adapter(cls).validate_json(json.dumps(fields, default=shown))  # type: ignore[arg-type]  # hashable
        instance = build(cls, values)
    except ValidationError as error:
        return None, problems + list(_explain(cls, error, path))
    except LimbeckError as error:  # from a __post_init__
        return None, [*problems, Problem(path, str(error))]
    if not problems and isinstance(instance, Step):  # what only a combination of fields shows
        problems += [Problem(path, text) for text in problems_of(instance)]
    return (None if problems else instance), problems


def check_values(instance: Any, path: str = "") -> None:  # any dataclass of options
    """Refuse options that are out of bounds.

    Args:
        instance: A dataclass; its annotations have the bounds.
        path: Prefix of field names in the message, such as '--'; names then have hyphens.

    Raises:
        InputError: A value is out of bounds; the message lists all of them.
    """
    _, problems = read(type(instance), dataclasses.asdict(instance), "")
    if problems:
        names = [problem.path.removeprefix(".") for problem in problems]
        names = [path + name.replace("_", "-") if path else name for name in names]
        texts = [f"{name} {problem.message}" for name, problem in zip(names, problems, strict=True)]
        raise InputError("; ".join(texts))


def accepts(cls: type, name: str, value: object) -> bool:
    """Return whether ``value`` is valid for that field without conversion."""
    try:
        TypeAdapter(_hints(cls)[name]).validate_json(json.dumps(_plain(value), default=shown), strict=True)
    except ValidationError:
        return False
    return True


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:  # of a mapping whose fields are only known at run time
    """Return the validator of a class's flat fields; those with a default may be left out."""
    hints = {
        field.name: field.hint if field.default is dataclasses.MISSING else NotRequired[field.hint]
        for field in fields_of(cls)
    }
    flat: Any = TypedDict(cls.__name__, hints)  # type: ignore[misc, operator]
    # strict: no true for 1, no '3' for 3; as JSON, which has no tuples, lists fill them
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return TypeAdapter(with_config(config)(flat))  # also for dataclasses among the values


def _plain(value: Any) -> Any:
    """Return JSON data: paths as text, 1e3 as 1000."""
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        return int(value)
    return str(value) if isinstance(value, Path) else value


def _too_large(value: Any, path: str) -> Iterator[Problem]:
    """Yield a problem for each number that no field accepts."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _too_large(child, f"{path}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _too_large(child, f"{path}[{index}]")
    elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:  # also NaN
        yield Problem(path, f"should be a number between -{LARGEST:,} and {LARGEST:,}, got {shown(value)}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return {field.name: field.hint for field in fields_of(cls)}


def _explain(cls: type, error: ValidationError, path: str) -> Iterator[Problem]:
    """Yield one problem per location; a value that fits no type of a union gets one line."""
    messages: dict[str, list[str]] = {}
    for entry in error.errors(include_url=False):
        where, location = path, entry["loc"]
        if location:
            where += f".{location[0]}" + "".join(f"[{part}]" for part in location[1:] if isinstance(part, int))
        texts = messages.setdefault(where, [])
        hint = _hints(cls)[location[0]] if location and location[0] in _hints(cls) else None
        if entry["type"] != "none_required" and (text := _phrase(hint, entry)) not in texts:
            texts.append(text)
    for where, texts in messages.items():
        seen = re.split(r", got |; ", texts[0])[0] if texts else ""
        others = [re.split(r", got |; ", text)[0] for text in texts[1:]]
        tail = texts[0][len(seen) :] if texts else ""
        yield Problem(where, " or ".join([seen, *(other.removeprefix("should be ") for other in others)]) + tail)


def explain_value(annotation: Any, error: ValidationError) -> str:  # any type
    """Describe what is wrong with one value, without its name.

    Args:
        annotation: Its type, with bounds.
        error: pydantic's error.
    """
    return " or ".join(dict.fromkeys(_phrase(annotation, entry) for entry in error.errors(include_url=False)))


def _phrase(hint: Any, entry: ErrorDetails) -> str:
    kind, got = entry["type"], entry["input"]
    if kind == "missing":
        return "is required"
    if kind in _BOUNDS and hint is not None:
        return f"should be {_interval(hint)}, got {shown(got)}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        return (
            f"cannot be {shown(got)}; {nearest(got, choices)}" if choices else f"should be {entry['ctx']['expected']}"
        )
    if kind in _TYPES:
        return f"should be {_TYPES[kind]}, got {shown(got)}"
    text = re.sub(r"^(Input|Value error,|Assertion failed,) *", "", entry["msg"])
    return text if kind in {"value_error", "assertion_error"} else f"{text[:1].lower()}{text[1:]}, got {shown(got)}"


def _interval(annotation: object) -> str:
    low: Any = None
    high: Any = None
    opening, closing = "(", ")"
    for mark in _marks(annotation):
        if isinstance(mark, annotated_types.Gt):
            low, opening = mark.gt, "("
        elif isinstance(mark, annotated_types.Ge):
            low, opening = mark.ge, "["
        elif isinstance(mark, annotated_types.Lt):
            high, closing = mark.lt, ")"
        elif isinstance(mark, annotated_types.Le):
            high, closing = mark.le, "]"
    if high is None:
        return f"more than {low:,}" if opening == "(" else f"at least {low:,}"
    if low is None:
        return f"less than {high:,}" if closing == ")" else f"at most {high:,}"
    return f"in {opening}{low:,}, {high:,}{closing}"


def _marks(annotation: object) -> Iterator[annotated_types.BaseMetadata]:
    """Yield every bound in an annotation, also inside unions and pydantic's Field."""
    for part in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)):
        if isinstance(part, annotated_types.Interval):
            yield from part
        elif hasattr(part, "metadata"):
            yield from part.metadata
        elif isinstance(part, annotated_types.BaseMetadata):
            yield part
        else:
            yield from _marks(part)
