"""What an artefact says in ``limbeck.json`` about the texts that it takes, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le

from limbeck.core.decision import Decision
from limbeck.core.paths import user_path
from limbeck.data.encoding import TextEncoding
from limbeck.errors import InputError
from limbeck.model.folder_files import read_object
from limbeck.recipe import validation
from limbeck.report.artefact import DESCRIPTION


@dataclass(frozen=True)
class Request:
    """How a reranker answers a request.

    Attributes:
        batch: Documents that are answered together, after they were sorted by length.
        pad_id: Id of the padding token.
        candidates: Documents of the requests that were timed; None where single batches were.
    """

    batch: Annotated[int, Ge(1), Le(100_000)]
    pad_id: Annotated[int, Ge(0)]
    candidates: Annotated[int, Ge(2)] | None = None


T = TypeVar("T", bound=Any)  # a dataclass


@dataclass(frozen=True)
class Description:
    """The entries that answering needs; others are for other programs.

    Attributes:
        max_length: Maximum tokens of a text.
        pair: Whether the model takes pairs of texts; None where an earlier version did not say.
        encoding: How texts become token ids; None where an earlier version did not say.
        decision: Fitted thresholds and temperature; None where none were fitted.
        request: How a reranker answers the documents of a request; None for other models.
    """

    max_length: Annotated[int, Ge(1)]
    pair: bool | None = None
    encoding: TextEncoding | None = None
    decision: Decision | None = None
    request: Request | None = None


def read_description(model: str | Path) -> Description | None:
    """Read the description of an artefact; None for any other model.

    Args:
        model: Folder or name of the model.

    Raises:
        InputError: An entry is missing or has another form; the message names it.
    """
    path = user_path(model) / DESCRIPTION
    if not path.is_file():
        return None
    entries = read_object(path)
    encoding, decision, request = None, None, None
    problems: list[validation.Problem] = []
    if entries.get("encoding") is not None:
        encoding, problems = _read(TextEncoding, entries["encoding"], "encoding")
    if entries.get("decision") is not None:
        decision, wrong = _read(Decision, entries["decision"], "decision")
        problems = problems + wrong
    if entries.get("request") is not None:
        request, wrong = _read(Request, entries["request"], "request")
        problems = problems + wrong
    description, others = _read(Description, {**entries, "encoding": None, "decision": None, "request": None}, "")
    if problems + others or description is None:
        text = "; ".join(f"'{problem.path.removeprefix('.')}' {problem.message}" for problem in others + problems)
        raise InputError(f"{path} does not describe an artefact: {text}; write the artefact again")
    return replace(description, encoding=encoding, decision=decision, request=request)


def _read(cls: type[T], entries: object, path: str) -> tuple[T | None, list[validation.Problem]]:
    """Read the fields of a class, and leave entries that it does not know aside."""
    if isinstance(entries, Mapping):
        entries = {name: value for name, value in entries.items() if name in {field.name for field in fields(cls)}}
    return validation.read(cls, entries, path)
