"""How long steps took in earlier runs, and estimates from that for other shapes, texts or parameters.

A past time applies to the same step with the same parameters on the same shape and texts. For others with the same root
(and so the same task) it is scaled by the ratio of the step's own estimates, which depend on shape, rows and tokens. A
training of a kind that never ran yet is scaled so from other trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from limbeck.core.candidate import Record, lineage
from limbeck.core.field_groups import parameters
from limbeck.core.shape import Shape
from limbeck.core.step import Step, registered
from limbeck.core.task import Task
from limbeck.recipe import validation
from limbeck.train.config import forward_seconds

Rows = Mapping[str, int]


@dataclass(frozen=True)
class Work:
    """What a step works on.

    Attributes:
        shape: Shape of the model; None where it is not known.
        rows: Texts by split.
        tokens: Tokens of a typical text.
        root: Key of the recipe's model, which identifies model and task.
        task_rows: Texts by split before any step.
        teacher: Shape of the model that it imitates; that of the model itself where it is not known.
    """

    shape: Shape | None
    rows: Rows
    tokens: float
    root: str
    task_rows: Rows
    teacher: Shape | None = None

    def seconds(self, step: Step, shape: Shape, rows: Rows) -> float | None:
        """Return a step's own estimate, with the time of its teacher.

        Args:
            step: The step.
            shape: Shape of the model.
            rows: Texts by split.
        """
        own, texts = step.estimated_seconds(shape, rows, self.tokens), step.teacher_texts(rows)
        if own is None or not texts:
            return own
        return own + forward_seconds(self.teacher or shape, texts, self.tokens)


@dataclass(frozen=True)
class _Past:
    step: str
    parameters: Mapping[str, Any]
    seconds: float
    shape: Shape | None
    root: str | None
    before: tuple[Record, ...]


class PastTimes:
    """Times of the steps in a store."""

    def __init__(self, records: Sequence[Record], probed: Sequence[tuple[str, Mapping[str, Any], float]]) -> None:
        """Index the records by step.

        Args:
            records: Records of all candidates, roots included where they are known.
            probed: Name, parameters and seconds of every probe of a candidate.
        """
        by_key = {record.key: record for record in records}
        self._records_by_step: dict[str, list[_Past]] = {}
        for record in records:
            if record.parent is None:
                continue
            before = tuple(lineage(by_key, record.parent))
            root = before[0].key if before and before[0].parent is None else None
            shape = before[-1].shape if before else None
            past = _Past(record.step, record.parameters, record.duration, shape, root, before[1:])
            self._records_by_step.setdefault(record.step, []).append(past)
        self._probed: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
        for name, values, seconds in probed:
            self._probed.setdefault(name, []).append((values, seconds))

    def seconds(self, step: Step, work: Work) -> tuple[float | None, bool]:
        """Return the seconds that a step will take, None if nothing is known, and whether they are rough.

        Args:
            step: The step.
            work: What it will work on.
        """
        values, past = parameters(step), self._records_by_step.get(step.info.name, [])
        related = [each for each in past if each.root == work.root]
        if step.info.trains and not related:
            related = [each for each in self._trainings if each.root == work.root]
        name, shape = step.info.name, work.shape
        alike = [each for each in related if shape is not None and (each.step, each.shape) == (name, shape)]
        unchanged = [each for each in alike if each.parameters == values]
        if same := [each.seconds for each in unchanged if rows_after(each.before, work.task_rows) == work.rows]:
            return median(same), False
        if work.shape is None:
            return None, False
        own = work.seconds(step, work.shape, work.rows)
        if own is None:
            times = [each.seconds for each in alike]
            times += [seconds for given, seconds in self._probed.get(step.info.name, []) if given == values]
            return (median(times) if times else None), bool(times)
        costs = [(each.seconds, _estimate(each, work)) for each in related]
        scaled = [own * seconds / cost for seconds, cost in costs if cost]
        return (median(scaled) if own and scaled else float(own)), True

    @property
    def _trainings(self) -> list[_Past]:
        steps = ((registered(name), past) for name, past in self._records_by_step.items())
        return [each for cls, past in steps if cls is not None and cls.info.trains for each in past]


def rows_after(records: Sequence[Record], rows: Rows) -> Rows:
    """Return the rows by split after the steps that made these records.

    Args:
        records: What each step made, the earliest first.
        rows: Rows of the task before.
    """
    for record in records:
        cls = registered(record.step)
        step = _rebuilt(cls, record.parameters) if cls is not None else None
        rows = step.rows_after(rows) if step is not None else rows
    return rows


def typical_tokens(task: Task, pieces: float = 1.3) -> float:
    """Estimate the tokens of a typical training text: its words times ``pieces``, and the two tokens around it."""
    split = next(iter(task.splits.values()))
    texts, pairs = split.texts[:1000], (split.pairs or ())[:1000]
    words = sum(len(text.split()) if isinstance(text, str) else len(text) for text in (*texts, *pairs))
    return min(2 + pieces * words / max(len(texts), 1), float(task.max_length))


def _estimate(past: _Past, work: Work) -> float | None:
    """Return the estimate that an earlier step would have given for what it worked on."""
    cls = registered(past.step)
    earlier = _rebuilt(cls, past.parameters) if cls is not None else None
    if earlier is None or past.shape is None:
        return None
    return work.seconds(earlier, past.shape, rows_after(past.before, work.task_rows))


def _rebuilt(cls: type[Step], values: Mapping[str, Any]) -> Step | None:
    """Return a step from its stored parameters; None if it has other fields today."""
    return validation.read(cls, dict(values), "")[0]
