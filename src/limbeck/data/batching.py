"""From texts to padded batches: encode once, batch texts of like length together, pad to the longest of each batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.data.encoding import TextEncoding, first_pieces
from limbeck.data.metrics import IGNORED

if TYPE_CHECKING:
    import torch

    from limbeck.data.task import Task


@dataclass(frozen=True)
class Encoded:
    """A split as token ids; lists are ragged, one entry an example. Texts without labels have none at all."""

    input_ids: Sequence[Sequence[int]]
    token_type_ids: Sequence[Sequence[int]] | None
    labels: Sequence[Any]
    pad_id: int
    kind: str
    unseen: Sequence[Sequence[int]] = ()
    """Of a task on words, the labels of those words of every example that have no token: they were cut off, or the
    tokenizer drops their characters."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every example [examples]."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)


def encode(task: Task, split: str, tokenizer: Any) -> Encoded:
    """Tokenise a split, cut at ``task.max_length`` tokens; word labels go to the first piece of each word.

    A mask that augmentation wrote into training texts becomes that of the tokenizer, so a teacher of another vocabulary
    reads it as one.
    """
    rows = task.split(split)
    words = task.kind == "tokens"
    own = _own_mask(task, tokenizer) if split == "train" else str
    texts: list[Any] = [list(map(own, text)) for text in rows.texts] if words else list(map(own, rows.texts))
    pairs = list(map(own, rows.pairs)) if rows.pairs is not None else None
    encodings = TextEncoding.of(tokenizer, task.max_length, words=words).encode(tokenizer, texts, pairs)
    ids, types, pad = encodings["input_ids"], encodings.get("token_type_ids"), tokenizer.pad_token_id or 0
    if not words:
        return Encoded(ids, types, list(rows.labels), pad, task.kind)
    aligned = [_align(encodings.word_ids(index), word_labels) for index, word_labels in enumerate(rows.labels)]
    return Encoded(ids, types, [labels for labels, _ in aligned], pad, task.kind, [unseen for _, unseen in aligned])


def _own_mask(task: Task, tokenizer: Any) -> Callable[[str], str]:
    written = task.mask_token
    if not written or not tokenizer.mask_token:
        return str
    return lambda text: text.replace(written, tokenizer.mask_token)


def _align(word_ids: Sequence[int | None], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The label of every token (of a word's first one; IGNORED elsewhere), and the labels of words without a token."""
    aligned, unseen = [IGNORED] * len(word_ids), []
    for label, position in zip(labels, first_pieces(word_ids, len(labels)), strict=True):
        if position is None:
            unseen.append(label)
        else:
            aligned[position] = label
    return aligned, unseen


def collate(encoded: Encoded, indices: Sequence[int]) -> dict[str, torch.Tensor]:
    """Pad the chosen examples to the longest of them.

    Shapes: input_ids, attention_mask, token_type_ids [batch, seq]; labels, where there are any, [batch] (multi-label:
    [batch, labels], tokens: [batch, seq]); index [batch], the place of each example in its split.
    """
    import torch

    input_ids = [encoded.input_ids[i] for i in indices]
    longest = max(map(len, input_ids))

    def pad(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        block = np.full((len(indices), longest), filler, dtype=np.int64)
        for place, row in enumerate(rows):
            block[place, : len(row)] = row
        return torch.from_numpy(block)

    batch = {"input_ids": pad(input_ids, encoded.pad_id)}
    lengths = torch.tensor([len(ids) for ids in input_ids])
    batch["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
    if encoded.token_type_ids is not None:
        batch["token_type_ids"] = pad([encoded.token_type_ids[i] for i in indices], 0)
    if len(encoded.labels):
        labels = [encoded.labels[i] for i in indices]
        floats = encoded.kind in ("regression", "multilabel")
        kind = torch.float32 if floats else torch.int64
        batch["labels"] = pad(labels, IGNORED) if encoded.kind == "tokens" else torch.tensor(labels, dtype=kind)
    batch["index"] = torch.tensor(list(indices))
    return batch


def length_batches(
    lengths: np.ndarray, batch_size: int, seed: int | None = None, epoch: int = 0, pool: int = 50
) -> list[list[int]]:
    """Group examples of like length into batches; every example appears exactly once.

    Without a seed: sorted by length, longest first (for evaluation; the largest batch comes first, so memory runs out
    at once or never). With one: shuffled, sorted within pools of ``pool`` batches, and the batches shuffled, so that
    an epoch stays random and wastes little padding. Batches depend on (seed, epoch) alone.

    >>> length_batches(np.array([3, 9, 4, 8]), 2)
    [[1, 3], [2, 0]]
    """
    count = len(lengths)
    if seed is None:
        order = sorted(range(count), key=lambda i: (-int(lengths[i]), i))
        return [order[start : start + batch_size] for start in range(0, count, batch_size)]
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(count))
    rng.shuffle(order)
    batches = []
    for start in range(0, count, batch_size * pool):
        block = sorted(order[start : start + batch_size * pool], key=lambda i: int(lengths[i]))
        batches += [block[at : at + batch_size] for at in range(0, len(block), batch_size)]
    rng.shuffle(batches)
    return batches


def predict(model: Any, encoded: Encoded, batch_size: int | None = None) -> np.ndarray | list[np.ndarray]:
    """Answer a split.

    Args:
        model: Anything with ``predict(batch)``.
        encoded: The split.
        batch_size: Texts answered together. Unless given, 32; INT8 models answer one by one, because the ranges of
            dynamic ones span a batch with its padding, so that an answer would depend on its neighbours.

    Returns:
        Logits in the order of the split: [examples, classes]; for tokens a list of [seq, classes].
    """
    batch_size = batch_size or (1 if getattr(model, "int8", False) else 32)
    rows: list[Any] = [None] * len(encoded)
    for indices in length_batches(encoded.lengths, batch_size):
        logits = model.predict(collate(encoded, indices))
        for row, index in zip(logits, indices, strict=True):
            rows[index] = row[: len(encoded.input_ids[index])] if encoded.kind == "tokens" else row
    return rows if encoded.kind == "tokens" else np.stack(rows)
