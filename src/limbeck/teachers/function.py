"""A Python function as a teacher: given texts, it returns logits or probabilities; it sees each text once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.special import softmax

from limbeck.core.logits import activate
from limbeck.core.task import Task
from limbeck.errors import InputError, shown
from limbeck.storage.atomic import sync
from limbeck.teachers.score_file import LOGITS, NUMBER, PROBABILITIES, Key, ScoreFile, input_key
from limbeck.teachers.scores import ScoreFormat, are_probabilities, check_gives_scores, names_labels

TeacherFunction: TypeAlias = Callable[[list[Any]], Any]
"""Takes texts, (text, second text) tuples or lists of words, and returns a row of scores for each: an array, or a
mapping by label; for a list of words a row for each word, None for a word that it does not answer."""
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
        check_gives_scores(name_of(function), task)
        self._function, self._task, self._words = function, task, task.task_kind.per_token
        self.name = name_of(function)
        self._logits: dict[Key, np.ndarray] = {}
        probe = list(dict.fromkeys(_inputs(task, next(iter(task.splits)))))[:BATCH]
        rows = self._call(probe)
        self.order_assumed = not any(map(names_labels, rows))
        values = self._read(probe, rows, ScoreFormat(task.kind, task.label_names, probabilities=False))
        self.probabilities = are_probabilities(task.kind, np.concatenate([np.atleast_2d(value) for value in values]))
        self._format = ScoreFormat(task.kind, task.label_names, self.probabilities)
        self._keep(probe, values)
        named = json.dumps([self.name, task.kind, task.label_names]).encode()
        answered = b"".join(self._logits[self._key(given)].tobytes() for given in probe)
        self.identity = hashlib.sha256(named + answered).hexdigest()[:16]

    def lacks(self, task: Task, split: str) -> str:
        """Return an empty string: a function can answer any text."""
        return ""

    def answer(self, task: Task, split: str) -> np.ndarray | list[np.ndarray]:
        """Return the logits of a split; the function is called on texts that are new to it.

        Args:
            task: The task.
            split: Name of the split.

        Returns:
            [rows, labels]; where words have labels, a list of [words, labels].
        """
        inputs = _inputs(task, split)
        self.ask(inputs)
        rows = [self._logits[self._key(given)] for given in inputs]
        return rows if self._words else np.stack(rows)

    def ask(self, inputs: Sequence[Any]) -> None:
        """Call the function, batch by batch, on those of these texts, or pairs, that are new to it."""
        new = list({self._key(given): given for given in inputs if self._key(given) not in self._logits}.values())
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._keep(batch, self._read(batch, self._call(batch), self._format))

    def _keep(self, inputs: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        for given, scores in zip(inputs, values, strict=True):
            self._logits[self._key(given)] = self._format.logits(scores)

    def _key(self, given: Any) -> Key:
        return input_key(given, words=self._words)

    def _call(self, inputs: list[Any]) -> Sequence[Any]:
        """Return a row of scores for each input, as the function gives them."""
        try:
            answer = self._function([list(words) for words in inputs] if self._words else inputs)
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

    def _read(self, inputs: Sequence[Any], rows: Sequence[Any], form: ScoreFormat) -> list[np.ndarray]:
        """Check rows of scores and put them into the order of the labels."""
        where = f"teacher function '{self.name}', text "
        return [
            form.read_text(row, f"{where}{shown(given)}", len(given) if self._words else None)
            for row, given in zip(rows, inputs, strict=True)
        ]

    def scores_of(self, given: Any) -> dict[str, Any]:
        """Return the fields of a score file for a text, a pair, or a list of words, that the function has answered."""
        logits = self._logits[self._key(given)].astype(np.float64)
        if self._task.task_kind.numeric:
            return {NUMBER: float(logits[0])}
        field = PROBABILITIES if self.probabilities else LOGITS
        if self._words:
            return {field: [None if np.isnan(word).any() else self._by_label(word) for word in logits]}
        return {field: self._by_label(logits)}

    def _by_label(self, logits: np.ndarray) -> dict[str, float]:
        values = logits
        if self.probabilities:
            values = activate(logits, "sigmoid") if self._task.task_kind.several else np.exp(logits)
        return dict(zip(self._task.label_names, map(float, values), strict=True))

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
        if before.shape != now.shape or not np.allclose(before, now, rtol=0, atol=SAME, equal_nan=True):
            return False
        self._logits.update(answers)
        return True


def name_of(function: TeacherFunction) -> str:
    """Return the qualified name of a function, or of the class of a callable object.

    >>> name_of(json.dumps), name_of(str.split)
    ('json.dumps', 'str.split')
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None)  # methods of built-in types have none
    prefix = "" if module in ("__main__", "builtins", None) else f"{module}."
    return prefix + named.__qualname__.replace("<locals>.", "").replace("<lambda>", "lambda")


def _probabilities(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the softmax of logits [rows, labels], or of all words [words, labels]; a single number as it is."""
    values = np.concatenate([np.atleast_2d(row) for row in logits]).astype(np.float64)
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
    words = task.task_kind.per_token
    inputs = {input_key(given, words=words): given for split in task.splits for given in _inputs(task, split)}
    left = [given for key, given in inputs.items() if key not in written]
    with path.open("a", encoding="utf-8", newline="\n") as file:
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            teacher.ask(batch)
            for given in batch:
                fields = _named(given, words=words) | teacher.scores_of(given)
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


def _named(given: Any, *, words: bool) -> dict[str, Any]:
    """Return the fields of a score file that say which text a row is of."""
    if words:
        return {"words": list(given)}
    return dict(zip(("text", "pair"), given, strict=True)) if isinstance(given, tuple) else {"text": given}


def _inputs(task: Task, split: str) -> list[Any]:
    """Return what a function is asked, hashable: texts, pairs of them, or tuples of words."""
    rows = task.split(split)
    return list(rows.texts) if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))
