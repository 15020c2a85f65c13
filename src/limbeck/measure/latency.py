"""Measure seconds per call on the target, with all candidates alternating in one fresh process."""

from __future__ import annotations

import contextlib
import os
import random
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import Measurement, environment
from limbeck.core.step import Probe, RunContext, StepInfo, step
from limbeck.core.target import Target
from limbeck.errors import InputError
from limbeck.storage.drafts import temporary_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.shape import Shape
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded
    from limbeck.measure.backends import Runner


PIECES = re.compile(r"\w+|[^\w\s]")
"""Words and marks, which stand for tokens where there is no tokenizer."""


@step(
    StepInfo(
        "latency",
        reads={"target", "teacher"},
        with_teacher=True,
        group=True,
        machine_bound=True,
        example={"samples": 4, "rounds": 2},
    )
)
class Latency(Probe):
    """Time every candidate on the target: p50, p90, p99 of a call, and the speed-up over the first PyTorch candidate.

    A call answers one batch, from token ids to logits; tokenization is not timed. The batches are those of real texts
    with their real lengths (a sample of the split, spread evenly over its lengths) unless the target fixes
    ``seq_len``; a batch is padded to its longest text. All candidates are loaded in one fresh process and timed
    alternately in rounds, each round over the same batches; ratios are taken within rounds, so that a disturbance of
    the machine affects both sides. A torch candidate runs in eager PyTorch, in transformers' own implementation where
    that can express the shape; an exported one in the target's runtime.

    Units: seconds per call.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 40  #: texts in the sample (at least 8 batches, however large)
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
        from limbeck.measure.backends import check_device, check_runtime
        from limbeck.measure.isolation import run_isolated

        if not candidates:
            return
        target = context.target
        check_runtime(target.runtime)
        check_device(target.device)
        rows = sample_rows(candidates[0].task, self.split, max(self.samples, 8 * target.batch))
        with contextlib.ExitStack() as stack:
            payload = {
                "models": [str(stack.enter_context(stored(candidate))) for candidate in candidates],
                "inputs": [token_batches(candidate, self.split, rows, target) for candidate in candidates],
                "runtime": target.runtime,
                "device": target.device,
                "rounds": self.rounds,
                "warmup": self.warmup,
            }
            answer = run_isolated("limbeck.measure.latency:session", payload, target.threads)
        yield from facts(answer, [candidate.model.runtime for candidate in candidates], target)


def sample_rows(task: Task, split: str, count: int, seed: int = 0) -> list[int]:
    """Sample rows whose lengths are spread like those of the split: one from each of ``count`` strata of length.

    They are shuffled, as requests arrive. Lengths are in characters, so nothing needs to be tokenized.

    Args:
        task: Has the split.
        split: Name of the split.
        count: Rows to sample; all if the split has fewer.
        seed: Seed of the sample.
    """
    texts = task.split(split)
    pairs = texts.pairs if texts.pairs is not None else ("",) * len(texts)
    sizes = [sum(map(len, text)) + len(pair) for text, pair in zip(texts.texts, pairs, strict=True)]
    order = sorted(range(len(sizes)), key=lambda row: (sizes[row], row))
    rng = random.Random(seed)
    count = min(count, len(order))
    edges = [len(order) * index // count for index in range(count + 1)]
    rows = [order[rng.randrange(low, high)] for low, high in pairwise(edges)]
    rng.shuffle(rows)
    return rows


def lengths_of(task: Task, most: int = 512, samples: int = 40) -> tuple[int, ...]:
    """Estimate the tokens of sampled test texts from words and marks, without a tokenizer.

    Args:
        task: Texts of its test split count, or else of its training split; pairs are taken together.
        most: Longer texts are cut to this, or to the task's ``max_length``, as a model's input is.
        samples: Texts to sample.
    """
    from limbeck.core.task import texts_of

    split = "test" if "test" in task.splits else "train"
    rows, sides = task.split(split), list(texts_of(task.split(split)))
    sizes = [len(PIECES.findall(side)) + 1 for side in sides]  # each ends with a separator token
    together = [sum(sizes[row :: len(rows)]) + 1 for row in range(len(rows))]
    return tuple(min(together[row], task.max_length, most) for row in sample_rows(task, split, samples))


def token_batches(
    candidate: Candidate, split: str, rows: Sequence[int], target: Target
) -> list[dict[str, list[list[int]]]]:
    """Encode rows with the candidate's own tokenizer.

    Args:
        candidate: Gives the task and the tokenizer.
        split: Name of the split.
        rows: Rows of the split, in the order of the batches.
        target: Gives the batch size and, if fixed, the sequence length.

    Returns:
        Batches as nested lists [batch, seq].
    """
    lists = token_lists(candidate.task, split, rows, candidate.tokenizer, target.seq_len)
    types = "token_type_ids" in candidate.tokenizer.model_input_names
    pad = candidate.tokenizer.pad_token_id or 0
    return [pad_batch(lists[start : start + target.batch], pad, types) for start in range(0, len(lists), target.batch)]


def token_lists(
    task: Task, split: str, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase, seq_len: int | None = None
) -> list[list[int]]:
    """Tokenize rows of a split.

    Args:
        task: Has the split.
        split: Name of the split.
        rows: Rows of the split.
        tokenizer: Tokenizes.
        seq_len: If given, each row is repeated or cut to exactly this many tokens.
    """
    from limbeck.data.batching import encode

    chosen = replace(task, splits={split: task.split(split).take(rows)})
    if seq_len is not None:
        _check_length(tokenizer, seq_len)
        chosen = replace(chosen, max_length=seq_len)
    lists = [list(ids) for ids in encode(chosen, split, tokenizer).input_ids]
    return lists if seq_len is None else [(ids * (seq_len // len(ids) + 1))[:seq_len] for ids in lists]


def _check_length(tokenizer: PreTrainedTokenizerBase, seq_len: int) -> None:
    most = getattr(tokenizer, "model_max_length", seq_len)
    if seq_len > most:
        raise InputError(f"target.seq_len: the model takes at most {most} tokens, got {seq_len}")


def pad_batch(lists: Sequence[list[int]], pad: int, types: bool) -> dict[str, list[list[int]]]:
    """Pad a batch to its longest text, as nested lists.

    Args:
        lists: Token ids of each text.
        pad: Id of the padding token.
        types: Whether the batch has ``token_type_ids``.
    """
    longest = max(map(len, lists))
    batch = {
        "input_ids": [ids + [pad] * (longest - len(ids)) for ids in lists],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in lists],
    }
    return batch | {"token_type_ids": [[0] * longest for _ in lists]} if types else batch


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


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Load every model once in the child process and time them alternately."""
    import numpy as np

    from limbeck.measure.backends import make_runner
    from limbeck.measure.timing import alternate
    from limbeck.model.checkpoints import open_model

    options = {name: payload[name] for name in ("threads", "runtime", "device")}
    runners = [make_runner(open_model(folder)[0], **options) for folder in payload["models"]]
    calls = [_calls(runner, batches) for runner, batches in zip(runners, payload["inputs"], strict=True)]
    timings = alternate(calls, len(payload["inputs"][0]), payload["rounds"], warmup=payload["warmup"])
    tokens = [[np.sum(batch["attention_mask"]) for batch in batches] for batches in payload["inputs"]]
    return {
        "seconds": np.stack([timing.seconds for timing in timings]),
        "words": [runner.words for runner in runners],
        "mean_tokens": [float(np.mean(counts)) for counts in tokens],
    }


def _calls(runner: Runner, batches: Sequence[dict[str, list[list[int]]]]) -> Callable[[int], np.ndarray]:
    import numpy as np

    prepared = [runner.prepare({name: np.array(rows) for name, rows in batch.items()}) for batch in batches]
    return lambda index: runner(prepared[index])


def facts(answer: dict[str, Any], runtimes: Sequence[str], target: Target) -> Iterator[tuple[int, Measurement]]:
    """Yield the measurements in the answer of a :func:`session`.

    Args:
        answer: What :func:`session` returned.
        runtimes: Runtime of each model; the first torch model is the reference of the speed-ups.
        target: Where the models were timed.
    """
    from limbeck.core.statistics import paired_ratio
    from limbeck.measure.timing import Timing

    timings = [Timing(seconds) for seconds in answer["seconds"]]
    name, machine = uuid.uuid4().hex[:12], environment()["processor"]
    reference = runtimes.index("torch") if "torch" in runtimes else None
    for index, timing in enumerate(timings):
        detail = {
            "session": name,
            "rounds": [float(f"{value:.6g}") for value in timing.rounds],
            "runtime": answer["words"][index],
            "mean_tokens": round(answer["mean_tokens"][index], 2),
            "noise": round(timing.spread, 4),
            "machine": machine,
        }
        # an exported model runs on the processor, whatever the device of torch models
        setting = target if runtimes[index] == "torch" else replace(target, device="cpu")
        where: dict[str, Any] = {"n": timing.calls, "target": str(setting)}
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


@dataclass(frozen=True)
class Evaluation:
    """The result of ``limbeck evaluate``: the metric with its interval, and the time that answering took."""

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
        batch: Texts in a call.
        runtime: Runtime of an ONNX model.
        now: Clock in seconds; the system's unless given.
    """
    import time

    import torch

    from limbeck.core.logits import require_finite_logits
    from limbeck.data.batching import encode
    from limbeck.measure.backends import check_runtime, make_runner
    from limbeck.measure.quality import assess

    check_calls(threads, batch)
    check_runtime(runtime)
    encoded = encode(task, split, tokenizer)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runner = make_runner(model, threads=threads, runtime=runtime)
        logits, total = _timed_answers(runner, encoded, batch, now or time.perf_counter)
    finally:
        torch.set_num_threads(before)
    if encoded.per_token:
        logits = [row[: len(ids)] for row, ids in zip(logits, encoded.input_ids, strict=True)]
    require_finite_logits(logits, task.split(split).texts)
    assessment = assess(task, logits, encoded.labels, encoded.unseen)
    return Evaluation(
        task.metric,
        *assessment.quality,
        examples=len(encoded),
        total_ms=total * 1e3,
        mean_ms=total * 1e3 / len(encoded),
        runtime=runner.words,
        threads=threads,
        batch=batch,
        unseen_words=sum(map(len, encoded.unseen)),
        depends_on_batch=batch > 1 and runtime != "torch" and model.int8,
        beside={name: (bounds.value, bounds.low, bounds.high) for name, bounds in assessment.beside.items()},
        per_type=assessment.detail.get("per_type", {}),
    )


def _timed_answers(
    runner: Runner, encoded: Encoded, batch: int, now: Callable[[], float]
) -> tuple[list[np.ndarray], float]:
    """Return the logits of every text, and the seconds that all calls took."""
    from limbeck.data.batching import collate
    from limbeck.measure.timing import time_call

    logits: list[np.ndarray] = []
    total = 0.0
    for start in range(0, len(encoded), batch):
        indices = range(start, min(start + batch, len(encoded)))
        inputs = runner.prepare({name: tensor.numpy() for name, tensor in collate(encoded, indices).items()})
        if not start:
            runner(inputs)
        total += time_call(partial(_answer, runner, inputs, logits), now)
    return logits, total


def _answer(runner: Runner, inputs: Any, logits: list[np.ndarray]) -> None:  # each runner has inputs of its own type
    logits.extend(runner(inputs))
