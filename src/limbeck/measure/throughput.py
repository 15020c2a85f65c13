"""Measure texts per second in batches of texts of similar length, as documents are answered when no user waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.judged_texts import Document
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, Step, StepInfo, step
from limbeck.core.target import Target
from limbeck.measure.samples import sample_rows, sorted_batches
from limbeck.measure.timed_session import TimedModels, TimedSample, check_here, time_models

if TYPE_CHECKING:
    from limbeck.core.shape import Shape


@step(
    StepInfo(
        "throughput",
        reads={"target", "teacher"},
        with_teacher=True,
        group=True,
        machine_bound=True,
        at_target=True,
        example={"samples": 4, "batch": 2, "rounds": 2},
    )
)
class Throughput(Probe):
    """Count the texts that every candidate answers in a second, in batches sorted by length, the longest texts first.

    ``latency`` is what a single request waits; this is the rate at which many texts are answered, such as the documents
    of an index. Sorted batches hold little padding. As for ``latency``, all candidates are loaded in one fresh process
    and timed alternately, from token ids to logits, on a sample of real texts whose lengths are spread like those of
    the split; by the measuring service, if the target has a ``url``.

    Units: texts per second.

    Attributes:
        batch: Texts answered together.
    """

    batch: Annotated[int, Ge(1), Le(100_000)] = 32
    sample: TimedSample = group(default=TimedSample(samples=256, rounds=5))

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.sample.split,)

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return that a measuring service takes batches up to a size."""
        from limbeck.measure.service.request import MAX_TEXTS

        if target.url is None or self.batch <= MAX_TEXTS:
            return {}
        return {"batch": f"the measuring service of the target takes at most {MAX_TEXTS:,} texts, got {self.batch:,}"}

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return self.sample.estimated_seconds(shape, rows, tokens)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield the fact of each candidate."""
        if not candidates:
            return
        target, split = replace(context.target, batch=self.batch, candidates=None), self.sample.split
        check_here(target, candidates)
        rows = sample_rows(candidates[0].task, split, self.sample.samples, part=Document)
        batches = (sorted_batches(candidate, split, rows, target) for candidate in candidates)
        calls = [[[batch] for batch in each] for each in batches]
        yield from facts(time_models(candidates, calls, target, self.sample, context.log), len(rows))


def facts(timed: TimedModels, texts: int) -> Iterator[tuple[int, Measurement]]:
    """Yield the rates of timed models.

    Args:
        timed: What was measured: a call is a batch.
        texts: Texts of a round.
    """
    from limbeck.core.statistics import median

    for index, seconds in enumerate(timed.answer["seconds"]):
        rates = texts / seconds.sum(axis=1)
        value, low, high = median(rates)
        where: dict[str, Any] = {"n": texts * len(rates), "target": str(timed.target)}
        detail = timed.detail(index, rates.tolist())
        yield index, Measurement("throughput", value, "1/s", low, high, **where, detail=detail)
