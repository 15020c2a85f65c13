"""Which tokens of a text are hidden from a masked language model, and behind what.

Reference: Devlin et al., 2019, arXiv:1810.04805 (BERT, section 3.1): 15 % of the tokens; of these 80 % become the mask,
10 % another token, 10 % stay. Differs: drawn anew at every step, as for RoBERTa (arXiv:1907.11692); special tokens are
neither hidden nor drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.data.metrics import IGNORED
from limbeck.errors import InputError

if TYPE_CHECKING:
    import torch

MASKED, OTHER = 0.8, 0.1  #: shares of the hidden tokens that become the mask, and another token; the rest stay


@dataclass(frozen=True)
class Masking:
    """Hides ``share`` of a text's tokens, at least one; seed, step and the text's place alone decide which.

    So neither the batch that a text is in nor an interruption changes what is hidden of it. ``special`` tokens stay.
    """

    mask: int
    special: frozenset[int]
    vocabulary: int
    share: float = 0.15
    seed: int = 0

    @classmethod
    def of(cls, tokenizer: Any, share: float, seed: int) -> Masking:
        """With the mask and the special tokens of a tokenizer."""
        if tokenizer.mask_token_id is None:
            raise InputError("mlm: the tokenizer has no mask token, so there is no masked language model of its tokens")
        return cls(tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids), len(tokenizer), share, seed)

    @cached_property
    def _plain(self) -> np.ndarray:
        """Which tokens are not special [vocabulary]."""
        plain = np.ones(self.vocabulary, dtype=bool)
        plain[list(self.special)] = False
        return plain

    @cached_property
    def _others(self) -> np.ndarray:
        """The tokens that another may become."""
        return np.flatnonzero(self._plain)

    def hide(self, tokens: np.ndarray, place: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text as the model sees them, and what it should say: the token, or IGNORED; both [tokens]."""
        rng = np.random.default_rng((self.seed, step, place))
        open_ = np.flatnonzero(self._plain[tokens])
        hidden = rng.permutation(open_)[: max(1, round(self.share * len(open_)))]
        fate, others = rng.random(len(hidden)), rng.choice(self._others, len(hidden))
        seen, goal = tokens.copy(), np.full_like(tokens, IGNORED)
        goal[hidden] = tokens[hidden]
        seen[hidden] = np.select([fate < MASKED, fate < MASKED + OTHER], [self.mask, others], tokens[hidden])
        return seen, goal

    def __call__(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The batch with hidden tokens, and ``hidden_tokens`` [batch, seq]: what they were, IGNORED where none is."""
        import torch

        tokens, device = batch["input_ids"], batch["input_ids"].device
        seen = tokens.cpu().numpy().copy()
        goal = np.full_like(seen, IGNORED)
        lengths = batch["attention_mask"].sum(1).tolist()
        for row, (length, place) in enumerate(zip(lengths, batch["index"].tolist(), strict=True)):
            seen[row, :length], goal[row, :length] = self.hide(seen[row, :length], place, step)
        return batch | {
            "input_ids": torch.from_numpy(seen).to(device),
            "hidden_tokens": torch.from_numpy(goal).to(device),
        }
