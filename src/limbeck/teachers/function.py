"""A Python function as a teacher: given texts, it returns logits or probabilities; it sees each text once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

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
"""Texts per call. The answers to the first call show whether they are logits."""
ASK_AGAIN = "it has a teacher function's answers of an earlier run: delete or rename it, or choose another run folder"
LOGITS_CURE = "if these are logits, subtract 1 from every score, since first answers from 0 to 1 count as probabilities"


class FunctionTeacher:
    """Answers of a function, kept in memory, and by :meth:`keep_in` in a file, so that it sees no text twice."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        function: TeacherFunction,
        task: Task,
        file: Path | None = None,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Read the answers of an earlier run, and call the function on a few other texts to find out what it returns.

        An answer is reused because it is there: a function that answers a bit differently each time, or costs money,
        could not be recognized by asking it again.

        Args:
            function: Called with at most ``BATCH`` texts at a time.
            task: The task, whose label names say what the columns of an array are.
            file: A file that :func:`write_scores` wrote or began; it need not exist.
            log: Called with a message if answers are reused.

        Raises:
            InputError: The function fails, or does not return a row of scores for each text; or the file cannot be
                read for this task.
        """
        check_gives_scores(name_of(function), task)
        self._function, self._task, self._words = function, task, task.task_kind.per_token
        self.name = name_of(function)
        self.identity = secrets.token_hex(8)  # answers that others keep are those of this object alone
        earlier = None if file is None else _earlier(file, task)
        self._logits: dict[Key, np.ndarray] = {} if earlier is None else earlier.logits_by_text
        if earlier is not None:
            self._log_reuse(log, earlier.path)
        self._format: ScoreFormat | None = None
        self._further: Path | None = None
        self._named: bool | None = None
        self.probabilities = False
        if task.task_kind.numeric:
            self._set_format(probabilities=False)
        self.order_assumed = self._ask_first()
        if earlier is None:
            return
        self._check_form(earlier)
        self._set_format(probabilities=earlier.probabilities)

    def _check_form(self, earlier: ScoreFile) -> None:
        """Refuse answers of another form than the function's."""
        if self._format is not None and self.probabilities != earlier.probabilities:
            now, before = ("probabilities", "logits")[:: 1 if self.probabilities else -1]
            raise InputError(f"teacher function '{self.name}' gives {now}, {earlier.path} holds {before}; {ASK_AGAIN}")

    def keep_in(self, path: Path) -> None:
        """Read the answers that a file has, and append those to further texts, such as augmented ones.

        Args:
            path: A JSONL file, which need not exist.

        Raises:
            InputError: It is damaged, or holds answers to another task, or of another form.
        """
        if (earlier := _earlier(path, self._task)) is not None:
            self._check_form(earlier)
            self._logits = earlier.logits_by_text | self._logits
        self._further = path

    def _ask_first(self) -> bool:
        """Ask new texts until it shows what the function returns; return whether it gives scores without labels.

        Raises:
            InputError: It gives no scores at all.
        """
        for split in self._task.splits:
            new = self._new(_inputs(self._task, split))
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                self._keep(batch, self._read(batch, self._call(batch)))
                if self._format is not None:
                    return self._named is False
        if not self._logits or all(np.isnan(row).all() for row in self._logits.values()):
            raise InputError(f"teacher function '{self.name}' gives no score for any word of the task")
        return False

    def _set_format(self, *, probabilities: bool) -> None:
        self.probabilities = probabilities
        self._format = self._form(probabilities=probabilities)

    def _form(self, *, probabilities: bool) -> ScoreFormat:
        return ScoreFormat(self._task.kind, self._task.label_names, probabilities, LOGITS_CURE)

    def _log_reuse(self, log: Callable[[str], None], path: Path) -> None:
        texts = {self._key(given) for split in self._task.splits for given in _inputs(self._task, split)}
        reused = len(texts & self._logits.keys())
        log(
            f"teacher function '{self.name}': answers of an earlier run are reused from {path} for {reused:,} of "
            f"{len(texts):,} texts; delete it to ask again"
        )

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
        new = self._new(inputs)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._keep(batch, self._read(batch, self._call(batch)))

    def _new(self, inputs: Sequence[Any]) -> list[Any]:
        """Return those of the texts, or pairs, that have no answer yet, each once."""
        return list({self._key(given): given for given in inputs if self._key(given) not in self._logits}.values())

    def _keep(self, inputs: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        for given, scores in zip(inputs, values, strict=True):
            self._logits[self._key(given)] = self._format.logits(scores) if self._format else scores.astype(np.float32)
        if self._further is not None:
            with self._further.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(map(self.line_of, inputs))

    def line_of(self, given: Any) -> str:
        """Return the line of a score file for a text, a pair, or a list of words, that the function has answered."""
        fields = _named(given, words=self._words) | self.scores_of(given)
        return json.dumps(fields, ensure_ascii=False) + "\n"

    def _key(self, given: Any) -> Key:
        return input_key(given, words=self._words)

    def _call(self, inputs: list[Any]) -> Sequence[Any]:
        """Return a row of scores for each input, as the function gives them."""
        try:
            answer = self._function([list(words) for words in inputs] if self._words else inputs)
        except Exception as error:  # whatever a user's function raises
            raise InputError(f"teacher function '{self.name}' failed on {len(inputs)} texts: {error!r}") from error
        rows = _plain(answer)
        if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or len(rows) != len(inputs):
            size = f"{len(rows)} rows" if isinstance(rows, Sequence) else type(rows).__name__
            wanted = f"a row of scores for each of {len(inputs)} texts"
            raise InputError(f"teacher function '{self.name}': expected {wanted}, got {size}")
        return rows

    def _read(self, inputs: Sequence[Any], rows: Sequence[Any]) -> list[np.ndarray]:
        """Check rows of scores and put them into the order of the labels; the first that have any say what they are."""
        self._named = names_labels(zip(rows, map(self._where, inputs), strict=True), self._named)
        if self._format is None:
            values = self._ordered(inputs, rows, self._form(probabilities=False))
            verdict = are_probabilities(self._task.kind, np.concatenate([np.atleast_2d(value) for value in values]))
            if verdict is None:
                return values
            self._set_format(probabilities=verdict)
        assert self._format is not None
        return self._ordered(inputs, rows, self._format)

    def _ordered(self, inputs: Sequence[Any], rows: Sequence[Any], form: ScoreFormat) -> list[np.ndarray]:
        return [
            form.read_text(row, self._where(given), len(given) if self._words else None)
            for row, given in zip(rows, inputs, strict=True)
        ]

    def _where(self, given: Any) -> str:
        return f"teacher function '{self.name}', text {shown(given)}"

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


@runtime_checkable
class Listable(Protocol):
    """An array, tensor, series or scalar of NumPy, torch, pandas and others."""

    def tolist(self) -> Any:
        """Return nested lists of plain numbers, or a plain number."""
        ...


@runtime_checkable
class RowFrame(Protocol):
    """A data frame of polars."""

    columns: Iterable[Any]

    def to_dicts(self) -> list[dict[Any, Any]]:
        """Return a mapping by column for each row."""
        ...


@runtime_checkable
class Frame(Protocol):
    """A data frame of pandas."""

    columns: Iterable[Any]

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]:
        """Return a mapping by column for each row."""
        ...


def _plain(answer: Any) -> Any:  # Any: whatever a function returns
    """Return an answer in lists, mappings and numbers of Python, whichever library its parts are of.

    >>> _plain([{"no": np.float32(0.5), "yes": np.array(0.5)}, np.array([1, 0])])
    [{'no': 0.5, 'yes': 0.5}, [1, 0]]
    """
    if isinstance(answer, (RowFrame, Frame)):
        rows = answer.to_dicts() if isinstance(answer, RowFrame) else answer.to_dict("records")
        by_name = all(isinstance(column, str) for column in answer.columns)
        return _plain(rows if by_name else [list(row.values()) for row in rows])
    if isinstance(answer, Listable):
        return answer.tolist()
    if isinstance(answer, Mapping):
        return {label: _plain(score) for label, score in answer.items()}
    return [_plain(part) for part in answer] if isinstance(answer, (list, tuple)) else answer


def name_of(function: TeacherFunction) -> str:
    """Return the qualified name of a function, or of the class of a callable object.

    >>> name_of(json.dumps), name_of(str.split)
    ('json.dumps', 'str.split')
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None)  # methods of built-in types have none
    prefix = "" if module in ("__main__", "builtins", None) else f"{module}."
    return prefix + named.__qualname__.replace("<locals>.", "").replace("<lambda>", "lambda")


def _earlier(path: Path, task: Task) -> ScoreFile | None:
    """Read the answers that an earlier run wrote; they may have cost money, so none is ever dropped.

    Args:
        path: The file.
        task: The task.

    Returns:
        The file; None if there is none.

    Raises:
        InputError: It is damaged, or holds answers to another task.
    """
    _drop_partial_line(path)
    if not path.exists():
        return None
    try:
        file = ScoreFile(path, task)
    except InputError as error:
        raise InputError(f"{error}; {ASK_AGAIN}") from error
    if not file.logits_by_text:
        raise InputError(f"{path}: its rows have no texts, so no answers can be added; {ASK_AGAIN}")
    return file


def write_scores(teacher: FunctionTeacher, task: Task, path: Path) -> None:
    """Call a function on every text of a task and write its answers to a file of scores, batch by batch.

    A file that an earlier call wrote is continued: only texts that it lacks are added.

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
            file.writelines(map(teacher.line_of, batch))
            file.flush()
    sync(path)


def _drop_partial_line(path: Path) -> None:
    """Cut off the line that a killed process did not finish, in place; remove a file without a whole line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if not content[:whole].strip():
        path.unlink()
    elif whole != len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _named(given: Any, *, words: bool) -> dict[str, Any]:
    """Return the fields of a score file that say which text a row is of."""
    if words:
        return {"words": list(given)}
    return dict(zip(("text", "pair"), given, strict=True)) if isinstance(given, tuple) else {"text": given}


def _inputs(task: Task, split: str) -> list[Any]:
    """Return what a function is asked, hashable: texts, pairs of them, or tuples of words."""
    rows = task.split(split)
    return list(rows.texts) if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))
