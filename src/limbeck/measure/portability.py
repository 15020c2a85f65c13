"""Measure whether an INT8 candidate gives the same answers on processors without VNNI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import find
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, StepInfo, step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
    from onnxruntime import InferenceSession

    from limbeck.core.kinds import Kind
    from limbeck.core.task import Task


@step(
    StepInfo(
        "portability",
        reads={"target"},
        example={"samples": 8},
    )
)
class Portability(Probe):
    """Compare the answers of INT8 candidates with those in the arithmetic of older processors, which saturates.

    With AVX2 or AVX-512 but without VNNI, ONNX Runtime adds two products in 16 bits and clips the sum
    (``model/onnx/vnni_emulation.py``). Both arithmetics are computed here, on whatever processor this is. Where no two
    weights can overflow there is nothing to compare, and no text is read. Candidates that are not INT8 get no fact.

    Units: fraction of texts with the same answer (for tokens: all of its answers; for regression: exactly the same
    number), with a 95 % interval. ``detail`` has how many differ, how far the logits move at most, and how many pairs
    of weights can overflow.
    """

    split: str = "validation"  #: where the texts come from
    samples: Annotated[int, Ge(1), Le(100_000)] = 200  #: texts to answer

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield one fact for each INT8 candidate."""
        for index, candidate in enumerate(candidates):
            if candidate.model.int8:
                yield index, self.fact(candidate, context.target.batch)

    def fact(self, candidate: Candidate, batch: int) -> Measurement:
        """Measure the fraction of unchanged answers; texts of a batch share a range."""
        from limbeck.core.statistics import wilson
        from limbeck.data.batching import encode, predict
        from limbeck.model.external import load
        from limbeck.model.onnx.onnx_model import open_session
        from limbeck.model.onnx.vnni_emulation import integer, saturating

        ordinary = integer(load(Path(candidate.model.path)))
        clipping, pairs = saturating(ordinary)
        if not pairs:
            return Measurement("portability", 1.0, "1", 1.0, 1.0, split=self.split, detail={"pairs": 0})
        rows = candidate.task.split(self.split).take(compared_rows(candidate.task, self.split, self.samples))
        task = replace(candidate.task, splits={self.split: rows})
        encoded = encode(task, self.split, candidate.tokenizer)
        sessions = (open_session(graph, exact=True) for graph in (ordinary, clipping))
        exact, clipped = (predict(_Opened(session), encoded, batch) for session in sessions)
        same, largest = agreement(task.kind, exact, clipped, encoded.labels)
        value, low, high = wilson(int(same.sum()), len(same))
        detail = {"pairs": pairs, "differ": int((~same).sum()), "largest": largest}
        return Measurement("portability", value, "1", low, high, len(same), split=self.split, detail=detail)


def compared_rows(task: Task, split: str, count: int) -> list[int]:
    """Choose rows to compare answers on, in lengths like those of the split; of requests whole ones, at least one.

    Args:
        task: Has the split.
        split: Name of the split.
        count: Rows to choose; all if the split has fewer.
    """
    from limbeck.core.task import choose_rows
    from limbeck.measure.samples import sample_rows

    if task.task_kind.grouped:  # a document's rank among a few others says nothing
        return choose_rows(task.task_kind, task.split(split).labels, count, seed=0)
    return sample_rows(task, split, count)


@dataclass(frozen=True)
class _Opened:
    """A session with the interface that ``data.batching.predict`` calls."""

    session: InferenceSession
    int8: ClassVar[bool] = True
    thread_safe: ClassVar[Literal[True]] = True

    def predict(self, batch: Mapping[str, Any]) -> np.ndarray:
        """Logits of a batch."""
        from limbeck.model.onnx.onnx_model import answer

        return answer(self.session, batch)


def agreement(
    kind: Kind,
    first: Sequence[np.ndarray] | np.ndarray,
    second: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[ArrayLike],
) -> tuple[np.ndarray, float]:
    """Compare the answers of two models.

    Args:
        kind: Kind of the task.
        first: Logits of one model for each text.
        second: Logits of the other.
        labels: Label of each text; only tokens with a label count.

    Returns:
        Whether both agree [texts], and the largest difference between their logits.
    """
    import numpy as np

    largest = max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))
    return find(kind).same_answers(first, second, labels), largest
