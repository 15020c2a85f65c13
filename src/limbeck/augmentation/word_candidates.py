"""Candidates to replace a word: its nearest neighbours among word vectors, or predictions of a masked language model.

Reference: Jiao et al., 2020, arXiv:1909.10351, Algorithm 1 (TinyBERT). Differs: word vectors may be the input
embeddings of any model, averaged over a word's pieces; the masked language model runs on batches of masked copies
of similar length and computes logits at the masked positions alone; the word itself, special tokens and parts of words
are no candidates.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from limbeck.errors import InputError
from limbeck.model._transformers import explained, quiet

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Candidates = tuple[str, ...]
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
BATCH_TOKENS: Mapping[str, int] = {"cpu": 1024, "cuda": 32_768}
"""Tokens per batch of the masked language model, by device: on a CPU, what its caches hold is fastest."""
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
            count: Neighbours per word.
            block: Words compared at once.

        Returns:
            The neighbours of each word, nearest first.
        """
        queries = sorted({word for word in words if self.normalize(word) in self.index})
        rows = [self.index[self.normalize(word)] for word in queries]
        folded = [word.casefold() for word in self.words]
        neighbours = {}
        for start in range(0, len(queries), block):
            similarity = self.vectors[rows[start : start + block]] @ self.vectors.T
            top_count = min(count + 4, len(self.words))  # some may be the word itself in another case
            top = np.argpartition(-similarity, top_count - 1, axis=1)[:, :top_count]
            for word, order, scores in zip(queries[start : start + block], top, similarity, strict=True):
                ranked = sorted(order.tolist(), key=lambda row: (-scores[row], row))
                neighbours[word] = _others(word, ranked, self.words, folded, count)
        return neighbours

    def normalize(self, word: str) -> str:
        """Return the word in the case of ``words``."""
        return word.lower() if self.lower else word


def _others(word: str, ranked: Sequence[int], words: Sequence[str], folded: Sequence[str], count: int) -> Candidates:
    return tuple(words[row] for row in ranked if folded[row] != word.casefold())[:count]


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _input_embeddings(model: PreTrainedModel) -> nn.Embedding:
    return cast("nn.Embedding", model.get_input_embeddings())


def embedding_vectors(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> WordVectors:
    """Compute word vectors as the mean of the input embeddings of a word's pieces.

    Args:
        model: A model with input embeddings.
        tokenizer: Its tokenizer.
        words: Words that need a vector, beside the whole words of the vocabulary.
    """
    table = _input_embeddings(model).weight.detach().float().cpu().numpy()
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
    path = Path(path).expanduser()
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
                    f"{path}, line {number + 1}: should be a word and {width or 'some'} numbers, got {line[:60]!r}"
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


# --- the masked language model --------------------------------------------------------------------------------------


def load_masked_model(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a masked language model and its tokenizer from a folder or the hub.

    Raises:
        InputError: It is not in safetensors, its head is untrained, or its tokenizer has no mask token or is not fast.
    """
    import torch
    from transformers import AutoTokenizer

    from limbeck.model.mlm_head import open_masked

    model, missing = open_masked(source)
    with quiet(), explained(source):
        tokenizer = AutoTokenizer.from_pretrained(source)
    if missing:
        raise InputError(
            f"{source} has no trained head of a masked language model ({missing[0]} is missing); name a checkpoint "
            "such as bert-base-uncased, as it was pretrained"
        )
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        raise InputError(f"{source}: its tokenizer has no mask token, or cannot tell where tokens stand in a text")
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


@dataclass(frozen=True)
class _Copy:
    """A text with masked tokens.

    Attributes:
        ids: Token ids of the text [seq].
        positions: Positions of the masked tokens.
        owners: The word that each of them is, as (text, word).
    """

    ids: Sequence[int]
    positions: Sequence[int]
    owners: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """Candidates from a masked language model: its most probable other words at the masked position.

    Every wanted word that is a single token gets a masked copy of its text. Copies are batched by length.

    Attributes:
        model: The masked language model.
        tokenizer: Its tokenizer.
        count: Candidates per word.
        positions_per_pass: Words that share a copy, as far apart as possible: faster, but each also sees the others
            masked.
        batch_tokens: Tokens per batch; chosen by device if None.
        half: Whether to compute in bfloat16.
        max_length: Maximum tokens of a text.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    count: int = 15
    positions_per_pass: int = 1
    batch_tokens: int | None = None
    half: bool = False
    max_length: int = 512

    def candidates(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> list[list[Candidates | None]]:
        """Find candidates for words.

        Args:
            texts: Words and gaps of each text.
            wanted: For each text, whether each word needs candidates.

        Returns:
            For each text, the candidates of every wanted word that is a single token; None for the others.
        """
        candidates: list[list[Candidates | None]] = [[None] * len(words) for words, _ in texts]
        copies = sorted(self._copies(texts, wanted), key=lambda copy: -len(copy.ids))
        for batch in _batches(copies, self.batch_tokens or BATCH_TOKENS.get(self.model.device.type, 1024)):
            owners = [owner for copy in batch for owner in copy.owners]
            for (text, word), others in zip(owners, self._predict(batch), strict=True):
                own = texts[text][0][word].casefold()
                candidates[text][word] = tuple(other for other in others if other.casefold() != own)[: self.count]
        return candidates

    @cached_property
    def _words(self) -> dict[int, str]:
        return whole_words(self.tokenizer)

    @cached_property
    def _excluded(self) -> torch.Tensor:
        """Whether each entry is no candidate [vocabulary]."""
        import torch

        excluded = torch.ones(_input_embeddings(self.model).num_embeddings, dtype=torch.bool)
        excluded[list(self._words)] = False
        return excluded.to(self.model.device)

    def _copies(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> Iterator[_Copy]:
        if not texts:
            return
        plain = [
            "".join(part for pair in zip(gaps, [*words, ""], strict=True) for part in pair) for words, gaps in texts
        ]
        most = min(self.max_length, self.model.config.max_position_embeddings - 2)  # RoBERTa reserves two
        encoded = self.tokenizer(plain, truncation=True, max_length=most, return_offsets_mapping=True)
        for number, ((words, gaps), ids, offsets) in enumerate(
            zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ):
            tokens = single_tokens(words, gaps, offsets)
            eligible = [word for word, token in enumerate(tokens) if wanted[number][word] and token is not None]
            passes = -(-len(eligible) // self.positions_per_pass)
            for start in range(passes):
                together = eligible[start::passes]
                yield _Copy(ids, [tokens[word] or 0 for word in together], [(number, word) for word in together])

    def _predict(self, batch: Sequence[_Copy]) -> list[list[str]]:
        """Return the most probable words at every masked position of a batch, best first."""
        import torch

        longest, device = max(len(copy.ids) for copy in batch), self.model.device
        ids = np.full((len(batch), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        lengths = np.array([len(copy.ids) for copy in batch])
        rows = np.repeat(np.arange(len(batch)), [len(copy.positions) for copy in batch])
        positions = np.array([position for copy in batch for position in copy.positions])
        for row, copy in enumerate(batch):
            ids[row, : len(copy.ids)] = copy.ids
        own = torch.from_numpy(ids[rows, positions]).to(device)
        ids[rows, positions] = self.tokenizer.mask_token_id
        mask = torch.from_numpy((np.arange(longest)[None] < lengths[:, None]).astype(np.int64)).to(device)
        where = (torch.from_numpy(rows).to(device), torch.from_numpy(positions).to(device))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            with _only_at(self.model, where):
                logits = self.model(input_ids=torch.from_numpy(ids).to(device), attention_mask=mask).logits
            if logits.dim() == 3:  # a model whose output layer cannot be found
                logits = logits[where]
        logits = logits.float().masked_fill(self._excluded, -torch.inf)
        logits[torch.arange(len(own), device=device), own] = -torch.inf
        values, best = logits.topk(min(self.count + 4, logits.shape[1]))  # some may be the word in another case
        return [
            [self._words[index] for index, value in zip(*row, strict=True) if value > -torch.inf]
            for row in zip(best.tolist(), values.tolist(), strict=True)
        ]


@contextlib.contextmanager
def _only_at(model: PreTrainedModel, where: tuple[torch.Tensor, torch.Tensor]) -> Iterator[None]:
    """Run the output layer, which is as wide as the vocabulary, only at ``where`` (rows, positions)."""
    layer: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call, unused-ignore]
    hook = layer.register_forward_pre_hook(lambda _, inputs: (inputs[0][where],)) if layer is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def single_tokens(words: Sequence[str], gaps: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Find the words that are single tokens.

    Args:
        words: Words of a text.
        gaps: The gaps around them, as from ``split_words``.
        offsets: Start and end of each token in the text; (0, 0) for special tokens.

    Returns:
        The position of the token that each word is; None for a word that is several tokens or was cut off.
    """
    positions: list[int | None] = []
    at = token = 0
    for word, gap in zip(words, gaps, strict=False):
        start, end = at + len(gap), at + len(gap) + len(word)
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        inside = token
        while inside < len(offsets) and offsets[inside][0] < end and offsets[inside][1] > start:
            inside += 1
        whole = inside == token + 1 and offsets[token][1] == end and offsets[token][0] >= at
        positions.append(token if whole else None)
        at = end
    return positions


def _batches(copies: Sequence[_Copy], tokens: int) -> Iterator[Sequence[_Copy]]:
    """Batch copies, sorted by falling length, to at most so many tokens with padding."""
    start = 0
    while start < len(copies):
        size = max(1, tokens // len(copies[start].ids))
        yield copies[start : start + size]
        start += size


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Candidates from a masked language model for words that are single tokens, and from word vectors for others."""

    nearest: Mapping[str, Candidates]
    masked: MaskedModel | None = None

    def candidates(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> list[list[Candidates]]:
        """Find candidates for words.

        Args:
            texts: Words and gaps of each text.
            wanted: For each text, whether each word needs candidates.

        Returns:
            For each text, the candidates of every word; empty for a word that is not wanted.
        """
        predicted: list[list[Candidates | None]] = [[None] * len(words) for words, _ in texts]
        if self.masked is not None:
            predicted = self.masked.candidates(texts, wanted)
        return [
            [
                (self.nearest.get(word, ()) if others is None else others) if is_wanted else ()
                for word, is_wanted, others in zip(words, wanted_words, predictions, strict=True)
            ]
            for (words, _), wanted_words, predictions in zip(texts, wanted, predicted, strict=True)
        ]
