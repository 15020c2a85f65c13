"""Mask the tokens of a text for masked language modeling.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT, section 3.1): 15 % of the tokens are chosen; of
these 80 % become the mask, 10 % another token, and 10 % stay. Differs: they are sampled anew at every step, as for
RoBERTa (arXiv:1907.11692); special tokens are neither chosen nor sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.metrics import IGNORED
from limbeck.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MASKED, OTHER = 0.8, 0.1  #: fractions of the chosen tokens that become the mask and another token; the rest stay


@dataclass(frozen=True)
class Masking:
    """Masks a random part of a text's tokens, at least one.

    The choice depends only on the seed, the step and the text's index, so neither its batch nor an interruption changes
    it.

    Attributes:
        mask: Id of the mask token.
        special: Ids of the special tokens; they are never masked.
        vocabulary: Number of token ids.
        share: Fraction of the other tokens that is masked.
        seed: Seed of the choice.
    """

    mask: int
    special: frozenset[int]
    vocabulary: int
    share: float = 0.15
    seed: int = 0

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> Masking:
        """Use the mask and the special tokens of a tokenizer.

        Args:
            tokenizer: The tokenizer.
            share: Fraction of the tokens that is masked.
            seed: Seed of the choice.

        Raises:
            InputError: The tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise InputError("mlm: the tokenizer has no mask token, so there is no masked language model of its tokens")
        return cls(tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids), len(tokenizer), share, seed)

    @cached_property
    def _plain(self) -> np.ndarray:
        """Whether each token is not special [vocabulary]."""
        plain = np.ones(self.vocabulary, dtype=bool)
        plain[list(self.special)] = False
        return plain

    @cached_property
    def _others(self) -> np.ndarray:
        """Ids that may replace a token."""
        return np.flatnonzero(self._plain)

    def hide(self, tokens: np.ndarray, index: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Mask one text.

        Args:
            tokens: Its token ids [seq].
            index: Its index in the corpus.
            step: The training step.

        Returns:
            The masked token ids, and the labels: the original id where it was chosen, IGNORED elsewhere; both [seq].
        """
        rng = np.random.default_rng((self.seed, step, index))
        candidates = np.flatnonzero(self._plain[tokens])
        hidden = rng.permutation(candidates)[: max(1, round(self.share * len(candidates)))]
        uniform, others = rng.random(len(hidden)), rng.choice(self._others, len(hidden))
        masked, labels = tokens.copy(), np.full_like(tokens, IGNORED)
        labels[hidden] = tokens[hidden]
        masked[hidden] = np.select([uniform < MASKED, uniform < MASKED + OTHER], [self.mask, others], tokens[hidden])
        return masked, labels

    def __call__(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """Mask a batch; ``hidden_tokens`` [batch, seq] has the original ids, IGNORED where nothing is masked."""
        import torch

        tokens, device = batch["input_ids"], batch["input_ids"].device
        masked = tokens.cpu().numpy().copy()
        labels = np.full_like(masked, IGNORED)
        lengths = batch["attention_mask"].sum(1).tolist()
        for row, (length, index) in enumerate(zip(lengths, batch["index"].tolist(), strict=True)):
            masked[row, :length], labels[row, :length] = self.hide(masked[row, :length], index, step)
        return batch | {
            "input_ids": torch.from_numpy(masked).to(device),
            "hidden_tokens": torch.from_numpy(labels).to(device),
        }
