"""How long steps took in earlier runs, and estimates from that for other shapes, texts or parameters.

A past time applies to the same step with the same parameters on the same shape and texts. For others with the same root
(and so the same task) it is scaled by the ratio of the step's own estimates, which depend on shape, rows and tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.field_groups import parameters
from limbeck.core.shape import Shape
from limbeck.core.step import Step, registered
from limbeck.recipe import validation

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
    """

    shape: Shape | None
    rows: Rows
    tokens: float
    root: str
    task_rows: Rows


@dataclass(frozen=True)
class _Past:
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
        self._made: dict[str, list[_Past]] = {}
        for record in records:
            if record.parent is None:
                continue
            lineage = tuple(_lineage(by_key, record.parent))
            root = lineage[0].key if lineage and lineage[0].parent is None else None
            shape = lineage[-1].shape if lineage else None
            past = _Past(record.parameters, record.duration, shape, root, lineage[1:])
            self._made.setdefault(record.step, []).append(past)
        self._probed: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
        for name, values, seconds in probed:
            self._probed.setdefault(name, []).append((values, seconds))

    def seconds(self, step: Step, work: Work) -> tuple[float | None, bool]:
        """Return the seconds that a step will take, None if nothing is known, and whether they are rough.

        Args:
            step: The step.
            work: What it will work on.
        """
        values, past = parameters(step), self._made.get(step.info.name, [])
        related = [each for each in past if each.root == work.root]
        alike = [each for each in related if each.shape is not None and each.shape == work.shape]
        if same := [each.seconds for each in alike if each.parameters == values and _rows(each, work) == work.rows]:
            return median(same), False
        if work.shape is None:
            return None, False
        own = step.estimated_seconds(work.shape, work.rows, work.tokens)
        if own is None:
            times = [each.seconds for each in alike]
            times += [seconds for given, seconds in self._probed.get(step.info.name, []) if given == values]
            return (median(times) if times else None), bool(times)
        costs = [(each.seconds, _estimate(step, each, work)) for each in related]
        scaled = [own * seconds / cost for seconds, cost in costs if cost]
        return (median(scaled) if own and scaled else float(own)), True


def _lineage(by_key: Mapping[str, Record], key: str | None) -> Iterator[Record]:
    """Yield the records from the earliest known ancestor to ``key``."""
    chain = []
    while key is not None and key in by_key:
        chain.append(by_key[key])
        key = by_key[key].parent
    yield from reversed(chain)


def _rows(past: _Past, work: Work) -> Rows:
    """Return the rows that an earlier step of the same root had: those of the task after the steps before it."""
    rows = work.task_rows
    for record in past.before:
        cls = registered(record.step)
        step = _rebuilt(cls, record.parameters) if cls is not None else None
        rows = step.rows_after(rows) if step is not None else rows
    return rows


def _estimate(step: Step, past: _Past, work: Work) -> float | None:
    """Return the estimate that the step would have given for what an earlier one worked on."""
    earlier = _rebuilt(type(step), past.parameters)
    if earlier is None or past.shape is None:
        return None
    return earlier.estimated_seconds(past.shape, _rows(past, work), work.tokens)


def _rebuilt(cls: type[Step], values: Mapping[str, Any]) -> Step | None:
    """Return a step from its stored parameters; None if it has other fields today."""
    return validation.read(cls, dict(values), "")[0]
