"""Words that could stand in a word's place: its neighbours among word vectors, and what a masked language model says.

Reference: Jiao et al., 2020, arXiv:1909.10351, Algorithm 1 (TinyBERT). Differs: word vectors may be the input
embeddings of any model, averaged over a word's pieces; the masked language model sees many masked copies at once, of
like length, and computes logits at the masked places alone; the word itself, special tokens and parts of words are no
candidates.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.errors import InputError
from limbeck.model._transformers import explained, quiet

Candidates = tuple[str, ...]
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
BATCH_TOKENS: Mapping[str, int] = {"cpu": 1024, "cuda": 32_768}
"""Tokens in a batch of the masked language model, by device: on a processor what its caches hold is fastest."""
MOST_VECTORS = 200_000
"""Lines of a vector file that are read in any case (such files are sorted by frequency); later ones when asked for."""


def folds_case(tokenizer: Any) -> bool:
    """Whether the tokenizer takes 'A' for 'a'."""
    return bool(tokenizer.tokenize("ABLE") == tokenizer.tokenize("able"))


def whole_words(tokenizer: Any) -> dict[int, str]:
    """The entries of a vocabulary that are words by themselves, made of letters: id -> word.

    WordPiece marks the other pieces with '##'; byte-level BPE and SentencePiece mark those that begin a word.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    mark = next((mark for mark in "Ġ▁" if any(str(piece).startswith(mark) for piece in pieces)), "")
    found = {}
    for number, piece in enumerate(pieces):
        if piece is None or number in special or not piece.startswith(mark) or piece.startswith("##"):
            continue
        word = tokenizer.convert_tokens_to_string([piece]).strip() if mark else piece
        if _WORD.fullmatch(word):
            found[number] = word
    return found


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors, of length one [words, width]."""

    words: tuple[str, ...]
    vectors: np.ndarray
    lower: bool = False  #: words are kept in lower case

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Where each word stands."""
        return {word: number for number, word in enumerate(self.words)}

    def nearest(self, words: Iterable[str], count: int, block: int = 256) -> dict[str, Candidates]:
        """The ``count`` nearest other words by cosine, nearest first, for every word that has a vector."""
        asked = sorted({word for word in words if self.named(word) in self.place})
        rows = [self.place[self.named(word)] for word in asked]
        folded = [word.casefold() for word in self.words]
        found = {}
        for start in range(0, len(asked), block):
            likeness = self.vectors[rows[start : start + block]] @ self.vectors.T
            many = min(count + 4, len(self.words))  # some may be the word itself in other case
            top = np.argpartition(-likeness, many - 1, axis=1)[:, :many]
            for word, order, scores in zip(asked[start : start + block], top, likeness, strict=True):
                ranked = sorted(order.tolist(), key=lambda place: (-scores[place], place))
                found[word] = _others(word, ranked, self.words, folded, count)
        return found

    def named(self, word: str) -> str:
        """The word as it is kept."""
        return word.lower() if self.lower else word


def _others(word: str, ranked: Sequence[int], words: Sequence[str], folded: Sequence[str], count: int) -> Candidates:
    return tuple(words[place] for place in ranked if folded[place] != word.casefold())[:count]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def embedding_vectors(model: Any, tokenizer: Any, words: Iterable[str]) -> WordVectors:
    """Vectors of ``words`` and of all whole-word entries: the mean of the input embeddings of a word's pieces."""
    table = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    lower = folds_case(tokenizer)
    known = {word.lower() if lower else word for word in words} | set(whole_words(tokenizer).values())
    ordered = sorted(known)
    # the space makes byte-level pieces those of a word inside a text
    pieces = tokenizer([f" {word}" for word in ordered], add_special_tokens=False)["input_ids"] if ordered else []
    kept = [place for place, ids in enumerate(pieces) if ids and tokenizer.unk_token_id not in ids]
    vectors = np.zeros((len(kept), table.shape[1]), dtype=np.float32)
    for row, place in enumerate(kept):
        vectors[row] = table[pieces[place]].mean(axis=0)
    return WordVectors(tuple(ordered[place] for place in kept), _unit(vectors), lower)


def read_vectors(path: str | Path, words: Iterable[str], most: int = MOST_VECTORS) -> WordVectors:
    """A text file of vectors (GloVe's; word2vec's has one line more): a word and its numbers on every line.

    The first ``most`` lines are read, and of the others those of ``words``. A word may have spaces in it (``. . .``),
    but not on the first line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"there is no vector file {path}; give a text file with a word and its numbers on every line")
    asked = set(words) | {word.lower() for word in words}
    found: dict[str, np.ndarray] = {}
    width = 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            word, _, rest = line.rstrip().partition(" ")
            if number >= most and word not in asked:
                continue
            values = _numbers(rest)
            if number == 0 and len(values) == 1 and word.isdecimal():
                continue  # word2vec's heading: how many words, how wide
            if width and not len(values):  # not numbers alone, so the word goes on
                word, *last = line.rstrip().rsplit(" ", width)
                values = _numbers(" ".join(last))
            width = width or len(values)
            if len(values) != width or not width:
                raise InputError(
                    f"{path}, line {number + 1}: should be a word and {width or 'some'} numbers, got {line[:60]!r}"
                )
            found.setdefault(word, values)
    if not found:
        raise InputError(f"{path} has no vectors in it")
    lower = not any(word != word.lower() for word in found)
    return WordVectors(tuple(found), _unit(np.stack(list(found.values()))), lower)


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array(text.split(), dtype=np.float32)
    except ValueError:
        return np.zeros(0, dtype=np.float32)


# --- the masked language model --------------------------------------------------------------------------------------


def load_masked_model(source: str) -> tuple[Any, Any]:
    """A masked language model and its tokenizer from a folder or the hub; safetensors only, with a trained head."""
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
    """A text in which the tokens at ``places`` are masked; ``owners`` say which words of which text they are."""

    ids: Sequence[int]
    places: Sequence[int]
    owners: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """Candidates for words by a masked language model: its likeliest other words at the masked place.

    Every wanted word that is one token gets a masked copy of its text (``positions_per_pass`` words share one, as far
    apart as they can be: faster, and each sees the others masked too). Copies are sorted by length and batched up to
    ``batch_tokens`` (by default as suits the device); all samples of a text draw from what one pass finds.
    """

    model: Any
    tokenizer: Any
    count: int = 15
    positions_per_pass: int = 1
    batch_tokens: int | None = None
    half: bool = False  #: bfloat16 arithmetic
    max_length: int = 512

    def candidates(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> list[list[Candidates | None]]:
        """For each text (words and gaps) the candidates of every wanted word that is one token; None for others."""
        found: list[list[Candidates | None]] = [[None] * len(words) for words, _ in texts]
        copies = sorted(self._copies(texts, wanted), key=lambda copy: -len(copy.ids))
        for batch in _batches(copies, self.batch_tokens or BATCH_TOKENS.get(self.model.device.type, 1024)):
            owners = [owner for copy in batch for owner in copy.owners]
            for (text, word), others in zip(owners, self._predict(batch), strict=True):
                own = texts[text][0][word].casefold()
                found[text][word] = tuple(other for other in others if other.casefold() != own)[: self.count]
        return found

    @cached_property
    def _words(self) -> dict[int, str]:
        return whole_words(self.tokenizer)

    @cached_property
    def _closed(self) -> Any:
        """Which entries are no candidates [vocabulary]."""
        import torch

        closed = torch.ones(self.model.get_input_embeddings().num_embeddings, dtype=torch.bool)
        closed[list(self._words)] = False
        return closed.to(self.model.device)

    def _copies(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> Iterator[_Copy]:
        if not texts:
            return
        plain = [
            "".join(part for pair in zip(gaps, [*words, ""], strict=True) for part in pair) for words, gaps in texts
        ]
        most = min(self.max_length, self.model.config.max_position_embeddings - 2)  # RoBERTa keeps two for itself
        made = self.tokenizer(plain, truncation=True, max_length=most, return_offsets_mapping=True)
        for number, ((words, gaps), ids, offsets) in enumerate(
            zip(texts, made["input_ids"], made["offset_mapping"], strict=True)
        ):
            places = single_tokens(words, gaps, offsets)
            known = [word for word, place in enumerate(places) if wanted[number][word] and place is not None]
            passes = -(-len(known) // self.positions_per_pass)
            for start in range(passes):
                together = known[start::passes]
                yield _Copy(ids, [places[word] or 0 for word in together], [(number, word) for word in together])

    def _predict(self, batch: Sequence[_Copy]) -> list[list[str]]:
        """The likeliest words at all masked places of a batch, likeliest first."""
        import torch

        longest, device = max(len(copy.ids) for copy in batch), self.model.device
        ids = np.full((len(batch), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        lengths = np.array([len(copy.ids) for copy in batch])
        rows = np.repeat(np.arange(len(batch)), [len(copy.places) for copy in batch])
        places = np.array([place for copy in batch for place in copy.places])
        for row, copy in enumerate(batch):
            ids[row, : len(copy.ids)] = copy.ids
        own = torch.from_numpy(ids[rows, places]).to(device)
        ids[rows, places] = self.tokenizer.mask_token_id
        mask = torch.from_numpy((np.arange(longest)[None] < lengths[:, None]).astype(np.int64)).to(device)
        where = (torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            with _only_at(self.model, where):
                logits = self.model(input_ids=torch.from_numpy(ids).to(device), attention_mask=mask).logits
            if logits.dim() == 3:  # a model whose output layer cannot be found
                logits = logits[where]
        logits = logits.float().masked_fill(self._closed, -torch.inf)
        logits[torch.arange(len(own), device=device), own] = -torch.inf
        values, best = logits.topk(min(self.count + 4, logits.shape[1]))  # some may be the word in other case
        return [
            [self._words[number] for number, value in zip(*row, strict=True) if value > -torch.inf]
            for row in zip(best.tolist(), values.tolist(), strict=True)
        ]


@contextlib.contextmanager
def _only_at(model: Any, where: tuple[Any, Any]) -> Iterator[None]:
    """Let the output layer, as wide as the vocabulary, see the hidden states at ``where`` (rows, places) alone."""
    layer = model.get_output_embeddings()
    hook = layer.register_forward_pre_hook(lambda _, inputs: (inputs[0][where],)) if layer is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def single_tokens(words: Sequence[str], gaps: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The token that each word is, if it is one token (None if it is several, or was cut off).

    ``offsets`` say from where to where each token stands in the text; special tokens stand nowhere: (0, 0).
    """
    found: list[int | None] = []
    at = token = 0
    for word, gap in zip(words, gaps, strict=False):
        start, end = at + len(gap), at + len(gap) + len(word)
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        inside = token
        while inside < len(offsets) and offsets[inside][0] < end and offsets[inside][1] > start:
            inside += 1
        whole = inside == token + 1 and offsets[token][1] == end and offsets[token][0] >= at
        found.append(token if whole else None)
        at = end
    return found


def _batches(copies: Sequence[_Copy], tokens: int) -> Iterator[Sequence[_Copy]]:
    """Copies sorted by falling length, in batches of at most so many tokens with their padding."""
    start = 0
    while start < len(copies):
        size = max(1, tokens // len(copies[start].ids))
        yield copies[start : start + size]
        start += size


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Candidates for words: of a masked language model for words of one piece, of word vectors for all others."""

    nearest: Mapping[str, Candidates]
    masked: MaskedModel | None = None

    def candidates(
        self, texts: Sequence[tuple[Sequence[str], Sequence[str]]], wanted: Sequence[Sequence[bool]]
    ) -> list[list[Candidates]]:
        """For each text (words and gaps) the candidates of every word; none for a word that is not wanted."""
        said: list[list[Candidates | None]] = [[None] * len(words) for words, _ in texts]
        if self.masked is not None:
            said = self.masked.candidates(texts, wanted)
        return [
            [
                (self.nearest.get(word, ()) if others is None else others) if wish else ()
                for word, wish, others in zip(words, wishes, found, strict=True)
            ]
            for (words, _), wishes, found in zip(texts, wanted, said, strict=True)
        ]
