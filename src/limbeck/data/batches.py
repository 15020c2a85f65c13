"""From texts to padded batches: encode once, batch texts of like length together, pad to the longest of each batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

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
    made = tokenizer(
        texts,
        pairs,
        truncation=True,
        max_length=task.max_length,
        is_split_into_words=words,
        return_attention_mask=False,
    )
    labels: list[Any] = list(rows.labels)
    if words:
        labels = [_align(made.word_ids(index), word_labels) for index, word_labels in enumerate(labels)]
    return Encoded(made["input_ids"], made.get("token_type_ids"), labels, tokenizer.pad_token_id or 0, task.kind)


def _own_mask(task: Task, tokenizer: Any) -> Callable[[str], str]:
    written = task.mask_token
    if not written or not tokenizer.mask_token:
        return str
    return lambda text: text.replace(written, tokenizer.mask_token)


def _align(word_ids: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    aligned, previous = [], None
    for word in word_ids:
        aligned.append(IGNORED if word is None or word == previous else labels[word])
        previous = word
    return aligned


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
    chance = random.Random(f"{seed}/{epoch}")
    order = list(range(count))
    chance.shuffle(order)
    batches = []
    for start in range(0, count, batch_size * pool):
        block = sorted(order[start : start + batch_size * pool], key=lambda i: int(lengths[i]))
        batches += [block[at : at + batch_size] for at in range(0, len(block), batch_size)]
    chance.shuffle(batches)
    return batches


def predict(model: Any, encoded: Encoded, batch_size: int = 32) -> np.ndarray | list[np.ndarray]:
    """Logits in the order of the split: [examples, classes]; for tokens a list of [seq, classes]."""
    found: list[Any] = [None] * len(encoded)
    for indices in length_batches(encoded.lengths, batch_size):
        logits = model.predict(collate(encoded, indices))
        for row, index in zip(logits, indices, strict=True):
            found[index] = row[: len(encoded.input_ids[index])] if encoded.kind == "tokens" else row
    return found if encoded.kind == "tokens" else np.stack(found)
