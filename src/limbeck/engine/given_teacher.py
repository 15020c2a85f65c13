"""A recipe's teacher that only gives answers: a record without an object in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.candidate import Candidate, Record
from limbeck.core.model import AnswersOnly, AnswerSource
from limbeck.core.task import Task
from limbeck.errors import InputError
from limbeck.teachers.opening import check_answers, describe, open_answers

if TYPE_CHECKING:
    from limbeck.teachers.function import FunctionTeacher, TeacherFunction

SCORES = "teacher.jsonl"
"""File in a run's folder with the answers of a teacher function to the texts of the task."""
FURTHER = "teacher-further.jsonl"
"""File beside it with answers to texts that steps made, which are no part of the teacher's key."""
ANSWERS_ONLY = AnswersOnly("the function", "it is a function", probabilities=None)
"""What is known of a function before it is called."""


class GivenTeacher:
    """Opens a recipe's teacher; ``function`` answers the texts that are not in its file of scores."""

    def __init__(self, source: str | None, task: Task) -> None:
        """Keep the arguments; nothing is opened yet.

        Args:
            source: Folder or hub name of a model, or a file of scores.
            task: The task.
        """
        self.source, self._task = source, task
        self.function: FunctionTeacher | None = None
        self._scores: AnswerSource | None = None

    @property
    def answers_only(self) -> AnswersOnly | None:
        """What is known of the teacher; None if limbeck can open it, or there is none."""
        if self.function is not None:
            return replace(ANSWERS_ONLY, source=self.function.name, probabilities=self.function.probabilities)
        return self._described

    @cached_property
    def _described(self) -> AnswersOnly | None:
        return describe(self.source) if self.source else None

    def named(self, source: str) -> dict[str, str]:
        """Return how a model of the run is named in its record; a function by its own name beside its file."""
        function = self.function if source == self.source else None
        return {"source": source} | ({"function": function.name} if function is not None else {})

    def open(self) -> Candidate:
        """Open the teacher, which shares no tokenizer; a file of scores is read once."""
        assert self.source is not None  # else nobody asks for it
        opened = self._scores or open_answers(self.source, self._task, self.function)
        if not opened.identity:
            self._scores = opened
        return Candidate(opened, None, self._task)

    def record(self, key: str) -> Record:
        """Return the record of the teacher: no shape, and only the trait that lets later steps imitate it."""
        assert self.answers_only is not None
        notes = (f"only gives answers: {self.answers_only.reason}", *self.open().model.notes)
        return Record(key, None, "teacher", self.named(self.source or ""), None, frozenset({"teacher"}), notes=notes)


def prepare_teacher(
    source: str | None,
    task: Task,
    function: TeacherFunction | FunctionTeacher | None,
    folder: Path,
    log: Callable[[str], None] = lambda message: None,
) -> FunctionTeacher | None:
    """Check that a recipe's teacher answers the task, before any work; ask a function for the texts without an answer.

    Args:
        source: What the recipe names; for a function the file in the run's folder.
        task: The task, with the label names of the run.
        function: The teacher, if it is a function; it may have answered before.
        folder: Folder of the run.
        log: Called with each message.

    Returns:
        The function with all its answers; None for other teachers.

    Raises:
        InputError: The teacher does not answer the task, or the file holds answers to another one.
    """
    if function is not None:
        from limbeck.teachers.function import FunctionTeacher, write_scores

        file = folder / SCORES
        teacher = function if isinstance(function, FunctionTeacher) else FunctionTeacher(function, task, file, log)
        check_answers(teacher.name, teacher, task)
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(teacher, task, file)
        teacher.keep_in(folder / FURTHER)
        return teacher
    if source is not None and _alone(source):
        check_answers(source, open_answers(source, task), task)
    return None


def _alone(source: str) -> bool:
    try:
        return describe(source) is not None
    except InputError:
        return False  # opening it says why
