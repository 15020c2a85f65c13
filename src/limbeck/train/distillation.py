"""What a student learns from: the outputs of one teacher, or the mean of several teachers' logits; in one phase or two.

References: Hinton et al., 2015, arXiv:1503.02531 (logits, also of an ensemble); Jiao et al., 2020, arXiv:1909.10351
(hidden layers first, answers then).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from limbeck.core.candidate import Candidate
from limbeck.core.model import AnswerSource
from limbeck.core.pieces import Piece, Result, Spread
from limbeck.core.step import RunContext
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.layer_distillation import adapt_vocabulary, vocabulary_key
from limbeck.train.objectives import LiveTeacher, TeacherCall, Term
from limbeck.train.teacher_cache import (
    CachedLogits,
    CachedTeacher,
    cached_layers,
    cached_logits,
    cached_word_logits,
    keepable,
    mean_logits,
)

if TYPE_CHECKING:
    import numpy as np

    from limbeck.storage.memmap import Keep

Terms = Mapping[str, tuple[float, Term]]


INTERMEDIATE = "intermediate"
"""Name of the phase that learns the inside of a teacher alone."""


def two_phases(
    terms: Terms, inside: Collection[str], training: TrainingConfig, epochs: float, learning_rate: float
) -> Iterator[tuple[str, TrainingConfig, Terms]]:
    """Split a distillation: the student first learns the inside of its teacher alone, then the answers alone.

    A phase without terms is left out.

    Args:
        terms: All terms of the loss, with their weights.
        inside: Names of the terms of the first phase.
        training: Hyper-parameters of the second phase.
        epochs: Passes over the texts in the first phase.
        learning_rate: The highest learning rate of the first phase.

    Yields:
        Name, hyper-parameters and terms of each phase.
    """
    # the answers do not change sensibly before the second phase, so the first is not evaluated
    first = replace(training, num_train_epochs=epochs, learning_rate=learning_rate, evaluations_per_epoch=0)
    if inner := {name: term for name, term in terms.items() if name in inside}:
        yield INTERMEDIATE, first, inner
    if outer := {name: term for name, term in terms.items() if name not in inside}:
        yield "prediction", training, outer


def teacher_outputs(
    terms: Terms,
    student: Candidate,
    teacher: Candidate,
    key: str,
    context: RunContext,
    *,
    further: Sequence[tuple[str, Candidate]] = (),
    cache: bool = False,
) -> TeacherCall:
    """Return the source of the teacher outputs that a loss of these terms needs.

    Args:
        terms: The terms of the loss, with their weights.
        student: The student, with the task whose training texts are read.
        teacher: The model to imitate.
        key: Identifies the teacher's content, in the names of what is cached.
        context: Where caches are kept.
        further: Further teachers, each with its key: their logits are averaged with the teacher's.
        cache: Whether to keep on disk what is imitated inside the teacher.

    Returns:
        A function from a batch to the teacher's outputs.

    Raises:
        InputError: A teacher lacks tokens of the student's vocabulary.
    """
    wanted: dict[str, set[int]] = {}
    for _, term in terms.values():
        for tap, layers in term.taps.items():
            wanted.setdefault(tap, set()).update(layers)
    if not wanted:
        return CachedTeacher(mean_answers(student, teacher, key, context, further), {})
    reader = adapt_vocabulary(student, teacher)
    if reader is None:
        raise InputError(
            "distill: the teacher lacks tokens of the student's vocabulary, so it cannot read the same tokens; "
            "use match: [logits]"
        )
    if cache:
        name = key if reader is teacher else f"{key}-{vocabulary_key(student.tokenizer)}"
        taps = {tap: tuple(sorted(layers)) for tap, layers in wanted.items()}
        cached, logits = cached_layers(reader, name, student.task, taps, context.keep, context.scratch)
        computed = logits if reader is teacher else None
        return CachedTeacher(mean_answers(student, teacher, key, context, further, computed), cached)
    separate = further and "logits" in terms
    return LiveTeacher(reader.model.eval(), mean_answers(student, teacher, key, context, further) if separate else None)


def mean_answers(
    student: Candidate,
    teacher: Candidate,
    key: str,
    context: RunContext,
    further: Sequence[tuple[str, Candidate]] = (),
    logits: np.ndarray | None = None,
) -> CachedLogits:
    """Return the training split's logits, averaged over all teachers.

    Args:
        student: The student, with the task.
        teacher: The first teacher.
        key: Identifies its content.
        context: Where the logits are kept.
        further: Further teachers, each with its key.
        logits: The first teacher's logits, if they are computed already [rows, labels].

    Returns:
        The logits, by row; where words have labels, of the first token of each that the student has, NaN where no
        teacher saw the word.
    """
    task, answers = student.task, []
    readings = [reading(student, name, source) for name, source in ((key, teacher), *further)]
    if context.spread is not None and logits is None:
        hand_out(readings, student, context, context.spread)
    for reader, name, by_word in readings:
        if by_word:
            words, unseen = cached_word_logits(reader, name, task, context.keep, student.tokenizer)
            if unseen:
                context.log(f"distill: {unseen:,} words have no answer of the teacher and are left out of its loss")
            answers.append(words)
        else:
            answers.append(cached_logits(reader, name, task, context.keep, logits if reader is teacher else None))
    return mean_logits(answers)


class Reading(NamedTuple):
    """How the texts of a student are read for it: by whom, under which name answers are kept, and whether by word."""

    reader: Candidate
    name: str
    by_word: bool


def reading(student: Candidate, key: str, teacher: Candidate) -> Reading:
    """Return how a teacher reads the texts of a student.

    Args:
        student: The student, with the task.
        key: Identifies the teacher's content.
        teacher: The teacher.
    """
    if not student.task.task_kind.per_token:
        return Reading(teacher, key, by_word=False)
    # a label for each of the same tokens, or else of the same words
    reader = None if isinstance(teacher.model, AnswerSource) else adapt_vocabulary(student, teacher)
    if reader is None:
        return Reading(teacher, key, by_word=True)
    name = key if reader is teacher else f"{key}-{vocabulary_key(student.tokenizer)}"
    return Reading(reader, name, by_word=False)


def hand_out(readings: Sequence[Reading], student: Candidate, context: RunContext, spread: Spread) -> None:
    """Have the answers of teachers kept by the workers of a run; students of the same teacher share them.

    Args:
        readings: How the teachers read.
        student: The student, with the task.
        context: Where answers are kept.
        spread: ``context.spread``.

    Raises:
        PiecesWanted: Some are not there yet.
    """
    pieces = [
        {"keeps": part, "teacher": number}
        for number, (reader, name, _) in enumerate(readings)
        for part in keepable(reader, name, student.task, context.keep)
    ]
    if len(pieces) > 1:
        spread(pieces)


def work_on(
    pieces: Sequence[Piece], student: Candidate, teachers: Sequence[tuple[str, Candidate]], keep: Keep
) -> Iterator[Result]:
    """Keep the answers that the pieces of :func:`hand_out` name.

    Args:
        pieces: The pieces.
        student: The student, with the task.
        teachers: All teachers, each with its key.
        keep: ``RunContext.keep``.
    """
    parts: dict[int, Mapping[str, Callable[[], object]]] = {}
    for piece in pieces:
        number = piece["teacher"]
        if number not in parts:
            reader, name, _ = reading(student, *teachers[number])
            parts[number] = keepable(reader, name, student.task, keep)
        parts[number][piece["keeps"]]()
        yield {}
