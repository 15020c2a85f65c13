"""Resolve a teacher's name and open it: a model of limbeck or transformers, or a file of scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from limbeck.core.candidate import Candidate, lineage_key
from limbeck.core.digests import content
from limbeck.core.model import AnswersOnly, AnswerSource
from limbeck.core.paths import is_path, user_path
from limbeck.core.shape import short_key
from limbeck.data.answers import judgeable
from limbeck.errors import InputError, UnsupportedModel
from limbeck.measure.label_order import TEXTS, compare_orders, fit_task
from limbeck.model.checkpoints import peek, peek_here
from limbeck.model.location import check_vectors, model_folder
from limbeck.teachers.score_file import ScoreFile, gives_probabilities, is_score_file
from limbeck.teachers.sentence_transformers_model import SentenceTransformersTeacher

if TYPE_CHECKING:
    from limbeck.core.task import Task
    from limbeck.teachers.function import FunctionTeacher

UNPADDED = "without padding"
"""How models of transformers are asked; answers to padded texts, which earlier versions kept, are not used."""


def describe(source: str, *, hub: bool = True) -> AnswersOnly | None:
    """Describe a teacher that only gives answers; return None for a model that limbeck opens.

    Args:
        source: Folder or hub name of a model, or a file of scores.
        hub: Whether to look up a name that only the hub knows; otherwise it counts as one that limbeck opens.

    Raises:
        InputError: It is none of these.
    """
    if is_score_file(source):
        from limbeck.data.readers import check_file

        path = user_path(source)
        check_file(path)
        return AnswersOnly(source, "it is a file of scores", False, gives_probabilities(path))
    if not hub and model_folder(source) is None and not is_path(source):
        return None
    try:
        peek(source)
    except UnsupportedModel as error:
        from limbeck.teachers.transformers_model import is_known_to_transformers

        if not is_known_to_transformers(source):
            raise
        return AnswersOnly(source, f"limbeck does not open it ({error})")
    return None


def name_problems(sources: Sequence[str], what: str) -> list[str]:
    """Return the problems of teachers that show without opening them.

    Args:
        sources: Their names.
        what: The field that names them.
    """
    problems = []
    for source in sources:
        try:
            described = None if describe(source, hub=False) is not None else peek_here(source)
            if described is not None and not (described["labels"] or described["vectors"]):
                check_vectors(source)
                problems.append(f"{what}: '{source}' has no trained head; fine-tune it first")
        except InputError as error:
            problems.append(f"{what}: {error}")
    return problems


def open_answers(source: str, task: Task, function: FunctionTeacher | None = None) -> AnswerSource:
    """Open a teacher that only gives answers.

    Args:
        source: As for :func:`describe`, which does not return None for it.
        task: The task; answers are put in the order of its label names.
        function: Answers texts that a file of scores lacks.

    Raises:
        InputError: It does not answer the task.
    """
    if is_score_file(source):
        return ScoreFile(user_path(source), task, None if function is None else function.answer)
    if task.task_kind.vectors:
        return open_vectors(source)
    from limbeck.teachers.transformers_model import TransformersTeacher

    return TransformersTeacher(source, task, _identity(source, UNPADDED))


def open_vectors(source: str) -> SentenceTransformersTeacher:
    """Open an embedding model that limbeck itself does not open.

    Args:
        source: Folder or hub name of a model of sentence-transformers.

    Raises:
        InputError: It gives no vectors.
        MissingExtra: sentence-transformers is not installed.
    """
    return SentenceTransformersTeacher(source, _identity(source))


def open_teacher(source: str, task: Task) -> Candidate:
    """Open a teacher of any origin, and check that it answers the task.

    Args:
        source: Folder or hub name of a model, or a file of scores.
        task: The task.

    Returns:
        The candidate; its model is an ``AnswerSource`` where limbeck does not open it, and it has no tokenizer then.

    Raises:
        InputError: It does not answer the task, or the order of its outputs is unclear.
    """
    if describe(source) is not None:
        opened = open_answers(source, task)
        check_answers(source, opened, task)
        return Candidate(opened, None, task)
    from limbeck.model.checkpoints import open_model

    model, tokenizer = open_model(source, task=task)
    if model.fresh_head:
        needed, has = ", ".join(task.label_names), ", ".join(peek(source)["labels"]) or "none"
        raise InputError(f"teacher '{source}' was not trained for the labels of this task ({needed}), it has {has}")
    fit_task(source, task)
    return Candidate(model, tokenizer, task)


def open_teachers(sources: Iterable[str], task: Task) -> Iterator[tuple[str, Candidate]]:
    """Open teachers of any origin one by one; yield each with a key of its content and of the order of its labels."""
    for source in sources:
        read = {"source": content(source), "kind": task.kind, "labels": list(task.label_names)}
        yield lineage_key(None, "teacher", 3, read, {}), open_teacher(source, task)


def check_answers(source: str, opened: AnswerSource, task: Task) -> None:
    """Refuse a teacher that cannot answer the training texts, or whose labels are in another order than assumed.

    Args:
        source: How the user named it.
        opened: The teacher.
        task: The task.

    Raises:
        InputError: Says what is missing, or which order fits.
    """
    if "train" in task.splits and (problem := opened.lacks(task, "train")):
        raise InputError(problem)
    sizes = {name: len(rows) for name, rows in task.splits.items() if not opened.lacks(task, name)}
    if not sizes:
        raise InputError(opened.lacks(task, next(iter(task.splits))))
    split = "validation" if sizes.get("validation", 0) >= TEXTS else max(sizes, key=sizes.__getitem__)
    wanted = min(TEXTS if opened.order_assumed else 1, len(task.split(split)))
    few = task.limit(**{split: wanted}) if opened.identity else task
    answers, given, _ = judgeable(task, opened.answer(few, split), few.split(split).labels)
    rows = [row for row, label in enumerate(given) if not isinstance(label, int) or label >= 0][:TEXTS]
    if not rows or not opened.order_assumed or task.task_kind.numeric:
        return
    logits, labels = [answers[row] for row in rows], [given[row] for row in rows]
    order = compare_orders(task.kind, logits, labels, len(task.label_names))
    if order.verdict == "wrong":
        fitting = ", ".join(task.label_names[output] for output in order.outputs)
        raise InputError(
            f"teacher '{source}' does not name its labels, so the order {', '.join(task.label_names)} is assumed, but "
            f"another fits far better: {order.best:.1%} of {order.texts} texts instead of {order.accuracy:.1%} "
            f"({fitting}); give its scores by label name"
        )


def _identity(source: str, method: str = "") -> str:
    """Identify a model by its content, or by its name on the hub, and by the method of asking it."""
    digests = content(str(model_folder(source) or source))
    if method:
        digests = {"content": digests, "method": method}
    return short_key(digests)
