"""Load tasks whose first stage may be an embedding model: data open no model, so they are given what ranks by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.task import Task
from limbeck.data import given as data_given
from limbeck.data import loading
from limbeck.data.given import Given
from limbeck.measure.vector_search import by_vectors


def load_task(spec: str | Path | Mapping[str, Any], *, base: str | Path | None = None) -> Task:
    """Load and check a task.

    Args:
        spec: A name (``movie-reviews``, ``qnli``, …), a path (a folder with train, validation and test files, one
            file, a folder written by ``Task.to_folder``, or a task file: YAML with options), or a mapping of
            :class:`Options`, where ``path: NAME`` changes some options of a named task. A folder that has the name of
            a task is written ``./NAME``.
        base: Folder that paths are relative to.

    Raises:
        InputError: The task cannot be found or read, or its data are unusable or ambiguous.
    """
    return loading.load_task(spec, base=base, rank=by_vectors)


def load_judged(spec: str | Path | Mapping[str, Any], split: str | None = None) -> tuple[Task, str]:
    """Load a task to evaluate a model on, and choose the split, as :func:`limbeck.data.loading.load_judged` does."""
    return loading.load_judged(spec, split, rank=by_vectors)


def as_task(given: Given, *, evaluation: bool = False) -> Task:
    """Return the task that ``given`` stands for, as :func:`limbeck.data.given.as_task` does."""
    return data_given.as_task(given, evaluation=evaluation, rank=by_vectors)
