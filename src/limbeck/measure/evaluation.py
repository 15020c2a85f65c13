"""Answer a whole split as a service would, and say how well and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded
    from limbeck.measure.backends import Runner


@dataclass(frozen=True)
class Evaluation:
    """The result of ``limbeck evaluate``: the metric with its interval, and the time that answering took.

    Examples are texts; of a reranker they are requests, each of which is answered in one call of several batches.
    """

    metric: str
    quality: float
    low: float
    high: float
    examples: int
    total_ms: float
    mean_ms: float
    runtime: str
    threads: int
    batch: int
    unseen_words: int = 0
    """Words that have no token (cut off, or dropped by the tokenizer); they count as answered with 'O'."""
    depends_on_batch: bool = False
    """Whether answers may depend on the texts beside them: those of INT8 models do in batches of several texts."""
    beside: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """``rmse`` (in the unit of the labels) and ``r2`` of a regression, precision and recall of entities."""
    per_type: dict[str, dict[str, float]] = field(default_factory=dict)  #: counts and scores of entities by type
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of vectors, by the way to store them in fewer bytes: metric, ``loss`` and their intervals, and ``bytes``."""


def check_calls(threads: int, batch: int) -> None:
    """Refuse numbers of threads and of texts per call that no machine has."""
    for name, given, most in (("threads", threads, 1024), ("batch", batch, 100_000)):
        if not 1 <= given <= most:
            raise InputError(f"{name} should be at least 1 and at most {most:,}, got {given}")


def evaluate(
    model: Runnable,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    split: str = "test",
    *,
    threads: int = 1,
    batch: int = 1,
    runtime: str = "onnxruntime",
    now: Callable[[], float] | None = None,
) -> Evaluation:
    """Answer a whole split in its order and time the answers: accuracy, total and mean elapsed milliseconds.

    Timed: the call from padded token ids to logits, as in :class:`Latency`. One untimed call warms up. The quality is
    that of the timed answers. An INT8 model's answers depend on the other texts of a batch, because dynamic ranges span
    it with its padding; ``depends_on_batch`` is then True.

    Args:
        model: A torch encoder or an ONNX model.
        tokenizer: Its tokenizer.
        task: The task.
        split: Name of the split to answer.
        threads: Threads of the runtime.
        batch: Texts in a call; documents in a sub-batch of a request.
        runtime: Runtime of an ONNX model.
        now: Clock in seconds; the system's unless given.
    """
    from limbeck.core.logits import require_finite_logits
    from limbeck.data.batching import encode
    from limbeck.measure.backends import check_runtime, make_runner
    from limbeck.measure.quality import assess
    from limbeck.measure.timing import torch_threads

    check_calls(threads, batch)
    check_runtime(runtime)
    encoded = encode(task, split, tokenizer)
    with torch_threads(threads):
        runner = make_runner(model, threads=threads, runtime=runtime)
        calls = _calls(task, encoded, batch)
        logits, total = _timed_answers(runner, encoded, calls, now or time.perf_counter)
    if encoded.per_token:
        logits = [row[: len(ids)] for row, ids in zip(logits, encoded.input_ids, strict=True)]
    require_finite_logits(logits, task.split(split).texts)
    assessment = assess(task, logits, encoded.labels, encoded.unseen)
    answered = len(calls) if task.task_kind.grouped else len(encoded)
    return Evaluation(
        task.metric,
        *assessment.quality,
        examples=assessment.examples_of(answered),
        total_ms=total * 1e3,
        mean_ms=total * 1e3 / answered,
        runtime=runner.words,
        threads=threads,
        batch=batch,
        unseen_words=sum(map(len, encoded.unseen)),
        depends_on_batch=batch > 1 and runtime != "torch" and model.int8,
        beside={name: (bounds.value, bounds.low, bounds.high) for name, bounds in assessment.beside.items()},
        per_type=assessment.detail.get("per_type", {}),
        stored=assessment.detail.get("stored", {}),
    )


def _calls(task: Task, encoded: Encoded, batch: int) -> list[list[Sequence[int]]]:
    """Return the rows of each batch of each call: the texts in their order, or requests in their sub-batches."""
    if not task.task_kind.grouped:
        starts = range(0, len(encoded), batch)
        return [[range(start, min(start + batch, len(encoded)))] for start in starts]
    from limbeck.core.requests import requests_of
    from limbeck.measure.requests import sorted_parts

    return [
        [[rows[index] for index in part] for part in sorted_parts(encoded.lengths[rows], batch)]
        for rows in requests_of(encoded.labels)
    ]


def _timed_answers(
    runner: Runner, encoded: Encoded, calls: Sequence[Sequence[Sequence[int]]], now: Callable[[], float]
) -> tuple[list[np.ndarray], float]:
    """Return the logits of every text, and the seconds that all calls took."""
    from limbeck.core.logits import joined_rows
    from limbeck.data.batching import collate
    from limbeck.measure.timing import time_call

    logits: dict[int, np.ndarray] = {}
    total = 0.0
    for number, call in enumerate(calls):
        batches = [{name: tensor.numpy() for name, tensor in collate(encoded, rows).items()} for rows in call]
        inputs = [runner.prepare(batch) for batch in batches]
        if not number:
            runner(inputs[0])
        answers: list[np.ndarray] = []
        total += time_call(partial(_answer, runner, inputs, answers), now)
        for rows, batch, answer in zip(call, batches, answers, strict=True):
            logits |= zip(rows, joined_rows(answer, batch), strict=True)
    return [logits[row] for row in range(len(encoded))], total


def _answer(runner: Runner, inputs: Sequence[Any], answers: list[np.ndarray]) -> None:  # each runner has its own type
    answers.extend(map(runner, inputs))
