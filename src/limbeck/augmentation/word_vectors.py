"""Word vectors and their nearest neighbors, from a model's input embeddings or from a file.

Reference: Jiao et al., 2020, arXiv:1909.10351, Algorithm 1 (TinyBERT: GloVe). Differs: the vectors may be the input
embeddings of any model, averaged over a word's pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from limbeck.core.paths import user_path
from limbeck.errors import InputError, shown

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Candidates = tuple[str, ...]
"""Words that may replace a word, best first."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
MOST_VECTORS = 200_000
"""Lines of a vector file that are always read (such files are sorted by frequency); later ones only for given words."""


def folds_case(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer ignores case."""
    return bool(tokenizer.tokenize("ABLE") == tokenizer.tokenize("able"))


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the entries of a vocabulary that are whole words of letters, by id.

    WordPiece marks the other pieces with '##'; byte-level BPE and SentencePiece mark those that begin a word.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    mark = next((mark for mark in "Ġ▁" if any(str(piece).startswith(mark) for piece in pieces)), "")
    words = {}
    for index, piece in enumerate(pieces):
        if piece is None or index in special or not piece.startswith(mark) or piece.startswith("##"):
            continue
        word = tokenizer.convert_tokens_to_string([piece]).strip() if mark else piece
        if _WORD.fullmatch(word):
            words[index] = word
    return words


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their unit vectors [words, width]."""

    words: tuple[str, ...]
    vectors: np.ndarray
    lower: bool = False  #: whether the words are in lower case

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The row of each word."""
        return {word: index for index, word in enumerate(self.words)}

    def nearest(self, words: Iterable[str], count: int, block: int = 256) -> dict[str, Candidates]:
        """Find the nearest other words by cosine similarity.

        Args:
            words: The words; those without a vector are left out.
            count: Neighbors per word.
            block: Words compared at once.

        Returns:
            The neighbors of each word, nearest first.
        """
        queries = sorted({word for word in words if self.normalize(word) in self.index})
        rows = [self.index[self.normalize(word)] for word in queries]
        folded = [word.casefold() for word in self.words]
        neighbors = {}
        for start in range(0, len(queries), block):
            similarity = self.vectors[rows[start : start + block]] @ self.vectors.T
            top_count = min(count + 4, len(self.words))  # some may be the word itself in another case
            top = np.argpartition(-similarity, top_count - 1, axis=1)[:, :top_count]
            for word, order, scores in zip(queries[start : start + block], top, similarity, strict=True):
                ranked = sorted(order.tolist(), key=lambda row: (-scores[row], row))
                neighbors[word] = _others(word, ranked, self.words, folded, count)
        return neighbors

    def normalize(self, word: str) -> str:
        """Return the word in the case of ``words``."""
        return word.lower() if self.lower else word


def _others(word: str, ranked: Sequence[int], words: Sequence[str], folded: Sequence[str], count: int) -> Candidates:
    return tuple(words[row] for row in ranked if folded[row] != word.casefold())[:count]


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def input_embeddings(model: PreTrainedModel) -> nn.Embedding:
    """Return the layer that embeds token ids."""
    return cast("nn.Embedding", model.get_input_embeddings())


def embedding_vectors(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> WordVectors:
    """Compute word vectors as the mean of the input embeddings of a word's pieces.

    Args:
        model: A model with input embeddings.
        tokenizer: Its tokenizer.
        words: Words that need a vector, beside the whole words of the vocabulary.
    """
    table = input_embeddings(model).weight.detach().float().cpu().numpy()
    lower = folds_case(tokenizer)
    ordered = sorted({word.lower() if lower else word for word in words} | set(whole_words(tokenizer).values()))
    # the space yields the byte-level pieces of a word inside a text
    pieces = tokenizer([f" {word}" for word in ordered], add_special_tokens=False)["input_ids"] if ordered else []
    usable = [index for index, ids in enumerate(pieces) if ids and tokenizer.unk_token_id not in ids]
    vectors = np.zeros((len(usable), table.shape[1]), dtype=np.float32)
    for row, index in enumerate(usable):
        vectors[row] = table[pieces[index]].mean(axis=0)
    return WordVectors(tuple(ordered[index] for index in usable), _unit(vectors), lower)


def read_vectors(path: str | Path, words: Iterable[str], most: int = MOST_VECTORS) -> WordVectors:
    """Read a text file of word vectors (GloVe's or word2vec's): a word and its numbers on every line.

    A word may contain spaces (``. . .``), but not on the first line.

    Args:
        path: The file.
        words: Words to read from any line.
        most: Lines from the start of the file whose words are all read.

    Raises:
        InputError: The file does not exist, has no vectors, or has a malformed line.
    """
    path = user_path(path)
    if not path.is_file():
        raise InputError(f"there is no vector file {path}; give a text file with a word and its numbers on every line")
    requested = set(words) | {word.lower() for word in words}
    vectors: dict[str, np.ndarray] = {}
    width = 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            word, _, rest = line.rstrip().partition(" ")
            if number >= most and word not in requested:
                continue
            values = _numbers(rest)
            if number == 0 and len(values) == 1 and word.isdecimal():
                continue  # word2vec's header: number of words, and width
            if width and not len(values):  # not only numbers, so the word has spaces
                word, *last = line.rstrip().rsplit(" ", width)
                values = _numbers(" ".join(last))
            width = width or len(values)
            if len(values) != width or not width:
                raise InputError(
                    f"{path}, line {number + 1}: should be a word and {width or 'some'} numbers, got {shown(line)}"
                )
            vectors.setdefault(word, values)
    if not vectors:
        raise InputError(f"{path} has no vectors in it")
    lower = not any(word != word.lower() for word in vectors)
    return WordVectors(tuple(vectors), _unit(np.stack(list(vectors.values()))), lower)


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array(text.split(), dtype=np.float32)
    except ValueError:
        return np.zeros(0, dtype=np.float32)
