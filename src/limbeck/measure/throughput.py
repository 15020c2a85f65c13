"""Measure texts per second in batches of texts of similar length, as documents are answered when no user waits."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement, environment
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.core.target import Target
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.shape import Shape


@step(
    StepInfo(
        "throughput",
        reads={"target", "teacher"},
        with_teacher=True,
        group=True,
        machine_bound=True,
        example={"samples": 4, "batch": 2, "rounds": 2},
    )
)
class Throughput(Probe):
    """Count the texts that every candidate answers in a second, in batches sorted by length, the longest texts first.

    ``latency`` is what a single request waits; this is the rate at which many texts are answered, such as the documents
    of an index. Sorted batches hold little padding. As for ``latency``, all candidates are loaded in one fresh process
    and timed alternately, from token ids to logits, on a sample of real texts whose lengths are spread like those of
    the split.

    Units: texts per second.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 256  #: texts in the sample
    batch: Annotated[int, Ge(1), Le(100_000)] = 32  #: texts answered together
    rounds: Annotated[int, Ge(1), Le(10_000)] = 5  #: timed rounds
    warmup: Annotated[int, Ge(0), Le(10_000)] = 1  #: rounds that are not timed
    split: str = "test"  #: where the texts come from

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.split,)

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: every round answers the sample, on one core.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = min(self.samples, rows.get(self.split, self.samples)) * (self.rounds + self.warmup)
        return forward_seconds(shape, texts, tokens) * (os.cpu_count() or 1)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield the fact of each candidate."""
        from limbeck.measure.backends import check_models, runner_options
        from limbeck.measure.isolation import run_isolated
        from limbeck.measure.latency import stored
        from limbeck.measure.samples import sample_rows

        if not candidates:
            return
        target = replace(context.target, batch=self.batch)
        check_models(target, [candidate.model for candidate in candidates])
        rows = sample_rows(candidates[0].task, self.split, self.samples)
        with contextlib.ExitStack() as stack:
            payload = {
                "models": [str(stack.enter_context(stored(candidate))) for candidate in candidates],
                "inputs": [self._calls(candidate, rows, target) for candidate in candidates],
                **runner_options(target),
                "rounds": self.rounds,
                "warmup": self.warmup,
            }
            answer = run_isolated("limbeck.measure.latency:session", payload, target.threads)
        yield from facts(answer, [candidate.model.runtime for candidate in candidates], target, len(rows))

    def _calls(self, candidate: Candidate, rows: Sequence[int], target: Target) -> list[list[dict[str, Any]]]:
        """Return calls of one batch each."""
        from limbeck.measure.samples import sorted_batches

        return [[batch] for batch in sorted_batches(candidate, self.split, rows, target)]


def facts(
    answer: dict[str, Any], runtimes: Sequence[str], target: Target, texts: int
) -> Iterator[tuple[int, Measurement]]:
    """Yield the measurements in the answer of a session.

    Args:
        answer: What ``latency.session`` returned: seconds [models, rounds, batches], and more.
        runtimes: Runtime of each model.
        target: Where the models were timed.
        texts: Texts of a round.
    """
    from limbeck.core.statistics import median

    name, machine = uuid.uuid4().hex[:12], environment()["processor"]
    for index, seconds in enumerate(answer["seconds"]):
        rates = texts / seconds.sum(axis=1)
        value, low, high = median(rates)
        detail = {
            "session": name,
            "rounds": [float(f"{rate:.6g}") for rate in rates],
            "runtime": answer["words"][index],
            "machine": machine,
        }
        where: dict[str, Any] = {"n": texts * len(rates), "target": str(target), "detail": detail}
        yield index, Measurement("throughput", value, "1/s", low, high, **where)
