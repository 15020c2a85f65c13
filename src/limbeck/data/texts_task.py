"""A task from texts without labels, for a model to answer: rows divided into splits, with placeholders for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from limbeck.core.kinds import find
from limbeck.core.paths import user_path
from limbeck.core.requests import choose_requests
from limbeck.core.task import Task, choose
from limbeck.data.config import Options
from limbeck.data.readers import plural
from limbeck.data.unlabeled import check_texts, placeholders, read_texts
from limbeck.errors import InputError

HELD_OUT = 0.1
"""Share of the texts in each of validation and test."""
MOST_HELD_OUT = 2000
"""Texts that are held out at most for each; they show an agreement of 97 % to within 0.8 points."""
LEAST = 20
"""Texts without which nothing can be held out."""
ALLOWED = frozenset({"texts", "name", "text", "pair", "metric", "max_length", "limit", "seed"})
"""Options that have a meaning for texts without labels."""


def has_no_labels(spec: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a task is texts without labels."""
    return isinstance(spec, Mapping) and "texts" in spec


def check_options(options: Options, given: Sequence[str], base: Path = Path()) -> None:
    """Refuse options without a meaning here, and a file that cannot be read; reads no text.

    Args:
        options: The options.
        given: Names of those that the user gave.
        base: Folder that paths are relative to.
    """
    if unsuited := sorted(set(given) - ALLOWED):
        raise InputError(
            f"data option '{unsuited[0]}': has no meaning for texts without labels; "
            f"they take {', '.join(sorted(ALLOWED))}"
        )
    if isinstance(options.texts, str):
        check_texts(base / user_path(options.texts))


def texts_task(options: Options, kind: str, label_names: Sequence[str], base: Path = Path()) -> Task:
    """Read texts and divide them into train, validation and test by the seed; the labels are placeholders.

    Repeated texts are left out: a text that was trained on says nothing about others.

    Args:
        options: Has ``texts``: a file, or the texts.
        kind: Kind of the answers.
        label_names: Names of the labels that answers may have.
        base: Folder that paths are relative to.

    Raises:
        InputError: The file cannot be read, or has too few texts.
    """
    where, rows = _rows(options, base)
    unique = [row for row in dict.fromkeys(rows) if all(row)]
    if len(unique) < LEAST:
        raise InputError(f"{where}: has {plural(len(unique), 'different text')}; at least {LEAST} are needed")
    notes = [f"{where}: {plural(len(unique), 'text')} without labels"]
    if len(unique) < len(rows):
        notes.append(f"{where}: {plural(len(rows) - len(unique), 'repeated or empty text')} left out")
    count = min(MOST_HELD_OUT, round(HELD_OUT * len(unique)))
    labels = placeholders(find(kind), unique, len(label_names)).labels if find(kind).grouped else ()
    held_out = _held_out_requests(labels, count, options.seed) if labels else _held_out(unique, count, options.seed)
    parts: dict[str, list[tuple[str, ...]]] = {"train": [], "validation": [], "test": []}
    for index, row in enumerate(unique):
        parts[held_out.get(index, "train")].append(row)
    if not all(parts.values()):
        raise InputError(
            f"{where}: too few queries to hold some out for validation and test; at least three are needed"
        )
    splits = {name: placeholders(find(kind), part, len(label_names)) for name, part in parts.items()}
    metric = options.metric or find(kind).fidelity_metric(label_names)
    name = options.name or (Path(options.texts).stem if isinstance(options.texts, str) else "texts")
    task = Task(name, kind, splits, tuple(label_names), metric, options.max_length, tuple(notes))
    return task.limit(options.seed, **options.limit) if options.limit else task


def _held_out(rows: Sequence[object], count: int, seed: int) -> dict[int, str]:
    """Return the split of each row that is held out, so many for each of validation and test."""
    order = choose([0] * len(rows), 2 * count, seed, stratified=False)
    validation = set(choose([0] * len(order), count, seed, stratified=False))
    return {row: "validation" if index in validation else "test" for index, row in enumerate(order)}


def _held_out_requests(labels: Sequence[Sequence[float]], count: int, seed: int) -> dict[int, str]:
    """Return the split of each row of the requests that are held out, at least one for each of validation and test."""
    validation = choose_requests(labels, count, seed)
    rest = sorted({*range(len(labels))} - {*validation})
    test = choose_requests([labels[row] for row in rest], count, seed)
    return {**dict.fromkeys(validation, "validation"), **{rest[index]: "test" for index in test}}


def _rows(options: Options, base: Path) -> tuple[str, list[tuple[str, ...]]]:
    """Return what the texts are called in messages, and the texts or pairs of texts."""
    if not isinstance(options.texts, str):
        return "texts", [(text.strip(),) for text in options.texts or ()]
    path = base / user_path(options.texts)
    check_texts(path)
    columns = [str(column) for column in (options.text, options.pair) if column is not None]
    return path.name, read_texts(path, 1 if options.pair is None else 2, columns)
