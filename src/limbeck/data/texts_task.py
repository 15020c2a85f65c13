"""A task from texts without labels, for a model to answer: rows divided into splits, with placeholders for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from limbeck.core.kinds import find
from limbeck.core.paths import user_path
from limbeck.core.task import Task, choose
from limbeck.data.config import Options
from limbeck.data.judged_task import Load, check_judge, judged_by
from limbeck.data.readers import plural
from limbeck.data.unlabeled import Row, check_texts, normalized, placeholders, read_texts
from limbeck.errors import InputError

HELD_OUT = 0.1
"""Share of the texts in each of validation and test."""
MOST_HELD_OUT = 2000
"""Texts that are held out at most for each; they show an agreement of 97 % to within 0.8 points."""
LEAST = 20
"""Texts without which nothing can be held out."""
LEAST_QUERIES = 3
"""Queries without which none can be held out for validation and for test."""
ALLOWED = frozenset({"texts", "name", "text", "pair", "metric", "max_length", "limit", "seed", "judge", "shots"})
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
    check_judge(options, base)
    if isinstance(options.texts, str):
        check_texts(base / user_path(options.texts))


def texts_task(options: Options, kind: str, label_names: Sequence[str], load: Load, base: Path = Path()) -> Task:
    """Read texts and divide them into train, validation and test by the seed; the labels are placeholders.

    Each text of a pair is a row of its own where answers are vectors. Repeated texts are left out: a text that was
    trained on says nothing about others. Texts that differ in case, punctuation and white space alone are never in two
    splits; of those held out, the first is kept.

    Args:
        options: Has ``texts``: a file, or the texts.
        kind: Kind of the answers.
        label_names: Names of the labels that answers may have.
        load: Loads what vectors are judged by.
        base: Folder that paths are relative to.

    Raises:
        InputError: The file cannot be read, or has too few texts.
    """
    where, rows = _rows(options, base)
    if find(kind).vectors:  # each is of one text, which may be in many pairs
        rows = [(text,) for row in rows for text in row]
    grouped = find(kind).grouped
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in dict.fromkeys(rows):
        if all(row):
            groups.setdefault(normalized(row[:1] if grouped else row), []).append(row)
    count = sum(map(len, groups.values())) if grouped else len(groups)
    if count < LEAST:
        raise InputError(f"{where}: has {plural(count, 'different text')}; at least {LEAST} are needed")
    if grouped and len(groups) < LEAST_QUERIES:
        raise InputError(
            f"{where}: too few queries to hold some out for validation and test; at least three are needed"
        )
    parts = _divided(list(groups.values()), options.seed, whole=grouped)
    if options.judge is not None:  # nothing has to be held out
        check_judge(options, base, kind)
        parts = {"train": [row for group in groups.values() for row in group]}
    retained = sum(map(len, parts.values()))
    notes = [f"{where}: {plural(retained, 'text')} without labels"]
    if retained < len(rows):
        notes.append(f"{where}: {plural(len(rows) - retained, 'repeated or empty text')} left out")
    splits = {name: placeholders(find(kind), part, label_names) for name, part in parts.items()}
    metric = (None if options.judge else options.metric) or find(kind).fidelity_metric(label_names)
    name = options.name or (Path(options.texts).stem if isinstance(options.texts, str) else "texts")
    length = find(kind).usual_length if options.max_length is None else options.max_length
    task = Task(name, kind, splits, tuple(label_names), metric, length, tuple(notes)).checked()
    task = judged_by(task, options, load, base)
    return task.limit(options.seed, **options.limit).checked() if options.limit else task


def _divided(groups: Sequence[list[Row]], seed: int, *, whole: bool) -> dict[str, list[Row]]:
    """Divide groups: near-duplicates, of which the first one that is held out stands for all, or whole requests."""
    most = MOST_HELD_OUT * len(groups) // sum(map(len, groups)) if whole else MOST_HELD_OUT
    count = max(1, min(most, round(HELD_OUT * len(groups))))
    order = choose([0] * len(groups), 2 * count, seed, stratified=False)
    validation = set(choose([0] * len(order), count, seed, stratified=False))
    held_out = {row: "validation" if index in validation else "test" for index, row in enumerate(order)}
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for index, group in enumerate(groups):
        name = held_out.get(index, "train")
        parts[name] += group if whole or name == "train" else group[:1]
    return parts


def _rows(options: Options, base: Path) -> tuple[str, list[Row]]:
    """Return what the texts are called in messages, and the texts or pairs of texts."""
    if not isinstance(options.texts, str):
        return "texts", [(text.strip(),) for text in options.texts or ()]
    path = base / user_path(options.texts)
    check_texts(path)
    columns = [str(column) for column in (options.text, options.pair) if column is not None]
    return path.name, read_texts(path, 1 if options.pair is None else 2, columns)
