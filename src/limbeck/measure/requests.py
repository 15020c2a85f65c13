"""Requests of a reranker as a service answers them: a query with K documents, sorted by length, in sub-batches.

A batch is padded to its longest text. One batch of all documents would spend much of its time on padding; one document
at a time leaves the processor idle. What lies between is measured, once for each model, target and machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from limbeck.core.measurement import machine
from limbeck.core.requests import requests_of
from limbeck.core.shape import short_key
from limbeck.measure.samples import has_long_texts, pad_batch, token_lists

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.candidate import Candidate
    from limbeck.core.cost import Memo
    from limbeck.core.target import Target
    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Sub-batches that are tried, and one batch of all documents."""
LEAST_REQUESTS = 4
"""Requests that are timed at least."""
TRIED, ROUNDS = 2, 3
"""Requests, and rounds over them, that a size is chosen by."""

Batch = dict[str, list[list[int]]]
Call = list[Batch]
"""The sub-batches of a request."""


class SubBatches(NamedTuple):
    """The sub-batches that answer a request fastest.

    Attributes:
        size: Documents in one.
        gain: How many times as fast a request is as in one padded batch; None where nothing was measured.
    """

    size: int
    gain: float | None = None


def sorted_parts(lengths: Sequence[int] | np.ndarray, size: int) -> list[list[int]]:
    """Divide the documents of a request, sorted by length, into sub-batches.

    Args:
        lengths: Tokens of each document.
        size: Documents in a sub-batch.

    Returns:
        Indices of the documents of each sub-batch, the shortest documents first.

    >>> sorted_parts([5, 9, 4, 8, 7], 2)
    [[2, 0], [4, 3], [1]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (int(lengths[index]), index))
    return [order[start : start + size] for start in range(0, len(order), size)]


class ServedBatches(NamedTuple):
    """How a split is answered together, as on the target.

    Attributes:
        size: Texts in a batch at most.
        batches: Rows of each batch; None for batches of that size by length.
    """

    size: int
    batches: list[list[int]] | None = None


def batches_on(candidate: Candidate, encoded: Encoded, target: Target, memo: Memo) -> ServedBatches:
    """Return the batches in which a split is answered on the target: of its size, or the sub-batches of requests.

    Args:
        candidate: The model, with its task.
        encoded: The split.
        target: Where the model will be served.
        memo: Keeps which sub-batches are fastest.
    """
    if not target.candidates:
        return ServedBatches(target.batch)
    size = best_sub_batches(candidate, target, memo).size
    return ServedBatches(size, served_batches(encoded, size))


def served_batches(encoded: Encoded, size: int) -> list[list[int]]:
    """Return the sub-batches of all requests of a split, as they are served.

    Args:
        encoded: Rows of requests.
        size: Documents in a sub-batch.
    """
    return [
        [rows[index] for index in part]
        for rows in requests_of(encoded.labels)
        for part in sorted_parts(encoded.lengths[rows], size)
    ]


def sample_requests(task: Task, split: str, candidates: int, count: int, seed: int = 0) -> list[list[int]]:
    """Sample requests of exactly so many documents each.

    Args:
        task: Has the split.
        split: Name of the split.
        candidates: Documents of each request; where there are fewer, others of the split are added.
        count: Requests; all if the split has fewer.
        seed: Seed of the sample.

    Returns:
        Rows of each request.
    """
    rng, rows = random.Random(seed), task.split(split).labels
    requests = requests_of(rows)
    chosen = rng.sample(requests, min(count, len(requests)))
    return [
        [*request[:candidates], *rng.choices(range(len(rows)), k=max(0, candidates - len(request)))]
        for request in chosen
    ]


def request_tokens(
    task: Task,
    split: str,
    requests: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    seq_len: int | None = None,
) -> list[list[list[int]]]:
    """Tokenize requests.

    Args:
        task: Has the split.
        split: Name of the split.
        requests: Rows of each request.
        tokenizer: Tokenizes.
        seq_len: Tokens of each document, if fixed.
    """
    lists = iter(token_lists(task, split, [row for rows in requests for row in rows], tokenizer, seq_len))
    return [[next(lists) for _ in rows] for rows in requests]


def calls_of(tokens: Sequence[Sequence[list[int]]], size: int, pad: int, types: bool) -> list[Call]:
    """Return the sub-batches of each request.

    Args:
        tokens: Token ids of each document of each request.
        size: Documents in a sub-batch.
        pad: Id of the padding token.
        types: Whether a batch has ``token_type_ids``.
    """
    return [
        [
            pad_batch([request[index] for index in part], pad, types)
            for part in sorted_parts(list(map(len, request)), size)
        ]
        for request in tokens
    ]


def best_sub_batches(candidate: Candidate, target: Target, memo: Memo) -> SubBatches:
    """Return the sub-batches that answer a request fastest in the target's setting, measured once.

    Args:
        candidate: The model, with a task of requests.
        target: Says how many documents a request has. With a batch above 1, that is the size and nothing is measured.
        memo: Keeps what was measured.
    """
    from limbeck.core.analytic_cost import of_model
    from limbeck.measure.dummy_model import style_of

    assert target.candidates is not None
    if target.batch > 1:
        return SubBatches(min(target.batch, target.candidates))
    task = candidate.task
    split = "train" if "train" in task.splits else next(iter(task.splits))
    requests = sample_requests(task, split, target.candidates, TRIED)
    tokens = request_tokens(task, split, requests, candidate.tokenizer, target.seq_len)
    shape, style = of_model(candidate.model)
    identity: dict[str, Any] = {
        "shape": shape.to_json(),
        "style": style_of(style),
        "form": [candidate.model.runtime, candidate.model.int8],
        "target": target.identity(),
        "machine": machine(),
        "lengths": [sorted(map(len, request)) for request in tokens],
        "sizes": SIZES,
    }
    identity |= {"long_texts": True} if has_long_texts(task, candidate.tokenizer) else {}  # newer than stored results
    name = f"sub-batches-{short_key(identity)}"
    result = memo(name, lambda: _measure(candidate, target, tokens))
    sizes, seconds = list(map(int, result["sizes"])), list(map(float, result["seconds"]))
    best = min(range(len(sizes)), key=seconds.__getitem__)
    return SubBatches(sizes[best], seconds[-1] / seconds[best])


def _measure(candidate: Candidate, target: Target, tokens: list[list[list[int]]]) -> dict[str, Any]:
    """Time requests in sub-batches of every size; the last one is a whole request."""
    from limbeck.measure.backends import runner_options
    from limbeck.measure.isolation import run_timed
    from limbeck.measure.timed_session import stored

    assert target.candidates is not None
    sizes = [*(size for size in SIZES if size < target.candidates), target.candidates]
    types = "token_type_ids" in candidate.tokenizer.model_input_names
    pad = candidate.tokenizer.pad_token_id or 0
    with stored(candidate) as folder:
        payload = {
            "model": str(folder),
            "inputs": [calls_of(tokens, size, pad, types) for size in sizes],
            **runner_options(target),
        }
        answer = run_timed("limbeck.measure.requests:session", payload, target)
    return {"sizes": sizes, "seconds": list(map(float, answer["seconds"]))}


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Load a model in the child process and time requests in sub-batches of each size, alternately."""
    import numpy as np

    from limbeck.measure.accelerator import clock, warm_up
    from limbeck.measure.backends import RUNNER_OPTIONS, make_runner, prepared_calls
    from limbeck.measure.timing import alternate
    from limbeck.model.checkpoints import open_model

    options, device = {name: payload[name] for name in RUNNER_OPTIONS}, payload["device"]
    runner = make_runner(open_model(payload["model"])[0], **options)
    calls = [prepared_calls(runner, inputs) for inputs in payload["inputs"]]
    warm_up(calls, device)
    timings = alternate(calls, len(payload["inputs"][0]), ROUNDS, now=clock(device))
    return {"seconds": np.array([np.median(timing.seconds.sum(axis=1)) for timing in timings])}
