"""Turn whatever a Python caller passes as a task into a checked :class:`Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from limbeck.core.kinds import KINDS
from limbeck.core.task import SPLITS, Task
from limbeck.data.config import Options
from limbeck.data.first_stage import Ranker
from limbeck.data.hub import tables_of
from limbeck.data.loading import load_task, task_from_columns
from limbeck.data.task_builder import build_task
from limbeck.errors import InputError

if TYPE_CHECKING:
    import datasets

DEFAULT_NAME = "task"
"""Name of a task whose rows came without one."""

Given = Task | str | Path | Mapping[str, Any] | Sequence[Any] | Any
"""What :func:`as_task` accepts; Any stands for data sets and data frames, whose libraries are not imported here."""


def as_task(given: Given, *, evaluation: bool = False, rank: Ranker | None = None) -> Task:
    """Return the task that ``given`` stands for.

    Args:
        given: A :class:`Task`; a name, a path or a mapping of options (see ``load_task``); a ``datasets.Dataset`` or
            ``DatasetDict``, or a data frame; ``(texts, labels)`` or ``(texts, pairs, labels)``; or a mapping from
            ``train``, ``validation`` and ``test`` to any of those, with options of a task beside them.
        evaluation: Whether rows in memory are only to evaluate a model on, as for :func:`build_task`.
        rank: Ranks by an embedding model, as for :func:`load_task`.

    Raises:
        InputError: It is none of these, or its rows are unusable.
    """
    if isinstance(given, Task):
        return given
    if names_task(given):
        return load_task(given, rank=rank)
    if isinstance(given, Mapping):
        options = {key: value for key, value in given.items() if not _is_rows(value)}
        return _of_splits({key: value for key, value in given.items() if _is_rows(value)}, options, evaluation)
    if _is_rows(given):
        return _of_splits({"train": given}, {}, evaluation)
    raise InputError(
        f"task: expected a Task, a name, a path, a mapping, a data set or (texts, labels), got {type(given).__name__}"
    )


def names_task(given: Given) -> TypeGuard[str | Path | Mapping[str, Any]]:
    """Return whether ``given`` says where the rows are, as a recipe does, rather than holding them."""
    if isinstance(given, Mapping):
        return not any(_is_rows(value) for value in given.values())
    return isinstance(given, (str, Path))


def _is_rows(value: object) -> bool:
    return _is_dataset(value) or _is_frame(value) or _is_columns(value)


def _is_columns(value: object) -> bool:
    """Return whether this is (texts, labels) or (texts, pairs, labels)."""
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        return False
    return not any(isinstance(column, (str, bytes)) or not hasattr(column, "__len__") for column in value)


def _is_dataset(value: object) -> bool:
    return hasattr(value, "column_names") and hasattr(value, "features")


def _is_frame(value: object) -> bool:
    return hasattr(value, "columns") and hasattr(value, "to_dict")


def _of_splits(splits: Mapping[str, Any], options: Mapping[str, Any], evaluation: bool) -> Task:
    """Build a task from splits that are all columns, or all data sets and frames."""
    columns = [name for name, rows in splits.items() if _is_columns(rows)]
    if columns and len(columns) < len(splits):
        raise InputError(f"task: {', '.join(columns)} are lists and the others are not; use one form for all")
    if columns:
        if unknown := splits.keys() - set(SPLITS):
            raise InputError(f"task: there is no split '{min(unknown)}'; the splits are {', '.join(SPLITS)}")
        lists = {name: tuple(map(_plain_list, rows)) for name, rows in splits.items()}
        others = {key: value for key, value in options.items() if key != "name"}
        return task_from_columns(str(options.get("name") or DEFAULT_NAME), lists, evaluation=evaluation, **others)
    settings = Options.parse({"name": DEFAULT_NAME, **options, "dataset": "in memory"})
    loaded = {name: _as_dataset(rows) for name, rows in splits.items()}
    tables, names, notes = tables_of(loaded, settings, evaluation=evaluation)
    if settings.label_names is None and (settings.kind is None or not KINDS[settings.kind].numeric):
        settings = replace(settings, label_names=names)
    return build_task(settings.name or DEFAULT_NAME, tables, settings, notes, evaluation=evaluation)


def _as_dataset(rows: Any) -> datasets.Dataset:  # a data set or a frame, of libraries without types
    import datasets

    if isinstance(rows, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise InputError("task: a streamed data set cannot be read more than once; load it without streaming=True")
    if isinstance(rows, datasets.DatasetDict):
        raise InputError("task: a DatasetDict holds all splits; pass it by itself")
    return datasets.Dataset.from_pandas(rows, preserve_index=False) if _is_frame(rows) else rows


def _plain_list(column: Any) -> list[Any]:  # any sequence, array or series
    """Return a column as a list of plain Python values, also of an array or a series, and of cells that are arrays."""
    cells = column.tolist() if hasattr(column, "tolist") else column
    return [cell.tolist() if hasattr(cell, "tolist") else cell for cell in cells]
