"""Turn texts into padded batches: encode once, group texts of similar length, pad to the longest of each batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from limbeck.core.assessment import UnseenWord
from limbeck.core.judged_texts import is_judged
from limbeck.core.kinds import KINDS
from limbeck.core.metrics import IGNORED
from limbeck.data.encoding import TextEncoding, first_pieces, search_prompts
from limbeck.storage.parallel import submitted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.task import Task


class Predictor(Protocol):
    """The part of a model that prediction needs."""

    @property
    def int8(self) -> bool:
        """Whether an answer depends on the texts of its batch."""
        ...

    def predict(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """Return the logits of a batch [batch, classes], or [batch, seq, classes] for token labels."""
        ...


@runtime_checkable
class ThreadSafePredictor(Predictor, Protocol):
    """A predictor that computes each batch with the thread that calls it, and that several threads may call at once."""

    thread_safe: Literal[True]


@dataclass(frozen=True)
class Encoded:
    """A tokenized split: ragged lists with one entry per example; ``labels`` is empty where the texts have none."""

    input_ids: Sequence[Sequence[int]]
    token_type_ids: Sequence[Sequence[int]] | None
    labels: Sequence[Any]
    pad_id: int
    kind: str  #: the kind of the task; any name if there are no labels
    unseen: Sequence[Sequence[UnseenWord]] = ()
    """For token tasks, each example's words that got no token: the text was truncated before them, or the tokenizer
    drops their characters."""
    first_pieces: Sequence[Sequence[int | None]] = ()
    """For token tasks, the position of the first token of each example's words; None for words without a token."""

    pairs: Sequence[Sequence[int]] = ()
    """Ids of second texts, where the texts of a pair are encoded apart."""
    requests: Sequence[Sequence[int]] = ()
    """Rows that training keeps in one batch."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def per_token(self) -> bool:
        """Whether every word has an answer."""
        return self.kind in KINDS and KINDS[self.kind].per_token

    @property
    def sequences(self) -> list[Sequence[int]]:
        """The ids of every text: those of the rows, and then second texts that are encoded apart."""
        return [*self.input_ids, *self.pairs]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example [examples], of the longer text where two are encoded apart."""
        first, second = ([len(ids) for ids in texts] for texts in (self.input_ids, self.pairs or self.input_ids))
        return np.maximum(first, second).astype(np.int64)


def encode(task: Task, split: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenize a split, truncated at ``task.max_length`` tokens; a word's label goes to its first piece.

    The mask token that augmentation wrote into training texts is replaced by the tokenizer's own, so that a teacher
    with another vocabulary also reads it as a mask.

    Args:
        task: The task that has the split.
        split: Name of the split.
        tokenizer: A fast tokenizer.
    """
    rows = task.split(split)
    words = task.task_kind.per_token
    replace_mask = _mask_replacer(task, tokenizer) if split == "train" else str
    texts: list[str] | list[list[str]] = (
        [list(map(replace_mask, text)) for text in rows.texts] if words else list(map(replace_mask, rows.texts))
    )
    pairs = list(map(replace_mask, rows.pairs)) if rows.pairs is not None else None
    encoding = TextEncoding.of(tokenizer, task.max_length, words=words)
    if task.task_kind.vectors:
        return encode_apart(encoding, tokenizer, texts, pairs, list(rows.labels), task.kind)
    encodings = encoding.encode(tokenizer, texts, pairs)
    ids, types, pad = encodings["input_ids"], encodings.get("token_type_ids"), tokenizer.pad_token_id or 0
    if not words:
        return Encoded(ids, types, list(rows.labels), pad, task.kind)
    firsts = [first_pieces(encodings.word_ids(index), len(text)) for index, text in enumerate(rows.texts)]
    aligned = [
        _align(labels, positions, len(tokens))
        for labels, positions, tokens in zip(rows.labels, firsts, ids, strict=True)
    ]
    labels, unseen = [row for row, _ in aligned], [rest for _, rest in aligned]
    return Encoded(ids, types, labels, pad, task.kind, unseen, firsts)


def encode_apart(
    encoding: TextEncoding,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Any],
    pairs: Sequence[str] | None,
    labels: Sequence[Any],
    kind: str,
) -> Encoded:
    """Tokenize texts, and the second texts of pairs, each for itself; none has segments.

    Args:
        encoding: How texts become ids.
        tokenizer: The tokenizer whose encoding this is.
        texts: The texts.
        pairs: Second texts, if there are any.
        labels: Labels of the rows; empty where they have none. Those of a search say which of the model's prompts a
            text has, that of queries or that of documents.
        kind: Kind of the task.
    """
    first = encoding.encode(tokenizer, texts, prompts=search_prompts(tokenizer, labels))
    types, pad = first.get("token_type_ids"), tokenizer.pad_token_id or 0
    second: Sequence[list[int]] = ()
    if pairs is not None:
        prompts = search_prompts(tokenizer, labels, second=True)
        second = encoding.encode(tokenizer, pairs, prompts=prompts)["input_ids"]
    return Encoded(first["input_ids"], types, labels, pad, kind, pairs=second)


def _mask_replacer(task: Task, tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Return a function that replaces the task's mask token by the tokenizer's."""
    written = task.mask_token
    if not written or not (own := tokenizer.mask_token):
        return str
    return lambda text: text.replace(written, own)


def _align(labels: Sequence[int], positions: Sequence[int | None], tokens: int) -> tuple[list[int], list[UnseenWord]]:
    """Return a label per token (IGNORED but for the first of each word), and the words without a token."""
    aligned, unseen = [IGNORED] * tokens, []
    for word, (label, position) in enumerate(zip(labels, positions, strict=True)):
        if position is None:
            unseen.append(UnseenWord(word, label))
        else:
            aligned[position] = label
    return aligned, unseen


def collate(encoded: Encoded, indices: Sequence[int]) -> dict[str, torch.Tensor]:
    """Pad the chosen examples to the longest of them.

    Args:
        encoded: The split.
        indices: Indices of the examples in the split [batch].

    Returns:
        ``input_ids``, ``attention_mask`` and, if the model has segments, ``token_type_ids`` [batch, seq]; ``labels``,
        where there are any to learn from, [batch] (multilabel: [batch, labels], tokens: [batch, seq]); ``index``
        [batch], the indices. Where texts of a pair are encoded apart, a row has two sequences, one after the other.
    """
    import torch

    input_ids = [encoded.input_ids[i] for i in indices]
    if encoded.pairs:
        input_ids = [ids for i in indices for ids in (encoded.input_ids[i], encoded.pairs[i])]
    longest = max(map(len, input_ids))

    def pad(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        block = np.full((len(rows), longest), filler, dtype=np.int64)
        for index, row in enumerate(rows):
            block[index, : len(row)] = row
        return torch.from_numpy(block)

    batch = {"input_ids": pad(input_ids, encoded.pad_id)}
    lengths = torch.tensor([len(ids) for ids in input_ids])
    batch["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
    if encoded.token_type_ids is not None:
        types = [encoded.token_type_ids[i] for i in indices]
        batch["token_type_ids"] = pad([()] * len(input_ids) if encoded.pairs else types, 0)
    if len(encoded.labels) and not is_judged(encoded.labels[0]):
        labels = [encoded.labels[i] for i in indices]
        dtype = {"int64": torch.int64, "float32": torch.float32}[KINDS[encoded.kind].label_dtype]
        batch["labels"] = pad(labels, IGNORED) if encoded.per_token else torch.tensor(labels, dtype=dtype)
    batch["index"] = torch.tensor(list(indices))
    return batch


def length_batches(
    lengths: np.ndarray, batch_size: int, seed: int | None = None, epoch: int = 0, pool: int = 50
) -> list[list[int]]:
    """Group examples of similar length into batches; every example appears exactly once.

    Without a seed, for evaluation, examples are sorted by length, longest first: the largest batch comes first, so
    memory runs out early or never. With a seed, for training, they are shuffled, sorted within pools of ``pool``
    batches, and the batches shuffled, so that epochs are random but waste little padding.

    Args:
        lengths: Tokens of each example [examples].
        batch_size: Examples per batch; the last one may be smaller.
        seed: Seed of the order; None sorts by length.
        epoch: Epoch number; batches depend on (seed, epoch) alone.
        pool: Batches whose examples are sorted by length together.

    Returns:
        The example indices of each batch.

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


def request_batches(
    requests: Sequence[Sequence[int]], batch_size: int, seed: int | None = None, epoch: int = 0
) -> list[list[int]]:
    """Group whole requests into batches, in random order; every example appears exactly once.

    A request larger than a batch is a batch of its own, since a loss over the request needs all its examples.

    Args:
        requests: The examples of each request.
        batch_size: Examples per batch at most, other than those of one request.
        seed: Seed of the order, with the epoch.
        epoch: Epoch number.

    Returns:
        The example indices of each batch.

    >>> [len(batch) for batch in request_batches([range(3), range(3, 5), range(5, 12)], 5, seed=0)]
    [5, 7]
    """
    rng = random.Random(f"{seed}/{epoch}")
    whole = [rng.sample(list(rows), len(rows)) for rows in requests]
    rng.shuffle(whole)
    batches: list[list[int]] = []
    for request in whole:
        fitting = next((batch for batch in reversed(batches) if len(batch) + len(request) <= batch_size), None)
        if fitting is None:
            batches.append(request)
        else:
            fitting.extend(request)
    rng.shuffle(batches)
    return batches


def predict(
    model: Predictor,
    encoded: Encoded,
    batch_size: int | None = None,
    batches: Iterable[Sequence[int]] | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Run a model on a split.

    Args:
        model: A torch model, an ONNX file, or anything else that predicts.
        encoded: The split.
        batch_size: Texts per batch; 32 by default, but 1 for INT8 models: dynamic quantization ranges span the whole
            batch with its padding, so a prediction would depend on its neighbors.
        batches: The examples of each batch, instead of batches of that size by length.

    Returns:
        Logits in the order of the split: [examples, classes]; for tokens a list of [seq, classes].
    """
    batch_size = batch_size or (1 if model.int8 else 32)
    rows: list[np.ndarray] = [np.empty(0)] * len(encoded)
    if batches is None:
        batches = length_batches(encoded.lengths, batch_size)
    for index, row in predict_batches(model, encoded, batches):
        rows[index] = row
    return rows if encoded.per_token else np.stack(rows)


def predict_batches(
    model: Predictor, encoded: Encoded, batches: Iterable[Sequence[int]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Run a model on some batches of a split, as many at once as torch uses threads where the model allows it.

    Args:
        model: The model, as for :func:`predict`.
        encoded: The split.
        batches: The examples of each batch.

    Yields:
        Each example with its logits [classes], or [seq, classes] for tokens.
    """
    import torch

    def answered(indices: Sequence[int]) -> _Answered:
        return indices, model.predict(collate(encoded, indices))

    threads = torch.get_num_threads() if isinstance(model, ThreadSafePredictor) else 1
    for indices, logits in _in_threads(answered, batches, encoded.lengths, threads):
        for row, index in zip(logits, indices, strict=True):
            yield index, row[: len(encoded.input_ids[index])] if encoded.per_token else row


_Answered = tuple[Sequence[int], np.ndarray]
"""The examples of a batch, and their logits."""
TOKENS_AT_ONCE = 1 << 16
"""Tokens, with padding, of the batches that threads answer at the same time: what they take of memory grows with it."""


def _in_threads(
    answered: Callable[[Sequence[int]], _Answered], batches: Iterable[Sequence[int]], lengths: np.ndarray, threads: int
) -> Iterator[_Answered]:
    """Yield the answers in the order of the batches. The first is computed here: it opens what the others share.

    Args:
        answered: Answers a batch.
        batches: The examples of each batch, the largest first.
        lengths: Tokens of each example.
        threads: The most that work at once.
    """
    remaining = iter(batches)
    for indices in remaining:
        yield answered(indices)
        tokens = max(1, len(indices) * max(lengths[list(indices)], default=1))
        threads = min(threads, max(1, TOKENS_AT_ONCE // tokens))
        break
    if threads == 1:
        yield from map(answered, remaining)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield from submitted(pool, answered, remaining, 2 * threads)
    finally:
        pool.shutdown(cancel_futures=True)
