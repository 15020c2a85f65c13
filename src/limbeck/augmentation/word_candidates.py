"""Candidates to replace a word: predictions of a masked language model, or its nearest neighbors among word vectors.

Reference: Jiao et al., 2020, arXiv:1909.10351, Algorithm 1 (TinyBERT). Differs: the masked language model runs on
batches of masked copies of similar length and computes logits at the masked positions alone; the word itself, special
tokens and parts of words are no candidates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from limbeck.augmentation.word_vectors import Candidates, input_embeddings, whole_words
from limbeck.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from limbeck.core.cost import Memo
    from limbeck.train.checkpoint import Log

BATCH_TOKENS: Mapping[str, int] = {"cpu": 1024, "cuda": 32_768}
"""Tokens per batch of the masked language model, by device: on a CPU, what its caches hold is fastest."""


def load_masked_model(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a masked language model and its tokenizer from a folder or the hub.

    Args:
        source: Folder or hub name of the masked language model.

    Raises:
        InputError: It is not in safetensors, its head is untrained, or its tokenizer has no mask token or is not fast.
    """
    from limbeck.model.mlm_head import open_masked
    from limbeck.model.placement import on_accelerator
    from limbeck.model.tokenizer_loading import open_plain_tokenizer

    model, missing = open_masked(source)
    tokenizer = open_plain_tokenizer(source)
    if missing:
        raise InputError(
            f"{source} has no trained head of a masked language model ({missing[0]} is missing); name a checkpoint "
            "such as bert-base-uncased, as it was pretrained"
        )
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        raise InputError(f"{source}: its tokenizer has no mask token, or cannot tell where tokens stand in a text")
    return on_accelerator(model).eval(), tokenizer


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
        for batch in _batches(copies, self._batch_tokens):
            owners = [owner for copy in batch for owner in copy.owners]
            for (text, word), others in zip(owners, self._predict(batch), strict=True):
                own = texts[text][0][word].casefold()
                candidates[text][word] = tuple(other for other in others if other.casefold() != own)[: self.count]
        return candidates

    @property
    def _batch_tokens(self) -> int:
        return self.batch_tokens or BATCH_TOKENS.get(self.model.device.type, 1024)

    @cached_property
    def _words(self) -> dict[int, str]:
        return whole_words(self.tokenizer)

    @cached_property
    def _excluded(self) -> torch.Tensor:
        """Whether each entry is no candidate [vocabulary]."""
        import torch

        excluded = torch.ones(input_embeddings(self.model).num_embeddings, dtype=torch.bool)
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

    def in_faster_precision(
        self,
        texts: Sequence[tuple[Sequence[str], Sequence[str]]],
        wanted: Sequence[Sequence[bool]],
        times: float,
        memo: Memo,
        log: Log,
    ) -> MaskedModel:
        """Return the model in the arithmetic that is the faster one on this machine, if its answers are the same.

        Args:
            texts: Words and gaps of some texts.
            wanted: For each text, whether each word needs candidates.
            times: How many times as many texts there are in all.
            memo: Keeps the measured times.
            log: Called with a message about the choice.
        """
        import torch.nn.functional as F

        from limbeck.train import precision

        copies = sorted(self._copies(texts, wanted), key=lambda copy: -len(copy.ids))
        batches = list(_batches(copies, self._batch_tokens))
        weights = sum(p.numel() for p in self.model.parameters()) - input_embeddings(self.model).weight.numel()
        operations = 2.0 * weights * times * sum(len(copy.ids) for copy in copies)
        if not precision.is_worth_a_trial(len(batches) * times, operations):
            return replace(self, half=False)
        batch = batches[len(batches) // 2]

        def loss(name: precision.Precision) -> float:
            logits, own = replace(self, half=name != "no")._logits(batch)
            return float(F.cross_entropy(logits, own))

        what = {"weights": weights, "tokens": [len(copy.ids) for copy in batch], "model": type(self.model).__name__}
        key = precision.trial_name(self.model.device, what)
        return replace(self, half=precision.choose(key, "bf16", loss, loss, memo, log) != "no")

    def _predict(self, batch: Sequence[_Copy]) -> list[list[str]]:
        """Return the most probable words at every masked position of a batch, best first."""
        import torch

        logits, own = self._logits(batch)
        logits = logits.masked_fill(self._excluded, -torch.inf)
        logits[torch.arange(len(own), device=logits.device), own] = -torch.inf
        values, best = logits.topk(min(self.count + 4, logits.shape[1]))  # some may be the word in another case
        return [
            [self._words[index] for index, value in zip(*row, strict=True) if value > -torch.inf]
            for row in zip(best.tolist(), values.tolist(), strict=True)
        ]

    def _logits(self, batch: Sequence[_Copy]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits at every masked position of a batch [masked, vocabulary], and the tokens masked there."""
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
            return logits.float(), own


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
