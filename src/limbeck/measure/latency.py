"""Measure seconds per call on the target, with all candidates alternating in one fresh process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.judged_texts import Query
from limbeck.core.measurement import Measurement
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.core.target import Budget, Target
from limbeck.errors import InputError
from limbeck.measure.requests import (
    LEAST_REQUESTS,
    Call,
    SubBatches,
    best_sub_batches,
    calls_of,
    request_tokens,
    sample_requests,
)
from limbeck.measure.samples import sample_rows, token_batches
from limbeck.measure.timed_session import TimedModels, TimedSample, check_here, time_models

if TYPE_CHECKING:
    from limbeck.core.shape import Shape


MEAN = "latency_mean"
"""Name of the fact."""


@step(
    StepInfo(
        "latency",
        reads={"target", "teacher"},
        with_teacher=True,
        group=True,
        machine_bound=True,
        at_target=True,
        example={"samples": 4, "rounds": 2},
    )
)
class Latency(Probe):
    """Time every candidate on the target: p50, mean, p90, p99 of a call, and the speed-up over PyTorch.

    A call answers one batch, from token ids to logits; tokenization is not timed. The batches are those of real texts
    with their real lengths (a sample of the split, spread evenly over its lengths, of at least 8 batches or 4 requests)
    unless the target fixes ``seq_len``; a batch is padded to its longest text. With ``target.candidates`` a call is a
    whole request: that many documents of a query, sorted by length, in the sub-batches that are fastest for the
    candidate. All candidates are loaded in one fresh process and timed alternately in rounds, each round over the same
    batches; ratios are taken within rounds, so that a disturbance of the machine affects both sides. A torch candidate
    runs in eager PyTorch, in transformers' own implementation where that can express the shape; an exported one in the
    target's runtime. If the target has a ``url``, its measuring service does the same on its machine with ONNX graphs
    alone: those of torch models are exported for that. On a GPU the clock is that of its events, after it was kept busy
    for a second.

    Units: seconds per call.
    """

    sample: TimedSample = group(default=TimedSample(samples=40, rounds=15))

    def required_splits(self) -> tuple[str, ...]:
        """Return the split whose texts are read."""
        return (self.sample.split,)

    def newer_facts(self, budget: Budget) -> AbstractSet[str]:
        """Return the mean where the budget is about it: sessions of earlier versions did not keep it."""
        return {MEAN} if budget.latency_fact == MEAN else frozenset()

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return self.sample.estimated_seconds(shape, rows, tokens)

    def measure(self, candidates: Sequence[Candidate], context: RunContext) -> Iterable[tuple[int, Measurement]]:
        """Yield the facts of each candidate."""
        if not candidates:
            return
        target = context.target
        check_here(target, candidates)
        if target.candidates is not None and not (kind := candidates[0].task.task_kind).grouped:
            raise InputError(f"candidates: is for documents that are ranked for a query; this task is a {kind.name}")
        parts = [best_sub_batches(each, target, context.memo) for each in candidates] if target.candidates else []
        inputs = self._requests(candidates, parts, target) if parts else self._batches(candidates, target)
        timed = time_models(candidates, inputs, target, self.sample, context.log)
        yield from facts(timed, [{"sub_batch": part.size, "over_one_batch": part.gain} for part in parts])

    def _batches(self, candidates: Sequence[Candidate], target: Target) -> list[list[Call]]:
        """Return the same calls for each candidate, of one batch each."""
        split = self.sample.split
        rows = sample_rows(candidates[0].task, split, max(self.sample.samples, 8 * target.batch), part=Query)
        return [[[batch] for batch in token_batches(candidate, split, rows, target)] for candidate in candidates]

    def _requests(
        self, candidates: Sequence[Candidate], parts: Sequence[SubBatches], target: Target
    ) -> list[list[Call]]:
        """Return the same requests for each candidate, in its own sub-batches."""
        assert target.candidates is not None
        split, count = self.sample.split, max(LEAST_REQUESTS, self.sample.samples // target.candidates)
        requests = sample_requests(candidates[0].task, split, target.candidates, count)
        inputs = []
        for candidate, part in zip(candidates, parts, strict=True):
            tokens = request_tokens(candidate.task, split, requests, candidate.tokenizer, target.seq_len)
            types = "token_type_ids" in candidate.tokenizer.model_input_names
            inputs.append(calls_of(tokens, part.size, candidate.tokenizer.pad_token_id or 0, types))
        return inputs


def facts(timed: TimedModels, details: Sequence[Mapping[str, Any]] = ()) -> Iterator[tuple[int, Measurement]]:
    """Yield the latencies of timed models; the first torch model is the reference of the speed-ups.

    Args:
        timed: What was measured.
        details: More to keep of each model.
    """
    from limbeck.core.statistics import paired_ratio
    from limbeck.measure.timing import Timing

    answer, session = timed.answer, {"session": timed.name}
    timings = [Timing(seconds) for seconds in answer["seconds"]]
    reference = timed.runtimes.index("torch") if "torch" in timed.runtimes else None
    for index, timing in enumerate(timings):
        detail = {
            **timed.detail(index, timing.rounds.tolist()),
            "mean_tokens": round(answer["mean_tokens"][index], 2),
            "noise": round(timing.spread, 4),
            **(details[index] if details else {}),
        }
        where: dict[str, Any] = {"n": timing.calls, "target": str(timed.target)}
        yield index, Measurement.of("latency_p50", timing.p50, "s", **where, detail=detail)
        means = {**session, "rounds": [float(f"{seconds:.6g}") for seconds in timing.means.tolist()]}
        yield index, Measurement.of(MEAN, timing.mean, "s", **where, detail=means)
        for percent in (90, 99):
            bounds = timing.quantile(percent / 100)
            yield index, Measurement.of(f"latency_p{percent}", bounds, "s", **where, detail=session)
        if reference is not None:
            ratio, over = paired_ratio(timings[reference].rounds, timing.rounds), answer["words"][reference]
            yield index, Measurement.of("speedup", ratio, **where, detail={**session, "over": over})
