"""Pack a corpus for general distillation into token sequences, stored as Arrow and memory-mapped.

Sequences are packed as for TinyBERT (Jiao et al., 2020, arXiv:1909.10351): consecutive sentences of a document are
joined until the next would not fit. Differs: a sentence that is too long is cut into pieces, not discarded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.finite import load_json
from limbeck.data.batching import Encoded
from limbeck.data.corpus.documents import (
    MAX_SENTENCES,
    Document,
    ExclusionFilter,
    ReadCounts,
    Source,
    file_texts,
    normal,
    task_documents,
    task_texts,
)
from limbeck.errors import InputError
from limbeck.storage.drafts import temporary_folder
from limbeck.storage.memmap import Keep
from limbeck.storage.parallel import without_main

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.task import Task

FORMAT = 2
BLOCK = 50_000
"""Sentences that are tokenized and written together; an interruption loses at most this many."""
MIN_SENTENCES = 2_000
"""Sentences for which starting another process pays off."""

Log = Callable[..., None]
"""Logs a message with numbers as keywords, as ``RunContext.log``."""


@dataclass(frozen=True)
class Counts:
    """The size of a packed corpus.

    Attributes:
        sentences: Packed sentences.
        sequences: Sequences they were packed into.
        tokens: Tokens in these.
        cut: Sentences that were too long for one sequence.
        removed: Excluded texts.
        columns: Columns that the text was read from, if it has columns.
        textless: Rows that have no text there, not even an empty one.
    """

    sentences: int
    sequences: int
    tokens: int
    cut: int
    removed: int
    columns: Sequence[str] = ()
    textless: int = 0

    def __str__(self) -> str:
        total = f"{self.sentences:,} sentences in {self.sequences:,} sequences of {self.tokens:,} tokens"
        cut = f"; {self.cut:,} too long for one sequence were cut" if self.cut else ""
        removed = f"; {self.removed:,} excluded texts removed" if self.removed else ""
        columns = " or ".join(f"'{name}'" for name in self.columns)
        read = f"; read from column {columns}" if columns else ""
        textless = f"; {self.textless:,} rows have no {columns}" if self.textless else ""
        return total + cut + removed + read + textless


class TokenRows(Sequence[Any]):
    """The rows of a memory-mapped Arrow column of token ids, each [seq]; ``chosen`` selects some of them."""

    def __init__(self, chunks: Sequence[Any], chosen: np.ndarray | None = None) -> None:
        self._chunks = chunks
        self._parts = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in chunks]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self._chosen = chosen

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: Any) -> Any:  # Sequence also declares slices, which nothing here needs
        row = index if self._chosen is None else int(self._chosen[index])
        if not 0 <= row < self._starts[-1]:
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        values, offsets = self._parts[part]
        offset = row - self._starts[part]
        return values[offsets[offset] : offsets[offset + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of every row [rows]."""
        whole = np.concatenate([np.diff(offsets) for _, offsets in self._parts]).astype(np.int64)
        return whole if self._chosen is None else whole[self._chosen]

    def take(self, rows: np.ndarray) -> TokenRows:
        """Return the given rows, in the given order."""
        return TokenRows(self._chunks, rows if self._chosen is None else self._chosen[rows])


@dataclass(frozen=True)
class Corpus(Encoded):
    """Packed sequences as an encoded split: without labels, and with tokens read from the disk on use."""

    input_ids: TokenRows

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of every sequence [sequences]."""
        return self.input_ids.lengths

    def hold_out(self, share: float, seed: int) -> tuple[Corpus, Corpus]:
        """Split off a random part for evaluation.

        Args:
            share: Fraction of the sequences to hold out.
            seed: Seed of the choice.

        Returns:
            The sequences to train on, at least one, and those held out, perhaps none.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        count = min(round(share * len(self)), len(self) - 1)
        held, rest = np.sort(order[:count]), np.sort(order[count:])
        return replace(self, input_ids=self.input_ids.take(rest)), replace(self, input_ids=self.input_ids.take(held))


def kept_corpus(
    source: Source | None,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    keep: Keep,
    *,
    splits: Sequence[str] = (),
    exclude: Sequence[str] = (),
    scratch: Path | None = None,
    num_proc: int | None = None,
    log: Log = lambda message, **numbers: None,
) -> tuple[Corpus, Counts]:
    """Open the corpus of a source, packed on first use.

    Args:
        source: Where the documents come from; None means the training texts of the task.
        task: The task.
        tokenizer: A fast tokenizer.
        max_length: Maximum tokens of a sequence, special tokens included.
        keep: Builds a folder once and returns it, as ``RunContext.keep``.
        splits: Splits of the task whose texts are excluded.
        exclude: Files whose texts are excluded.
        scratch: Folder for finished blocks, from which an interrupted call resumes.
        num_proc: Processes that tokenize; one per core if None.
        log: Reports progress.

    Returns:
        The corpus and its size.

    Raises:
        InputError: A file cannot be read, no text is left, or ``max_length`` leaves no room for text.
    """
    banned = frozenset(map(normal, chain(task_texts(task, splits), file_texts(exclude))))
    identity = [
        FORMAT,
        MAX_SENTENCES,
        max_length,
        _tokenizer_hash(tokenizer),
        f"task-{task.fingerprint}" if source is None else source.fingerprint(),
        hashlib.sha256(json.dumps(sorted(banned)).encode()).hexdigest(),
    ]
    name = "corpus-" + hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        seen, excluded = ReadCounts(), ExclusionFilter(banned)
        documents = task_documents(task) if source is None else source.documents(seen)
        with _blocks_folder(scratch, name) as blocks:
            counts = build_corpus(excluded.filter(documents), tokenizer, max_length, folder, blocks, num_proc, log)
        if not counts.sequences:
            where = "the task's training texts" if source is None else ", ".join(source.paths)
            left = f" once {excluded.removed:,} excluded texts are removed" if excluded.removed else ""
            raise InputError(f"corpus: there is no text in {where}{left}")
        counts = replace(counts, removed=excluded.removed, columns=sorted(seen.columns), textless=seen.textless)
        (folder / "corpus.json").write_text(json.dumps(asdict(counts)))

    return open_corpus(keep(name, build), tokenizer.pad_token_id or 0)


def open_corpus(folder: Path, pad_id: int) -> tuple[Corpus, Counts]:
    """Memory-map the corpus that was built in ``folder``."""
    import datasets

    chunks = datasets.load_from_disk(str(folder / "sequences")).data.column("input_ids").chunks
    counts = Counts(**load_json((folder / "corpus.json").read_text()))
    return Corpus(TokenRows(chunks), None, (), pad_id, "corpus"), counts


def build_corpus(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    folder: Path,
    blocks: Path,
    num_proc: int | None = None,
    log: Log = lambda message, **numbers: None,
) -> Counts:
    """Tokenize and pack documents block by block, and write the sequences to ``folder``.

    Args:
        documents: The documents; on resuming, the same ones in the same order.
        tokenizer: A fast tokenizer.
        max_length: Maximum tokens of a sequence, special tokens included.
        folder: Where the sequences go.
        blocks: Folder of finished blocks, which are reused.
        num_proc: Processes that tokenize; one per core if None.
        log: Reports progress.

    Raises:
        InputError: ``max_length`` leaves no room for text.
    """
    import datasets

    frame = frame_of(tokenizer)
    if (room := max_length - len(frame[0]) - len(frame[1])) < 1:
        raise InputError(f"max_length: {max_length} leaves no room for text between the tokenizer's special tokens")
    work = partial(sequences_of, tokenizer=tokenizer, frame=frame, room=room)
    seen, block_paths = 0, []
    with _hide_progress_bars():
        for number, block in enumerate(in_blocks(documents)):
            seen += sum(map(len, block))
            block_paths.append(blocks / f"{number:06}")
            if not block_paths[-1].is_dir():
                _write_block(block, work, block_paths[-1], num_proc)
                log(f"corpus: {seen:,} sentences tokenized", sentences=seen)
        if not block_paths:
            return Counts(0, 0, 0, 0, 0)
        sequences = datasets.concatenate_datasets([datasets.load_from_disk(str(path)) for path in block_paths])
        sequences.select_columns("input_ids").save_to_disk(str(folder / "sequences"))
    tokens = sum(len(chunk.values) for path in block_paths for chunk in _chunks(path, "input_ids"))
    cut = sum(int(chunk.to_numpy().sum()) for path in block_paths for chunk in _chunks(path, "cut"))
    return Counts(seen, len(sequences), tokens, cut, 0)


def in_blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents into blocks of about ``BLOCK`` sentences; a document of more than ``MAX_SENTENCES`` is split."""
    block: list[Document] = []
    count = 0
    for document in documents:
        for start in range(0, len(document), MAX_SENTENCES):
            block.append(document[start : start + MAX_SENTENCES])
            count += len(block[-1])
            if count >= BLOCK:
                yield block
                block, count = [], 0
    if block:
        yield block


def pack(sentences: Iterable[Sequence[int]], room: int) -> Iterator[list[int]]:
    """Join the sentences of a document until the next would not fit; cut those that are too long.

    Args:
        sentences: Token ids of each sentence.
        room: Maximum tokens of a sequence, without special tokens.

    >>> list(pack([[1, 1], [2, 2], [3], [4, 4, 4, 4, 4, 4, 4]], 5))
    [[1, 1, 2, 2, 3], [4, 4, 4, 4, 4], [4, 4]]
    """
    joined: list[int] = []
    for sentence in sentences:
        for start in range(0, len(sentence), room):
            piece = sentence[start : start + room]
            if len(joined) + len(piece) > room:
                yield joined
                joined = []
            joined = [*joined, *piece]
    if joined:
        yield joined


def frame_of(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    bare, framed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    starts = range(len(framed) - len(bare) + 1)
    start = next(start for start in starts if framed[start : start + len(bare)] == bare)
    return list(framed[:start]), list(framed[start + len(bare) :])


def sequences_of(
    batch: dict[str, list[Document]], tokenizer: PreTrainedTokenizerBase, frame: tuple[list[int], list[int]], room: int
) -> dict[str, list[Any]]:
    """Tokenize and pack some documents.

    Args:
        batch: Documents in ``sentences``.
        tokenizer: A fast tokenizer.
        frame: Special tokens before and after each sequence.
        room: Maximum tokens of a sequence without these.

    Returns:
        ``input_ids`` of each sequence, and ``cut``: with the first sequence of each document, how many of its sentences
        were cut; 0 with the others.
    """
    flat = [sentence for document in batch["sentences"] for sentence in document]
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    ids = iter(tokenizer(flat, add_special_tokens=False, **options)["input_ids"])
    columns: dict[str, list[Any]] = {"input_ids": [], "cut": []}
    for document in batch["sentences"]:
        tokens = [next(ids) for _ in document]
        packed = [[*frame[0], *row, *frame[1]] for row in pack(tokens, room)]
        cut = sum(len(sentence) > room for sentence in tokens)
        columns["input_ids"] += packed
        columns["cut"] += [cut, *[0] * len(packed)][: len(packed)]
    return columns


def _write_block(block: list[Document], work: Callable[..., Any], folder: Path, num_proc: int | None) -> None:
    """Write the sequences of a block; the folder appears when it is complete."""
    import datasets

    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int32")), "cut": datasets.Value("int32")})
    processes = min(num_proc or os.cpu_count() or 1, sum(map(len, block)) // MIN_SENTENCES, len(block))
    with without_main():
        sequences = datasets.Dataset.from_dict({"sentences": block}).map(
            work,
            batched=True,
            remove_columns="sentences",
            features=features,
            num_proc=processes if processes > 1 else None,
            new_fingerprint=folder.name,  # or it would hash the tokenizer for every block
            load_from_cache_file=False,
        )
    temporary = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    sequences.save_to_disk(str(temporary))
    temporary.rename(folder)


def _chunks(folder: Path, column: str) -> list[Any]:
    import datasets

    return list(datasets.load_from_disk(str(folder)).data.column(column).chunks)


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what determines the tokens; truncation and padding left from earlier calls do not."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    plain = {key: value for key, value in state.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@contextmanager
def _blocks_folder(scratch: Path | None, name: str) -> Iterator[Path]:
    """Provide the folder of finished blocks: in the scratch folder, if there is one, until the corpus is complete."""
    if scratch is None:
        with temporary_folder() as temporary:
            yield temporary
        return
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)  # not after an error: the next call resumes from these blocks


@contextmanager
def _hide_progress_bars() -> Iterator[None]:
    """Hide the progress bars of ``datasets``."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
