"""Texts to time models on: a sample with the lengths of a split, as batches of token ids."""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.early_exits import length_problem
from limbeck.core.judged_texts import Document, Query
from limbeck.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.candidate import Candidate
    from limbeck.core.model import Runnable
    from limbeck.core.target import Target
    from limbeck.core.task import Task

SearchPart = type[Query] | type[Document]
"""Which texts of a search: those that search, or those to be found."""
PIECES = re.compile(r"\w+|[^\w\s]")
"""Words and marks, which stand for tokens where there is no tokenizer."""


def sample_rows(task: Task, split: str, count: int, seed: int = 0, part: SearchPart | None = None) -> list[int]:
    """Sample rows whose lengths are spread like those of the split: one from each of ``count`` strata of length.

    They are shuffled, as requests arrive. Lengths are in characters, so nothing needs to be tokenized.

    Args:
        task: Has the split.
        split: Name of the split.
        count: Rows to sample; all if the split has fewer.
        seed: Seed of the sample.
        part: Where the split is a search, the texts that are sampled: its queries or its documents.
    """
    texts = task.split(split)
    pairs = texts.pairs if texts.pairs is not None else ("",) * len(texts)
    sizes = [sum(map(len, text)) + len(pair) for text, pair in zip(texts.texts, pairs, strict=True)]
    among = [] if part is None else [row for row, label in enumerate(texts.labels) if isinstance(label, part)]
    order = sorted(among or range(len(sizes)), key=lambda row: (sizes[row], row))
    rng = random.Random(seed)
    count = min(count, len(order))
    edges = [len(order) * index // count for index in range(count + 1)]
    rows = [order[rng.randrange(low, high)] for low, high in pairwise(edges)]
    rng.shuffle(rows)
    return rows


def lengths_of(task: Task, most: int = 512, samples: int = 40) -> tuple[int, ...]:
    """Estimate the tokens of sampled test texts from words and marks, without a tokenizer.

    Args:
        task: Texts of its test split count, or else of its training split; pairs are taken together, unless the task is
            for vectors, of each text by itself.
        most: Longer texts are cut to this, or to the task's ``max_length``, as a model's input is.
        samples: Rows to sample.
    """
    from limbeck.core.task import texts_of

    split = "test" if "test" in task.splits else "train"
    rows, sides = task.split(split), list(texts_of(task.split(split)))

    def texts(row: int) -> list[int]:
        """Count what a model reads at once: sides, each with a separator token, and the first token."""
        counts = [len(PIECES.findall(side)) + 1 for side in sides[row :: len(rows)]]
        return [count + 1 for count in (counts if task.task_kind.vectors else [sum(counts)])]

    sampled = sample_rows(task, split, samples)
    return tuple(min(tokens, task.max_length, most) for row in sampled for tokens in texts(row))


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

    Raises:
        InputError: The length is fixed to more tokens than the model takes, or the model has early exits or is a
            cascade.
    """
    return _padded(candidate, _token_lists_of(candidate, split, rows, target), target.batch)


def sorted_batches(
    candidate: Candidate, split: str, rows: Sequence[int], target: Target
) -> list[dict[str, list[list[int]]]]:
    """Encode rows as :func:`token_batches` does, in batches of similar length, the longest first.

    Args:
        candidate: Gives the task and the tokenizer.
        split: Name of the split.
        rows: Rows of the split.
        target: Gives the batch size and, if fixed, the sequence length.
    """
    lists = _token_lists_of(candidate, split, rows, target)
    return _padded(candidate, sorted(lists, key=len, reverse=True), target.batch)


def text_decides(model: Runnable) -> bool:
    """Return whether it depends on what a text says how much is computed: early exits, or a cascade."""
    from limbeck.model.onnx.onnx_model import OnnxModel

    return model.leaves_early or (isinstance(model, OnnxModel) and model.cascade is not None)


def _token_lists_of(candidate: Candidate, split: str, rows: Sequence[int], target: Target) -> list[list[int]]:
    """Tokenize rows for a candidate, as the target has them."""
    if (problem := length_problem(target)) and text_decides(candidate.model):
        raise InputError(f"target: a model with early exits, or a cascade, {problem}")
    return token_lists(candidate.task, split, rows, candidate.tokenizer, target.seq_len)


def _padded(candidate: Candidate, lists: Sequence[list[int]], batch: int) -> list[dict[str, list[list[int]]]]:
    """Divide token ids into batches, each padded to its longest text."""
    types = "token_type_ids" in candidate.tokenizer.model_input_names
    pad = candidate.tokenizer.pad_token_id or 0
    return [pad_batch(lists[start : start + batch], pad, types) for start in range(0, len(lists), batch)]


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


def typical_length(candidate: Candidate, batch: int = 1, samples: int = 200, percent: float = 50) -> int:
    """Return the median number of tokens of a batch of the task's training texts, padded as ``latency`` pads.

    At real lengths, p50 is the latency of such a batch.

    Args:
        candidate: Gives the task and the tokenizer.
        batch: Texts in a batch.
        samples: Texts to tokenize, at least eight batches.
        percent: Percentile to return instead of the median, 0 to 100.
    """
    return _longest(_batches(candidate, batch, samples), percent)


def typical_batch(candidate: Candidate, batch: int) -> tuple[int, ...]:
    """Return the tokens of each text of a batch of :func:`typical_length`, the longest first.

    Args:
        candidate: Gives the task and the tokenizer.
        batch: Texts in a batch.
    """
    batches = _batches(candidate, batch)
    longest = _longest(batches)
    full = [lengths for lengths in batches if len(lengths) == batch] or [[longest] * batch]
    nearest = sorted(min(full, key=lambda lengths: abs(max(lengths) - longest)), reverse=True)
    return (longest, *(min(length, longest) for length in nearest[1:]))


def has_long_texts(task: Task, tokenizer: PreTrainedTokenizerBase, samples: int = 200) -> bool:
    """Tell whether half of a task's texts are so long that graphs have attention for long texts.

    The length that a target may give plays no part: a graph is written once, wherever it runs.

    Args:
        task: The task; its training texts count, or those of its first split.
        tokenizer: Tokenizes.
        samples: Texts to tokenize.
    """
    from limbeck.model.onnx.graph import LONG_TEXT

    split = "train" if "train" in task.splits else next(iter(task.splits))
    return statistics.median(_sampled_lengths(task, split, tokenizer, samples)) >= LONG_TEXT


def _sampled_lengths(task: Task, split: str, tokenizer: PreTrainedTokenizerBase, samples: int) -> list[int]:
    return [len(ids) for ids in token_lists(task, split, sample_rows(task, split, samples), tokenizer)]


def _batches(candidate: Candidate, batch: int, samples: int = 200) -> list[list[int]]:
    """Return the tokens of each text of batches of the task's training texts."""
    lengths = _sampled_lengths(candidate.task, "train", candidate.tokenizer, max(samples, 8 * batch))
    if candidate.task.task_kind.grouped:  # documents of a request are sorted
        lengths.sort()
    return [lengths[start : start + batch] for start in range(0, len(lengths), batch)]


def _longest(batches: Sequence[Sequence[int]], percent: float = 50) -> int:
    return int(np.percentile([max(lengths) for lengths in batches], percent))


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
