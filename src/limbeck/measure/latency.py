"""Measure seconds per call on the target, with all candidates alternating in one fresh process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Self

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
from limbeck.measure.samples import sample_rows, text_decides, token_batches
from limbeck.measure.timed_session import TimedModels, TimedSample, check_here, time_models

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.statistics import Interval, Resampled
    from limbeck.measure.timing import Timing


MEAN = "latency_mean"
"""Name of the fact."""
STATISTICS = {"latency_p50": 0.5, MEAN: None, "latency_p90": 0.9, "latency_p99": 0.99}
"""The facts, each with the quantile of the calls that it is; the mean is none."""
MORE_TEXTS = 3
"""How many times as many texts are timed where it depends on what a text says how much is computed."""


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

    Where a candidate has early exits or is a cascade, three times as many texts are timed, and its intervals and ratios
    resample texts as well as rounds: which texts go on is most of their noise.

    Units: seconds per call.
    """

    sample: TimedSample = group(default=TimedSample(samples=40, rounds=15))

    @classmethod
    def for_p99(cls, split: str, target: Target) -> Self:
        """Return a probe with enough different calls for the slowest of a hundred to count.

        Args:
            split: Whose texts are timed.
            target: Whether a call is one text, a batch, or a whole request.
        """
        texts = max(target.batch, target.candidates or 1)
        if texts == 1:
            return cls.of(split=split, samples=200)
        return cls.of(split=split, samples=min(100_000, 100 * texts), rounds=5)

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
        split, more = self.sample.split, MORE_TEXTS if any(text_decides(each.model) for each in candidates) else 1
        rows = sample_rows(candidates[0].task, split, more * max(self.sample.samples, 8 * target.batch), part=Query)
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
    from limbeck.core.statistics import interval_of, paired_ratio
    from limbeck.measure.timing import Timing

    answer, session = timed.answer, {"session": timed.name}
    timings = [Timing(seconds) for seconds in answer["seconds"]]
    sampled = [_over_texts(timing) for timing in timings] if any(timed.text_decides) else []
    reference = timed.runtimes.index("torch") if "torch" in timed.runtimes else None
    for index, timing in enumerate(timings):
        by_text = bool(sampled) and timed.text_decides[index]
        own: dict[str, dict[str, Any]] = dict.fromkeys(STATISTICS, session)
        own["latency_p50"] = {
            **timed.detail(index, timing.rounds.tolist()),
            "mean_tokens": round(answer["mean_tokens"][index], 2),
            "noise": round(timing.spread, 4),
            **(details[index] if details else {}),
        }
        own[MEAN] = {**session, "rounds": [float(f"{seconds:.6g}") for seconds in timing.means.tolist()]}
        where: dict[str, Any] = {"n": timing.calls, "target": str(timed.target)}
        for name, share in STATISTICS.items():
            bounds = sampled[index][name].interval if by_text else _over_rounds(timing, share)
            more = _resampled_detail(sampled[index][name], by_text) if sampled else {}
            yield index, Measurement.of(name, bounds, "s", **where, detail=own[name] | more)
        if reference is not None:
            over = {**session, "over": answer["words"][reference]}
            ratio = paired_ratio(timings[reference].rounds, timing.rounds)
            if by_text or (sampled and timed.text_decides[reference]):
                above, below = (sampled[each]["latency_p50"] for each in (reference, index))
                ratio = interval_of(above.interval.value / below.interval.value, above.values / below.values)
            yield index, Measurement.of("speedup", ratio, **where, detail=over)


def _over_rounds(timing: Timing, share: float | None) -> Interval:
    """Return a quantile of the calls, or their mean, with its interval over rounds."""
    if share is None:
        return timing.mean
    return timing.p50 if share == 0.5 else timing.quantile(share)


def _over_texts(timing: Timing) -> dict[str, Resampled]:
    """Return every statistic on resamples of rounds and texts."""
    return {name: timing.over_texts(share) for name, share in STATISTICS.items()}


def _resampled_detail(sampled: Resampled, by_text: bool) -> dict[str, Any]:
    """Return what later comparisons need of a time: it on resamples, and whether comparisons go by those.

    Args:
        sampled: The statistic on resamples of rounds and texts.
        by_text: Whether it depends on what a text says how much the model computes.
    """
    from limbeck.core.statistics import pack_numbers

    return {"resampled": pack_numbers(sampled.values)} | ({"by_text": True} if by_text else {})
