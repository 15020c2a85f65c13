"""How narrowly the layers of a model chose the tokens that they passed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from limbeck.model.layers import Gates, LayerWidths
from limbeck.model.token_pruning import RemainingTokens, kept

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from limbeck.model.encoder import LimbeckForSequenceClassification


class _Measured(RemainingTokens):
    """The tokens that remain, and the least margin by which the last of them was chosen ``margins`` [batch]."""

    def __init__(self, mask: Tensor | None, input_ids: Tensor) -> None:
        super().__init__(mask, input_ids)
        self.margins = torch.full((len(input_ids),), torch.inf, device=input_ids.device)

    def drop(self, x: Tensor, scores: Tensor, widths: LayerWidths, gates: Gates) -> Tensor:
        order = self.ranked(x, scores, widths, gates).sort(dim=1, descending=True).values
        remaining, present = kept(widths.tokens, self.lengths), self.here(x).sum(1)
        end = order.shape[1] - 1
        last, left = (order.gather(1, at.clamp_max(end)[:, None])[:, 0] for at in (remaining - 1, remaining))
        largest = order[:, min(1, end)]  # beside the first token, which always goes on
        chosen = (remaining > 1) & (remaining < present)
        self.margins = self.margins.where(~chosen, torch.minimum(self.margins, (last - left) / largest))
        return super().drop(x, scores, widths, gates)


def selection_margins(model: LimbeckForSequenceClassification, batch: Mapping[str, Any]) -> np.ndarray:
    """Compute how narrowly the layers chose the tokens of each text.

    Args:
        model: The model.
        batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].

    Returns:
        The difference of the attention received by the last token that was passed on and the first that was left
        behind, as a share of the largest of all tokens but the first; the least of all layers [batch]. Infinite where
        no token was chosen before another.
    """
    training = model.training
    with torch.inference_mode():
        moved = {name: value.to(model.device) for name, value in batch.items()}
        remaining = _Measured(moved.get("attention_mask"), moved["input_ids"])
        for _ in model.eval().encoder.states(remaining, moved["input_ids"], moved.get("token_type_ids")):
            pass  # states are computed as they are taken
    model.train(training)
    margins: np.ndarray = remaining.margins.float().cpu().numpy()
    return margins
