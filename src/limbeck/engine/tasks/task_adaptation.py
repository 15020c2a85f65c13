"""The task of a run as its model answers it: its length, label names and their order, checked where assumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.task import Task
from limbeck.core.task_kind import OWN_LENGTH
from limbeck.core.tokenizer import LARGEST_LENGTH
from limbeck.engine.description import read_description
from limbeck.engine.store.fingerprint import fingerprint
from limbeck.engine.store.store import Store
from limbeck.errors import InputError
from limbeck.model.folder_files import read_object
from limbeck.model.location import model_folder
from limbeck.recipe.checks import trained_first
from limbeck.recipe.recipe import Recipe, placed_steps

if TYPE_CHECKING:
    from limbeck.measure.label_order import Fitted


def adapt_task(recipe: Recipe, task: Task, store: Store, *, dry: bool = False) -> tuple[Task, tuple[str, ...]]:
    """Give a task the label names of the recipe's model, or of its teacher if only that answers the task.

    Args:
        recipe: The recipe.
        task: Its task.
        store: Where the check of an assumed order is kept.
        dry: Open no model; an assumed order that was not checked before counts as right.

    Returns:
        The task, with its notes, and notes for the user.

    Raises:
        InputError: The order of the labels had to be assumed, and another fits far better.
    """
    notes: list[str] = []
    adapted, answered = task, False
    for source in dict.fromkeys(filter(None, (recipe.model, recipe.teacher))):
        trained_next = source != recipe.teacher and trained_first(placed_steps(recipe))
        fitted = fit(source, adapted, store, trained_next=trained_next, dry=dry)
        if fitted is None:
            continue
        notes += fitted.notes
        if not answered and fitted.task is not adapted:
            adapted, answered = fitted.task, True
        answered |= fitted.answers
    notes = list(dict.fromkeys(notes))
    return (replace(adapted, notes=(*adapted.notes, *notes)) if notes else adapted), tuple(notes)


def served_length(task: Task, source: str | Path, *, chosen: bool = False) -> Task:
    """Cut texts where an artefact does, whatever the task says, so that it is judged as it serves.

    Args:
        task: The task.
        source: Folder or hub name of the model; of one that is no artefact the task decides.
        chosen: Whether the caller says where texts are cut; the task then decides for an artefact, too.
    """
    description = None if chosen else read_description(source)
    if description is None or description.encoding is None:
        return fit_length(task, source)
    return replace(task, max_length=description.encoding.max_length)


def fit_length(task: Task, source: str | Path) -> Task:
    """Cut texts where the model does if the task leaves that open, and nowhere that its tokenizer does not reach.

    Args:
        task: The task.
        source: Folder or hub name of the model.

    Returns:
        The task; a note says where its own limit is not that of the tokenizer. More tokens than the model has
        positions for stay: they are refused, or a step adds positions.
    """
    from limbeck.model.checkpoints import peek

    try:
        most = int(peek(source)["vector_length" if task.task_kind.vectors else "max_length"])
        read = min(most, _tokenizer_limit(source) or most)
    except InputError:
        return task  # it cannot be read; opening it says why
    if task.max_length == OWN_LENGTH:
        return replace(task, max_length=read)
    if not read < task.max_length <= most:
        return task
    reason = f"the tokenizer of '{source}' has model_max_length {read}"
    note = f"texts are cut at {read} tokens, not {task.max_length}: {reason}"
    return replace(task, max_length=read, notes=(*task.notes, note))


def _tokenizer_limit(source: str | Path) -> int | None:
    """Return the most tokens that a model's tokenizer gives; None if it has no limit, or is not on this machine."""
    folder = model_folder(str(source))
    file = folder / "tokenizer_config.json" if folder is not None else None
    limit = read_object(file).get("model_max_length") if file is not None and file.is_file() else None
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < LARGEST_LENGTH else None


def fit(
    source: str, task: Task, store: Store | None = None, *, trained_next: bool = False, dry: bool = False
) -> Fitted | None:
    """Return the result of ``label_order.fit_task``; None for a model that cannot be read (opening it says why).

    Args:
        source: Folder or hub name of a model.
        task: The task.
        store: Where finished work is kept.
        trained_next: Whether a step trains the head before its answers count.
        dry: Open no model; an order not checked before counts as right.
    """
    from limbeck.measure.label_order import OrderCheck, fit_task, measure_order
    from limbeck.model.checkpoints import peek_outputs

    try:
        peek_outputs(source)
    except InputError:
        return None

    def remembered(adapted: Task) -> OrderCheck:
        if store is None:
            return measure_order(source, adapted)
        name = f"order-{fingerprint(model_folder(source) or source)}-{adapted.fingerprint}"
        stored = store.facts.recall(name, OrderCheck.from_json)
        if stored is not None:
            return stored
        if dry:
            return OrderCheck("fits", 1.0, 1.0, 0.0, tuple(range(len(adapted.label_names))), 0)
        order = measure_order(source, adapted)
        store.facts.remember(name, order.to_json())
        return order

    return fit_task(source, task, trained_next=trained_next, measure=remembered)
