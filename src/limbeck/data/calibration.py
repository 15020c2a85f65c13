"""Samples of training texts that are read without training: to score parts of a model, or to choose ranges."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.task import choose, choose_rows
from limbeck.data.batching import collate, encode, length_batches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.task import Task
    from limbeck.data.batching import Encoded

    Batches = Callable[[], list[dict[str, Tensor]]]


def random_batches(
    task: Task, tokenizer: PreTrainedTokenizerBase, count: int, seed: int, batch_size: int = 16
) -> list[dict[str, Tensor]]:
    """Return batches of a random sample of training texts, the shortest first.

    Args:
        task: The task that gives texts and labels.
        tokenizer: A fast tokenizer.
        count: Texts to take; all if there are fewer.
        seed: Decides which texts are taken.
        batch_size: Texts in a batch.
    """
    encoded = _training_texts(task, tokenizer)
    rows = random.Random(seed).sample(range(len(encoded)), min(count, len(encoded)))
    return _by_length(encoded, rows, batch_size)


def held_out_batches(
    task: Task, tokenizer: PreTrainedTokenizerBase, count: int, seed: int, apart: int, batch_size: int = 16
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Return batches of a random sample of training texts, and batches of other texts to judge by what came of it.

    Args:
        task: The task that gives texts and labels.
        tokenizer: A fast tokenizer.
        count: Texts of the sample; fewer where the task is short of texts, since a third of all is held out at most.
        seed: Decides which texts are taken.
        apart: Texts to hold out.
        batch_size: Texts in a batch.

    Returns:
        The sample, and texts that are not in it; in each the shortest first.
    """
    encoded = _training_texts(task, tokenizer)
    apart = min(apart, len(encoded) // 3)
    rows = random.Random(seed).sample(range(len(encoded)), min(apart + count, len(encoded)))
    return _by_length(encoded, rows[apart:], batch_size), _by_length(encoded, rows[:apart], batch_size)


def sampled_apart(
    task: Task, tokenizer: PreTrainedTokenizerBase, count: int, seed: int, apart: int
) -> tuple[Batches, Batches]:
    """Return functions that return texts to learn from, and texts to judge by; nothing is read before they are called.

    Args:
        task: The task that gives texts and labels.
        tokenizer: A fast tokenizer.
        count: Texts to learn from.
        seed: Decides which texts are taken.
        apart: Texts to judge by; where there are none, those to learn from are :func:`random_batches`.
    """
    if not apart:
        return partial(random_batches, task, tokenizer, count, seed), list
    parts = cache(partial(held_out_batches, task, tokenizer, count, seed, apart))
    return lambda: parts()[0], lambda: parts()[1]


def _by_length(encoded: Encoded, rows: Sequence[int], batch_size: int) -> list[dict[str, Tensor]]:
    """Return batches of these rows, the shortest first."""
    ordered = sorted(rows, key=lambda row: encoded.lengths[row])
    return [collate(encoded, ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]


def chosen_batches(
    task: Task, tokenizer: PreTrainedTokenizerBase, count: int, seed: int, batch_size: int = 32
) -> list[dict[str, Tensor]]:
    """Return batches of training texts that are the same with every version of every library, the longest first.

    Args:
        task: The task that gives texts and labels.
        tokenizer: A fast tokenizer.
        count: Texts to take; all if there are fewer.
        seed: Decides which texts are taken.
        batch_size: Texts in a batch.
    """
    encoded = _training_texts(task, tokenizer)
    rows = choose(encoded.labels, min(count, len(encoded)), seed, stratified=False)
    parts = length_batches(encoded.lengths[rows], batch_size)
    return [collate(encoded, [rows[index] for index in part]) for part in parts]


def _training_texts(task: Task, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return the training texts, without scores of pairs that are all the same: their order has no slope."""
    encoded = encode(task, "train", tokenizer)
    return encoded if task.only_score is None else replace(encoded, labels=[()] * len(encoded))


def spaced_texts(
    task: Task, tokenizer: PreTrainedTokenizerBase, inputs: Collection[str], count: int
) -> list[dict[str, np.ndarray]]:
    """Return evenly spaced training texts, each as a batch of its own: padding would distort ranges.

    Args:
        task: The task that gives the texts.
        tokenizer: A fast tokenizer.
        inputs: Names of the arrays that the model reads; those that the tokenizer does not return are zeros.
        count: Texts to take; all if there are fewer.
    """
    split = task.split("train")
    rows = sorted({int(row) for row in np.linspace(0, len(split) - 1, min(count, len(split)))})
    chosen = split.take(rows)
    if task.task_kind.vectors:
        chosen = replace(chosen, pairs=None)  # the second text would be padded, or the first
    encoded = encode(replace(task, splits={**task.splits, "train": chosen}), "train", tokenizer)
    texts = []
    for row in range(len(encoded)):
        batch = {name: np.asarray(value) for name, value in collate(encoded, [row]).items() if name in inputs}
        texts.append({name: batch.get(name, np.zeros_like(batch["input_ids"])) for name in sorted(inputs)})
    return texts


def first_batches(
    task: Task, split: str, tokenizer: PreTrainedTokenizerBase, count: int, batch_size: int = 8
) -> tuple[list[dict[str, Tensor]], Sequence[str] | Sequence[Sequence[str]]]:
    """Return the first texts of a split, in batches and as text, in their own order so that batches contain padding.

    Args:
        task: The task that has the split.
        split: Name of the split.
        tokenizer: A fast tokenizer.
        count: Texts to take; all if there are fewer.
        batch_size: Texts in a batch.
    """
    rows, kind = task.split(split), task.task_kind
    # vectors are compared text by text, so the documents of a search are not needed
    chosen = (
        choose(rows.labels, count, 0, stratified=False) if kind.vectors else choose_rows(kind, rows.labels, count, 0)
    )
    few = rows.take(chosen)
    encoded = encode(replace(task, splits={split: few}), split, tokenizer)
    starts = range(0, len(encoded), batch_size)
    batches = [collate(encoded, range(start, min(start + batch_size, len(encoded)))) for start in starts]
    return batches, few.texts
