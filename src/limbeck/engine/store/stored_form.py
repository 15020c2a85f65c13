"""Schemas of stored JSON: records, facts and events, checked when they are read.

A file on disk may contain anything. The readers return a value or raise ValueError; nothing that they accept is
malformed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic needs its TypedDict before Python 3.12
)

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from limbeck.core.candidate import Record
from limbeck.core.measurement import UNITS, Measurement
from limbeck.core.shape import Shape
from limbeck.core.statistics import unpack_numbers
from limbeck.core.step import TRAITS
from limbeck.errors import shown

Plain = dict[str, Any]  # JSON of a kind that only its reader knows
Key = Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]


@with_config(extra="forbid", strict=True)
class FactForm(TypedDict):
    """``Measurement.to_json``."""

    name: str
    value: float | None
    unit: str
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    n: NotRequired[int | None]
    target: NotRequired[str]
    split: NotRequired[str]
    detail: NotRequired[Plain]


@with_config(strict=True)
class RecordForm(TypedDict):
    """``record_to_json``."""

    key: Key
    parent: Key | None
    step: str
    parameters: Plain
    shape: Plain | None
    traits: list[str]
    facts: list[FactForm]
    duration: float
    notes: list[str]


@with_config(strict=True)
class ProbedForm(TypedDict):
    """What a probe measured of one record."""

    probe: str
    parameters: Plain
    seconds: float
    facts: list[FactForm]


@with_config(strict=True)
class FailureForm(TypedDict):
    """``Failure`` as a dictionary."""

    path: str
    step: str
    key: str
    error: str
    traceback: NotRequired[str]


@with_config(strict=True)
class RunEvent(TypedDict):
    """A run begins."""

    event: Literal["run"]
    run: str
    recipe: Plain
    environment: Plain
    store: str
    kept_task: NotRequired[str | None]
    task_name: NotRequired[str]


@with_config(strict=True)
class RecordEvent(TypedDict):
    """A candidate was made, or gained a note."""

    event: Literal["record"]
    run: str
    record: RecordForm
    target: NotRequired[str]


@with_config(strict=True)
class FactsEvent(TypedDict):
    """Something was measured."""

    event: Literal["facts"]
    run: str
    key: Key
    facts: list[FactForm]
    target: NotRequired[str]


@with_config(strict=True)
class FailedEvent(TypedDict):
    """A step raised."""

    event: Literal["failed"]
    run: str
    failure: FailureForm


@with_config(strict=True)
class OtherEvent(TypedDict):
    """A choice, a note or a use of a machine, from which nothing is computed."""

    event: Literal["choice", "note", "use"]
    run: str


@with_config(strict=True)
class EndForm(TypedDict):
    """What a run ended with on one of several targets."""

    front: list[Key]
    chosen: list[Key]
    reference: Key | None


@with_config(strict=True)
class FinishedEvent(TypedDict):
    """A run has ended."""

    event: Literal["finished"]
    run: str
    front: list[Key]
    chosen: list[Key]
    teacher: Key | None
    replicas: NotRequired[dict[Key, list[Key]]]
    targets: NotRequired[dict[str, EndForm]]


Event = Annotated[
    RunEvent | RecordEvent | FactsEvent | FailedEvent | OtherEvent | FinishedEvent, Field(discriminator="event")
]
_EVENT: TypeAdapter[Any] = TypeAdapter(Event)  # Any: a union of typed dictionaries
_FACT: TypeAdapter[FactForm] = TypeAdapter(FactForm)
_RECORD: TypeAdapter[RecordForm] = TypeAdapter(RecordForm)
_PROBED: TypeAdapter[ProbedForm] = TypeAdapter(ProbedForm)


def check_event(event: Any) -> Plain:
    """Return an event of a ledger if it has the form of one; ``Any``, as it comes from JSON.

    Args:
        event: Content of one line.

    Raises:
        ValueError: It is malformed.
    """
    _EVENT.validate_python(event)
    match event["event"]:
        case "record":
            read_record(event["record"])
        case "facts":
            for fact in event["facts"]:
                read_fact(fact)
    checked: Plain = event
    return checked


def read_record(data: Any) -> Record:
    """Return a record from its JSON; ``Any``, as it comes from a file.

    Args:
        data: Parsed JSON.

    Raises:
        ValueError: It is malformed.
    """
    form = _RECORD.validate_python(data)
    if unknown := set(form["traits"]) - TRAITS:
        raise ValueError(f"no trait {shown(min(unknown))}")
    return Record(
        key=form["key"],
        parent=form["parent"],
        step=form["step"],
        parameters=form["parameters"],
        shape=_shape(form["shape"]) if form["shape"] else None,
        traits=frozenset(form["traits"]),
        facts=tuple(map(read_fact, form["facts"])),
        duration=form["duration"],
        notes=tuple(form["notes"]),
    )


def read_records(data: Any) -> list[Record]:
    """Return the children of a step from their JSON: at least one, all of one parent, numbered in order.

    Args:
        data: Parsed JSON.

    Raises:
        ValueError: It is malformed.
    """
    if not isinstance(data, list) or not data:
        raise ValueError(f"should be a list of records, got {type(data).__name__}")
    records = [read_record(entry) for entry in data]
    base, parent = records[0].key, records[0].parent
    if [record.key for record in records] != [base, *(f"{base}-{number}" for number in range(1, len(records)))]:
        raise ValueError("the keys of siblings should be numbered")
    if {record.parent for record in records} != {parent}:
        raise ValueError("siblings should have one parent")
    return records


def read_fact(data: Any) -> Measurement:
    """Return a measurement from its JSON.

    Args:
        data: Parsed JSON.

    Raises:
        ValueError: It is malformed.
    """
    form = _FACT.validate_python(data)
    if form["unit"] not in UNITS:
        raise ValueError(f"no unit {shown(form['unit'])}")
    if form["name"].startswith("latency") and not all(
        map(_is_time, (form["value"], form.get("low"), form.get("high")))
    ):
        raise ValueError("a latency should be more than 0")
    detail = form.get("detail", {})
    rounds, session = detail.get("rounds", []), detail.get("session", "")
    if not isinstance(session, str) or not isinstance(rounds, list) or not all(map(_is_time, rounds)) or None in rounds:
        raise ValueError("'session' should be text, and 'rounds' a list of times")
    if form["name"].startswith("latency") and "resampled" in detail and not _are_times(detail["resampled"]):
        raise ValueError("'resampled' should be times, packed")
    return Measurement.from_json(form)


def _is_time(value: object) -> bool:
    """Return whether this is a duration that others may be divided by, or is unknown."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _are_times(packed: object) -> bool:
    """Return whether these are times that others may be divided by, as ``pack_numbers`` has them."""
    try:
        times = unpack_numbers(packed).tolist() if isinstance(packed, str) else []
    except ValueError:
        return False
    return bool(times) and all(map(_is_time, times))


def read_probed(data: Any) -> ProbedForm:
    """Return what a probe measured, from its JSON.

    Args:
        data: Parsed JSON.

    Raises:
        ValueError: It is malformed.
    """
    form = _PROBED.validate_python(data)
    for fact in form["facts"]:
        read_fact(fact)
    return form


def _shape(data: Mapping[str, Any]) -> Shape:
    try:
        shape = Shape.from_json(data)
    except Exception as error:  # whatever a shape finds wrong with its numbers
        raise ValueError(f"no shape: {error}") from error
    numbers = [shape.hidden, shape.head_dim, *(n for row in shape.layers for n in (row.heads, row.ffn))]
    if not all(type(number) is int for number in numbers):
        raise ValueError("no shape: its sizes should be whole numbers")
    return shape
