"""Measure how well a candidate does its task, with the uncertainty of the evaluation sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    import numpy as np

    from limbeck.core.answer_changes import Answers
    from limbeck.core.assessment import Assessment, UnseenWord
    from limbeck.core.pieces import Piece, Result
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind


@step(
    StepInfo(
        "quality",
        version=3,  # 3: flips and drift against the reference
        reads={"teacher", "target"},
        with_teacher=True,
        judges=True,
        example={"batch": 8},
    )
)
class Quality(Probe):
    """Measure the task's metric on a split, with a 95 % bootstrap interval over its examples.

    For classification the fact also keeps which examples were right (``detail["correct"]``, read it with
    ``core.statistics.unpack``), so that two candidates can be compared on the same examples later.

    Answers are compared with those of the run's reference: the facts ``flips`` (share of answers that differ) and
    ``drift`` (mean change of the score that decides) say how, by answer and by length (``core/answer_changes.py``).

    INT8 models answer in batches of the target's size, or the sub-batches of requests, as they will be served: dynamic
    ranges span a batch with its padding, so answers depend on the other texts of a batch. The fact then has
    ``detail["batch"]``.

    Units: the metric's own, 0 to 1 (a correlation: -1 to 1).
    """

    split: str = "validation"  #: choose on 'validation'; look at 'test' once, at the end
    batch: Annotated[int, Ge(1), Le(100_000)] = 32  #: texts answered together

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: one answer for each text.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return forward_seconds(shape, rows.get(self.split, 0), tokens)

    def prepares(self, kind: TaskKind, target: Target) -> bool:
        """Return whether a candidate can be answered before it is measured."""
        from limbeck.measure.split_answers import prepares_answers

        return prepares_answers(kind, target)

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterable[Result]:
        """Keep the answers of a candidate."""
        from limbeck.measure.split_answers import keep_answers

        return keep_answers(candidate, (self.split,), self.batch, context, len(pieces))

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield the quality of each candidate, and how its answers differ from the reference's."""
        from limbeck.core.answer_changes import Answers
        from limbeck.core.model import AnswerSource
        from limbeck.measure.split_answers import split_answers

        compared, reference = context.reference, None
        for index, candidate in enumerate(candidates):
            if isinstance(candidate.model, AnswerSource):
                if lacking := candidate.model.lacks(candidate.task, self.split):
                    context.log(f"the teacher is not measured on '{self.split}': {lacking}")
                else:
                    yield from self._source(index, candidate, context)
                continue
            encoded, logits, size = split_answers(candidate, self.split, self.batch, context)
            assessment = assess(candidate.task, logits, encoded.labels, encoded.unseen)
            if size > 1 and candidate.model.int8:
                assessment.detail["batch"] = size
            yield index, self.fact(candidate.task, assessment, len(encoded))
            for name, interval in assessment.beside.items():
                yield index, Measurement.of(name, interval, n=assessment.examples_of(len(encoded)), split=self.split)
            if compared is not None and index == compared.position:
                reference = Answers(logits, encoded.labels, encoded.lengths)
            if compared is not None and reference is not None:
                answers = Answers(logits, encoded.labels, encoded.lengths)
                for fact in self._changes(candidate.task, compared.key, reference, answers):
                    yield index, fact

    def _changes(self, task: Task, key: str, reference: Answers, answers: Answers) -> Iterable[Measurement]:
        """Yield how answers differ from the reference's."""
        from limbeck.core.answer_changes import compare

        changes = compare(task.task_kind, task.label_names, reference, answers)
        rows = task.split(self.split)
        texts = [" ".join(text) if task.task_kind.per_token else text for text in rows.texts]
        if rows.pairs is not None:
            texts = [f"{text} | {pair}" for text, pair in zip(texts, rows.pairs, strict=True)]
        yield from changes.facts(self.split, key, reference.lengths, texts)
        likeness = task.task_kind.likeness(reference.logits, answers.logits, answers.labels)
        for name, interval in likeness.items():
            yield Measurement.of(name, interval, n=len(texts), split=self.split, detail={"reference": key})

    def _source(self, index: int, candidate: Candidate, context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield the facts of a teacher that only gives answers."""
        from limbeck.data.answers import answers, judgeable

        task = candidate.task
        labels = task.split(self.split).labels
        logits = answers(candidate.model, None, task, self.split, keep=context.keep)
        assessment = assess(task, *judgeable(task, logits, labels))
        yield index, self.fact(task, assessment, len(labels))
        for name, interval in assessment.beside.items():
            yield index, Measurement.of(name, interval, n=len(labels), split=self.split)

    def fact(self, task: Task, assessment: Assessment, count: int) -> Measurement:
        """Convert an assessment to a measurement.

        Args:
            task: Gives the metric.
            assessment: The metric's value and details.
            count: Texts that were answered.
        """
        detail = {"metric": task.metric, **assessment.detail}
        return Measurement.of(
            "quality", assessment.quality, n=assessment.examples_of(count), split=self.split, detail=detail
        )


def assess(
    task: Task, logits: Sequence[Any] | np.ndarray, labels: Sequence[Any], unseen: Sequence[Sequence[UnseenWord]] = ()
) -> Assessment:
    """Score logits in the order of the labels.

    Args:
        task: Says kind, metric and label names.
        logits: [rows, labels]; for tokens one [positions, labels] for each row.
        labels: A label for each row; for tokens one for every position, as ``data.batching.encode`` gives them.
        unseen: For tokens, the words of each row that have no token, see ``TaskKind.assess``.
    """
    return task.task_kind.assess(task.metric, task.label_names, logits, labels, unseen)
