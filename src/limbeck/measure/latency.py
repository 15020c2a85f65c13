"""Measure seconds per call on the target, with all candidates alternating in one fresh process."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement, environment
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.core.target import Target
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
from limbeck.storage.drafts import temporary_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.measure.backends import Runner
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel


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
    """Time every candidate on the target: p50, p90, p99 of a call, and the speed-up over the first PyTorch candidate.

    A call answers one batch, from token ids to logits; tokenization is not timed. The batches are those of real texts
    with their real lengths (a sample of the split, spread evenly over its lengths) unless the target fixes
    ``seq_len``; a batch is padded to its longest text. With ``target.candidates`` a call is a whole request: that many
    documents of a query, sorted by length, in the sub-batches that are fastest for the candidate. All candidates are
    loaded in one fresh process and timed alternately in rounds, each round over the same batches; ratios are taken
    within rounds, so that a disturbance of the machine affects both sides. A torch candidate runs in eager PyTorch, in
    transformers' own implementation where that can express the shape; an exported one in the target's runtime. If the
    target has a ``url``, its measuring service does the same on its machine with ONNX graphs alone: those of torch
    models are exported for that. On a GPU the clock is that of its events, after it was kept busy for a second.

    Units: seconds per call.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 40  #: texts in the sample (at least 8 batches, or 4 requests)
    rounds: Annotated[int, Ge(1), Le(10_000)] = 15  #: timed rounds
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
        """Yield the facts of each candidate."""
        from limbeck.measure.backends import check_models, runner_options
        from limbeck.measure.isolation import run_isolated

        if not candidates:
            return
        target = context.target
        if target.url is None:
            check_models(target, [candidate.model for candidate in candidates])
        if target.candidates is not None and not (kind := candidates[0].task.task_kind).grouped:
            raise InputError(f"candidates: is for documents that are ranked for a query; this task is a {kind.name}")
        parts = [best_sub_batches(each, target, context.memo) for each in candidates] if target.candidates else []
        inputs = self._requests(candidates, parts, target) if parts else self._batches(candidates, target)
        repetitions = {"rounds": self.rounds, "warmup": self.warmup}
        with contextlib.ExitStack() as stack:
            if target.url is not None:
                from limbeck.measure.service.client import Service

                paths = [stack.enter_context(exported(candidate, target)) for candidate in candidates]
                batches = [[batch for call in calls for batch in call] for calls in inputs]  # a call is one batch
                answer = Service(target.url).time(paths, batches, target, **repetitions)
            else:
                models = [str(stack.enter_context(stored(candidate))) for candidate in candidates]
                payload = {"models": models, "inputs": inputs, **runner_options(target), **repetitions}
                answer = run_isolated("limbeck.measure.latency:session", payload, target.threads)
        details = [{"sub_batch": part.size, "over_one_batch": part.gain} for part in parts]
        yield from facts(answer, [candidate.model.runtime for candidate in candidates], target, details)

    def _batches(self, candidates: Sequence[Candidate], target: Target) -> list[list[Call]]:
        """Return the same calls for each candidate, of one batch each."""
        rows = sample_rows(candidates[0].task, self.split, max(self.samples, 8 * target.batch))
        return [[[batch] for batch in token_batches(candidate, self.split, rows, target)] for candidate in candidates]

    def _requests(
        self, candidates: Sequence[Candidate], parts: Sequence[SubBatches], target: Target
    ) -> list[list[Call]]:
        """Return the same requests for each candidate, in its own sub-batches."""
        assert target.candidates is not None
        count = max(LEAST_REQUESTS, self.samples // target.candidates)
        requests = sample_requests(candidates[0].task, self.split, target.candidates, count)
        inputs = []
        for candidate, part in zip(candidates, parts, strict=True):
            tokens = request_tokens(candidate.task, self.split, requests, candidate.tokenizer, target.seq_len)
            types = "token_type_ids" in candidate.tokenizer.model_input_names
            inputs.append(calls_of(tokens, part.size, candidate.tokenizer.pad_token_id or 0, types))
        return inputs


@contextlib.contextmanager
def stored(candidate: Candidate) -> Iterator[Path]:
    """Yield the folder of a candidate; a temporary one if it has none."""
    if candidate.folder is not None:
        yield candidate.folder
        return
    from limbeck.model.checkpoints import save_model

    with temporary_folder() as folder:
        save_model(candidate.model, candidate.tokenizer, folder)
        yield folder


@contextlib.contextmanager
def exported(candidate: Candidate, target: Target) -> Iterator[Path]:
    """Yield the ONNX file of a candidate; of a torch model, one exported in floating point for this alone.

    Args:
        candidate: The candidate.
        target: Gives the runtime, which decides the operators of an export.
    """
    if candidate.model.runtime != "torch":
        yield cast("OnnxModel", candidate.model).path
        return
    from limbeck.model.onnx.onnx_model import to_onnx

    model = cast("LimbeckForSequenceClassification", candidate.model)
    with temporary_folder() as folder:
        name = f"export of {type(model).__name__}.onnx"
        yield to_onnx(model, folder / name, fused=target.runtime != "openvino")


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Load every model once in the child process and time them alternately."""
    from limbeck.measure.backends import RUNNER_OPTIONS, make_runner
    from limbeck.model.checkpoints import open_model

    options = {name: payload[name] for name in RUNNER_OPTIONS}
    return time_runners([make_runner(open_model(folder)[0], **options) for folder in payload["models"]], payload)


def time_runners(runners: Sequence[Runner], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Time loaded models alternately.

    Args:
        runners: The models.
        payload: ``inputs`` of each model: calls of batches of nested lists, ``rounds`` and ``warmup``; and the
            ``device`` unless it is the processor.

    Returns:
        ``seconds`` [models, rounds, calls], and for each model its runtime in words and its mean number of tokens.
    """
    import numpy as np

    from limbeck.measure.accelerator import clock, clock_rate, warm_up
    from limbeck.measure.backends import prepared_calls
    from limbeck.measure.timing import alternate

    device = payload.get("device", "cpu")
    calls = [prepared_calls(runner, inputs) for runner, inputs in zip(runners, payload["inputs"], strict=True)]
    rounds, warmup = payload["rounds"], payload["warmup"]
    warm_up(calls, device)
    before = clock_rate(device)
    timings = alternate(calls, len(payload["inputs"][0]), rounds, warmup=warmup, now=clock(device))
    tokens = [
        [sum(np.sum(batch["attention_mask"]) for batch in call) for call in inputs] for inputs in payload["inputs"]
    ]
    rates: dict[str, Any] = {} if before is None else {"gpu_mhz": [before, clock_rate(device)]}
    return {
        "seconds": np.stack([timing.seconds for timing in timings]),
        "words": [runner.words for runner in runners],
        "mean_tokens": [float(np.mean(counts)) for counts in tokens],
        "machine": environment()["processor"],
        **rates,
    }


def facts(
    answer: dict[str, Any], runtimes: Sequence[str], target: Target, details: Sequence[Mapping[str, Any]] = ()
) -> Iterator[tuple[int, Measurement]]:
    """Yield the measurements in the answer of a :func:`session`.

    Args:
        answer: What :func:`session` returned, or a measuring service, which adds the ``load`` of its machine before and
            after.
        runtimes: Runtime of each model; the first torch model is the reference of the speed-ups.
        target: Where the models were timed.
        details: More to keep of each model.
    """
    from limbeck.core.statistics import paired_ratio
    from limbeck.measure.timing import Timing

    timings = [Timing(seconds) for seconds in answer["seconds"]]
    name = uuid.uuid4().hex[:12]
    load: dict[str, Any] = {name: answer[name] for name in ("load", "gpu_mhz") if name in answer}
    reference = runtimes.index("torch") if "torch" in runtimes else None
    for index, timing in enumerate(timings):
        detail = {
            "session": name,
            "rounds": [float(f"{value:.6g}") for value in timing.rounds],
            "runtime": answer["words"][index],
            "mean_tokens": round(answer["mean_tokens"][index], 2),
            "noise": round(timing.spread, 4),
            "machine": answer["machine"],
            **load,
            **(details[index] if details else {}),
        }
        where: dict[str, Any] = {"n": timing.calls, "target": str(target)}
        yield index, Measurement("latency_p50", *_flat(timing.p50), **where, detail=detail)
        for percent in (90, 99):
            bounds = timing.quantile(percent / 100)
            yield index, Measurement(f"latency_p{percent}", *_flat(bounds), **where, detail={"session": name})
        if reference is not None:
            value, low, high = paired_ratio(timings[reference].rounds, timing.rounds)
            over = {"session": name, "over": answer["words"][reference]}
            yield index, Measurement("speedup", value, "1", low, high, **where, detail=over)


def _flat(bounds: tuple[float, float, float]) -> tuple[float, str, float, float]:
    value, low, high = bounds
    return value, "s", low, high
