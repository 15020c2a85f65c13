"""A Python function as a teacher: given texts, it returns logits or probabilities; it sees each text once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.special import softmax

from limbeck.core.task import Task
from limbeck.errors import InputError, shown
from limbeck.storage.atomic import sync
from limbeck.teachers.score_file import LOGITS, NUMBER, PROBABILITIES, Key, ScoreFile, text_keys
from limbeck.teachers.scores import ScoreFormat, are_probabilities

TeacherFunction: TypeAlias = Callable[[list[Any]], Any]
"""Takes texts, or (text, second text) tuples, and returns a row of scores for each: an array, or mappings by label."""
BATCH = 32
"""Texts per call. The answers to the first call show whether they are logits, and identify the function."""
SAME = 0.05
"""Largest difference between two calls at which probabilities count as those of the same function."""


class FunctionTeacher:
    """Answers of a function, kept in memory so that it sees no text twice."""

    notes: tuple[str, ...] = ()

    def __init__(self, function: TeacherFunction, task: Task) -> None:
        """Call the function on a few texts to find out what it returns.

        Args:
            function: Called with at most ``BATCH`` texts at a time.
            task: The task, whose label names say what the columns of an array are.

        Raises:
            InputError: The function fails, or does not return a row of scores for each text.
        """
        if task.task_kind.per_token:
            raise InputError("teacher: a function scores whole texts, but the task has a label for each word")
        self._function, self._task = function, task
        self.name = str(getattr(function, "__qualname__", type(function).__name__))
        self._logits: dict[Key, np.ndarray] = {}
        probe = list(dict.fromkeys(_inputs(task, next(iter(task.splits)))))[:BATCH]
        rows = self._call(probe)
        self.order_assumed = not isinstance(rows[0], Mapping)
        values = np.asarray(self._read(probe, rows, ScoreFormat(task.kind, task.label_names, probabilities=False)))
        self.probabilities = are_probabilities(task.kind, values)
        self._format = ScoreFormat(task.kind, task.label_names, self.probabilities)
        logits = self._format.logits(values)
        self._logits.update(zip(map(_key_of, probe), logits, strict=True))
        named = json.dumps([self.name, task.kind, task.label_names]).encode()
        self.identity = hashlib.sha256(named + logits.tobytes()).hexdigest()[:16]

    def lacks(self, task: Task, split: str) -> str:
        """Return an empty string: a function can answer any text."""
        return ""

    def answer(self, task: Task, split: str) -> np.ndarray:
        """Return the logits of a split [rows, labels]; the function is called on texts that are new to it."""
        inputs = _inputs(task, split)
        self.ask(inputs)
        return np.stack([self._logits[_key_of(given)] for given in inputs])

    def ask(self, inputs: Sequence[Any]) -> None:
        """Call the function, batch by batch, on those of these texts, or pairs, that are new to it."""
        new = list({_key_of(given): given for given in inputs if _key_of(given) not in self._logits}.values())
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            logits = self._format.logits(np.asarray(self._read(batch, self._call(batch), self._format)))
            self._logits.update(zip(map(_key_of, batch), logits, strict=True))

    def _call(self, inputs: list[Any]) -> Sequence[Any]:
        """Return a row of scores for each input, as the function gives them."""
        try:
            answer = self._function(inputs)
        except Exception as error:  # whatever a user's function raises
            raise InputError(f"teacher function '{self.name}' failed on {len(inputs)} texts: {error!r}") from error
        if hasattr(answer, "detach"):
            answer = answer.detach().cpu().numpy()
        rows = answer.tolist() if isinstance(answer, np.ndarray) else answer
        if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or len(rows) != len(inputs):
            size = f"{len(rows)} rows" if isinstance(rows, Sequence) else type(rows).__name__
            wanted = f"a row of scores for each of {len(inputs)} texts"
            raise InputError(f"teacher function '{self.name}': expected {wanted}, got {size}")
        return rows

    def _read(self, inputs: Sequence[Any], rows: Sequence[Any], form: ScoreFormat) -> list[list[float]]:
        """Check rows of scores and put them into the order of the labels."""
        where = f"teacher function '{self.name}', text "
        return [form.read(row, f"{where}{shown(given)}") for row, given in zip(rows, inputs, strict=True)]

    def scores_of(self, given: Any) -> dict[str, Any]:
        """Return the fields of a score file for a text, or a pair, that the function has answered."""
        logits = self._logits[_key_of(given)].astype(np.float64)
        if self._task.task_kind.numeric:
            return {NUMBER: float(logits[0])}
        if not self.probabilities:
            return {LOGITS: dict(zip(self._task.label_names, map(float, logits), strict=True))}
        values = 1 / (1 + np.exp(-logits)) if self._task.task_kind.several else np.exp(logits)
        return {PROBABILITIES: dict(zip(self._task.label_names, map(float, values), strict=True))}

    def adopt(self, path: Path) -> bool:
        """Reuse the answers in a file that :func:`write_scores` began, if they are this function's.

        Args:
            path: The file.

        Returns:
            Whether they are reused; True if there is no such file.
        """
        _drop_partial_line(path)
        if not path.exists():
            return True
        try:
            earlier = ScoreFile(path, self._task)
        except InputError:
            return False
        answers = earlier.logits_by_text
        shared = [key for key in self._logits if key in answers]
        if not shared or earlier.probabilities != self.probabilities:
            return False
        before, now = (_probabilities([side[key] for key in shared]) for side in (answers, self._logits))
        if np.abs(before - now).max() > SAME:
            return False
        self._logits.update(answers)
        return True


def _probabilities(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the softmax of logits [rows, labels]; a single number as it is."""
    values = np.stack(logits).astype(np.float64)
    return values if values.shape[1] == 1 else np.asarray(softmax(values, axis=1))


def write_scores(teacher: FunctionTeacher, task: Task, path: Path) -> None:
    """Call a function on every text of a task and write its answers to a file of scores, batch by batch.

    A file that an earlier, interrupted call wrote is continued, if the teacher has adopted its answers.

    Args:
        teacher: The function.
        task: The task.
        path: A JSONL file.
    """
    written = set(ScoreFile(path, task).logits_by_text) if path.exists() else set()
    inputs = {_key_of(given): given for split in task.splits for given in _inputs(task, split)}
    left = [given for key, given in inputs.items() if key not in written]
    with path.open("a", encoding="utf-8", newline="\n") as file:
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            teacher.ask(batch)
            for given in batch:
                text, pair = given if isinstance(given, tuple) else (given, None)
                fields = {"text": text} | ({"pair": pair} if pair is not None else {}) | teacher.scores_of(given)
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")
            file.flush()
    sync(path)


def _drop_partial_line(path: Path) -> None:
    """Cut off the line that a killed process did not finish; remove an empty file."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        path.unlink()
    elif whole != content:
        path.write_bytes(whole)


def _inputs(task: Task, split: str) -> list[Any]:
    rows = task.split(split)
    return list(rows.texts) if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))


def _key_of(given: Any) -> Key:
    return text_keys([given])[0] if isinstance(given, str) else text_keys([given[0]], [given[1]])[0]
